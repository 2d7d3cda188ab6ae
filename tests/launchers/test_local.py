"""Worker processes on this machine: the same records as one by one, and a dead worker costs only its last steps."""

from __future__ import annotations

import json
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
from adaptlab.errors import ConfigError, InterruptedRunError
from adaptlab.runs.job import FILE
from adaptlab.runs.store import RunFolder
from adaptlab.study.events import Event, RunEnded
from tests.launchers.studies import numbers, worker_of

Build = Callable[..., StudyConfig]


def under(build: Build, launcher: str, **settings: Any) -> StudyConfig:
    execution = {"device": "cpu", "threads": 1, "keep_weights": "all", "checkpoint_seconds": 0, "launcher": launcher}
    return build(**{"seeds": 2, "execution": {**execution, **settings.pop("execution", {})}, **settings})


def test_two_workers_leave_the_records_that_one_process_leaves(tiny_study: Build, tmp_path: Path) -> None:
    alone = adaptlab.compare(under(tiny_study, "inline"), out=tmp_path / "inline")
    workers = adaptlab.compare(under(tiny_study, "local", execution={"workers": 2}), out=tmp_path / "local")
    assert workers.failed == ()
    assert numbers(alone.folder) == numbers(workers.folder)
    assert not list(workers.folder.rglob(FILE))
    given = [record.config.given for record in alone.records]
    assert [record.config.given for record in workers.records] == given


def test_a_killed_worker_is_replaced_and_its_run_goes_on(tiny_study: Build, tmp_path: Path) -> None:
    study = {"methods": ["lora"], "steps": 40, "eval_every": 5}
    peaceful = adaptlab.compare(under(tiny_study, "inline", **study), out=tmp_path / "peaceful")
    killed: list[int] = []

    def kill() -> None:
        for _ in range(600):
            time.sleep(0.05)
            for checkpoint in (tmp_path / "killed").glob("runs/*/checkpoint"):
                killed.append(worker_of(checkpoint.parent))
                os.kill(killed[0], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill)
    killer.start()
    result = adaptlab.compare(under(tiny_study, "local", execution={"workers": 1}, **study), out=tmp_path / "killed")
    killer.join()
    assert killed
    assert result.failed == ()
    assert numbers(result.folder) == numbers(peaceful.folder)


def test_a_run_that_kills_every_worker_fails_and_the_others_do_not(
    tiny_study: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import adaptlab.worker as w, os\n"
        "run = w.Worker.run\n"
        "w.Worker.run = lambda self, job: os._exit(9) if '-head-' in job[0].name else run(self, job)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    events: list[Event] = []
    study = under(tiny_study, "local", seeds=1, execution={"workers": 1})
    result = adaptlab.compare(study, out=tmp_path / "study", listener=events.append)
    assert [record.status for record in result.records] == ["failed", "finished"]
    error = result.records[0].error
    assert error is not None
    assert "3 times" in error.message
    assert "exit code 9" in error.message
    assert RunFolder(result.folder / "runs" / result.failed[0]).read_record() == result.records[0]
    assert sum(isinstance(event, RunEnded) for event in events) == 2


def test_a_stop_reaches_the_workers_and_the_same_study_goes_on(tiny_study: Build, tmp_path: Path) -> None:
    settings = {"methods": ["lora"], "seeds": 1, "steps": 200, "eval_every": 50, "execution": {"workers": 1}}

    def stop() -> None:
        while not list((tmp_path / "stopped").glob("runs/*/checkpoint")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(InterruptedRunError):
        adaptlab.compare(under(tiny_study, "local", **settings), out=tmp_path / "stopped")
    stopper.join()
    (folder,) = (tmp_path / "stopped" / "runs").iterdir()
    assert json.loads((folder / "record.json").read_text())["status"] == "interrupted"
    result = adaptlab.compare(under(tiny_study, "local", **settings), out=tmp_path / "stopped")
    assert [record.status for record in result.records] == ["finished"]


def test_wrong_options_are_named_before_anything_is_read(tiny_study: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"slrum.*slurm"):
        adaptlab.compare(under(tiny_study, "slrum"), out=tmp_path / "study")
    with pytest.raises(ConfigError, match="partitoin"):
        adaptlab.compare(under(tiny_study, "slurm", execution={"launch": {"partitoin": "x"}}), out=tmp_path / "study")
    assert not (tmp_path / "study").exists()
