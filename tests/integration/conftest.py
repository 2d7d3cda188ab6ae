"""A study small enough to run in seconds: tiny BERT on a table of sentences."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adaptlab
from adaptlab.config import StudyConfig

_WORDS = {"warm": ["sun", "fire", "summer", "desert"], "cold": ["snow", "ice", "winter", "frost"]}
_FILLER = ["the", "a", "of", "on", "in", "today", "here", "was", "seen", "near", "old", "big", "small", "house", "road"]


def write_table(path: Path, rows: int = 160, *, seed: int = 0, numbers: bool = False) -> Path:
    """A CSV whose label can be read off its words."""
    draw = random.Random(seed)
    lines = ["text,label"]
    for i in range(rows):
        label = draw.choice(sorted(_WORDS))
        words = draw.choices(_FILLER, k=draw.randint(2, 9)) + draw.choices(_WORDS[label], k=2)
        draw.shuffle(words)
        value = str(round((label == "warm") * 3 + draw.random(), 3)) if numbers else label
        lines.append(f"{' '.join(words)} {i},{value}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tiny_study(tmp_path: Path, tiny_model_folder: Callable[[str], Path]) -> Callable[..., StudyConfig]:
    """``tiny_study(methods=[...], seeds=2)`` with short training; any flag may be given."""

    def build(**settings: Any) -> StudyConfig:
        table = tmp_path / "weather.csv"
        if not table.exists():
            write_table(table)
        defaults: dict[str, Any] = {
            "model": str(tiny_model_folder("bert")),
            "task": str(table),
            "methods": ["head", "lora"],
            "seeds": 1,
            "steps": 8,
            "batch_size": 8,
            "eval_every": 4,
            "learning_rate": 1e-3,
            "dtype": "float32",
            "execution": {"device": "cpu", "threads": 1, "keep_weights": "all"},
        }
        return adaptlab.study_of(**{**defaults, **settings})

    return build
