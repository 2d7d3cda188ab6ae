"""The two forms of an export: an adapter's folder, and a plain transformers folder."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from adaptlab.models.identity import fetch, weight_files
from adaptlab.models.load import ATTENTION_DROPOUT_KEYS, Base

#: ``model`` loads with transformers alone, ``peft`` with transformers and peft, ``adaptlab`` needs this package.
Form = Literal["model", "peft", "adaptlab"]

_CONFIG = "adapter_config.json"
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def form_of(adapter: Path) -> Form:
    """What a run's saved weights are."""
    if not (adapter / _CONFIG).is_file():
        return "model"
    settings = json.loads((adapter / _CONFIG).read_text(encoding="utf-8"))
    return "peft" if "peft_type" in settings else "adaptlab"


def save_model(model: nn.Module, base: Base, labels: tuple[str, ...], folder: Path) -> str:
    """Write a plain transformers folder in the base's dtype, with the base's own settings and the labels' names.

    Returns the dtype's name.
    """
    from transformers import AutoConfig

    plain: Any = model
    original = AutoConfig.from_pretrained(fetch(base.config), trust_remote_code=base.config.trust_remote_code)
    for key in ATTENTION_DROPOUT_KEYS:  # off while adaptlab trains; whoever trains on has the base's own
        if getattr(original, key, None) is not None:
            setattr(plain.config, key, getattr(original, key))
    if labels:
        plain.config.id2label = dict(enumerate(labels))
        plain.config.label2id = {label: index for index, label in enumerate(labels)}
    dtype = checkpoint_dtype(base)
    plain.to(dtype).save_pretrained(folder)
    return str(dtype).removeprefix("torch.")


def save_adapter(adapter: Path, folder: Path, revision: str | None) -> None:
    """Copy a run's adapter; one of PEFT's is told the revision of its base, which PEFT then asks the hub for."""
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    settings = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    if revision is not None and "peft_type" in settings:
        settings["revision"] = revision
        (folder / _CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def checkpoint_dtype(base: Base) -> torch.dtype:
    """The dtype that most of the base's stored tensors have; float32 for pickles, which do not say before loading."""
    from safetensors import safe_open

    found: Counter[str] = Counter()
    for path in weight_files(fetch(base.config), base.config):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                found.update(file.get_slice(name).get_dtype() for name in file.keys())  # noqa: SIM118  # no mapping
    known = [name for name, _ in found.most_common() if name in _DTYPES]
    return _DTYPES[known[0]] if known else torch.float32
