"""What a method learnt, added into the base's own weights: a model that costs what the base costs to run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptlab.errors import ConfigError
from adaptlab.methods._base import Attached
from adaptlab.models.load import Base, load_base
from adaptlab.models.quantize import dequantised, quantised_layers


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
        readout="head" if base.layout.head else "verbalizer",
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
