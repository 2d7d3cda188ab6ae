"""Which numbers are kept in how many bits.

Trained weights, norms and the head are float32 always; only frozen weights are stored in 16 bits, and matrix products
run in 16 bits under autocast. float64 (for tests of parity) turns everything to float64.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from adaptlab.errors import ConfigError
from adaptlab.methods._base import Attached
from adaptlab.training.attention import plain_attention

#: Tokens; beyond, a batch's attention scores would fill memory that the flash kernel does not need.
_LONGEST_PLAIN_ATTENTION = 256

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}

#: Cast tensors by the id of the float32 tensor they came from; the tensor is kept so that the id stays its own.
CastCache = MutableMapping[tuple[int, int, torch.dtype], tuple[Tensor, Tensor]]


class Precision:
    """How a model computes. ``name`` is a resolved dtype: float32, bfloat16, float16 or float64."""

    def __init__(self, name: str, device: str) -> None:
        if name == "float16" and device == "cpu":
            raise ConfigError(
                "float16 was asked for on a CPU, whose kernels have no fast float16 and overflow without loss scaling:"
                " use --dtype bfloat16 or float32, or a CUDA device."
            )
        self.name = name
        self.dtype = _DTYPES[name]
        self.device = device
        self.mixed = name in ("bfloat16", "float16")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of every forward pass."""
        return torch.autocast(self.device, dtype=self.dtype) if self.mixed else nullcontext()

    def attention(self, length: int) -> AbstractContextManager[Any]:
        """The attention kernel of a pass over rows of ``length`` tokens, for training and for the answers of a head.

        Torch's own choice, except for bfloat16 on a CPU: there plain products are faster, several times so in the
        backward pass (docs/architecture.md), and are taken while their scores are small.
        """
        if self.device == "cpu" and self.name == "bfloat16" and length <= _LONGEST_PLAIN_ATTENTION:
            return plain_attention()
        return nullcontext()

    def scaler(self) -> torch.amp.GradScaler | None:
        """Loss scaling, which float16 alone needs; one per run."""
        return torch.amp.GradScaler(self.device) if self.name == "float16" else None

    def prepare(self, attached: Attached, casts: CastCache) -> None:
        """Cast what is frozen, in place; tensors shared with the base are replaced, not changed."""
        self.prepare_model(attached.model, attached.layout.head_modules, casts, attached.layout.word_head)

    def prepare_model(
        self, model: nn.Module, head_modules: Sequence[str], casts: CastCache, word_head: str = ""
    ) -> None:
        """The same for a model that nothing is attached to; ``head_modules`` and ``word_head`` compute in float32."""
        if self.name == "float64":
            _to_float64(model, casts)
        if not self.mixed:
            return
        scorers = [_find(model, name) for name in (*head_modules, word_head) if name]
        kept = set(scorers[-1].modules()) if word_head else set()  # its float32 weight is in memory anyway
        for module in model.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                setattr(module, "cast_input_dtype_enabled", False)  # noqa: B010  # PEFT's own up-cast; autocast decides here
            if hasattr(module, "compute_type_is_set"):
                module.compute_dtype = self.dtype  # type: ignore[assignment]  # a 4-bit linear is no business of autocast's
            if _is_norm(module) or module in kept:
                continue
            for name, parameter in list(module._parameters.items()):
                if parameter is not None and not parameter.requires_grad and parameter.dtype == torch.float32:
                    cast = _cast(parameter.data, self.dtype, casts)
                    module._parameters[name] = nn.Parameter(cast, requires_grad=False)
        for scorer in scorers:
            _run_in_float32(scorer, self.device)


def _to_float64(model: nn.Module, casts: CastCache) -> None:
    """Like ``model.double()``, but leaves tensors that are shared with the base as they are."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.requires_grad:
                parameter.data = parameter.data.double()
            elif parameter is not None and parameter.is_floating_point():
                module._parameters[name] = nn.Parameter(
                    _cast(parameter.data, torch.float64, casts), requires_grad=False
                )
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_floating_point():
                module._buffers[name] = buffer.double()


def _cast(tensor: Tensor, dtype: torch.dtype, casts: CastCache) -> Tensor:
    key = (tensor.untyped_storage()._cdata, int(tensor.storage_offset()), dtype)  # fake tensors have no data pointer
    if key not in casts:
        casts[key] = (tensor, tensor.to(dtype))
    return casts[key][1]


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _find(model: nn.Module, name: str) -> nn.Module:
    for prefix in ("", "base_model.model."):
        try:
            return model.get_submodule(prefix + name)
        except AttributeError:
            continue
    raise KeyError(name)


def _run_in_float32(module: nn.Module, device: str) -> None:
    """Compute ``module`` without autocast: the scores it gives are compared, and 8 bits of mantissa make ties."""
    forward: Callable[..., Any] = module.forward
    for parameter in module.parameters():
        if not parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()

    def in_float32(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return forward(*(_float(a) for a in args), **{k: _float(v) for k, v in kwargs.items()})

    module.forward = in_float32


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def native_bfloat16(device: str) -> bool:
    """True where the processor or GPU multiplies bfloat16 matrices faster than float32 ones."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
