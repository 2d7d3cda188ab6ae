"""An adapter folder from anywhere, put on a base: one of PEFT's, or one of ours."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from adaptlab.config import ModelConfig, Prompt, Quantize, Readout
from adaptlab.errors import ModelError
from adaptlab.methods import registry as methods
from adaptlab.methods._base import Setup
from adaptlab.models._base import Layout

if TYPE_CHECKING:
    from torch import nn

    from adaptlab.models.load import Base

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: PEFT's task types of adapters that answer in words.
_IN_WORDS = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
#: What PEFT puts into parameters' names.
_WRAPPING = re.compile(r"^base_model\.model\.|\.base_layer(?=\.)|\.modules_to_save(\.default)?(?=\.)")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A base with an adapter on it, in float32 and eval mode. ``notes`` say what the folder did not bring."""

    base: Base
    model: nn.Module
    notes: tuple[str, ...]


def read_settings(folder: Path) -> dict[str, Any]:
    """The folder's adapter_config.json.

    Raises:
        ModelError: it is not there or damaged, or the weights beside it are missing or pickled.
    """
    try:
        settings = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{folder} is not an adapter's folder: it needs {_CONFIG} and {_WEIGHTS}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{folder / _CONFIG} is not valid JSON ({error}): save the adapter again.") from error
    if not isinstance(settings, dict) or not {"peft_type", "adaptlab_method"} & set(settings):
        raise ModelError(f"{folder / _CONFIG} names no peft_type: it is not an adapter's configuration.")
    if not (folder / _WEIGHTS).is_file():
        has = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        raise ModelError(f"{folder} has no {_WEIGHTS} (it has {has}): save the adapter again as safetensors.")
    return settings


def stored_labels(folder: Path) -> tuple[str, ...]:
    """The labels, in their order, of an adapter that adaptlab exported; empty for one from elsewhere."""
    try:
        return tuple(json.loads((folder / "export.json").read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()


def stored_bits(folder: Path) -> Quantize:
    """How the base was quantised under an adapter that adaptlab exported; ``none`` for one from elsewhere."""
    try:
        found = json.loads((folder / "export.json").read_text(encoding="utf-8"))["base"]["quantize"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "none"
    return found if found in ("4bit", "8bit") else "none"


def stored_readout(folder: Path) -> Readout | None:
    """How a model that adaptlab exported answers; ``None`` for one from elsewhere."""
    found = _exported(folder).get("readout")
    return found if found in get_args(Readout) else None


def stored_prompt(folder: Path) -> Prompt | None:
    """The prompt that a model which adaptlab exported was asked in, with a word for each class by its name."""
    found, labels = _exported(folder).get("prompt"), stored_labels(folder)
    if not isinstance(found, dict):
        return None
    by_class = {
        key: dict(zip(labels, found[key], strict=True))
        for key in ("answers", "explanation")
        if isinstance(found.get(key), list)
    }
    return Prompt.model_validate({**found, **by_class, "name": "as-exported"})


def _exported(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def speaks(folder: Path) -> bool:
    """Whether the adapter was trained on a language model's own output layer, and not with a head.

    Raises:
        ModelError: the folder is no adapter's.
    """
    return read_settings(folder).get("task_type") in _IN_WORDS


def load_adapter(
    folder: Path, source: ModelConfig, *, outputs: int, regression: bool, device: str, readout: Readout = "head"
) -> Loaded:
    """Put the adapter in ``folder`` on the base ``source``: with a head of ``outputs`` numbers, or a language model.

    A head that the folder does not bring is drawn with seed 0, and ``notes`` say so.

    Raises:
        ModelError: the folder is no adapter's, or does not fit the base or the head.
        AdaptlabError: the base cannot be loaded.
    """
    import torch

    from adaptlab.models.load import fresh_model, initialise_head, load_base

    settings = read_settings(folder)
    base = load_base(source, num_labels=outputs, regression=regression, device=device, readout=readout)
    model = fresh_model(base, share=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        initialise_head(model, base.layout)
        if "adaptlab_method" in settings:
            model = _ours(model, base.layout, settings, folder)
        else:
            asked = f"{outputs} {'output' if regression else 'labels'}" if readout == "head" else "its output layer"
            model = _pefts(model, folder, f"{source.id} with {asked}")
    return Loaded(base, model.eval(), tuple(_notes(base.layout, folder)))


def _ours(model: nn.Module, layout: Layout, settings: dict[str, Any], folder: Path) -> nn.Module:
    method = methods.get(str(settings["adaptlab_method"]))
    try:
        options = method.Config(**settings.get("options", {}))
    except (ValidationError, TypeError) as error:
        raise ModelError(f"{folder / _CONFIG} has options that {method.name} does not take: {error}.") from error
    setup = Setup(options, targets=settings.get("targets"), head=settings.get("head", "trained"))
    attached = method.attach(model, layout, setup)
    method.load(attached, folder)
    return attached.model


def _pefts(model: nn.Module, folder: Path, onto: str) -> nn.Module:
    from peft import PeftModel, get_peft_model_state_dict

    try:
        wrapped: Any = PeftModel.from_pretrained(model, str(folder), is_trainable=False)  # type: ignore[arg-type,unused-ignore]
        wanted = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    except Exception as error:  # whatever PEFT, safetensors and torch raise for an adapter of something else
        reason = (str(error).strip().splitlines() or [""])[0].partition(". ")[0].rstrip(".")
        base = read_settings(folder).get("base_model_name_or_path")
        raise ModelError(
            f"The adapter in {folder} cannot be put on {onto} ({type(error).__name__}: {reason}): give the base "
            f"{f'({base}) ' if base else ''}and a task with the labels it was trained for."
        ) from error
    stored = set(weight_names(folder))
    if not wanted & stored:
        raise ModelError(f"The adapter in {folder} has no weights for {onto}: give the base it was trained for.")
    result: nn.Module = wrapped
    return result


def _notes(layout: Layout, folder: Path) -> list[str]:
    brought = {_WRAPPING.sub("", name) for name in weight_names(folder)}
    lacking = [name for name in layout.head if name not in brought]
    if not lacking:
        return []
    whole = "no head" if len(lacking) == len(layout.head) else "only a part of the head"
    return [
        f"The adapter's folder brings {whole} ({', '.join(lacking)} lack): what is missing is random, and the scores "
        f"say little about the adapter."
    ]


def weight_names(folder: Path) -> list[str]:
    """Names of the tensors in the folder's weights.

    Raises:
        ModelError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / _WEIGHTS, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / _WEIGHTS} cannot be read ({error}): save the adapter again.") from error


__all__ = [
    "Loaded",
    "load_adapter",
    "read_settings",
    "speaks",
    "stored_bits",
    "stored_labels",
    "stored_prompt",
    "stored_readout",
    "weight_names",
]
