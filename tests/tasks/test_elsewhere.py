"""Rows from elsewhere: added as report sets of their own, in classes that are said openly."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from adaptlab.config import TaskConfig
from adaptlab.errors import ConfigError, HubError
from adaptlab.metrics import Answers, read_as, score_set
from adaptlab.tasks import DataAccess, TaskData, find_task, load_task
from adaptlab.tasks._elsewhere import map_labels
from tests.tasks.golden_rows import ROWS
from tests.tasks.tables import pairs, write_parquet, write_rte

THREE = ("entailment", "neutral", "contradiction")
TWO = ("entailment", "not_entailment")
QQP, MRPC = ("not_duplicate", "duplicate"), ("not_equivalent", "equivalent")


def write_set(root: Path, folder: str, split: str, rows: str, times: int = 4) -> None:
    """The made-up rows of a task, several times over."""
    columns, names = ROWS[rows]
    many = {name: list(values) * times for name, values in columns.items()}
    many["premise"] = [f"{text} ({place})" for place, text in enumerate(many["premise"])]
    write_parquet(root / folder / f"{split}.parquet", many, {"label": names})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """rte and mnli to train on; hans, breaking-nli and med to look at."""
    write_rte(tmp_path)
    for split, count in (("train", 30), ("validation_matched", 12)):
        rows = pairs(count, split, classes=3)
        columns = {"premise": rows["sentence1"], "hypothesis": rows["sentence2"], "label": rows["label"]}
        write_parquet(tmp_path / "nyu-mll/glue/mnli" / f"{split}.parquet", columns, {"label": THREE})
    for split in ("train", "validation"):
        write_set(tmp_path, "jhu-cogsys/hans", split, "hans", times=8)
    write_set(tmp_path, "breaking_nli", "test", "breaking-nli")
    write_set(tmp_path, "med", "test", "med")
    return tmp_path


def load(root: Path, name: str = "mnli", *others: str, **more: object) -> TaskData:
    config = TaskConfig.model_validate({"name": name, "also_evaluate": others, **more})
    return load_task(config, DataAccess(data_root=str(root)))


@pytest.mark.parametrize(
    ("answered", "asked", "labels", "of_answer", "of_gold"),
    [
        (THREE, THREE, THREE, (0, 1, 2), (0, 1, 2)),
        (THREE, THREE[::-1], THREE, (0, 1, 2), (2, 1, 0)),
        (THREE, ("neutral", "entailment"), THREE, (0, 1, 2), (1, 0)),
        (THREE, ("entailment", "non-entailment"), ("entailment", "non-entailment"), (0, 1, 1), (0, 1)),
        (TWO, THREE, TWO, (0, 1), (0, 1, 1)),
        (("entailment", "contradiction"), THREE, TWO, (0, 1), (0, 1, 1)),
        (TWO[::-1], ("entailment", "non-entailment"), ("entailment", "non-entailment"), (1, 0), (0, 1)),
        (("neg", "pos"), ("negative", "positive"), ("negative", "positive"), (0, 1), (0, 1)),
        (QQP, MRPC, MRPC, (0, 1), (0, 1)),
    ],
)  # fmt: skip
def test_classes_are_scored_by_name_or_as_two(
    answered: tuple[str, ...],
    asked: tuple[str, ...],
    labels: tuple[str, ...],
    of_answer: tuple[int, ...],
    of_gold: tuple[int, ...],
) -> None:
    mapped = map_labels(answered, asked)
    assert mapped is not None
    assert (mapped.labels, mapped.of_answer, mapped.of_gold) == (labels, of_answer, of_gold)


@pytest.mark.parametrize(
    ("answered", "asked"),
    [(("negative", "positive"), ("negative", "neutral", "positive")), (THREE, ("no", "yes")), (THREE, ()), ((), THREE)],
)
def test_classes_that_nothing_makes_alike_are_not_scored(answered: tuple[str, ...], asked: tuple[str, ...]) -> None:
    assert map_labels(answered, asked) is None


def test_sets_from_elsewhere_stand_after_the_task_s_own(root: Path) -> None:
    alone, data = load(root), load(root, "mnli", "hans", "breaking-nli", "med")
    assert list(data.report) == ["validation_matched", "hans", "breaking-nli", "med"]
    assert list(data.out_of_domain) == ["hans", "breaking-nli", "med"]
    assert (data.train, data.select) == (alone.train, alone.select)
    assert len(data.report["hans"]) == 24, "all validation rows: none is needed for selection"
    hans = data.out_of_domain["hans"]
    assert hans.labels == ("entailment", "non-entailment")
    assert hans.of_answer == (0, 1, 1)
    assert hans.mapping == {
        "entailment": "entailment",
        "neutral": "non-entailment",
        "contradiction": "non-entailment",
        "non-entailment": "non-entailment",
    }
    assert data.out_of_domain["breaking-nli"].of_answer is None
    assert data.out_of_domain["breaking-nli"].mapping == {}
    prints = {load(root, "mnli", *others).fingerprint for others in ((), ("hans",), ("med",), ("hans", "med"))}
    assert len(prints) == 4


def test_rows_are_read_as_two_classes_where_the_run_has_two(root: Path) -> None:
    data = load(root, "mnli", "breaking-nli", prompt="true-or-false")
    assert data.labels == ("entailment", "contradiction")
    assert [row.label for row in data.report["breaking-nli"][:3]] == [0, 1, 1]
    assert data.out_of_domain["breaking-nli"].mapping["neutral"] == "not_entailment"


def test_fewer_rows_are_looked_at_where_fewer_are_asked_for(root: Path) -> None:
    assert [len(rows) for rows in load(root, "mnli", "hans", eval_examples=5).report.values()] == [5, 5]


def test_ones_own_rows_can_be_looked_at(root: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.csv"
    own.write_text("premise,hypothesis,label\na,b,neutral\nc,d,entailment\n")
    data = load(root, "mnli", str(own))
    assert [row.label for row in data.report["mine.csv"]] == [1, 0]
    assert data.out_of_domain["mine.csv"].task == "mine.csv"


@pytest.mark.parametrize(
    ("name", "others", "message"),
    [
        ("mnli", ("stdlib-docs",), "--also-evaluate stdlib-docs: its rows have 1 texts (text), those of the task 2"),
        ("mnli", ("hans", "hans"), "--also-evaluate hans: there is already a set called 'hans'"),
        ("stdlib-docs", ("hans",), "--also-evaluate hans: its rows have 2 texts (premise, hypothesis)"),
        ("med", (), "The task 'med' has no training rows: give it with --also-evaluate, beside another --task."),
    ],
)
def test_rows_that_a_run_cannot_answer_are_refused(
    name: str, others: tuple[str, ...], message: str, root: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(root, name, *others)


def test_what_is_on_no_hub_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"med is not on the hub: give --data-root DIR .* med/<split>.parquet in it"):
        find_task("med").look(TaskConfig(name="med"), DataAccess(data_root=str(tmp_path)))


def test_answers_are_mapped_and_probabilities_added() -> None:
    probabilities = np.array([[0.4, 0.3, 0.3], [0.1, 0.2, 0.7], [0.5, 0.2, 0.3]])
    answers = Answers(np.array([0, 1, 1]), np.array([0, 2, -1]), probabilities, 3)
    two = read_as(answers, (0, 1, 1), 2)
    assert two.predicted.tolist() == [0, 1, -1]
    assert two.probabilities == pytest.approx(np.array([[0.4, 0.6], [0.1, 0.9], [0.5, 0.5]]))
    assert two.classes == 2


def test_a_set_is_scored_in_its_own_classes_and_by_its_parts(root: Path) -> None:
    data = load(root, "mnli", "hans")
    gold = np.array([row.label for row in data.report["hans"]])
    always_neutral = Answers(gold, np.ones(24, dtype=int), np.tile([0.3, 0.4, 0.3], (24, 1)), 3)
    answers, values = score_set(always_neutral, data, "hans")
    assert answers.classes == 2
    assert values["accuracy"] == pytest.approx(1 / 3)
    assert values["accuracy[lexical_overlap]"] == 0
    assert values["accuracy[subsequence/non-entailment]"] == 1
    assert values["accuracy[sn_NP/S]"] == 1
    assert values["n"] == 24


@pytest.mark.parametrize(("name", "count", "part"), [("breaking-nli", 8193, "colors"), ("med", 5382, "npi")])
def test_the_real_rows(name: str, count: int, part: str, data_root: Path) -> None:
    looked = find_task(name).look(TaskConfig(name=name), DataAccess(data_root=str(data_root)))
    (rows,) = looked.report.values()
    assert len(rows) == count
    assert any(part in row.groups for row in rows)
    assert {row.label for row in rows} == set(range(len(looked.labels)))


def test_the_real_hans_is_looked_at_whole(data_root: Path) -> None:
    looked = find_task("hans").look(TaskConfig(name="hans"), DataAccess(data_root=str(data_root)))
    (rows,) = looked.report.values()
    assert len(rows) == 30_000
    assert len({group for row in rows for group in row.groups}) == 3 + 6 + 30
