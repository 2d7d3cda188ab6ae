"""Studies on the fused engine: the solo runs' numbers, through interruptions, too little memory and failures."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.engines.fused import Fused
from adaptlab.errors import InterruptedRunError
from adaptlab.runs.record import Record
from adaptlab.runs.store import RunFolder
from adaptlab.study.events import Event, RunsPacked, StepDone
from adaptlab.training.member import Member

Build = Callable[..., StudyConfig]
METHODS = ["lora", "ia3", "loha", "full", "head", "prompt-tuning", "p-tuning"]


def study(tiny_study: Build, engine: str, **settings: Any) -> StudyConfig:
    execution: dict[str, Any] = {
        "device": "cpu",
        "threads": 1,
        "keep_weights": "all",
        "checkpoint_seconds": 0,
        "engine": engine,
    }
    execution["measure"] = settings.pop("measure", "run")
    return tiny_study(**{"methods": METHODS, "seeds": 2, "dtype": "float64", "execution": execution, **settings})


_SOLO: list[Path] = []


@pytest.fixture
def alone(tiny_study: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs on the solo engine, done once for all tests here: each test's table has the same rows."""
    if not _SOLO:
        out = tmp_path_factory.mktemp("solo")
        _SOLO.append(adaptlab.compare(study(tiny_study, "solo"), out=out).folder)
    return _SOLO[0]


def check_same(found: Sequence[Record], folder: Path, alone: Path) -> None:
    for record in found:
        one, other = RunFolder(folder / "runs" / record.name), RunFolder(alone / "runs" / record.name)
        expected = other.read_record()
        assert expected is not None
        assert record.status == "finished", record.error
        assert record.id == expected.id
        assert record.metrics.keys() == expected.metrics.keys()
        for name, values in record.metrics.items():
            assert values == pytest.approx(expected.metrics[name], abs=1e-9)
            ours, theirs = one.read_predictions()[name], other.read_predictions()[name]
            assert (ours.ids, ours.predicted) == (theirs.ids, theirs.predicted)
        for a, b in zip(one.read_curve(), other.read_curve(), strict=True):
            assert (a.step, a.examples, a.tokens) == (b.step, b.examples, b.tokens)
            assert a.train_loss == pytest.approx(b.train_loss, abs=1e-9)
            assert a.metrics == pytest.approx(b.metrics, abs=1e-9)
        assert not one.checkpoint.exists()
        assert record.cost.train_tokens == expected.cost.train_tokens
        assert record.cost.adapter_bytes == expected.cost.adapter_bytes


def test_a_fused_study_has_the_numbers_of_solo_runs_and_no_clock_of_its_own(
    tiny_study: Build, tmp_path: Path, alone: Path
) -> None:
    events: list[Event] = []
    fused_study = study(tiny_study, "fused", measure="auto")
    result = adaptlab.compare(fused_study, out=tmp_path / "fused", listener=events.append)
    check_same(result.records, result.folder, alone)
    (packed,) = [event for event in events if isinstance(event, RunsPacked)]
    assert [len(group) for group in packed.groups] == [6, 4]
    assert len(packed.alone) == 4
    for record in result.records:
        fused = record.config.resolved.method.name not in ("full", "head")
        assert record.engine == ("fused" if fused else "solo")
        shared = (record.cost.load_seconds, record.cost.train_seconds, record.cost.eval_seconds)
        assert all(seconds is None for seconds in shared) is fused
        assert record.cost.clock_source == ("probe" if fused else "run")
        assert record.cost.step_seconds is not None
        curve = RunFolder(result.folder / "runs" / record.name).read_curve()
        assert all((point.seconds is None) is fused for point in curve)


@pytest.mark.parametrize(("method", "size"), [("-lora-", 6), ("-p-tuning-", 4)])
def test_a_fused_study_goes_on_where_it_was_stopped(
    tiny_study: Build, tmp_path: Path, alone: Path, method: str, size: int
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 5 and method in event.name:
            os.kill(os.getpid(), signal.SIGTERM)

    fused = study(tiny_study, "fused")
    with pytest.raises(InterruptedRunError):
        adaptlab.compare(fused, out=tmp_path / "fused", listener=stop)
    records = [RunFolder(path).read_record() for path in (tmp_path / "fused" / "runs").iterdir()]
    assert [record.status for record in records if record is not None].count("interrupted") == size
    events: list[Event] = []
    result = adaptlab.compare(fused, out=tmp_path / "fused", listener=events.append)
    check_same(result.records, result.folder, alone)
    assert min(event.step for event in events if isinstance(event, StepDone) and method in event.name) == 6


def test_a_group_too_large_for_memory_goes_on_in_parts(
    tiny_study: Build, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    carry = Fused._carry

    def small_memory(self: Fused, members: Sequence[Member], rows: int, first: int) -> None:
        sizes.append(len(members))
        if len(members) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        carry(self, members, rows, first)

    monkeypatch.setattr(Fused, "_carry", small_memory)
    result = adaptlab.compare(study(tiny_study, "fused"), out=tmp_path / "fused")
    check_same(result.records, result.folder, alone)
    assert sizes[:3] == [6, 3, 1]
    assert {record.engine for record in result.records} == {"solo", "fused"}


def test_a_group_that_breaks_goes_on_as_solo_runs_and_says_so(
    tiny_study: Build, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, calls = Fused.__call__, []

    def broken(self: Fused, members: Sequence[Member]) -> list[float]:
        calls.append(len(members))
        if len(calls) == 4:
            raise RuntimeError("a layer with a will of its own")
        return call(self, members)

    monkeypatch.setattr(Fused, "__call__", broken)
    result = adaptlab.compare(study(tiny_study, "fused"), out=tmp_path / "fused")
    check_same(result.records, result.folder, alone)
    loras = [record for record in result.records if record.config.resolved.method.name == "lora"]
    assert {record.engine for record in loras} == {"solo"}
    assert all("a will of its own" in " ".join(record.warnings) for record in loras)
