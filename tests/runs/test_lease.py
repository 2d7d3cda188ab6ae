"""A lock is taken away from who hangs, from nobody else, and who lost it writes nothing more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptlab.runs import files, lease
from adaptlab.runs.files import BusyError
from adaptlab.runs.lease import LostLeaseError
from adaptlab.runs.record import Record
from adaptlab.runs.store import Predictions, RunFolder
from tests.runs.test_store import point

_HOLD = """
import sys, time
from adaptlab.runs import lease
from adaptlab.runs.store import RunFolder
lease.LEASE_SECONDS = 0.5
folder = RunFolder(sys.argv[1])
with folder.lock():
    print("held", flush=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if sys.argv[2] == "busy":
            sum(range(10_000))
        else:
            time.sleep(60)
"""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """``holder("busy")`` or ``holder("idle")``: a process that holds the run ``tmp_path/study/runs/a-00000000``."""
    started: list[subprocess.Popen[str]] = []

    def start(how: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _HOLD, str(run_of(tmp_path).path), how]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def run_of(folder: Path) -> RunFolder:
    return RunFolder(folder / "study" / "runs" / "a-00000000")


def taken(run: RunFolder, seconds: float) -> bool:
    """Whether ``run`` can be had within some time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with run.lock():
                return True
        except BusyError:
            time.sleep(0.05)
    return False


def test_who_works_keeps_the_run_and_who_is_stopped_loses_it(
    tmp_path: Path, holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    process, run = holder("busy"), run_of(tmp_path)
    assert not taken(run, 1.5)
    process.send_signal(signal.SIGSTOP)
    assert taken(run, 10)


def test_who_waits_for_what_never_comes_loses_the_run(
    tmp_path: Path, holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    holder("idle")
    assert taken(run_of(tmp_path), 10)


def test_a_killed_holder_is_no_hung_one(tmp_path: Path, holder: Callable[[str], subprocess.Popen[str]]) -> None:
    process, run = holder("busy"), run_of(tmp_path)
    process.kill()
    process.wait()
    assert (run.path / ".lock").read_bytes()  # its last number
    assert not run.hung()
    time.sleep(0.7)
    assert not run.hung()
    assert taken(run, 1)
    assert not (run.path / ".lock").read_bytes()


def test_clocks_that_are_set_back_or_forward_fool_nobody(
    tmp_path: Path, holder: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder("busy")
    run = run_of(tmp_path)
    with pytest.raises(BusyError), run.lock():
        pass
    for seconds in (-1e6, 1e6):
        monkeypatch.setattr(time, "time", lambda s=seconds: s)
        os.utime(run.path / ".lock", (max(0, seconds), max(0, seconds)))
        with pytest.raises(BusyError), run.lock():
            pass


def _write_record(run: RunFolder, record: Record) -> None:
    run.write_record(record)


def _append(run: RunFolder, record: Record) -> None:
    run.append_curve(point(9))


def _truncate(run: RunFolder, record: Record) -> None:
    run.truncate_curve(0)


def _predict(run: RunFolder, record: Record) -> None:
    run.write_predictions([Predictions("test", ["1"], [0], [1])])


@pytest.mark.parametrize("write", [_write_record, _append, _truncate, _predict])
@pytest.mark.parametrize("stopped", ["before", "half-way"])
def test_who_lost_the_run_writes_nothing_more(
    write: Callable[[RunFolder, Record], None],
    stopped: str,
    short: None,
    tmp_path: Path,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two holders in one process: the first hangs before it writes, or just before what it wrote takes its place."""
    first, second = run_of(tmp_path), run_of(tmp_path)
    monkeypatch.setattr(lease.Lease, "_beat_on", lambda self: None)  # hung from the beginning

    def take_over() -> None:
        with pytest.raises(BusyError), second.lock():
            pass
        time.sleep(0.6)
        with second.lock():
            second.truncate_curve(1)
            second.write_record(record)

    with first.lock():
        first.append_curve(point(0))
        first.append_curve(point(1))
        if stopped == "before":
            take_over()
        else:
            replace, write_all = os.replace, files._write_all

            def late_replace(source: Path, target: Path) -> None:
                monkeypatch.setattr(os, "replace", replace)
                take_over()
                replace(source, target)

            def late_write(descriptor: int, content: bytes) -> None:
                monkeypatch.setattr(files, "_write_all", write_all)
                take_over()
                write_all(descriptor, content)

            if write is _append:
                monkeypatch.setattr(files, "_write_all", late_write)
            else:
                monkeypatch.setattr(os, "replace", late_replace)
        expected = LostLeaseError if stopped == "before" else files.StorageError
        if stopped == "half-way" and write is _append:
            write(first, record)  # into a file that is no longer there
        else:
            with pytest.raises(expected):
                write(first, record.model_copy(update={"status": "failed"}))
    assert second.read_record() == record
    assert [p.step for p in second.read_curve()] == [0, 1]
    assert second.read_predictions() == {}
    assert {p.name for p in second.path.iterdir()} == {".lock", "record.json", "curve.jsonl"}


def test_two_that_take_over_at_once_do_not_both_have_it(
    short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, one, other = run_of(tmp_path), run_of(tmp_path), run_of(tmp_path)
    monkeypatch.setattr(lease.Lease, "_beat_on", lambda self: None)
    with hung.lock():
        for run in (one, other):
            with pytest.raises(BusyError), run.lock():
                pass
        time.sleep(0.6)
        assert one.hung()
        assert other.hung()
        with one.lock():
            with pytest.raises(BusyError), other.lock():
                pass
            one.check_mine()
        with pytest.raises(LostLeaseError):
            hung.check_mine()
