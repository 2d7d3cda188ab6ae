"""The answer in sentences: right with one seed, with two, with failures, and never more than the records say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adaptlab.report.answer import answer
from adaptlab.report.select import Selection, read_studies
from tests.report.build import METHODS, OTHER_MACHINE, Run, build_study, diverged


def test_the_answer_names_the_best_and_what_comes_close_for_less(tmp_path: Path) -> None:
    runs = [Run(made, seed=seed) for made in METHODS for seed in (0, 1, 2)]
    said = answer(read_studies([build_study(tmp_path / "study", runs, predictions=False)]))
    assert said.lead.startswith("On sst2, full scores best: accuracy 0.908 ± 0.010 over 3 seeds. lora is 0.019 behind")
    assert said.details == ()
    assert "not tested" in " ".join(said.doubts)


def test_the_answer_over_tasks_says_what_was_lost(selection: Selection) -> None:
    said = answer(selection)
    assert said.lead.startswith("Over 2 tasks, lora scores best: mean accuracy and f1 0.878 ± 0.006 over 3 seeds.")
    assert [detail.split(",")[0] for detail in said.details] == ["On mrpc", "On sst2"]
    assert "2 of 30 runs did not finish (1 diverged, 1 out of memory)" in " ".join(said.doubts)


def test_one_seed_is_a_doubt(tmp_path: Path) -> None:
    said = answer(read_studies([build_study(tmp_path / "study", [Run(made) for made in METHODS], predictions=False)]))
    assert "±" not in said.lead
    assert "within" not in said.lead
    assert "one seed" in said.doubts[0]


def test_clocks_of_two_machines_are_not_compared_in_the_answer(tmp_path: Path) -> None:
    runs = [Run(METHODS[0]), Run(METHODS[1], environment=OTHER_MACHINE)]
    said = answer(read_studies([build_study(tmp_path / "study", runs, predictions=False)]))
    assert "of its trained parameters" in said.lead
    assert "time" not in said.lead


def test_without_a_finished_run_there_is_no_answer(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [diverged(Run(METHODS[0]))], predictions=False)
    assert answer(read_studies([folder])).lead == "No run has finished with a score yet."


def test_a_head_alone_is_called_that(tmp_path: Path) -> None:
    runs = [Run(METHODS[0]), Run(METHODS[-1])]
    said = answer(read_studies([build_study(tmp_path / "study", runs, predictions=False)]))
    assert "with nothing but the head trained and 2" in said.lead


def test_a_difference_too_small_to_print_is_not_called_nothing(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(METHODS[0]), Run(METHODS[1])], predictions=False)
    rows = [
        replace(row, primary=row.primary.model_copy(update={"value": value}))
        for row, value in zip(read_studies([folder]).rows, (0.9, 0.9001), strict=True)
        if row.primary is not None
    ]
    assert " is less than 0.001 behind" in answer(Selection(("study",), tuple(rows))).lead
