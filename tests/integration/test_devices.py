"""One run on two devices: two processes with gloo, the numbers of one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.errors import InterruptedRunError
from adaptlab.runs.store import RunFolder
from adaptlab.study.events import Event, StepDone

Build = Callable[..., StudyConfig]


def study(tiny_study: Build, devices: int, **settings: Any) -> StudyConfig:
    execution = {"device": "cpu", "threads": 1, "keep_weights": "all", "checkpoint_seconds": 0}
    execution |= {"devices_per_run": devices, **settings.pop("execution", {})}
    # Batches of 7 rows: the parts are uneven, and so are the micro-batches in them.
    more = {"dtype": "float64", "batch_size": 7, "steps": 6, "eval_every": 3}
    return tiny_study(**{**more, "execution": execution, **settings})


def check_same(ours: Path, theirs: Path) -> None:
    for path in sorted((theirs / "runs").iterdir()):
        one, other = RunFolder(ours / "runs" / path.name), RunFolder(path)
        found, expected = one.read_record(), other.read_record()
        assert found is not None
        assert expected is not None
        assert found.status == "finished", found.error
        for name, values in expected.metrics.items():
            assert found.metrics[name] == pytest.approx(values, abs=1e-9)
        assert one.read_predictions()["test"].predicted == other.read_predictions()["test"].predicted
        for a, b in zip(one.read_curve(), other.read_curve(), strict=True):
            assert (a.step, a.examples, a.tokens, a.flops) == (b.step, b.examples, b.tokens, b.flops)
            assert a.train_loss == pytest.approx(b.train_loss, abs=1e-9)
            assert a.metrics == pytest.approx(b.metrics, abs=1e-9)
        assert found.cost.padded_tokens == expected.cost.padded_tokens
        assert found.cost.adapter_bytes == expected.cost.adapter_bytes
        assert not one.checkpoint.exists()
        assert sorted(p.name for p in one.path.iterdir()) == sorted(p.name for p in other.path.iterdir())


@pytest.mark.slow  # the quick case of two processes is that of test_shards.py, which adds up what these do
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_have_the_numbers_of_one(tiny_study: Build, tmp_path: Path, method: str) -> None:
    alone = adaptlab.compare(study(tiny_study, 1, methods=[method]), out=tmp_path / "alone")
    shared = study(tiny_study, 2, methods=[method], execution={"micro_batch_size": 3})
    two = adaptlab.compare(shared, out=tmp_path / "two")
    check_same(two.folder, alone.folder)
    for record in two.records:
        assert record.training["devices"] == 2
        assert record.environment.device.startswith("cpu: 2 x ")


@pytest.mark.slow
def test_a_lost_process_fails_the_run_and_the_same_command_goes_on(tiny_study: Build, tmp_path: Path) -> None:
    peaceful = adaptlab.compare(study(tiny_study, 1, methods=["lora"], steps=30), out=tmp_path / "peaceful")
    config = study(tiny_study, 2, methods=["lora"], steps=30)
    killer = threading.Thread(target=kill_second_process, args=(tmp_path / "killed",))
    killer.start()
    (record,) = adaptlab.compare(config, out=tmp_path / "killed").records
    killer.join()
    assert record.status == "failed"
    assert record.error is not None
    assert "Of the run's processes 2 of 2 ended (killed by signal 9)" in record.error.message
    folder = RunFolder(tmp_path / "killed" / "runs" / record.name)
    assert folder.checkpoint.exists()
    assert not processes_of(folder.path)
    adaptlab.compare(config, out=tmp_path / "killed")
    check_same(tmp_path / "killed", peaceful.folder)


@pytest.mark.slow
def test_a_stop_writes_one_checkpoint_for_all(tiny_study: Build, tmp_path: Path) -> None:
    config = study(tiny_study, 2, methods=["lora"], steps=200, eval_every=2)

    def stop(event: Event) -> None:
        if isinstance(event, StepDone):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        adaptlab.compare(config, out=tmp_path / "study", listener=stop)
    (run,) = (tmp_path / "study" / "runs").iterdir()
    record = RunFolder(run).read_record()
    assert record is not None
    assert record.status == "interrupted"
    assert RunFolder(run).checkpoint.exists()
    assert not processes_of(run)


def processes_of(run: Path) -> list[int]:
    """The processes that do a part of this run, in the order of their ranks."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"adaptlab.rank" in words and str(run.absolute()).encode() in words:
                (rank,) = (v for v in (folder / "environ").read_bytes().split(b"\0") if v.startswith(b"RANK="))
                found[int(rank[5:])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def kill_second_process(study: Path) -> None:
    for _ in range(2400):
        time.sleep(0.05)
        for checkpoint in study.glob("runs/*/checkpoint"):
            processes = processes_of(checkpoint.parent)
            if len(processes) == 2:
                os.kill(processes[1], signal.SIGKILL)
                return
