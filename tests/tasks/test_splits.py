"""Three splits, three uses: who trains, who selects, who is looked at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from adaptlab.config import TaskConfig
from adaptlab.errors import DataError
from adaptlab.tasks import Example, Kind, TaskData
from adaptlab.tasks._splits import Published, assemble, divide, normalised, take

LABELS = ("no", "yes")


def rows(count: int, split: str = "train", shares: tuple[int, ...] = (2, 1)) -> list[Example]:
    """``count`` different rows; classes occur in the proportion of ``shares``."""
    cycle = [label for label, share in enumerate(shares) for _ in range(share)]
    return [Example(f"{split}/{i}", (f"{split} text {i}",), cycle[i % len(cycle)]) for i in range(count)]


def build(
    published: Published, kind: Kind = "classification", labels: tuple[str, ...] = LABELS, **config: object
) -> TaskData:
    return assemble(
        published,
        kind=kind,
        labels=labels if kind == "classification" else (),
        metrics=("accuracy",),
        config=TaskConfig.model_validate({"name": "t", **config}),
        source="my.csv",
        columns=("text",),
    )


def ids(examples: Sequence[Example]) -> set[str]:
    return {example.id for example in examples}


def share_of_yes(examples: Sequence[Example]) -> float:
    return Counter(example.label for example in examples)[1] / len(examples)


def test_three_labelled_splits_stay_as_they_are() -> None:
    train, validation, test = rows(30), rows(8, "validation"), rows(9, "test")
    data = build(Published(train, validation, test))
    assert (data.train, data.select, dict(data.report)) == (train, validation, {"test": test})


@pytest.mark.parametrize("count", [20, 21])
def test_validation_is_halved_by_class_where_there_is_no_test(count: int) -> None:
    train, validation = rows(30), rows(count, "validation")
    data = build(Published(train, validation, report_name="validation"))
    report = data.report["validation"]
    assert data.train == train
    assert len(data.select) == count // 2
    assert ids(data.select) | ids(report) == ids(validation)
    assert ids(data.select).isdisjoint(ids(report))
    assert share_of_yes(data.select) == pytest.approx(share_of_yes(report), abs=0.15)


def test_the_halves_do_not_depend_on_data_seed_or_order() -> None:
    train, validation = rows(30), rows(20, "validation")
    first = build(Published(train, validation), data_seed=0)
    second = build(Published(train, validation[::-1]), data_seed=1)
    assert ids(first.select) == ids(second.select)


@pytest.mark.parametrize(("count", "selects"), [(300, 30), (30_000, 2000)])
def test_a_tenth_of_training_but_no_more_than_2000_rows_selects_where_there_is_no_validation(
    count: int, selects: int
) -> None:
    train, test = rows(count), rows(50, "test")
    data = build(Published(train, (), test))
    assert len(data.select) == selects
    assert len(data.train) == count - selects
    assert ids(data.select).isdisjoint(ids(data.train))
    assert data.report["test"] == test
    assert share_of_yes(data.select) == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("count", [10, 25, 200, 1003])
def test_one_set_is_divided_80_10_10(count: int) -> None:
    data = build(Published(rows(count)))
    tenth = round(count / 10)
    assert (len(data.select), len(data.report["test"])) == (tenth, tenth)
    assert len(data.train) == count - 2 * tenth
    assert ids(data.train) | ids(data.select) | ids(data.report["test"]) == ids(rows(count))


def test_rows_keep_their_order() -> None:
    data = build(Published(rows(100)), train_examples=40)
    places = [int(row.id.split("/")[1]) for row in data.train]
    assert places == sorted(places)


def test_rows_with_the_same_text_never_stand_on_both_sides() -> None:
    twins = [Example(f"train/{i}", (f"Text  {i // 4}" if i % 2 else f"text {i // 4}",), i // 4 % 2) for i in range(400)]
    data = build(Published(twins))
    sides = [{normalised(row) for row in part} for part in (data.train, data.select, data.report["test"])]
    assert sides[0].isdisjoint(sides[1] | sides[2])
    assert sides[1].isdisjoint(sides[2])
    assert 30 <= len(data.select) <= 50
    assert not data.warnings


def test_each_class_gives_its_share_to_within_a_row() -> None:
    taken, rest = take(rows(1000, shares=(7, 2, 1)), 100, salt="x", stratify=True)
    assert len(taken) == 100
    assert len(rest) == 900
    counts = Counter(row.label for row in taken)
    assert all(abs(counts[label] - expected) <= 1 for label, expected in enumerate((70, 20, 10)))


def test_another_salt_takes_other_rows() -> None:
    first, _ = take(rows(1000), 100, salt="x", stratify=True)
    second, _ = take(rows(1000), 100, salt="y", stratify=True)
    assert ids(first) != ids(second)


def test_the_only_row_of_a_class_stays_in_training_and_that_is_said() -> None:
    lone = Example("train/999", ("the only one",), 2)
    data = build(Published([*rows(50), lone]), labels=("no", "yes", "perhaps"))
    assert lone in data.train
    assert data.warnings == ("Class 'perhaps' has one row, which stays in training: no score is about it.",)


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (
            Published(rows(9)),
            "my.csv has 9 training rows and no validation rows: too few rows to split, give at least 10",
        ),
        (Published(rows(9), (), rows(5, "test")), "my.csv has 9 training rows and no validation rows: too few rows"),
        (
            Published(rows(30), rows(1, "validation")),
            "my.csv has 1 validation row and no test rows: too few rows to split",
        ),
        (
            Published([Example(f"train/{i}", ("same",), i % 2) for i in range(20)]),
            "my.csv has too few different rows to split: none is left for",
        ),
    ],
)
def test_too_few_rows_to_split(published: Published, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(published)


def test_training_with_one_class_only_is_refused() -> None:
    with pytest.raises(DataError, match=r"my.csv: all 30 training rows have the label 'no': a task needs at least two"):
        build(Published(rows(30, shares=(1,)), rows(4, "validation")))


def test_regression_with_one_value_only_is_refused() -> None:
    same = [Example(f"train/{i}", (f"{i}",), 1.5) for i in range(20)]
    with pytest.raises(DataError, match=r"all 16 training rows have the label '1.5'"):
        build(Published(same), kind="regression")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_training_never_has_is_named(split: str) -> None:
    splits = {"validation": rows(6, "validation"), "test": rows(6, "test")}
    splits[split].append(Example(f"{split}/6", ("new",), 2))
    with pytest.raises(
        DataError, match=rf"the label 'perhaps' of row {split}/6 .* never occurs in training.*'no', 'yes'"
    ):
        build(Published(rows(30), splits["validation"], splits["test"]), labels=(*LABELS, "perhaps"))


def test_what_counts_is_the_full_training_split_not_the_few_examples_taken_from_it() -> None:
    data = build(Published(rows(30), rows(6, "validation"), rows(6, "test")), train_examples=1)
    (message,) = data.warnings
    assert message in {
        f"Training on 1 example without '{label}': no run can learn what it is not shown." for label in LABELS
    }


@pytest.mark.parametrize(
    ("key", "of"), [("train_examples", "train"), ("select_examples", "select"), ("eval_examples", "report")]
)
def test_subsets_are_nested_and_of_the_size_asked_for(key: str, of: str) -> None:
    published = Published(rows(200), rows(100, "validation"), rows(100, "test"))

    def subset(count: int | str, seed: int = 0) -> set[str]:
        data = build(published, data_seed=seed, **{key: count})
        return ids(data.report["test"] if of == "report" else getattr(data, of))

    sizes = [2, 10, 50, "all"]
    nested = [subset(size) for size in sizes]
    assert [len(part) for part in nested[:3]] == sizes[:3]
    assert all(smaller < larger for smaller, larger in pairwise(nested))
    # Runs of different data seeds answer the same questions.
    assert (subset(10, seed=1) == subset(10)) is (of == "report")


def test_more_examples_than_there_are_is_a_warning() -> None:
    data = build(Published(rows(30), rows(6, "validation"), rows(6, "test")), train_examples=500)
    assert len(data.train) == 30
    assert data.warnings == ("500 training examples were asked for and there are 30: all are used.",)


def test_overlap_between_published_splits_is_counted_and_left_in() -> None:
    test = [*rows(6, "test"), Example("test/6", ("TRAIN  text 3",), 0), Example("test/7", ("validation text 1",), 0)]
    data = build(Published(rows(30), rows(6, "validation"), test))
    assert len(data.report["test"]) == 8
    assert data.warnings == (
        "1 of 8 rows of test have the same text as a training row.",
        "1 of 8 rows of test have the same text as a selection row.",
    )


def test_further_evaluation_sets_are_reported_after_the_primary_one() -> None:
    more = rows(5, "mismatched")
    data = build(Published(rows(30), rows(8, "matched"), report_name="matched", more={"mismatched": more}))
    assert list(data.report) == ["matched", "mismatched"]
    assert data.report["mismatched"] == more


def test_the_fingerprint_is_of_the_rows_used() -> None:
    published = Published(rows(50), rows(8, "validation"), rows(8, "test"))
    first = build(published).fingerprint
    assert first.startswith("sha256:")
    assert build(published).fingerprint == first
    assert build(published, train_examples=20).fingerprint != first
    changed = [*published.test[:-1], Example("test/7", ("test text 7",), 1)]
    assert published.test[-1].label != 1
    assert build(Published(published.train, published.validation, changed)).fingerprint != first


def test_every_row_counts_for_the_fingerprint_wherever_it_stands() -> None:
    train, validation, test = rows(50), rows(8, "validation"), rows(8, "test")
    prints = {build(Published(train, validation, test)).fingerprint}
    for split in range(3):
        parts = [list(train), list(validation), list(test)]
        parts[split][3] = Example(parts[split][3].id, ("another text",), parts[split][3].label)
        prints.add(build(Published(*parts)).fingerprint)
    prints.add(build(Published(train[::-1], validation, test)).fingerprint)
    assert len(prints) == 5


def test_regression_is_divided_without_classes() -> None:
    numbers = [Example(f"train/{i}", (f"text {i}",), i / 10) for i in range(100)]
    divided = divide(Published(numbers), "regression", (), "my.csv")
    assert (len(divided.train), len(divided.select), len(divided.report["test"])) == (80, 10, 10)


def test_a_class_that_the_prompt_has_no_word_for_is_left_out_with_its_rows() -> None:
    published = Published(rows(30, shares=(1, 1, 1)), rows(12, "validation", shares=(1, 1, 1)))
    labels = ("no", "perhaps", "yes")
    prompt = {"name": "p", "template": "{text}", "answers": {"no": "No", "perhaps": None, "yes": "Yes"}}
    whole = build(published, labels=labels)
    data = build(published, labels=labels, prompts=[prompt], prompt="p", train_examples=8)
    assert (data.labels, data.prompts[0].answers) == (("no", "yes"), ("No", "Yes"))
    assert len(data.train) == 8
    for kept, every in ((data.select, whole.select), (data.report["test"], whole.report["test"])):
        assert [(row.id, data.labels[row.label]) for row in kept] == [
            (row.id, labels[row.label]) for row in every if row.label != 1
        ]
    assert "The prompt 'p' asks for no 'perhaps': rows of that class are left out." in data.warnings


def test_what_only_some_rows_have_counts_for_the_fingerprint_where_they_have_it() -> None:
    def print_of(**more: object) -> str:
        test = [replace(row, **more) for row in rows(6, "test")]
        return build(Published(rows(50), rows(8, "validation"), test)).fingerprint

    assert len({print_of(), print_of(choices=("a",)), print_of(references=("a",)), print_of(groups=("a",))}) == 4
    assert print_of(choices=()) == print_of()


def test_balanced_subsets_take_the_classes_in_turn_and_are_nested() -> None:
    published = Published(rows(300, shares=(8, 1, 1)), rows(60, "validation"), rows(60, "test"))
    labels = ("no", "yes", "perhaps")

    def subset(count: int | str, **more: object) -> list[Example]:
        return list(build(published, labels=labels, train_examples=count, **more).train)

    for seed in (0, 1):
        sizes = [2, 3, 4, 16, 90, 200, "all"]
        taken = [subset(size, balanced=True, data_seed=seed) for size in sizes]
        assert all(ids(fewer) < ids(more) for fewer, more in pairwise(taken))
        for part in taken[1:5]:
            counts = Counter(row.label for row in part)
            assert max(counts.values()) - min(counts[label] for label in range(3)) <= 1
        assert Counter(row.label for row in taken[5]) == {0: 140, 1: 30, 2: 30}, "a class that is used up gives no more"
    assert ids(subset(30, balanced=True)) != ids(subset(30, balanced=True, data_seed=1))
    assert Counter(row.label for row in subset(90))[0] > 60
