"""What happens to a machine costs no result: no memory, disk, permission or time; clocks, listings, hung workers."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import adaptlab
from adaptlab.cli.main import main
from adaptlab.cli.progress import outcome
from adaptlab.config import StudyConfig
from adaptlab.engines.solo import Solo
from adaptlab.errors import StorageError
from adaptlab.runs import files
from adaptlab.runs.studyfile import dump
from adaptlab.study import schedule
from tests.integration.test_crash import finish, numbers, start, strays
from tests.launchers.studies import worker_of
from tests.source_tree import REPOSITORY

Build = Callable[..., StudyConfig]
_EXECUTION = {"device": "cpu", "threads": 1, "keep_weights": "all", "checkpoint_seconds": 0}


def build(tiny_study: Build, **settings: Any) -> StudyConfig:
    execution = {**_EXECUTION, **settings.pop("execution", {})}
    return tiny_study(**{"methods": ["lora"], "execution": execution, **settings})


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``memory(4)``: a pass with gradients over more than 4 rows finds no memory, from step ``after`` on."""

    def limit(rows: int, *, after: int = 0, how: str = "cuda") -> None:
        forward = Solo._forward

        def limited(self: Solo, members: Any, batches: Any, first: int) -> Any:
            if torch.is_grad_enabled() and len(batches[0].labels) > rows and members[0].progress.step >= after:
                if how == "cuda":
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
            return forward(self, members, batches, first)

        monkeypatch.setattr(Solo, "_forward", limited)

    return limit


@pytest.mark.parametrize(("how", "after"), [("cuda", 0), ("cpu", 5)])
def test_out_of_memory_it_goes_on_in_smaller_pieces_with_the_same_numbers(
    how: str, after: int, tiny_study: Build, memory: Callable[..., None], tmp_path: Path
) -> None:
    study = build(tiny_study)
    plain = adaptlab.train(study, out=tmp_path / "plain")
    memory(3, after=after, how=how)
    record = adaptlab.train(study, out=tmp_path / "small")
    assert record.status == "finished"
    assert record.training["micro_batch_size"] == 2
    assert record.training["steps"] == plain.training["steps"]
    assert record.cost.train_tokens == plain.cost.train_tokens
    notes = [warning for warning in record.warnings if "Memory ran out" in warning]
    assert [re.findall(r"micro-batches of (\d+) rows, 8 to a step", note) for note in notes] == [["4"], ["2"]]
    assert "memory ran out, it went on in micro-batches of 2" in outcome(record)
    assert "memory" not in outcome(plain)
    curves = [(folder / "curve.jsonl").read_text() for folder in sorted(tmp_path.glob("*/runs/*"))]
    losses = [[json.loads(line)["train_loss"] for line in curve.splitlines()] for curve in curves]
    assert losses[0][0] is None
    assert losses[0][1:] == pytest.approx(losses[1][1:], rel=1e-4)
    assert record.metrics["test"] == pytest.approx(plain.metrics["test"], abs=0.05)


def test_what_fits_in_no_size_is_out_of_memory(tiny_study: Build, memory: Callable[..., None], tmp_path: Path) -> None:
    memory(0)
    record = adaptlab.train(build(tiny_study), out=tmp_path / "study")
    assert record.status == "out-of-memory"
    assert record.training["micro_batch_size"] == 1


# --- disks and folders ------------------------------------------------------------------------------------------------


@pytest.fixture
def smallest_file() -> Iterator[Callable[[int], None]]:
    """``smallest_file(20_000)``: the kernel refuses to write more than that to any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def command(study: StudyConfig, folder: Path) -> list[str]:
    (folder / "study.yaml").write_text(dump(study), encoding="utf-8")
    return ["compare", str(folder / "study.yaml"), "--out", str(folder / "study"), "--quiet"]


def one_sentence(errors: str, *parts: str) -> None:
    (line,) = [line for line in errors.splitlines() if line.strip() and "model shards" not in line]  # a fixture's bar
    assert line.startswith("Error: ")
    for part in parts:
        assert part in line


def test_no_space_for_a_checkpoint_keeps_the_last_one(
    tiny_study: Build,
    tmp_path: Path,
    smallest_file: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system's own refusal, as the library that writes tensors tells it; then there is space again."""
    from adaptlab.training import checkpoint

    study = build(tiny_study, methods=["full"])
    adaptlab.compare(study, out=tmp_path / "peaceful")
    write, count = checkpoint._write, 0

    def write_small(member: Any, new: Path) -> None:
        nonlocal count
        count += 1
        if count == 3:
            smallest_file(100_000)
        write(member, new)

    monkeypatch.setattr(checkpoint, "_write", write_small)
    assert main(command(study, tmp_path)) == 2
    one_sentence(capsys.readouterr().err, "No space left to write", "checkpoint", "nothing written before is lost")
    (run,) = (tmp_path / "study" / "runs").iterdir()
    assert json.loads((run / "record.json").read_text())["status"] == "interrupted"
    assert (run / "checkpoint").is_dir()
    assert not (run / "checkpoint.new").exists()
    monkeypatch.undo()
    smallest_file(resource.RLIM_INFINITY)
    assert main(command(study, tmp_path)) == 0
    assert numbers(tmp_path / "study") == numbers(tmp_path / "peaceful")
    assert strays(tmp_path / "study") == []


@pytest.mark.parametrize("what", ["record.json", "curve.jsonl", "predictions", "adapter", "study.yaml"])
def test_no_space_ends_the_command_in_a_sentence_and_costs_nothing(
    what: str, tiny_study: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    study, write_all = build(tiny_study), files._write_all

    def full(descriptor: int, content: bytes) -> None:
        if what in os.path.realpath(f"/proc/self/fd/{descriptor}").replace("study/runs", ""):
            os.write(descriptor, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        write_all(descriptor, content)

    def full_too(tensors: Any, path: Any, *more: Any) -> None:
        if what in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_file(tensors, path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_all", full)
        patch.setattr("safetensors.torch.save_file", full_too)
        assert main(command(study, tmp_path)) == 2
    one_sentence(capsys.readouterr().err, "No space left to write", what)
    assert [s for s in strays(tmp_path / "study") if not s.endswith("checkpoint")] == []
    for path in tmp_path.glob("study/runs/*/record.json"):
        assert json.loads(path.read_text())["status"] in ("running", "interrupted")
    assert main(command(study, tmp_path)) == 0
    adaptlab.compare(study, out=tmp_path / "peaceful")
    assert numbers(tmp_path / "study") == numbers(tmp_path / "peaceful")
    assert strays(tmp_path / "study") == []


class _Capabilities(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def as_anybody(work: Callable[[], int]) -> int:
    """What ``work`` returns in a child process that may not write where permissions say so, even if it is root's."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
            if ctypes.CDLL(None).capset(header, (_Capabilities * 2)()) == 0:
                code = work()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("part", [".", "runs"])
def test_a_read_only_folder_is_one_sentence(
    part: str, tiny_study: Build, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = command(build(tiny_study), tmp_path)
    folder = tmp_path / "study"
    (folder / part).mkdir(parents=True)
    if part == "runs":
        (folder / "study.yaml").write_text((tmp_path / "study.yaml").read_text())
    (folder / part).chmod(0o555)
    code = as_anybody(lambda: main(words))
    (folder / part).chmod(0o755)
    assert code == 2
    one_sentence(capfd.readouterr().err, "Cannot write", "Permission denied", "check the folder")


# --- clocks, listings, time ---------------------------------------------------------------------------------------


def test_no_duration_and_no_wait_looks_at_a_clock_that_can_be_set() -> None:
    pattern = re.compile(r"\btime\.time\(|\btime\.time_ns\(|datetime\.now\(\)|utcnow\(")
    found = [str(path) for path in (REPOSITORY / "src").rglob("*.py") if pattern.search(path.read_text())]
    assert found == []


def test_a_clock_set_back_in_mid_run_changes_no_cost(
    tiny_study: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(2_000_000_000, 0, -86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    record = adaptlab.train(build(tiny_study), out=tmp_path / "study")
    assert record.status == "finished"
    seconds = [record.cost.load_seconds, record.cost.train_seconds, record.cost.eval_seconds, record.cost.step_seconds]
    assert all(value is not None and 0 < value < 300 for value in seconds)
    (folder,) = (tmp_path / "study" / "runs").iterdir()
    points = [json.loads(line)["seconds"] for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert points == sorted(points)


def test_a_listing_that_lags_has_no_run_done_twice(
    tiny_study: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system shows the first scheduler's folders to the second one late."""
    study = build(tiny_study, seeds=2)
    first = adaptlab.compare(study, out=tmp_path / "study")
    before = numbers(first.folder)
    listdir, scandir = os.listdir, os.scandir
    lagging = str(tmp_path / "study" / "runs")

    class Nothing:
        def __enter__(self) -> Iterator[Any]:
            return iter(())

        def __exit__(self, *_: object) -> None:
            return None

        def __iter__(self) -> Iterator[Any]:
            return iter(())

    monkeypatch.setattr(os, "listdir", lambda p=".": [] if str(p) == lagging else listdir(p))
    monkeypatch.setattr(os, "scandir", lambda p=".": Nothing() if str(p) == lagging else scandir(p))
    from adaptlab.api import _run

    second = _run(study, tmp_path / "study", lambda event: None)
    monkeypatch.undo()
    assert len(second.skipped) == 2
    assert numbers(first.folder) == before


def test_a_record_that_shows_late_is_not_replaced_by_a_failure(
    tiny_study: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has finished and its record still looks as at the start: the run is asked for again, not given up."""
    from adaptlab.launchers.inline import InlinePool
    from adaptlab.runs.store import StudyFolder

    study = build(tiny_study)
    read, late = StudyFolder.record, 0

    def stale(self: StudyFolder, run: Any) -> Any:
        nonlocal late
        record = read(self, run)
        if record is not None and record.status == "finished" and late < schedule.ATTEMPTS:
            late += 1
            return record.model_copy(update={"status": "running"})
        return record

    monkeypatch.setattr(InlinePool, "remote", False)
    monkeypatch.setattr(StudyFolder, "record", stale)
    record = adaptlab.train(study, out=tmp_path / "study")
    assert late == schedule.ATTEMPTS
    assert record.status == "finished"


def test_what_a_killed_process_left_beside_a_finished_run_is_removed(tiny_study: Build, tmp_path: Path) -> None:
    study = build(tiny_study)
    adaptlab.train(study, out=tmp_path / "study")
    (run,) = (tmp_path / "study" / "runs").iterdir()
    for left in ("checkpoint", "checkpoint.old", ".adapter.1.tmp"):
        (run / left).mkdir()
        (run / left / "file").touch()
    for left in ("job.json", ".record.json.1.tmp"):
        (run / left).touch()
    kept = run / "checkpoint.damaged-1"
    kept.mkdir()
    before = (run / "record.json").read_bytes()
    adaptlab.train(study, out=tmp_path / "study")
    assert [path for path in run.iterdir() if path.name.startswith(("checkpoint", "job", ".adapter", ".rec"))] == [kept]
    assert (run / "record.json").read_bytes() == before


@pytest.mark.slow
def test_ten_seconds_to_live_are_enough(tiny_study: Build, tmp_path: Path) -> None:
    settings = {"steps": 3000, "eval_every": 1000, "execution": {"checkpoint_seconds": 1e6}}
    study, out = build(tiny_study, **settings), tmp_path / "out"
    path = tmp_path / "study.yaml"
    path.write_text(dump(study), encoding="utf-8")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    others = ended.ru_utime + ended.ru_stime
    process = start(path, out)
    while not list(out.glob("runs/*/curve.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    clock = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    process.communicate(timeout=240)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    before = sum(map(int, clock[11:13])) / os.sysconf("SC_CLK_TCK")
    assert used.ru_utime + used.ru_stime - others - before < 10  # of a processor: the machine may be busy otherwise
    assert process.returncode == 130
    (run,) = (out / "runs").iterdir()
    step = json.loads((run / "checkpoint" / "state.json").read_text())["progress"]["step"]
    assert step > 0
    finish(path, out)
    steps = [json.loads(line)["step"] for line in (run / "curve.jsonl").read_text().splitlines()]
    assert steps == [0, 1000, 2000, 3000]  # it went on: from the beginning it would have begun the curve anew


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(tiny_study: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first worker is stopped (SIGSTOP): neither dead nor working."""
    (tmp_path / "sitecustomize.py").write_text("import adaptlab.runs.lease as l\nl.LEASE_SECONDS = 3.0\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(schedule, "_HUNG_SECONDS", 0.5)
    study = build(tiny_study, steps=600, eval_every=300, execution={"launcher": "local", "workers": 1})
    stopped: list[int] = []

    def stop() -> None:
        while not stopped:
            time.sleep(0.05)
            for checkpoint in (tmp_path / "hung").glob("runs/*/checkpoint"):
                stopped.append(worker_of(checkpoint.parent))
                os.kill(stopped[0], signal.SIGSTOP)
                return

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    result = adaptlab.compare(study, out=tmp_path / "hung")
    assert stopped
    assert result.failed == ()
    peaceful = build(tiny_study, steps=600, eval_every=300)
    adaptlab.compare(peaceful, out=tmp_path / "peaceful")
    assert numbers(result.folder) == numbers(tmp_path / "peaceful")
    with pytest.raises(ProcessLookupError):
        os.kill(stopped[0], 0)


def test_storage_errors_are_told_from_others() -> None:
    with pytest.raises(StorageError, match="No space left"), files.writing(Path("x")):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(ValueError, match="shape"), files.writing(Path("x")):
        raise ValueError("a wrong shape")
