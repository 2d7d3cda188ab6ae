"""Means, spreads and intervals, held to scipy; cells and means over tasks, held to hand-made cases."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from adaptlab.report.select import RunRow, Selection, read_studies
from adaptlab.report.statistics import across_tasks, cells, summarise
from adaptlab.runs.record import Primary
from tests.report.build import METHODS, Run, build_study, diverged


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_a_summary_is_what_scipy_says(values: list[float]) -> None:
    summary = summarise(values)
    assert summary is not None
    n, std = len(values), float(scipy.stats.tstd(values)) if len(set(values)) > 1 else 0.0
    assert summary.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert summary.std == pytest.approx(std, abs=1e-9)
    if std > 1e-6:
        low, high = scipy.stats.t.interval(0.95, n - 1, loc=statistics.fmean(values), scale=std / math.sqrt(n))
        assert summary.interval == pytest.approx((low, high), rel=1e-6, abs=1e-9)


def test_one_value_has_no_spread_and_none_no_summary() -> None:
    single = summarise([0.5])
    assert single is not None
    assert (single.n, single.mean, single.std, single.interval) == (1, 0.5, None, None)
    assert summarise([]) is None


def test_an_undefined_value_is_not_averaged_away() -> None:
    summary = summarise([0.5, math.nan])
    assert summary is not None
    assert math.isnan(summary.mean)
    assert summary.n == 2


def test_a_cell_holds_the_seeds_of_one_method_and_counts_finished_runs_only(selection: Selection) -> None:
    by_key = {(cell.task, cell.method): cell for cell in cells(selection.rows)}
    assert len(by_key) == 10
    ia3 = by_key["mrpc", "ia3"]
    assert [run.seed for run in ia3.runs] == [0, 1, 2]
    assert ia3.score == summarise([run.score for run in ia3.runs if run.status == "finished" and run.score is not None])
    assert ia3.score is not None
    assert ia3.score.n == 2
    assert (ia3.metric, ia3.trainable, ia3.head) == ("f1", 13_824, 770)


def test_the_mean_over_tasks_is_formed_per_seed(selection: Selection) -> None:
    lora = next(variant for variant in across_tasks(selection.rows) if variant.method == "lora")
    scores = {(row.task, row.seed): row.score or 0.0 for row in selection.rows if row.method == "lora"}
    expected = summarise([(scores["sst2", seed] + scores["mrpc", seed]) / 2 for seed in (0, 1, 2)])
    assert lora.mean == expected
    assert lora.missing == ()
    # The spread of per-task means would be another number: seeds move both tasks together.
    assert expected is not None


def test_a_missing_task_is_shown_and_its_seed_left_out_of_the_mean(selection: Selection) -> None:
    ia3 = next(variant for variant in across_tasks(selection.rows) if variant.method == "ia3")
    assert ia3.missing == (("mrpc", (2, 0)),)
    assert ia3.mean is not None
    assert ia3.mean.n == 2


def test_a_task_never_run_leaves_no_mean(tmp_path: Path) -> None:
    runs = [Run(METHODS[0], "sst2"), Run(METHODS[0], "mrpc"), Run(METHODS[1], "sst2")]
    rows = read_studies([build_study(tmp_path / "study", runs, predictions=False)]).rows
    found = {variant.method: variant for variant in across_tasks(rows)}
    assert found["full"].mean is not None
    assert found["lora"].mean is None
    assert found["lora"].missing == (("mrpc", (0, 0)),)
    assert "mrpc" not in found["lora"].cells


def test_variants_are_sorted_best_first_and_those_without_score_come_last(tmp_path: Path) -> None:
    runs = [Run(made) for made in METHODS[1:]] + [diverged(Run(METHODS[0]))]
    rows = read_studies([build_study(tmp_path / "study", runs, predictions=False)]).rows
    assert [variant.method for variant in across_tasks(rows)] == ["lora", "ia3", "bitfit", "head", "full"]


def test_where_lower_is_better_the_lowest_is_first() -> None:
    rows = [_row(method, score, higher=False) for method, score in (("a", 0.3), ("b", 0.1), ("c", 0.2))]
    variants = across_tasks(rows)
    assert [variant.method for variant in variants] == ["b", "c", "a"]


def test_metrics_of_opposite_directions_have_no_common_mean() -> None:
    rows = [_row("a", 0.3, higher=False), replace(_row("a", 0.9, higher=True), task="u")]
    assert across_tasks(rows)[0].mean is None


def test_two_data_seeds_are_two_replicates() -> None:
    rows = [replace(_row("a", 0.3), data_seed=seed) for seed in (0, 1)]
    [cell] = cells(rows)
    assert cell.score is not None
    assert cell.score.n == 2


def _row(method: str, score: float, *, higher: bool = True) -> RunRow:
    primary = Primary(name="score", value=score, n=10, evaluation_set="test", higher_is_better=higher)
    return RunRow(
        study="s", name=method, id=method, task="t", model="m", method=method, method_name=method, seed=0,
        status="finished", primary=primary,
    )  # fmt: skip
