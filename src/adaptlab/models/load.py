"""Loading a base model, and copies of it for single runs.

Weights come in float32 (inside the blocks in 4 or 8 bits where that was asked for), frozen and in eval mode. Fused
attention kernels draw a dropout of their own, which no seed of ours reaches, so dropout of attention probabilities is
off.
"""

from __future__ import annotations

import copy
import json
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptlab.config import ModelConfig, Readout
from adaptlab.errors import ModelError
from adaptlab.models import quantize
from adaptlab.models._base import Layout
from adaptlab.models.families import describe, model_kind
from adaptlab.models.identity import config_path, fetch, locate, read_config, weight_files

#: Configuration keys that set the dropout of attention probabilities, over all families.
ATTENTION_DROPOUT_KEYS = (
    "attention_probs_dropout_prob",  # BERT, RoBERTa, DeBERTa, ELECTRA, MPNet, ALBERT
    "attention_dropout",  # DistilBERT, ModernBERT, OPT, BART, GPT-NeoX, Llama, Qwen, Mistral, Gemma, Phi
    "attn_pdrop",  # GPT-2, GPT-J
    "attn_dropout",
    "attention_dropout_prob",
)


@dataclass(slots=True)
class Base:
    """A loaded base model. ``model`` is never trained itself: runs get theirs from :func:`fresh_model`.

    Attributes:
        max_length: the positions the model has, special tokens included; None where positions are relative.
        attention_dropout: ``"off"``, for the record.
        warnings: sentences for the record, e.g. that a padding token had to be chosen.
    """

    model: nn.Module
    tokenizer: Any
    layout: Layout
    config: ModelConfig
    max_length: int | None
    load_seconds: float
    attention_dropout: str = "off"
    warnings: list[str] = field(default_factory=list)

    @property
    def start(self) -> int | None:
        """The token that a decoder behind an encoder starts with; ``None`` for other models."""
        hf_config: Any = self.model.config
        return getattr(hf_config, "decoder_start_token_id", None) if self.layout.kind == "encoder-decoder" else None


def load_base(
    config: ModelConfig, *, num_labels: int, regression: bool, device: str, readout: Readout = "head"
) -> Base:
    """Load a base, frozen, in eval mode; see ``quantize`` for its bits.

    For the readout ``head`` it has a new classification (or regression) head; for the others it is the language model
    that it was pretrained as, and ``num_labels`` and ``regression`` say nothing.

    Raises:
        ModelError: the files are missing, damaged, pickled, or of a model that cannot answer in this way.
        HubError: the model has to come from a hub that does not answer or has no such model.
        ConfigError: quantisation is asked for and bitsandbytes is not installed.
    """
    start = time.perf_counter()
    quantize.check_available(config)
    folder = fetch(config)
    with _quiet_transformers(), torch.random.fork_rng(devices=[]):
        tokenizer = _load_tokenizer(folder, config)
        model, missing = _load_model(folder, config, num_labels, regression, readout, device)
    warnings: list[str] = []
    ensure_padding(model, tokenizer, config, warnings)
    _switch_off_attention_dropout(model)
    model.requires_grad_(False)
    model.eval()
    layout = describe(model, missing)
    _check_missing(layout, missing, config, warnings)
    if readout != "head" and layout.head:
        raise ModelError(
            f"The weights of the model '{config.id}' lack {layout.head[0]}, without which it is no language model: "
            f"choose a checkpoint saved as one, or use --readout head."
        )
    _name_publicly(model, locate(config).public_name)
    model.to(device)
    quantize.settle(model)
    seconds = time.perf_counter() - start
    return Base(model, tokenizer, layout, config, positions(model), seconds, warnings=warnings)


def fresh_model(base: Base, *, share: bool) -> nn.Module:
    """A module tree of its own for one run.

    With ``share`` it uses the base's frozen parameters and buffers themselves and copies only the head; without, it
    copies every tensor. Attaching to it, or changing its configuration, never touches ``base.model``.
    """
    memo: dict[int, Any] = {}
    if share:
        head = set(base.layout.head)
        memo = {id(p): p for name, p in base.model.named_parameters() if name not in head}
        memo.update((id(buffer), buffer) for buffer in base.model.buffers())
        memo.update((id(part), part) for part in quantize.shared_parts(base.model))
    return copy.deepcopy(base.model, memo)


@torch.no_grad()
def initialise_head(model: nn.Module, layout: Layout) -> None:
    """Draw the head anew, as the architecture does it, from torch's generator: so the run's seed reaches the head."""
    parameters = dict(model.named_parameters())
    head = set(layout.head)
    for name in layout.head_modules:
        module = model.get_submodule(name)
        held = {f"{name}.{leaf}": parameter for leaf, parameter in module.named_parameters()}
        kept = {leaf: parameter.clone() for leaf, parameter in held.items() if leaf not in head}
        for parameter in held.values():
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # else transformers skips it
        for part in _children_first(module):
            model._init_weights(part)  # type: ignore[operator]
        for leaf, value in kept.items():
            parameters[leaf].copy_(value)


def skeleton(
    config: ModelConfig, *, num_labels: int, regression: bool = False, readout: Readout = "head"
) -> tuple[nn.Module, Layout]:
    """The model on the meta device, and its layout, from config.json alone (and a safetensors header if one is there).

    Without weights to look into, the head is what the checkpoint's own architecture (``architectures``) lacks.
    """
    read_config(config)  # its errors name the model and what to do
    hf_config = _hf_config(config_path(config).parent, config, num_labels, regression)
    try:
        with torch.device("meta"), _quiet_transformers():
            model: nn.Module = _auto_class(config, hf_config, readout).from_config(
                hf_config, dtype=torch.float32, trust_remote_code=config.trust_remote_code
            )
    except ValueError as error:
        raise _cannot_answer(config, hf_config.model_type, readout) from error
    missing = _missing_by_name(model, config)
    if config.quantize != "none":
        quantize.as_linears(model, quantize.quantised_layers(model, describe(model, missing)))
    _switch_off_attention_dropout(model)
    model.requires_grad_(False).eval()
    return model, describe(model, missing)


def positions(model: nn.Module) -> int | None:
    """How many positions the model has. Families that count from behind the padding index (RoBERTa) lose those."""
    config: Any = model.config
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith(("position_embeddings", "embed_positions", "wpe")):
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - offset - int(getattr(module, "offset", 0))
    found = getattr(config, "max_position_embeddings", None)
    return None if found is None or config.model_type in ("t5", "mt5", "umt5", "longt5") else int(found)


def local_tokenizer(config: ModelConfig) -> Any | None:
    """The tokenizer, if its files are on this machine already; nothing is fetched."""
    folder = locate(config).folder
    if folder is None:
        return None
    try:
        with _quiet_transformers():
            return _load_tokenizer(folder, config)
    except ModelError:
        return None


def _load_tokenizer(folder: Path, config: ModelConfig) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    except Exception as error:
        raise _no_tokenizer(config, _first_line(error)) from error
    # Without its files transformers makes one up that knows no word.
    known = tokenizer("a 1 .", add_special_tokens=False)["input_ids"]
    if not set(known) - {tokenizer.unk_token_id}:
        raise _no_tokenizer(config, "it has no vocabulary")
    return tokenizer


def _no_tokenizer(config: ModelConfig, reason: str) -> ModelError:
    return ModelError(
        f"The tokenizer of the model '{config.id}' cannot be loaded ({reason}): the folder needs tokenizer.json, or "
        f"the vocabulary files of its tokenizer."
    )


def _hf_config(folder: Path, config: ModelConfig, num_labels: int, regression: bool) -> Any:
    from transformers import AutoConfig

    try:
        hf_config = AutoConfig.from_pretrained(
            folder,
            num_labels=num_labels,
            trust_remote_code=config.trust_remote_code,
        )
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            f"The model '{config.id}' is of a type that this transformers does not know ({_first_line(error)}): "
            f"install a newer transformers, or add --trust-remote-code if its code comes with it and you trust it."
        ) from error
    hf_config.problem_type = "regression" if regression else "single_label_classification"
    for key in ATTENTION_DROPOUT_KEYS:
        if getattr(hf_config, key, None) is not None:
            setattr(hf_config, key, 0.0)
    return hf_config


def _auto_class(config: ModelConfig, hf_config: Any, readout: Readout) -> Any:
    """The class of transformers that builds a model for ``readout``."""
    import transformers

    if readout == "head":
        return transformers.AutoModelForSequenceClassification
    kind = model_kind(hf_config)
    if kind == "encoder":
        raise _cannot_answer(config, hf_config.model_type, readout)
    return transformers.AutoModelForSeq2SeqLM if kind == "encoder-decoder" else transformers.AutoModelForCausalLM


def _load_model(
    folder: Path, config: ModelConfig, num_labels: int, regression: bool, readout: Readout, device: str
) -> tuple[nn.Module, frozenset[str]]:
    """The model and the names of the parameters that its checkpoint does not have, or has for other labels."""
    hf_config = _hf_config(folder, config, num_labels, regression)
    pickled = weight_files(folder, config)[0].suffix != ".safetensors"
    bits: dict[str, Any] = {}
    if config.quantize != "none":
        empty, layout = skeleton(config, num_labels=num_labels, regression=regression, readout=readout)
        bits = quantize.loading_arguments(empty, layout, config, device)
    try:
        model, info = _auto_class(config, hf_config, readout).from_pretrained(
            folder,
            config=hf_config,
            dtype=torch.float32,
            output_loading_info=True,
            use_safetensors=not pickled,
            weights_only=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=config.trust_remote_code,
            **bits,
        )
    except ValueError as error:
        if "Unrecognized configuration class" in str(error):
            raise _cannot_answer(config, hf_config.model_type, readout) from error
        raise _cannot_load(config, error) from error
    except ModelError:
        raise
    except Exception as error:  # damaged files raise what their reader likes
        raise _cannot_load(config, error) from error
    other_shape = {entry[0] if isinstance(entry, (tuple, list)) else entry for entry in info["mismatched_keys"]}
    return model, frozenset(info["missing_keys"]) | other_shape


def _cannot_load(config: ModelConfig, error: Exception) -> ModelError:
    return ModelError(
        f"The weights of the model '{config.id}' cannot be loaded ({_first_line(error)}): "
        f"fetch or save the model again."
    )


def _cannot_answer(config: ModelConfig, model_type: str, readout: Readout) -> ModelError:
    if readout == "head":
        return ModelError(
            f"The model '{config.id}' is a {model_type}, for which transformers has no sequence classification: "
            f"choose an encoder such as minilm, or a decoder or encoder-decoder that has one."
        )
    return ModelError(
        f"The model '{config.id}' is a {model_type}, which writes no text, and --readout {readout} needs a model that "
        f"does: choose a decoder (GPT-2, OPT, Llama, Qwen ...) or an encoder-decoder (T5), or use --readout head."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _check_missing(layout: Layout, missing: frozenset[str], config: ModelConfig, warnings: list[str]) -> None:
    """Missing classifiers and poolers are normal; missing blocks are a checkpoint of something else."""
    prefixes = tuple(f"{block}." for block in layout.blocks)
    in_blocks = [name for name in layout.parameters if name.startswith(prefixes)]
    absent = [name for name in in_blocks if name in missing]
    if absent and len(absent) == len(in_blocks):
        raise ModelError(
            f"The weights of the model '{config.id}' have none of the {layout.family} blocks that its config.json "
            f"describes (for one, {absent[0]}): config and weights do not belong together; fetch the model again."
        )
    if absent:
        warnings.append(
            f"The checkpoint lacks {len(absent)} parameters inside the blocks (for one, {absent[0]}): "
            f"they start random and are trained with the head."
        )
    if layout.head and not missing & set(layout.head):
        warnings.append("The checkpoint brings a trained classification head: it is drawn anew for every run.")


def ensure_padding(model: nn.Module, tokenizer: Any, config: ModelConfig, warnings: list[str]) -> None:
    """Batches need a padding token, and decoders' heads find the last real token by it."""
    hf_config: Any = model.config
    if tokenizer.pad_token is None:
        for role in ("eos_token", "unk_token"):
            if getattr(tokenizer, role) is not None:
                tokenizer.pad_token = getattr(tokenizer, role)
                break
        else:
            raise ModelError(
                f"The tokenizer of the model '{config.id}' has no padding token and none that could stand in: "
                f"set pad_token in its tokenizer_config.json."
            )
        warnings.append(f"The tokenizer has no padding token: {tokenizer.pad_token!r} is used.")
    hf_config.pad_token_id = tokenizer.pad_token_id


def _switch_off_attention_dropout(model: nn.Module) -> None:
    """For families that give attention the rate of all other dropouts (T5), it is a number on the module."""
    for module in model.modules():
        if type(module).__name__.endswith("Attention"):
            for name in ("dropout", "attention_dropout", "attn_dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)


def _name_publicly(model: nn.Module, name: str) -> None:
    """What PEFT and transformers write as the base of what they save: never a path of this machine."""
    model.name_or_path = name  # type: ignore[assignment]
    hf_config: Any = model.config
    hf_config._name_or_path = name


def _children_first(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        yield from _children_first(child)
    yield module


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No load report and no progress bars: what matters in them is in the layout and the warnings."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# --- counting without weights ----------------------------------------------------------------------------------------


def _missing_by_name(model: nn.Module, config: ModelConfig) -> frozenset[str]:
    """Parameters that the checkpoint does not have, by comparing names only."""
    names = [name for name, _ in model.named_parameters()]
    folder = locate(config).folder
    files = sorted(folder.glob("model*.safetensors")) if folder is not None else []
    if files:
        return _absent(model, names, frozenset(key for file in files for key in _safetensors_keys(file)))
    base = f"{model.base_model_prefix}."
    outside = [name for name in names if not name.startswith(base)]
    return _absent(model, outside, _pretraining_names(model))


def _absent(model: nn.Module, names: list[str], stored: frozenset[str]) -> frozenset[str]:
    """Checkpoints may or may not carry the base model's prefix; old ones call LayerNorm's numbers gamma and beta."""
    base = f"{model.base_model_prefix}."
    renamed = {key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
               for key in stored}  # fmt: skip
    known = renamed | {key.removeprefix(base) for key in renamed if key.startswith(base)}
    return frozenset(name for name in names if name not in renamed and name.removeprefix(base) not in known)


def _safetensors_keys(path: Path) -> list[str]:
    """The tensors' names, from the header alone (8 bytes of length, then JSON)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return [name for name in header if name != "__metadata__"]


def _pretraining_names(model: nn.Module) -> frozenset[str]:
    """Names of the parameters of the architecture that config.json says was saved; no names where it says none."""
    import transformers

    hf_config: Any = model.config
    for architecture in hf_config.architectures or ():
        known = getattr(transformers, architecture, None)
        if known is not None and "Classification" not in architecture:
            with torch.device("meta"), _quiet_transformers():
                saved = known(copy.deepcopy(hf_config))
            return frozenset(name for name, _ in saved.named_parameters())
    return frozenset()
