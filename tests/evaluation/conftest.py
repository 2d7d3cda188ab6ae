"""Tiny language models, loaded as runs load them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab.config import ModelConfig
from adaptlab.models.load import Base, load_base


@pytest.fixture(scope="session")
def language_model(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Base]:
    """``language_model("gpt2")``: the tiny model as a language model; loaded once a session."""
    built: dict[str, Base] = {}

    def load(family: str) -> Base:
        if family not in built:
            config = ModelConfig(id=str(tiny_model_folder(family)))
            built[family] = load_base(config, num_labels=2, regression=False, device="cpu", readout="verbalizer")
        return built[family]

    return load
