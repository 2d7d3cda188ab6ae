"""A study that is killed, stopped or run twice at once ends with the numbers of one that was left in peace."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptlab.config import StudyConfig
from adaptlab.runs.studyfile import dump

Build = Callable[..., StudyConfig]
Files = tuple[Path, Path]


@pytest.fixture
def study_file(tiny_study: Build, tmp_path: Path) -> Path:
    execution = {"device": "cpu", "threads": 1, "keep_weights": "all", "checkpoint_seconds": 0}
    study = tiny_study(methods=["lora", "full"], seeds=2, steps=30, eval_every=10, execution=execution)
    path = tmp_path / "study.yaml"
    path.write_text(dump(study), encoding="utf-8")
    return path


def start(study: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "adaptlab", "compare", str(study), "--out", str(out), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(study: Path, out: Path) -> None:
    process = start(study, out)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors


def numbers(out: Path) -> dict[str, Any]:
    """Everything that must not depend on what happened on the way."""
    found = {}
    for folder in sorted((out / "runs").iterdir()):
        record = json.loads((folder / "record.json").read_text())
        curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
        found[folder.name] = {
            "status": record["status"],
            "metrics": record["metrics"],
            "primary": record["primary"],
            "training": record["training"],
            "tokens": (record["cost"]["train_tokens"], record["cost"]["padded_tokens"]),
            "curve": [{key: value for key, value in point.items() if key != "seconds"} for point in curve],
            "predictions": (folder / "predictions.parquet").read_bytes(),
            "weights": {p.name: p.read_bytes() for p in sorted((folder / "adapter").glob("*.safetensors"))},
        }
    return found


def strays(out: Path) -> list[str]:
    return [str(p) for p in out.rglob("*") if p.name.endswith((".tmp", ".new", ".old")) or p.name == "checkpoint"]


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(study_file: Path, tmp_path: Path) -> None:
    peaceful, killed = tmp_path / "peaceful", tmp_path / "killed"
    finish(study_file, peaceful)
    draw = random.Random(0)
    kills = 0
    for _ in range(5):
        process = start(study_file, killed)
        deadline = time.monotonic() + 60
        while not list(killed.glob("runs/*/record.json")) and time.monotonic() < deadline:
            time.sleep(0.05)  # past the imports: only then is there anything to lose
        time.sleep(draw.uniform(0.0, 1.5))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.communicate()
    assert kills > 0
    finish(study_file, killed)
    assert numbers(killed) == numbers(peaceful)
    assert strays(killed) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_says_how_to_go_on_and_does(study_file: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    process = start(study_file, out)
    while not list(out.glob("runs/*/curve.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "again" in errors
    assert "Traceback" not in errors
    statuses = [json.loads(path.read_text())["status"] for path in out.glob("runs/*/record.json")]
    assert statuses.count("interrupted") == 1
    finish(study_file, out)
    finish(study_file, tmp_path / "peaceful")
    assert numbers(out) == numbers(tmp_path / "peaceful")


@pytest.mark.slow
def test_two_processes_share_a_study_and_no_run_is_done_twice(study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    processes = [start(study_file, out) for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, output + errors
    starts = [json.loads(p.read_text())["started"] for p in out.glob("runs/*/record.json")]
    curves = [p.read_text().count('"step":0,') for p in out.glob("runs/*/curve.jsonl")]
    assert len(starts) == 4
    assert curves == [1] * 4  # a run done twice would have begun its curve twice
    finish(study_file, tmp_path / "peaceful")
    assert numbers(out) == numbers(tmp_path / "peaceful")


def test_the_kill_harness_would_notice_a_difference(tmp_path: Path) -> None:
    """Guards the guard: numbers() must see a changed byte."""
    run = tmp_path / "runs" / "a"
    (run / "adapter").mkdir(parents=True)
    document = {"status": "finished", "metrics": {}, "primary": None, "training": {}}
    document["cost"] = {"train_tokens": 1, "padded_tokens": 1}
    (run / "record.json").write_text(json.dumps(document))
    (run / "curve.jsonl").write_text("")
    (run / "predictions.parquet").write_bytes(b"1")
    before = numbers(tmp_path)
    (run / "predictions.parquet").write_bytes(b"2")
    assert numbers(tmp_path) != before
    assert os.path.exists(run)
