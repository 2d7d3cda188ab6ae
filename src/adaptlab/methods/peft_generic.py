"""Every other method that the installed PEFT knows, by its name: options are PEFT's, and nothing here knows the method.

Which of them train was probed (``_peft_probed.json``; ``tests/methods/test_peft_generic.py`` probes again): the others
say what is in the way.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model

from adaptlab.errors import ConfigError
from adaptlab.methods import _peft_source, peft_native, prompting
from adaptlab.methods._base import Attached, LearningRates, Method, MethodOptions, Placement, Setup
from adaptlab.methods._peft import PeftMethod, Row
from adaptlab.models._base import Layer, Layout

if TYPE_CHECKING:
    from torch import nn

PROBED = Path(__file__).with_name("_peft_probed.json")
UNPROBED = "Its learning rate is LoRA's and was not swept."


class GenericPeft(PeftMethod):
    """A type of PEFT's without a row: targets as LoRA's, a copy of the base (which some change), counts by PEFT."""

    placement: Placement = "base"
    generic = True
    learning_rates = LearningRates(default=1e-3, low=1e-4, high=1e-2)

    def __init__(self, peft_type: str, probed: dict[str, str]) -> None:
        self.peft_type = peft_type
        self.name = peft_type.lower().replace("_", "-")
        self.summary = f"what PEFT calls {peft_type}, as it comes"
        self.unusable = probed.get("unusable", "")
        self.note = " ".join(filter(None, (probed.get("note", ""), UNPROBED)))

    @cached_property
    def takes_targets(self) -> bool:  # type: ignore[override]
        return _peft_source.takes_targets(self.peft_type)

    @cached_property
    def Config(self) -> type[MethodOptions]:  # type: ignore[override]  # noqa: N802 (a class)
        fields: dict[str, Any] = {
            name: (option.annotation, Field(option.default, description=option.description))
            for name, option in _peft_source.options(self.peft_type).items()
        }
        return create_model(f"{self.peft_type.title()}Options", __base__=MethodOptions, **fields)

    @cached_property
    def row(self) -> Row:  # type: ignore[override]
        return Row(
            name=self.name,
            summary=self.summary,
            paper="",
            peft_type=self.peft_type,
            options=self.Config,
            learning_rates=self.learning_rates,
            count=_counted_elsewhere,
            layer_kinds=("linear", "conv1d", "embedding"),
            fixed=_peft_source.silent(self.peft_type),
        )

    def target_names(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        return super().target_names(layout, setup) if self.takes_targets else ()

    def attach(self, model: nn.Module, layout: Layout, setup: Setup) -> Attached:
        self._refuse_unusable()
        try:
            attached = super().attach(model, layout, setup)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            if next(model.parameters()).is_meta:  # counting: it wants numbers, which are not there
                raise
            raise self._cannot(error) from error
        if not attached.parameters:
            raise ConfigError(f"{self.name} trains nothing with these options: see `adaptlab list methods`.")
        return attached

    def trainable_count(self, layout: Layout, setup: Setup) -> int:
        """By PEFT itself, on a model of bare layers of the same names and shapes."""
        from adaptlab.methods._doll import doll

        self._refuse_unusable()
        names = self.target_names(layout, setup)
        for device in ("meta", "cpu"):  # some look at weights
            model = doll(layout, names, device)
            try:
                return sum(p.numel() for p in super().attach(model, layout.without_head(), setup).parameters.values())
            except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
                if device == "cpu":
                    raise self._cannot(error) from error
        raise AssertionError("the last device raises or returns")

    def _refuse_unusable(self) -> None:
        if self.unusable:
            raise ConfigError(f"{self.name} cannot be trained here: {self.unusable}")

    def _cannot(self, error: Exception) -> ConfigError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        return ConfigError(
            f"PEFT cannot attach {self.name} with these options and targets ({reason}): change them, or choose "
            f"another method, such as lora."
        )


def _counted_elsewhere(layer: Layer, options: Any) -> int:
    raise AssertionError("a generic method has no closed form")


def _without_rows() -> list[str]:
    rows = {row.peft_type for row in peft_native.ROWS} | {"ADALORA"}
    return [name for name in _peft_source.peft_types() if name not in rows | {m.peft_type for m in prompting.plugins}]


def _probed() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(PROBED.read_text(encoding="utf-8"))["types"]
    return found


plugins: list[Method] = [GenericPeft(name, _probed().get(name, {})) for name in _without_rows()]
