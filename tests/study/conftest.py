"""A method of the tests' own, so that nothing here depends on the options of a real one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from adaptlab.methods import registry
from adaptlab.methods._base import LearningRates, Method, MethodOptions


class _Options(MethodOptions):
    r: int = Field(default=8, ge=1)
    lora_alpha: float = 16
    use_dora: bool = False
    bias: str = "none"
    layers: list[int] | None = None


class _Abstract(Method):
    summary = "of the tests"
    learning_rates = LearningRates(1e-3, 1e-4, 1e-2)

    def _refuse(self, *arguments: Any, **named: Any) -> Any:
        raise AssertionError("expanding a study attaches nothing")

    attach = trainable_count = saved = save = load = _refuse


class _Layered(_Abstract):
    name = "probe"
    placement = "layers"
    takes_targets = True
    Config = _Options
    aliases = {"alpha": "lora_alpha"}


class _Plain(_Abstract):
    name = "whole"
    placement = "base"


@pytest.fixture(autouse=True)
def probe_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """``probe`` sits at layers and has options; ``whole`` trains the base and has none."""
    for method in (_Layered(), _Plain()):
        monkeypatch.setitem(registry._plugins, method.name, method)
