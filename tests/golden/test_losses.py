"""Refactors keep the numbers: losses of every method of ours and every row at a fixed seed, written down.

When a change is *meant* to move them, write them anew and say why in the changelog:

    python -m pytest tests/golden --write-golden
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab.methods import registry
from tests.training.conftest import TinyRun

FILE = Path(__file__).parent / "losses.json"
OPTIONS = {"partial": {"parameters": "attention"}}
STEPS = 10


@pytest.mark.parametrize("method", [method.name for method in registry.all() if method.trains and not method.generic])
def test_losses_are_those_written_down(
    tiny_run: Callable[..., TinyRun], method: str, request: pytest.FixtureRequest
) -> None:
    options = OPTIONS.get(method)
    losses = tiny_run(method, steps=STEPS, eval_every=STEPS, learning_rate=1e-3, options=options).go().losses
    written = json.loads(FILE.read_text()) if FILE.exists() else {}
    if request.config.getoption("--write-golden"):
        written[method] = [round(loss, 7) for loss in losses]
        FILE.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    assert method in written, "a new method: write its losses down with --write-golden"
    assert losses == pytest.approx(written[method], abs=2e-5)  # other processors round otherwise
