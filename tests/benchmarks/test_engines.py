"""The engines' benchmark: what it plans and what it makes of results; `make bench-gpu` runs it for real."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "engines.py"


@pytest.mark.slow
def test_it_runs_end_to_end_at_toy_size(tmp_path: Path) -> None:
    page, lines = tmp_path / "engines.md", tmp_path / "engines.jsonl"
    command = [sys.executable, str(SCRIPT), "gpu", "--toy", "--rounds", "1", "--threads", "1"]
    command += ["--parts", "roberta-base,t5-base", "--markdown", str(page), "--results", str(lines)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr
    results = [json.loads(line) for line in lines.with_suffix(".done.jsonl").read_text().splitlines()]
    assert [r["variant"] for r in results] == ["fused", "solo", "trainer"] * 2
    assert all(len(r["scores"]) == r["runs"] for r in results)
    text = page.read_text()
    assert "## roberta-base" in text
    assert "Toy sizes" in text


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("engines")


def measured(job: Any, **values: Any) -> dict[str, Any]:
    """What a process might have measured."""
    seconds = {"solo": 10.0, "fused": 12.0, "workers": 8.0, "trainer": 16.0}.get(job.variant, 2.5)
    methods = [job.only[0]] if job.only else [m for m in job.grid.methods for _ in range(job.grid.seeds)]
    runs = [
        {"method": method, "train_seconds": 0.5, "eval_seconds": 0.2, "ended": 1.0 + i, "useful_flops": 1e11,
         "tokens": 90, "padded_tokens": 100}
        for i, method in enumerate(methods)
    ]  # fmt: skip
    return {
        "grid_seconds": seconds, "wall_seconds": seconds + 3, "peak_memory_bytes": 2**30, "dtype": "bfloat16",
        "scores": [0.8] * len(methods), "runs_detail": runs, "after_seconds": 1.5, "peak_flops": 4e11,
        "profile": {"products": 0.03, "rest": 0.01}, "step_seconds": 0.04,
        "key": job.key, "part": job.grid.part, "variant": job.variant, "round": job.round, "runs": len(methods),
        "grid": json.loads(json.dumps(vars(job.grid))), **values,
    }  # fmt: skip


@pytest.fixture
def done(engines: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The jobs that were asked for, none of which is done."""
    jobs: list[Any] = []

    def measure(job: Any) -> dict[str, Any]:
        jobs.append(job)
        return measured(job)

    monkeypatch.setattr(engines, "measure", measure)
    return jobs


def test_what_an_earlier_call_has_measured_is_not_measured_again(
    engines: Any,
    done: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results, page = tmp_path / "kept.jsonl", tmp_path / "engines.md"
    command = ["engines.py", "cpu", "--parts", "adapters", "--results", str(results), "--markdown", str(page)]
    monkeypatch.setattr(sys, "argv", [*command, "--seconds", "0"])
    monkeypatch.setattr(engines.time, "perf_counter", iter(range(10_000)).__next__)
    engines.main()
    assert "the same command goes on" in capsys.readouterr().out
    assert "Unfinished" in page.read_text()
    monkeypatch.setattr(sys, "argv", command)
    engines.main()
    grid, variants = engines.grids("cpu", "cpu", False, ["adapters"])[0]
    planned = engines.jobs_of(grid, variants, 2, done[0].data_root, done[0].threads)
    assert [job.key for job in done] == [job.key for job in sorted(planned, key=lambda job: job.round)]
    assert len([job for job in planned if job.variant == "trainer, processes"]) == grid.runs == 12
    text = page.read_text()
    assert "- trainer against solo: 1.5x expected, 1.60x seen: reached." in text
    assert "- trainer against fused: 1.5x expected, 1.33x seen: NOT reached." in text
    assert "- trainer, processes against workers: 2.5x expected, 6.00x seen: reached." in text
    assert "- lora: 40% of the peak expected, 50% seen: reached." in text
    assert "| products | 30.0 | 75 % |" in text
    assert "| lora | 50 % | 10 % | 0.50 | 0.20 | 0.30 |" in text
    assert not results.exists()


def test_without_a_gpu_its_benchmark_runs_at_toy_sizes_and_writes_no_figures(
    engines: Any,
    done: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "engines.md"
    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    monkeypatch.setattr(sys, "argv", ["engines.py", "gpu", "--rounds", "1", "--markdown", str(page)])
    engines.main()
    assert "no NVIDIA GPU here" in capsys.readouterr().out
    assert {(job.grid.toy, job.grid.device) for job in done} == {(True, "cpu")}
    assert not page.exists()


def test_every_base_of_the_figures_is_there(engines: Any) -> None:
    from engines_bases import BASES

    planned = engines.grids("gpu", "cuda", False, [])
    assert {grid.base for grid, _ in planned} == set(BASES)
    assert {grid.runs for grid, _ in planned if grid.part == "growth"} == set(engines.GROWTH)
    job = engines.Job(planned[0][0], "fused", 0, "data", 2)
    assert engines.job_of(json.loads(json.dumps(engines.asdict(job)))) == job
