"""Generation metrics are the libraries' own, and a row's other right texts count."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from adaptlab.errors import ConfigError
from adaptlab.metrics import Answers, as_objects, breakdown, registry, score, standard_error
from adaptlab.metrics.generation import distractors, final_number
from adaptlab.tasks import Example

RIGHT = (
    ("The Eagle is a cheap coffee shop near the river.", "A cheap coffee shop by the river is The Eagle."),
    ("Alimentum is not family-friendly.",),
    ("There is a pub called The Mill.", "The Mill is a pub.", "The Mill, a pub, is there."),
)
WRITTEN = ("The Eagle is a coffee shop near the river.", "", "The Mill is a pub.")


def answers(written: Sequence[str] = WRITTEN, right: Sequence[tuple[str, ...]] = RIGHT) -> Answers:
    rows = [Example(str(n), ("",), texts[0], references=texts) for n, texts in enumerate(right)]
    return Answers(
        as_objects([row.label for row in rows]), as_objects(written), None, 0, as_objects(rows), written=True
    )


def drawn(items: int) -> Answers:
    """Three wrong options each, with a number; what is written is right, wrong, too short or empty in turn."""
    rows = [
        Example(str(n), (f"the answer {n}",), f"first {n} <sep> second {n} <sep> the third is {n}", groups=("all",))
        for n in range(items)
    ]
    faults = (
        lambda n: str(rows[n].label),
        lambda n: f"the answer {n} <sep> second {n} <sep> second {n}",
        lambda n: f"first {n}",
        lambda n: "",
    )
    written = [faults[n % 4](n) for n in range(items)]
    return Answers(as_objects([row.label for row in rows]), as_objects(written), None, 0, as_objects(rows))


def columns() -> list[list[str | None]]:
    return [[texts[place] if place < len(texts) else None for texts in RIGHT] for place in range(3)]


def value(name: str, given: Answers) -> float:
    return registry.get(name).compute(given)


def test_bleu_and_chrf_are_sacrebleu_s_over_all_texts_and_references() -> None:
    assert value("bleu", answers()) == pytest.approx(BLEU().corpus_score(list(WRITTEN), columns()).score)
    assert value("chrf", answers()) == pytest.approx(CHRF().corpus_score(list(WRITTEN), columns()).score)


@pytest.mark.parametrize(("name", "variant"), [("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL")])
def test_rouge_is_rouge_score_s(name: str, variant: str) -> None:
    scorer = RougeScorer([variant], use_stemmer=True)
    expected = [
        max(scorer.score(r, text)[variant].fmeasure for r in right) for right, text in zip(RIGHT, WRITTEN, strict=True)
    ]
    assert value(name, answers()) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_the_error_of_a_corpus_metric_is_the_spread_over_resamples(name: str) -> None:
    many = answers(WRITTEN * 8, RIGHT * 8)
    generator, metric = np.random.default_rng(1), registry.get(name)
    counts = np.stack([np.bincount(generator.integers(0, 24, 24), minlength=24) for _ in range(200)])
    spread = np.std(metric.resampled(many, counts), ddof=1)
    assert standard_error(name, many, resamples=400) == pytest.approx(spread, rel=0.25)
    repeated = answers(*(np.repeat(as_objects(list(texts) * 8), counts[0]) for texts in (WRITTEN, RIGHT)))
    assert metric.resampled(many, counts[:1])[0] == pytest.approx(metric.compute(repeated))


def test_nothing_written_is_wrong_and_counted() -> None:
    found = score(answers(), "generation", ("bleu",))
    assert found["unusable"] == pytest.approx(1 / 3)
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert value("bleu", answers(("", "", ""))) == 0
    assert value("rouge_l", answers(("", "", ""))) == 0


def test_unusable_answers_of_classes_are_counted_where_they_were_written_freely() -> None:
    free = Answers(np.array([0, 1, 1]), np.array([0, -1, 1]), None, 2, written=True)
    assert score(free, "classification", ("accuracy",))["unusable"] == pytest.approx(1 / 3)
    chosen = Answers(np.array([0, 1]), np.array([0, 1]), np.eye(2), 2)
    assert "unusable" not in score(chosen, "classification", ("accuracy",))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 + 4 = 7 eggs.\n#### 7", 7),
        ("#### 1,200", 1200),
        ("so the answer is $2.50.", 2.5),
        ("#### -3\nQuestion: 4", -3),
        ("no number", None),
        ("", None),
    ],
)
def test_the_final_number_of_an_answer(text: str, number: float | None) -> None:
    assert final_number(text) == number


def test_gsm8k_counts_the_number_alone() -> None:
    gold = as_objects(["48/2 = 24\n#### 72", "#### 10", "#### 5"])
    given = Answers(gold, as_objects(["It is 72.", "#### 11", "who knows"]), None, 0)
    assert value("final_answer", given) == pytest.approx(1 / 3)
    assert value("final_answer_given", given) == pytest.approx(2 / 3)


def test_distractors_are_counted_told_apart_and_held_against_the_answer() -> None:
    assert distractors(" A  b <sep>  <sep>C") == ["a b", "c"]
    rows = as_objects([Example(str(n), ("Paris", "q", "a"), "Rome <sep> Oslo <sep> Bonn") for n in range(4)])
    written = ["Rome <sep> Oslo <sep> Bonn", "Rome <sep> rome <sep> paris", "Oslo", ""]
    given = Answers(as_objects([row.label for row in rows]), as_objects(written), None, 0, rows)
    assert value("distractors_distinct", given) == pytest.approx((1 + 2 / 3 + 1 / 3 + 0) / 4)
    assert value("distractors_complete", given) == 0.5
    assert value("distractors_equal_answer", given) == 0.25


def test_parts_of_a_set_are_scored_apart() -> None:
    given = Answers(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 0]), None, 2)
    assert breakdown(given, [("a",), ("a", "b"), ("b",), ()], "accuracy") == {"accuracy[a]": 0.5, "accuracy[b]": 0.5}


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ConfigError, match=r"'bleu' needs sacrebleu: .* pip install 'adaptlab\[generation\]'"):
        registry.get("bleu").require()


def test_stance_is_scored_over_against_and_favor() -> None:
    given = Answers(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]), None, 3)
    assert value("macro_f1_but_first", given) == pytest.approx((2 / 3 + 2 / 3) / 2)
