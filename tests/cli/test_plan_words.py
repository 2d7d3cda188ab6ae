"""Plans of language models: the readouts' own batches and passes, from rows and tokenizer alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Command


@pytest.fixture(autouse=True)
def _quick_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptlab.measure.machine.SECONDS", 0.2)


@pytest.fixture
def asks(adaptlab: Command, tiny_flags: list[str], tiny_model_folder: Callable[[str], Path]) -> Callable[..., Any]:
    """The plans of a family and readout with more flags."""

    def ask(family: str, readout: str, *flags: str, verb: str = "plan") -> Any:
        own = (*tiny_flags, "--model", str(tiny_model_folder(family)), "--readout", readout, "--seeds", "1")
        done = adaptlab(verb, *own, *flags, *(("--json",) if verb == "plan" else ("--out", "study")))
        assert done.code == 0, done.err
        return json.loads(done.out) if verb == "plan" else None

    return ask


@pytest.mark.parametrize("readout", ["verbalizer", "generate"])
@pytest.mark.parametrize("family", ["opt", "t5"])
def test_planned_operations_are_the_records(asks: Callable[..., Any], family: str, readout: str) -> None:
    (planned,) = asks(family, readout, "--methods", "lora")
    asks(family, readout, "--methods", "lora", verb="compare")
    record = json.loads(next(Path("study").glob("runs/*/record.json")).read_text())
    ahead = planned["forecast"]
    assert ahead["train_flops"] == pytest.approx(record["cost"]["train_flops"], rel=1e-9)
    assert ahead["memory"]["logits"] > 0
    assert ahead["eval_seconds"] > 0
    assert planned["notes"] == []


@pytest.mark.parametrize("readout", ["verbalizer", "generate"])
def test_what_trains_nothing_answers_and_demonstrations_cost(asks: Callable[..., Any], readout: str) -> None:
    room = ("--max-new-tokens", "4") if readout == "generate" else ()
    flags = ("--methods", "none", *room, "--shots")
    (none,), (shown,) = (asks("opt", readout, *flags, shots) for shots in ("0", "2"))
    for one in (none, shown):
        ahead = one["forecast"]
        assert (ahead["steps"], ahead["train_flops"], ahead["train_seconds"]) == (0, 0, 0)
        assert ahead["memory_bytes"] == ahead["memory"]["answering"] > ahead["memory"]["base"]
    assert shown["shots"] == 2
    assert shown["forecast"]["eval_seconds"] > none["forecast"]["eval_seconds"]


def test_what_is_written_is_held_in_keys_and_values(asks: Callable[..., Any]) -> None:
    flags = ("--methods", "none", "--max-new-tokens")
    (short,), (long,) = (asks("opt", "generate", *flags, tokens) for tokens in ("4", "40"))
    assert long["forecast"]["eval_seconds"] > 4 * short["forecast"]["eval_seconds"]


def test_without_a_tokenizer_prompts_are_estimated(
    asks: Callable[..., Any], tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    shutil.copy(tiny_model_folder("opt") / "config.json", tmp_path / "bare")
    flags = ("--methods", "lora")
    (known,), (estimated,) = (asks("opt", "verbalizer", *flags, *more) for more in ((), ("--model", "bare")))
    assert known["forecast"]["exact_lengths"]
    assert not estimated["forecast"]["exact_lengths"]
    assert 0.2 < estimated["forecast"]["length"] / known["forecast"]["length"] < 5
