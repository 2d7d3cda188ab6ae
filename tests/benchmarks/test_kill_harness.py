"""A few kills, and that the harness would see what it looks for; benchmarks/kill_harness.py kills 200 times."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.kill_harness import PLACES, Tally, check, points, twice
from tests.source_tree import REPOSITORY


@pytest.mark.slow
def test_killed_studies_end_as_if_nothing_had_happened() -> None:
    """In a process of its own: it forks, which one that has computed should not."""
    command = [sys.executable, "benchmarks/kill_harness.py", "--named", "4", "--random", "2"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": 0 things wrong" in done.stdout
    assert "at random" in done.stdout


def test_every_place_is_among_a_hundred_points() -> None:
    found = points(100, random.Random(0))
    assert len(found) == 100
    assert {point.label for point in found} == set(PLACES)
    assert {(p.function, p.when, p.about) for p in found} >= {
        (p.function, p.when, p.about) for there in PLACES.values() for p in there
    }


def test_a_run_done_twice_is_seen(tmp_path: Path) -> None:
    def log(*lines: tuple[int, str, str]) -> Path:
        path = tmp_path / "log"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    assert twice(log((1, "a", "running"), (2, "a", "running"), (2, "a", "finished"))) == []
    again = twice(log((1, "a", "running"), (1, "a", "finished"), (2, "a", "running")))
    assert again == ["a was written again (running) after it had finished"]
    late = twice(log((1, "a", "running"), (2, "a", "running"), (1, "a", "finished")))
    assert late == ["a was ended (finished) by a process that no longer had it"]


def test_a_difference_and_what_is_left_behind_are_seen(tmp_path: Path) -> None:
    run = tmp_path / "study" / "runs" / "a"
    run.mkdir(parents=True)
    document = dict.fromkeys(("status", "metrics", "primary", "parameters", "training", "data"))
    (run / "record.json").write_text(json.dumps({**document, "cost": {"train_tokens": 1, "padded_tokens": 1}}))
    (run / "curve.jsonl").write_text('{"step": 0, "seconds": 1.0}\n')
    (run / "predictions.parquet").write_bytes(b"1")
    (tmp_path / "study.log").touch()

    def wrong(peaceful: dict[str, object]) -> list[str]:
        tally = Tally(Counter(), 0, 0, [])
        check(tmp_path / "study", peaceful, tally)
        return tally.wrong

    from benchmarks.kill_harness import numbers

    peaceful = numbers(tmp_path / "study")
    assert wrong(peaceful) == []
    assert wrong({**peaceful, "b": {}}) == ["study: runs lost or added: ['b']"]
    (run / "predictions.parquet").write_bytes(b"2")
    assert wrong(peaceful) == ["study: a differs in ['predictions']"]
    (run / "predictions.parquet").write_bytes(b"1")
    (run / "checkpoint").mkdir()
    assert wrong(peaceful) == ["study: left behind: runs/a/checkpoint"]
