"""``--where``: which runs fit, and what is said when none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptlab.errors import ConfigError
from adaptlab.report import write_report
from adaptlab.report.answer import answer
from adaptlab.report.select import Selection
from adaptlab.report.where import Condition, parse, select


def names(selection: Selection, *texts: str) -> set[tuple[str, str, int]]:
    return {(row.task, row.method, row.seed) for row in select(selection, parse(texts)).rows}


ALL = {(t, m, s) for t in ("sst2", "mrpc") for m in ("full", "lora", "ia3", "bitfit", "head") for s in (0, 1, 2)}


@pytest.mark.parametrize(
    ("texts", "fits"),
    [
        (["method=lora"], lambda t, m, s: m == "lora"),
        (["method=lora,task=sst2"], lambda t, m, s: m == "lora" and t == "sst2"),
        (["method=lora,full,task=sst2"], lambda t, m, s: m in ("lora", "full") and t == "sst2"),
        (["method=lora", "seed=0,2"], lambda t, m, s: m == "lora" and s in (0, 2)),
        (["method!=full,head"], lambda t, m, s: m not in ("full", "head")),
        (["task=sst*"], lambda t, m, s: t == "sst2"),
        (["learning-rate=5e-4"], lambda t, m, s: m == "lora"),
        (["training.learning_rate=0.0005"], lambda t, m, s: m == "lora"),
        (["status=diverged"], lambda t, m, s: (t, m, s) == ("mrpc", "ia3", 2)),
        (["r=8"], lambda t, m, s: m == "lora"),
        ([], lambda t, m, s: True),
    ],
)
def test_the_runs_that_fit(selection: Selection, texts: list[str], fits: object) -> None:
    assert callable(fits)
    assert names(selection, *texts) == {run for run in ALL if fits(*run)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lora", "'lora' is no condition"),
        ("method=", "'method=' is no condition"),
        ("methd=lora", "no run has 'methd'; give method"),
        ("method=dora", "No run fits --where method=dora: method is bitfit, full, head, ia3, lora"),
    ],
)
def test_what_cannot_fit_is_an_error_that_says_what_could(selection: Selection, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r".*" + words.replace("(", r"\(")):
        select(selection, parse([text]))


def test_a_condition_is_written_as_it_is_read() -> None:
    assert [str(condition) for condition in parse(["a=1,2,b!=x"])] == ["a=1,2", "b!=x"]
    assert parse(["a = x y"]) == (Condition("a", ("x y",)),)


def test_a_filtered_report_says_so_and_leaves_the_whole_one_alone(study: Path) -> None:
    paths = write_report([study], where=["method=lora,full", "task=sst2"])
    assert paths.page.parent.name == "report-method=lora-full-task=sst2"
    text = paths.markdown.read_text()
    assert "Shown are the runs with method=lora,full,task=sst2: 6 of 30" in text
    assert "mrpc" not in text
    assert len(paths.csv.read_text().splitlines()) == 7


def test_the_answer_names_the_condition(selection: Selection) -> None:
    assert "6 of 30" in answer(select(selection, parse(["method=lora"]))).doubts[0]
