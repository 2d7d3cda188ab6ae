"""The engines' benchmark: what it plans and what it makes of results; `make bench-gpu` runs it for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
    results = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [r["variant"] for r in results] == ["fused", "solo", "trainer"] * 2
    assert all(len(r["scores"]) == r["runs"] for r in results)
    text = page.read_text()
    assert "## roberta-base" in text
    assert "Toy sizes" in text


def test_every_base_of_the_figures_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import engines
    from engines_bases import BASES

    planned = engines.grids("gpu", "cuda", False, [])
    assert {grid.base for grid, _ in planned} == set(BASES)
    assert {grid.runs for grid, _ in planned if grid.part == "growth"} == set(engines.GROWTH)
    job = engines.Job(planned[0][0], "fused", 0, "data", 2)
    assert engines.job_of(json.loads(json.dumps(engines.asdict(job)))) == job
