"""Run folders become rows; what cannot be read is named and harms nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from adaptlab.errors import StudyError
from adaptlab.report.answer import answer
from adaptlab.report.select import Selection, curve_problems, read_studies
from adaptlab.report.tables import results_grid
from tests.report.build import METHODS, Run, build_study, damage, record_of, score_of, standard_runs


def test_rows_say_what_the_records_say(selection: Selection) -> None:
    made = {run.folder_name: run for run in standard_runs()}
    assert {row.name for row in selection.rows} == set(made)
    for row in selection.rows:
        run, record = made[row.name], record_of(made[row.name])
        assert (row.task, row.method, row.seed, row.status) == (run.task, run.made.label, run.seed, run.status)
        assert (row.primary, row.metrics, row.cost) == (record.primary, record.metrics, record.cost)
        assert (row.parameters, row.environment, row.error) == (record.parameters, record.environment, record.error)
        assert row.resolved["training"]["learning_rate"] == run.made.learning_rate
        assert row.score == (score_of(run) if run.status == "finished" else None)
    assert selection.problems == ()
    assert selection.studies == ("demo-study",)


def test_ten_unusable_records_are_named_and_change_nothing(tmp_path: Path, selection: Selection) -> None:
    folder = build_study(tmp_path / "demo-study", predictions=False)
    expected = damage(folder)
    read = read_studies([folder])
    assert len(read.problems) == len(expected) == 10
    for problem in read.problems:
        study, _, run, file = problem.file.split("/")
        assert (study, file) == ("demo-study", "record.json")
        assert expected[run] in problem.reason
        assert str(tmp_path) not in problem.reason
    assert [(row.name, row.score) for row in read.rows] == [(row.name, row.score) for row in selection.rows]


def test_a_run_that_has_not_started_is_no_problem_and_is_counted(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(METHODS[0])], predictions=False)
    (folder / "runs" / "sst2-lora-s0-00000000").mkdir()
    read = read_studies([folder])
    assert read.problems == ()
    assert read.waiting == ("sst2-lora-s0-00000000",)
    assert "Runs without a record yet: 1." in results_grid(read).notes
    assert "Runs that have not started: 1." in answer(read).doubts


def test_a_damaged_curve_is_named_and_only_its_curve_is_lost(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(METHODS[0], seed=seed) for seed in (0, 1)], predictions=False)
    broken, whole = sorted((folder / "runs").iterdir())
    lines = (broken / "curve.jsonl").read_text().splitlines()
    (broken / "curve.jsonl").write_text("\n".join([lines[0], '{"step": 20, "exam', *lines[2:]]) + "\n")
    (whole / "curve.jsonl").write_text((whole / "curve.jsonl").read_text() + '{"step": 14')  # torn while written
    rows = {row.name: row for row in read_studies([folder]).rows}
    assert rows[broken.name].curve.points == ()
    assert rows[broken.name].score is not None
    assert len(rows[whole.name].curve.points) == 7
    [problem] = curve_problems(rows.values())
    assert problem.file == f"study/runs/{broken.name}/curve.jsonl"
    assert "2 is damaged" in problem.reason


def test_a_run_without_curve_has_an_empty_one(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(METHODS[0], curve=False)], predictions=False)
    [row] = read_studies([folder]).rows
    assert row.curve.points == ()
    assert row.curve.problem is None


def test_only_options_that_vary_inside_a_variant_become_axes(tmp_path: Path) -> None:
    runs = [Run(made, train_examples=n) for made in METHODS for n in (100, 2000)]
    rows = read_studies([build_study(tmp_path / "study", runs, predictions=False)]).rows
    assert {tuple(row.setting) for row in rows} == {("train_examples",)}
    assert {row.setting["train_examples"] for row in rows} == {"100", "2000"}


def test_differences_between_methods_are_no_axes(selection: Selection) -> None:
    assert all(row.setting == {} for row in selection.rows)


def test_several_studies_are_merged_and_a_run_in_both_counts_once(tmp_path: Path) -> None:
    shared = Run(METHODS[0])
    first = build_study(tmp_path / "first", [shared, Run(METHODS[1])], predictions=False)
    second = build_study(tmp_path / "second", [Run(METHODS[2])], predictions=False)
    shutil.copytree(first / "runs" / shared.folder_name, second / "runs" / shared.folder_name)
    read = read_studies([first, second])
    assert read.studies == ("first", "second")
    assert sorted((row.study, row.method) for row in read.rows) == [
        ("first", "full"),
        ("first", "lora"),
        ("second", "ia3"),
    ]


def test_of_a_run_in_two_studies_the_finished_one_counts(tmp_path: Path) -> None:
    run = Run(METHODS[0])
    first = build_study(tmp_path / "first", [replace(run, status="interrupted")], predictions=False)
    second = build_study(tmp_path / "second", [run], predictions=False)
    assert [row.status for row in read_studies([first, second]).rows] == ["finished"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["org/bert", "org/roberta"], ["org/bert", "org/roberta"]),
        (["/home/a/site-packages/minilm/model"], ["minilm/model"]),
        (["./a/bert", "./b/bert"], ["a/bert", "b/bert"]),
        (["~/data/reviews.csv"], ["reviews.csv"]),
    ],
)
def test_models_are_called_by_the_shortest_telling_name(tmp_path: Path, given: list[str], shown: list[str]) -> None:
    runs = [Run(METHODS[0], model=model) for model in given]
    folder = build_study(tmp_path / "study", runs, predictions=False)
    assert sorted({row.model for row in read_studies([folder]).rows}) == shown


def test_a_folder_that_is_no_study_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no folder .*compare --out"):
        read_studies([tmp_path / "absent"])
    with pytest.raises(StudyError, match=r"is not a study .*compare --out"):
        read_studies([tmp_path])


def test_a_run_has_no_setting_that_it_does_not_look_at(tmp_path: Path) -> None:
    """What follows from the teacher that two distilled runs differ in is shown of them, and not of a supervised one."""
    full, lora = METHODS[:2]
    folder = build_study(tmp_path / "study", [Run(lora, seed=0), Run(lora, seed=1), Run(full)], predictions=False)
    for path in (folder / "runs").glob("*/record.json"):
        document = json.loads(path.read_text())
        for config in (document["config"]["given"], document["config"]["resolved"]):
            config["readout"] = "verbalizer"
            if config["method"]["name"] == "lora":
                config["objective"] = "context-distillation"
                config["answering"]["teacher"] = "frozen" if config["seed"] == 0 else "recursive"
        path.write_text(json.dumps(document))
    settings = {(row.method, row.seed): dict(row.setting) for row in read_studies([folder]).rows}
    assert settings == {("full", 0): {}, ("lora", 0): {"teacher": "frozen"}, ("lora", 1): {"teacher": "recursive"}}
