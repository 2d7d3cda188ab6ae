"""Who is tied with whom: the records' answers through the tests of `significance`, and what stops a claim."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from adaptlab.report.comparison import Comparison
from adaptlab.report.evidence import NoScores, RowScores, row_scores
from adaptlab.report.select import Selection, read_studies
from adaptlab.report.significance import MethodDifference, compare_methods, holm, mcnemar_mid_p
from adaptlab.report.summary import as_json, summary
from tests.report.build import METHODS, Run, answers_of, build_study, damage, standard_runs

FULL, LORA, IA3, BITFIT, HEAD = METHODS


def compared(folder: Path, runs: Sequence[Run], *, predictions: bool = True) -> Comparison:
    [found] = summary(read_studies([build_study(folder, runs, predictions=predictions)])).comparisons
    return found


@pytest.fixture(scope="module")
def sst2(selection: Selection) -> Comparison:
    [found] = [comparison for comparison in summary(selection).of_tasks if comparison.task == "sst2"]
    return found


def right(run: Run) -> np.ndarray:
    gold, predicted = (np.array(values) for values in answers_of(run))
    return (gold == predicted).astype(float)


def test_every_pair_has_the_claim_that_the_answers_give(sst2: Comparison) -> None:
    tables = {made.label: np.stack([right(Run(made, "sst2", seed)) for seed in (0, 1, 2)]) for made in METHODS}
    claims = {(p.first, p.second): compare_methods(tables[p.first], tables[p.second]) for p in sst2.pairs}
    assert len(claims) == 10
    made = [claim for claim in claims.values() if isinstance(claim, MethodDifference)]
    assert [pair.methods.p for pair in sst2.pairs] == pytest.approx([claim.p for claim in made])
    assert [pair.methods.adjusted_p for pair in sst2.pairs] == pytest.approx(holm([claim.p for claim in made]))
    for pair, claim in zip(sst2.pairs, made, strict=True):
        assert pair.methods.interval == pytest.approx(claim.interval)


def test_who_is_tied_with_the_best_follows_from_the_corrected_p_values(sst2: Comparison) -> None:
    assert sst2.best is not None
    assert [contender.name for contender in sst2.contenders] == ["full", "lora", "ia3", "bitfit", "head"]
    assert [contender.standing for contender in sst2.contenders] == ["best", "tied", "tied", "worse", "worse"]
    for contender in sst2.contenders[1:]:
        pair = sst2.pair("full", contender.name)
        assert pair is not None
        assert pair.methods.differ == (contender.standing == "worse")
        assert pair.power is not None
        assert (pair.power.seeds, pair.power.rows) == (3, 400)


def test_trained_models_are_chosen_by_selection_and_compared_by_mcnemar(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(made, seed=seed) for made in (FULL, LORA) for seed in (0, 1)])
    for path in (folder / "runs").glob("*/record.json"):
        document = json.loads(path.read_text())
        document["training"]["select_score"] = float(document["config"]["given"]["seed"] == 1)
        path.write_text(json.dumps(document))
    [found] = summary(read_studies([folder])).comparisons
    first, second = (right(Run(made, seed=1)) for made in (FULL, LORA))
    [pair] = found.pairs
    assert pair.models.subjects is not None
    assert [name.rsplit("-", 1)[0] for name in pair.models.subjects] == ["sst2-full-s1", "sst2-lora-s1"]
    expected = mcnemar_mid_p(int(np.sum(first > second)), int(np.sum(first < second)))
    assert pair.models.p == pytest.approx(expected)
    assert pair.methods.p is None
    assert "too few seeds (2" in (pair.methods.reason or "")
    assert [contender.standing for contender in found.contenders] == ["best", "open"]


def test_a_metric_of_the_whole_set_goes_by_jackknife_and_bootstrap(selection: Selection) -> None:
    run = next(row for row in selection.rows if row.task == "mrpc" and row.status == "finished")
    scores = row_scores(run)
    assert isinstance(scores, RowScores)
    assert not scores.own
    by_id = sorted(range(400), key=str)
    gold, predicted = (np.array(values)[by_id] for values in answers_of(Run(BITFIT, "mrpc", run.seed)))
    assert run.method == "bitfit"
    assert scores.values.mean() == pytest.approx(f1_score(gold, predicted))
    without = [f1_score(np.delete(gold, i), np.delete(predicted, i)) for i in range(20)]
    by_hand = f1_score(gold, predicted) * 400 - 399 * np.array(without)
    assert scores.values[:20] - scores.values[0] == pytest.approx(by_hand - by_hand[0])
    [mrpc] = [found for found in summary(selection).of_tasks if found.task == "mrpc"]
    assert {pair.models.test for pair in mrpc.pairs} == {"paired bootstrap"}


def test_over_tasks_a_variant_without_every_seed_is_named(selection: Selection) -> None:
    [over] = summary(selection).over_tasks
    assert over.tasks == ("mrpc", "sst2")
    assert over.metric == "accuracy and f1"
    missing = {contender.name: contender.missing for contender in over.contenders if contender.missing}
    assert missing == {"full": (("mrpc", 1),), "ia3": (("mrpc", 2),)}
    lora_head = over.pair("lora", "head")
    assert lora_head is not None
    assert lora_head.methods.differ
    assert lora_head.models.reason == "a model is of one task"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("other rows", "different rows"),
        ("other answers", "not those of the recorded score"),
        ("damaged", "predictions.parquet is damaged"),
        ("gone", "were not kept"),
    ],
)
def test_answers_that_support_no_claim_make_none(tmp_path: Path, broken: str, reason: str) -> None:
    folder = build_study(tmp_path / "study", [Run(made, seed=seed) for made in (FULL, LORA) for seed in (0, 1, 2)])
    path = next((folder / "runs").glob("sst2-lora-s0*")) / "predictions.parquet"
    if broken == "gone":
        path.unlink()
    elif broken == "damaged":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        table = pq.read_table(path)
        column, value = ("id", "x0") if broken == "other rows" else ("prediction", 1 - table["prediction"][0].as_py())
        values = [value, *table[column].to_pylist()[1:]]
        values = values if broken == "other rows" else [1 - v for v in table[column].to_pylist()]
        pq.write_table(table.set_column(table.column_names.index(column), column, [values]), path)
    [found] = summary(read_studies([folder])).comparisons
    [pair] = found.pairs
    assert pair.methods.p is None
    assert reason in (pair.methods.reason or "")
    assert [contender.standing for contender in found.contenders] == ["best", "open"]
    assert all(contender.score is not None for contender in found.contenders)


def test_methods_meet_on_equal_data_only(tmp_path: Path) -> None:
    runs = [Run(FULL, train_examples=2000), Run(LORA, train_examples=100), Run(LORA, train_examples=2000)]
    found = summary(read_studies([build_study(tmp_path / "study", runs)])).comparisons
    conditions = {dict(c.condition)["train_examples"]: [k.name for k in c.contenders] for c in found}
    assert conditions == {"100": ["lora"], "2000": ["full", "lora"]}


def test_a_lower_metric_is_better_where_the_record_says_so(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(FULL), Run(HEAD)], predictions=False)
    for path in (folder / "runs").glob("*/record.json"):
        document = json.loads(path.read_text())
        document["primary"] |= {"name": "mse", "higher_is_better": False}
        path.write_text(json.dumps(document))
    [found] = summary(read_studies([folder])).comparisons
    assert not found.higher_is_better
    assert [contender.name for contender in found.contenders] == ["head", "full"]


def test_runs_that_did_not_finish_are_counted_and_score_nothing(tmp_path: Path) -> None:
    found = compared(tmp_path / "study", [replace(Run(FULL), status="failed"), Run(LORA)])
    full = found.contenders[1]
    assert (full.name, full.runs, full.finished, dict(full.statuses)) == ("full", 1, 0, {"failed": 1})
    assert (full.score, full.standing, full.reason) == (None, "open", "no run has finished")
    assert found.pairs == ()


def test_draws_of_training_rows_are_the_replicates(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(made, seed=seed) for made in (FULL, LORA) for seed in range(6)])
    for path in (folder / "runs").glob("*/record.json"):
        document = json.loads(path.read_text())
        for config in ("given", "resolved"):
            document["config"][config]["task"]["data_seed"] = document["config"]["given"]["seed"] % 3
        path.write_text(json.dumps(document))
    [found] = summary(read_studies([folder])).comparisons
    tables = [
        np.stack([(right(Run(m, seed=d)) + right(Run(m, seed=d + 3))) / 2 for d in range(3)]) for m in (FULL, LORA)
    ]
    expected = compare_methods(*tables, paired=True)
    assert isinstance(expected, MethodDifference)
    assert found.pairs[0].methods.p == pytest.approx(expected.p)


def test_the_summary_is_plain_json_and_survives_damaged_records(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", standard_runs())
    named = damage(folder)
    document = as_json(summary(read_studies([folder])))
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again == document
    assert {problem["file"].split("/")[2] for problem in document["problems"]} == set(named)
    assert [comparison["task"] for comparison in document["comparisons"]] == ["mrpc", "sst2", None]
    assert document["comparisons"][1]["contenders"][0]["standing"] == "best"


def test_a_run_without_files_has_no_row_scores(selection: Selection) -> None:
    scores = row_scores(replace(selection.rows[0], folder=None))
    assert scores == NoScores("the answers to single rows are not known")
