"""The benchmark's own arithmetic and bookkeeping; the runs themselves are its business."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import versus_trainer as bench

HERE = bench.environment(threads=2)


def result(variant: str, seed: int, seconds: float, accuracy: float, examples: int = 2000) -> bench.Result:
    dtype = "bfloat16" if variant in (bench.OURS, bench.GROUPED_BF16) else "float32"
    return bench.Result(variant, examples, seed, seconds, seconds + 2, accuracy, 2**30, dtype, HERE)


def test_variants_take_turns_and_padding_is_measured_once() -> None:
    jobs = list(bench.plan([2000, 8000], 5))
    assert len(jobs) == len(set(jobs)) == 5 * len(bench.VARIANTS) + 5 * (len(bench.VARIANTS) - 1)
    assert {job.examples for job in jobs if job.variant == bench.PADDED} == {2000}
    firsts = [next(job.variant for job in jobs if (job.examples, job.seed) == (2000, seed)) for seed in range(5)]
    assert len(set(firsts)) == 5


def test_ratios_are_of_medians_and_misses_are_said() -> None:
    results = [result(bench.OURS, seed, 4.0 + seed, 0.80 + 0.01 * seed) for seed in range(3)]
    results += [result(bench.GROUPED, seed, 6.0 + seed, 0.80 + 0.01 * seed) for seed in range(3)]
    results += [result(bench.DYNAMIC, seed, 50.0, 0.60 + 0.001 * seed) for seed in range(3)]
    floor = bench.Floor(2000, 4.0, 1.0, HERE)
    text = bench.summary(results, [floor], [2000])
    assert "| Trainer, grouped by length | 7.0 | 9.0 | 1.40x | 1.29x | 81.00 ± 1.00 | +0.00 [-2.27, +2.27] |" in text
    assert "1.5x expected, 1.40x seen: NOT reached" in text
    assert "3x expected, 10.00x seen: reached" in text
    assert "Accuracy DIFFERS from *Trainer, dynamic padding*" in text
    assert "DIFFERS from *Trainer, grouped by length*" not in text
    assert "adaptlab 20 %" in text


def test_the_interval_is_welchs() -> None:
    ours, theirs = [0.80, 0.82, 0.81, 0.83, 0.79], [0.78, 0.80, 0.79, 0.81, 0.77]
    difference, low, high = bench.accuracy_difference(ours, theirs)
    # Equal variances of 0.00025 and n = 5 each: t(8) = 2.306, standard error 0.01.
    assert difference == pytest.approx(0.02)
    assert (low, high) == (pytest.approx(0.02 - 0.02306, abs=1e-5), pytest.approx(0.02 + 0.02306, abs=1e-5))
    assert bench.accuracy_difference([0.5, 0.5], [0.5, 0.5]) == (0.0, 0.0, 0.0)


def test_results_of_another_machine_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    elsewhere = {**HERE, "processor": "another"}
    mine, other = result(bench.OURS, 0, 1.0, 0.8), asdict(result(bench.OURS, 1, 9.0, 0.8))
    floor = bench.Floor(2000, 4.0, 1.0, HERE)
    lines = [asdict(mine), {**other, "environment": elsewhere}, asdict(floor)]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    assert bench.read_results(path, HERE) == ([mine], [floor])
    assert bench.read_results(tmp_path / "absent.jsonl", HERE) == ([], [])


def test_the_page_names_machine_versions_and_command(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    bench.write_markdown(page, "the tables", HERE, "python benchmarks/versus_trainer.py --seeds 5")
    text = page.read_text()
    for expected in (HERE["processor"], HERE["torch"], "python benchmarks/versus_trainer.py --seeds 5", "the tables"):
        assert expected in text
