"""A real Slurm: arrays, requeue with the checkpoint, cancelled jobs, and leaving before the end."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.errors import HandedOverError
from adaptlab.runs.store import RunFolder
from tests.launchers import slurm_cluster
from tests.launchers.studies import numbers

Build = Callable[..., StudyConfig]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or ""),
]


@pytest.fixture(scope="module", autouse=True)
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    pytest.importorskip("submitit", reason="needs submitit: pip install 'adaptlab[slurm]'")
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm")):
        yield


def under(build: Build, launcher: str, **settings: Any) -> StudyConfig:
    execution = {"device": "cpu", "threads": 1, "keep_weights": "all", "checkpoint_seconds": 0, "launcher": launcher}
    return build(**{"execution": {**execution, **settings.pop("execution", {})}, **settings})


def _held() -> str:
    """The id of a job that waits for its time."""
    listed = subprocess.run(["squeue", "--noheader", "--format=%i %r"], capture_output=True, text=True, check=True)
    waiting = [line.split()[0] for line in listed.stdout.splitlines() if line.endswith("BeginTime")]
    return waiting[0] if waiting else ""


def test_an_array_leaves_the_records_that_one_process_leaves(tiny_study: Build, tmp_path: Path) -> None:
    alone = adaptlab.compare(under(tiny_study, "inline"), out=tmp_path / "inline")
    options = {"launch": {"partition": "main", "time_minutes": 5}}
    jobs = adaptlab.compare(under(tiny_study, "slurm", execution=options), out=tmp_path / "slurm")
    assert jobs.failed == ()
    assert numbers(alone.folder) == numbers(jobs.folder)


def test_a_warned_job_is_requeued_and_goes_on_from_its_checkpoint(tiny_study: Build, tmp_path: Path) -> None:
    long = {"methods": ["lora"], "steps": 400, "eval_every": 100}
    alone = adaptlab.compare(under(tiny_study, "inline", **long), out=tmp_path / "inline")

    def warn() -> None:
        while not list((tmp_path / "slurm").glob("runs/*/checkpoint")):
            time.sleep(0.05)
        subprocess.run(["scancel", "--signal=USR2", "--user=root"], check=True)
        while not (held := _held()):
            time.sleep(0.2)
        # Slurm lets a requeued job wait for two minutes: not here.
        subprocess.run(["scontrol", "update", f"JobId={held}", "StartTime=now"], check=True)

    warner = threading.Thread(target=warn)
    warner.start()
    result = adaptlab.compare(under(tiny_study, "slurm", **long), out=tmp_path / "slurm")
    warner.join()
    logs = "".join(path.read_text() for path in (tmp_path / "slurm" / "slurm").rglob("*.err"))
    assert "this job is preempted" in logs
    assert numbers(result.folder) == numbers(alone.folder)


def test_a_cancelled_job_is_handed_out_again(
    tiny_study: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptlab.launchers.slurm._GRACE_SECONDS", 2.0)

    def cancel() -> None:
        while not list((tmp_path / "slurm").glob("runs/*/checkpoint")):
            time.sleep(0.05)
        subprocess.run(["scancel", "--user=root"], check=True)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    study = under(tiny_study, "slurm", methods=["lora"], steps=400, eval_every=100)
    result = adaptlab.compare(study, out=tmp_path / "slurm")
    canceller.join()
    assert [record.status for record in result.records] == ["finished"]


def test_who_does_not_wait_finds_the_records_later(tiny_study: Build, tmp_path: Path) -> None:
    study = under(tiny_study, "slurm", methods=["head"], execution={"wait": False})
    with pytest.raises(HandedOverError, match="scancel"):
        adaptlab.compare(study, out=tmp_path / "slurm")
    (folder,) = (tmp_path / "slurm" / "runs").iterdir()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        record = RunFolder(folder).read_record()
        if record is not None and record.status == "finished":
            break
        time.sleep(0.5)
    later = adaptlab.compare(under(tiny_study, "inline", methods=["head"]), out=tmp_path / "slurm")
    assert later.skipped == (folder.name,)
