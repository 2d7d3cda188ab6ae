"""The two forms of an export: an adapter's folder, and a plain transformers folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from adaptlab.errors import ConfigError
from adaptlab.methods._base import Attached
from adaptlab.models.identity import fetch, weight_files
from adaptlab.models.load import ATTENTION_DROPOUT_KEYS, Base, load_base
from adaptlab.models.quantize import dequantised, quantised_layers

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


def merged(attached: Attached, base: Base) -> nn.Module:
    """A plain Hugging Face model that answers as ``attached`` does; ``attached`` itself is used up.

    What was trained on a quantised base is merged into the numbers that its codes stand for: quantising the sum anew,
    as PEFT does in place, would change it, and not every method can.

    Raises:
        ConfigError: the method changes more than the base's own weights, or a weight that another layer shares.
    """
    from peft import PeftModel

    if base.config.quantize != "none":
        attached = _on_dequantised_base(attached, base)
    model = attached.model
    if isinstance(model, PeftModel):
        _refuse_tied(attached)
        release_head(model)
        try:
            return model.merge_and_unload(safe_merge=True)  # type: ignore[operator,no-any-return,unused-ignore]
        except Exception as error:  # AttributeError, NotImplementedError, ValueError, by method
            raise _cannot_merge(attached, f": PEFT says {(str(error).splitlines() or [''])[0]!r}") from error
    if attached.method.placement not in ("base", "nothing"):
        what = "tokens to its input" if attached.method.placement == "prompt" else "layers that the base does not have"
        raise _cannot_merge(attached, f", for it adds {what}")
    return model


def _on_dequantised_base(attached: Attached, base: Base) -> Attached:
    """What ``attached`` learnt, on a base in float32 whose weights are those that the quantised one stands for."""
    config = base.config.model_copy(update={"quantize": "none"})
    quantised: Any = base.model
    plain = load_base(
        config,
        num_labels=quantised.config.num_labels,
        regression=quantised.config.problem_type == "regression",
        device=str(quantised.device),
    )
    with torch.no_grad():
        for name in quantised_layers(quantised, base.layout):
            meant = dequantised(quantised.get_submodule(name))
            the_other_way_round = plain.layout.layer(name).kind == "conv1d"
            plain.model.get_parameter(f"{name}.weight").copy_(meant.T if the_other_way_round else meant)
    other = attached.method.attach(plain.model, plain.layout, attached.setup)
    with tempfile.TemporaryDirectory() as folder:
        attached.method.save(attached, Path(folder))
        attached.method.load(other, Path(folder))
    return other


def release_head(wrapped: nn.Module) -> None:
    """Put trained copies of the head's modules in place of PEFT's wrappers around them.

    Most methods' ``merge_and_unload`` takes such a wrapper for a layer, and fails on a head of several (T5's).
    """
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(wrapped.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            wrapped.set_submodule(name, module.modules_to_save[module.active_adapters[0]])


def _refuse_tied(attached: Attached) -> None:
    """A weight that two layers share and one of them adapts: merged, it would change the other as well."""
    wrapped: Any = attached.model
    adapted = {name.removeprefix("base_model.model.") for name in wrapped.targeted_module_names}
    for group in attached.layout.tied:
        for name in adapted & set(group):
            others = ", ".join(other for other in group if other != name)
            raise _cannot_merge(attached, f" here: {name} shares its weight with {others}, which a merge would change")


def _cannot_merge(attached: Attached, reason: str) -> ConfigError:
    return ConfigError(
        f"The method {attached.method.name} cannot be merged into the base{reason}: export it without --merge."
    )


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
