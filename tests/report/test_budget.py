"""What a budget buys, baselines and mean costs, against numbers computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from adaptlab.report.baselines import baselines
from adaptlab.report.budget import Stairs, cost_to_reach, final, main_machine, mean_at, stairs, stairs_of, target_of
from adaptlab.report.costs import costs_of
from adaptlab.report.select import RunRow, read_studies
from adaptlab.report.statistics import cells
from adaptlab.runs.record import Cost, CurvePoint, DataPart, Environment, Primary

TWO = (Stairs((10.0, 30.0), (0.6, 0.8)), Stairs((20.0, 40.0), (0.5, 0.9)))


def run(seed: int = 0, score: float = 0.8, machine: str = "cpu", **changes: object) -> RunRow:
    row = RunRow(
        study="s",
        name=f"run-{seed}",
        id=str(seed),
        task="sst2",
        model="tiny",
        method="lora",
        method_name="lora",
        seed=seed,
        status="finished",
        primary=Primary(name="accuracy", value=score, stderr=None, n=10, evaluation_set="validation"),
        environment=Environment(fingerprint=machine),
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def point(step: int, score: float, seconds: float | None) -> CurvePoint:
    return CurvePoint(step=step, examples=step, tokens=step, seconds=seconds, metrics={"accuracy": score})


def test_stairs_rise_only_where_the_score_is_the_best_so_far() -> None:
    curve = (point(0, 0.5, 0.0), point(1, 0.7, 2.0), point(2, 0.6, 4.0), point(3, 0.75, 6.0))
    found = stairs(run(points=curve), "seconds")
    assert found == Stairs((0.0, 2.0, 6.0), (0.5, 0.7, 0.75))
    assert [found.at(budget) for budget in (-1.0, 0.0, 3.0, 5.9, 6.0)] == [None, 0.5, 0.7, 0.7, 0.75]


def test_of_a_loss_the_lowest_so_far_counts() -> None:
    primary = Primary(
        name="accuracy", value=1.0, stderr=None, n=10, evaluation_set="validation", higher_is_better=False
    )
    curve = (point(0, 3.0, 0.0), point(1, 3.5, 1.0), point(2, 2.0, 2.0))
    assert stairs(run(primary=primary, points=curve), "seconds") == Stairs((0.0, 2.0), (3.0, 2.0))


def test_a_seed_without_the_cost_leaves_the_method_without_stairs() -> None:
    rows = [run(0, points=(point(0, 0.5, 1.0),)), run(1, points=(point(0, 0.5, None),))]
    (cell,) = cells(rows)
    assert stairs_of(cell, "seconds") == []


def test_the_mean_waits_for_every_seed_and_its_cost_is_the_least_that_reaches_the_target() -> None:
    assert [mean_at(TWO, budget) for budget in (10.0, 20.0, 30.0, 40.0)] == pytest.approx([None, 0.55, 0.65, 0.85])
    assert final(TWO) == pytest.approx(0.85)
    assert cost_to_reach(TWO, 0.65, higher_is_better=True) == 30.0
    assert cost_to_reach(TWO, 0.66, higher_is_better=True) == 40.0
    assert cost_to_reach(TWO, 0.86, higher_is_better=True) is None


def test_shares_of_the_best_score() -> None:
    assert target_of(0.8, 0.95, higher_is_better=True) == pytest.approx(0.76)
    assert target_of(1.9, 0.95, higher_is_better=False) == pytest.approx(2.0)
    assert target_of(-0.1, 0.95, higher_is_better=True) is None
    assert target_of(-0.1, 1.0, higher_is_better=True) == -0.1


def test_the_machine_of_most_finished_runs() -> None:
    rows = [run(0, machine="gpu"), run(1), run(2), run(3, machine="gpu", status="failed")]
    assert main_machine(cells(rows)) == "cpu"
    assert main_machine([]) is None


def test_costs_are_means_over_seeds_and_clocks_stay_with_their_machine() -> None:
    spent = [(0, "cpu", 10.0), (1, "cpu", 14.0), (2, "gpu", 1.0)]
    rows = [run(s, machine=m, cost=Cost(train_seconds=t, train_flops=6e12 + s)) for s, m, t in spent]
    rows.append(run(3, status="failed", cost=Cost(train_seconds=999.0)))
    found = {(figure.name, figure.machine): figure for figure in costs_of(rows)}
    cpu, gpu, flops = found["train_seconds", "cpu"], found["train_seconds", "gpu"], found["train_flops", None]
    assert (cpu.mean, cpu.n) == (12.0, 2)
    assert cpu.std == pytest.approx(math.sqrt(8))
    assert (gpu.mean, gpu.std, gpu.n) == (1.0, None, 1)
    assert (flops.mean, flops.n) == (6e12 + 1, 3)


def test_chance_is_one_of_the_labels_and_zero_for_a_correlation() -> None:
    data = DataPart(id="d", fingerprint="f", labels=["a", "b", "c", "d"], sizes={})
    assert [(line.name, line.value) for line in baselines([run(data=data)])] == [("chance", 0.25)]
    mcc = Primary(name="mcc", value=0.3, stderr=None, n=10, evaluation_set="validation")
    assert [(line.name, line.value) for line in baselines([run(data=data, primary=mcc)])] == [("chance", 0.0)]


def test_zero_shot_is_the_mean_of_the_untrained_model_without_demonstrations() -> None:
    none = {"method": "none", "method_name": "none"}
    rows = [run(0, 0.5, **none), run(1, 0.6, **none), run(2, 0.9, **none, resolved={"shots": 4}), run(3, 0.8)]
    assert [(line.name, line.value) for line in baselines(rows)] == [("zero-shot", pytest.approx(0.55))]


def test_majority_is_the_share_of_the_most_frequent_right_answer(study: Path) -> None:
    rows = [row for row in read_studies([study]).rows if row.task == "sst2"]
    import pyarrow.parquet as pq

    folder = next(row.folder for row in rows if row.status == "finished")
    assert folder is not None
    gold = pq.read_table(folder / "predictions.parquet")["gold"].to_pylist()
    found = {line.name: line.value for line in baselines(rows)}
    assert found["majority"] == pytest.approx(max(gold.count(0), gold.count(1)) / len(gold))
    assert found["chance"] == 0.5
