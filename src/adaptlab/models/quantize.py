"""Bases in 4 or 8 bits, by bitsandbytes, on a CPU and on CUDA.

4bit is NF4 in blocks of 64 without double quantisation (Dettmers et al. 2023, arXiv 2305.14314); 8bit is LLM.int8()
with its customary outlier threshold of 6 (Dettmers et al. 2022, arXiv 2208.07339). Only the linears inside the
transformer blocks are quantised: a head is trained, and a pooler belongs to it. Everything else stays float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from adaptlab.config import ModelConfig
from adaptlab.errors import ConfigError
from adaptlab.models._base import Layout

_BLOCK = 64  # weights that share a scale in 4 bits
_FLOAT = 4  # bytes


def check_available(config: ModelConfig) -> None:
    """Raise :class:`ConfigError` where ``config`` asks for a quantised base and bitsandbytes is not installed."""
    if config.quantize != "none" and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"quantize {config.quantize} needs bitsandbytes, which is not installed: run "
            f"`pip install 'adaptlab[quantize]'`, or leave quantize out."
        )


def quantised_layers(model: nn.Module, layout: Layout) -> tuple[str, ...]:
    """Names of the layers that are quantised: what ``all-linear`` means, but for those that transformers itself keeps
    in float32 (the feed-forward's output in T5, which overflows otherwise)."""
    kept = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    return tuple(name for name in layout.words.get("all-linear", ()) if not name.endswith(kept) or not kept)


def check_widths(model: nn.Module, layout: Layout, config: ModelConfig, device: str) -> None:
    """Refuse layers whose 4-bit weights bitsandbytes' CPU kernels would read with other blocks' scales.

    Seen with 0.50.2: where the inputs are no multiple of the block size, dequantised weights are wrong without a word.

    Raises:
        ConfigError: there is such a layer, and ``device`` is a CPU.
    """
    if config.quantize != "4bit" or device != "cpu":
        return
    for name in quantised_layers(model, layout):
        inputs = layout.layer(name).inputs
        if inputs % _BLOCK:
            raise ConfigError(
                f"In 4 bits, {name} with its {inputs} inputs would be read wrongly by bitsandbytes on a CPU, which "
                f"wants a multiple of {_BLOCK}: use 8bit, or a CUDA device."
            )


def refusal(model: nn.Module, layout: Layout, how: str, trained: Iterable[str], method: str) -> str | None:
    """Why ``method``, which trains the base's parameters ``trained``, cannot have this base quantised; None if it can.

    The gradient of a quantised weight does not exist: its numbers are codes.
    """
    weights = {f"{name}.weight" for name in quantised_layers(model, layout)}
    codes = [name for name in trained if name in weights]
    if not codes:
        return None
    return (
        f"The method {method} trains weights of the base itself ({codes[0]}{', ...' if codes[1:] else ''}), which a "
        f"base in {how} stores as codes without a gradient: leave quantize out, or choose a method that adds to the "
        f"base, such as lora."
    )


def settings(model: nn.Module, layout: Layout, config: ModelConfig) -> dict[str, Any]:
    """Arguments of transformers' ``BitsAndBytesConfig``: plain values, so that they can be written to a file."""
    quantised = set(quantised_layers(model, layout))
    skipped = [layer.name for layer in layout.layers if layer.kind in ("linear", "conv1d")]
    skipped = [name for name in skipped if name not in quantised]
    if config.quantize == "8bit":
        return {"load_in_8bit": True, "llm_int8_threshold": 6.0, "llm_int8_skip_modules": skipped}
    return {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "llm_int8_skip_modules": skipped}


def loading_arguments(model: nn.Module, layout: Layout, config: ModelConfig, device: str) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that quantise while loading, layer by layer. Errors as :func:`check_widths`."""
    from transformers import BitsAndBytesConfig

    check_widths(model, layout, config, device)
    bits: Any = BitsAndBytesConfig
    return {"quantization_config": bits(**settings(model, layout, config)), "device_map": {"": device}}


def settle(model: nn.Module) -> None:
    """Make a freshly loaded model safe to copy, to share and to train.

    - On processors with AVX-512 bfloat16, bitsandbytes repacks 4-bit weights at the first evaluation for a kernel that
      has no backward pass: training on would give the layers below no gradient, without a word.
    - An 8-bit weight hands its numbers over to its layer's state at the first forward pass; a second layer that shares
      the weight would find none, and quantise the codes themselves.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
        weight: Any = getattr(module, "weight", None)
        if getattr(weight, "CB", None) is not None:
            module.init_8bit_state()  # type: ignore[operator]


def _quiet_bitsandbytes() -> None:
    """It warns of what is meant: that 8-bit products cast, that an optional kernel from the hub is not there."""
    for name in ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).addFilter(_unmeant)


def _unmeant(record: logging.LogRecord) -> bool:
    meant = ("inputs will be cast from", "Failed to load CPU gemm_4bit_forward")
    return not any(words in str(record.msg) for words in meant)


# At import: peft imports bitsandbytes wherever it is installed, whether a base is quantised or not.
_quiet_bitsandbytes()


def shared_parts(model: nn.Module) -> Iterator[object]:
    """What belongs to quantised weights beside the parameters themselves, for copies that share them."""
    for module in model.modules():
        state = getattr(module, "quant_state", None)
        if state is not None:
            yield state
        for name in ("CB", "SCB"):
            tensor = getattr(getattr(module, "state", None), name, None)
            if tensor is not None:
                yield tensor


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer's weight is stored in 4 or 8 bits."""
    return type(getattr(module, "weight", None)).__name__ in ("Params4bit", "Int8Params")


def dequantised(module: nn.Module) -> Tensor:
    """The weight that a quantised linear stands for: ``(outputs, inputs)``, float32."""
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    weight: Tensor = dequantize_bnb_weight(module.weight, getattr(module, "state", None))
    return weight.to(torch.float32)


def as_linears(model: nn.Module, names: Iterable[str]) -> None:
    """On the meta device: turn GPT-2's ``Conv1D`` of these names to the linears that bitsandbytes makes of them."""
    from transformers.pytorch_utils import Conv1D

    for name in names:
        module = model.get_submodule(name)
        if isinstance(module, Conv1D):
            inputs, outputs = module.weight.shape
            model.set_submodule(name, nn.Linear(inputs, outputs, device="meta").requires_grad_(False))


def base_bytes(layout: Layout, quantised: Iterable[str], how: str) -> int:
    """Bytes of the base's weights in memory as loaded: float32, and quantised weights with their scales.

    4bit: half a byte a weight and a float32 scale for every 64 (Dettmers et al. 2023, without double quantisation);
    8bit: a byte a weight and a float32 scale for every output.
    """
    weights = {f"{name}.weight" for name in quantised} if how != "none" else set()
    total = 0
    for name in layout.parameters:
        count = layout.count(name)
        if name not in weights:
            total += _FLOAT * count
        elif how == "4bit":
            total += -(-count // 2) + _FLOAT * -(-count // _BLOCK)
        else:
            total += count + _FLOAT * layout.parameters[name][0]
    return total
