"""Tables: golden texts, and what must never be said."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from adaptlab.report.markup import latex, latex_text, markdown
from adaptlab.report.page import page
from adaptlab.report.select import Selection, read_studies
from adaptlab.report.sheets import methods_sheet, pairs_sheet, runs_sheet
from adaptlab.report.summary import as_json, summary
from adaptlab.report.tables import results_grid
from adaptlab.report.terminal import terminal_report
from tests.report.build import METHODS, OTHER_MACHINE, Run, build_study, damage, diverged, out_of_memory, score_of

GOLDEN = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """``text`` is what tests/report/golden has; ADAPTLAB_WRITE_GOLDEN=1 writes it anew, to be read before a commit."""
    path = GOLDEN / name
    if os.environ.get("ADAPTLAB_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def shown(folder: Path, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(terminal_report(read_studies([folder])))
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in written.splitlines()) + "\n"


def test_the_terminal_table(study: Path) -> None:
    check_golden("terminal.txt", shown(study))


def test_the_markdown_table(selection: Selection) -> None:
    check_golden("results.md", markdown(selection))


def test_the_latex_table(selection: Selection) -> None:
    check_golden("results.tex", latex(selection))


def test_the_best_and_what_is_tied_with_it_is_bold(selection: Selection) -> None:
    grid = results_grid(selection)
    titled = [
        (line[0].text, column.title, entry)
        for line in grid.lines
        for column, entry in zip(grid.columns, line, strict=True)
    ]
    best = {(method, title) for method, title, entry in titled if entry.best}
    tied = {(method, "sst2 accuracy") for method in ("full", "lora", "ia3")}
    assert best == {("lora", "mrpc f1"), *tied, ("lora", "mean of tasks")}
    assert any("full on mrpc, ia3 on mrpc" in note and "too few seeds" in note for note in grid.notes)


def test_one_seed_is_said_and_never_given_a_spread(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(made) for made in METHODS], predictions=False)
    for text in (shown(folder), markdown(read_studies([folder])), latex(read_studies([folder]))):
        table = text.partition("Scores are")[0]
        assert "(n=1)" in table
        assert "±" not in table
        assert "pm" not in table


def test_a_method_without_a_finished_run_is_shown_with_its_statuses(tmp_path: Path) -> None:
    runs = [Run(METHODS[1]), out_of_memory(Run(METHODS[0], seed=0)), diverged(Run(METHODS[0], seed=1))]
    grid = results_grid(read_studies([build_study(tmp_path / "study", runs, predictions=False)]))
    assert [line[0].text for line in grid.lines] == ["lora", "full"]
    full = dict(zip((column.title for column in grid.columns), grid.lines[1], strict=True))
    assert full["sst2 accuracy"].text == "1 diverged, 1 out of memory"
    assert full["runs finished"].text == "0 of 2; 1 diverged, 1 out of memory"
    assert full["runs finished"].problem


def answer_alike(folder: Path, run: Run, answer: int) -> None:
    """Make ``run`` one that gave ``answer`` to every row."""
    place = folder / "runs" / run.folder_name
    table = pq.read_table(place / "predictions.parquet")
    gold = table["gold"].to_pylist()
    column = table.column_names.index("prediction")
    pq.write_table(table.set_column(column, "prediction", [[answer] * len(gold)]), place / "predictions.parquet")
    document = json.loads((place / "record.json").read_text())
    document["primary"]["value"] = gold.count(answer) / len(gold)
    (place / "record.json").write_text(json.dumps(document))


def test_runs_that_gave_every_row_one_answer_are_named(tmp_path: Path) -> None:
    full, lora = METHODS[:2]
    folder = build_study(tmp_path / "study", [Run(made, seed=seed) for made in (full, lora) for seed in (0, 1, 2)])
    assert not any("the same answer" in note for note in results_grid(read_studies([folder])).notes)
    for seed, answer in ((0, 1), (2, -1)):
        answer_alike(folder, Run(lora, seed=seed), answer)
    read = read_studies([folder])
    [note] = [note for note in results_grid(read).notes if "the same answer" in note]
    assert "lora on sst2 in 2 of 3 runs (“positive” 1, “no usable answer” 1)" in note
    assert "full" not in note
    for text in (shown(folder, 300), markdown(read), latex(read), page(read)):
        assert "lora on sst2 in 2 of 3 runs" in text
    [comparison] = as_json(summary(read))["comparisons"]
    said = {contender["name"]: contender["one_answer"] for contender in comparison["contenders"]}
    assert said == {"full": {}, "lora": {"positive": 1, "no usable answer": 1}}
    assert [(line["method"], line["one_answer"]) for line in methods_sheet(summary(read)).lines] == [
        ("full", 0),
        ("lora", 2),
    ]


def test_whether_answers_are_alike_is_not_known_without_them(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(METHODS[0])], predictions=False)
    [line] = methods_sheet(summary(read_studies([folder]))).lines
    assert line["one_answer"] is None


def test_a_task_a_method_never_ran_is_shown(tmp_path: Path) -> None:
    runs = [Run(METHODS[0], "sst2"), Run(METHODS[0], "mrpc"), Run(METHODS[1], "sst2")]
    grid = results_grid(read_studies([build_study(tmp_path / "study", runs, predictions=False)]))
    lora = dict(zip((column.title for column in grid.columns), grid.lines[1], strict=True))
    assert (lora["mrpc f1"].text, lora["mean of tasks"].text) == ("not run", "incomplete")
    assert any("lora lacks mrpc seed 0" in note for note in grid.notes)


def test_seconds_of_two_machines_are_not_averaged(tmp_path: Path) -> None:
    runs = [Run(METHODS[0], seed=0), Run(METHODS[0], seed=1, environment=OTHER_MACHINE)]
    grid = results_grid(read_studies([build_study(tmp_path / "study", runs, predictions=False)]))
    [line] = grid.lines
    seconds = dict(zip((column.title for column in grid.columns), line, strict=True))["training s"].text
    assert "(A) / " in seconds
    assert seconds.endswith("(B)")
    assert any("comparable only within each: A: cpu" in note and "B: cuda" in note for note in grid.notes)


def test_an_axis_gets_a_column(tmp_path: Path) -> None:
    runs = [Run(METHODS[0], train_examples=n) for n in (100, 2000)]
    grid = results_grid(read_studies([build_study(tmp_path / "study", runs, predictions=False)]))
    assert [column.title for column in grid.columns][:2] == ["method", "train examples"]
    assert [line[1].text for line in grid.lines] == ["2000", "100"]


def test_an_empty_study_says_so(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "nothing-yet", [])
    for text in (shown(folder), markdown(read_studies([folder])), latex(read_studies([folder]))):
        assert "No run of this study has left a record yet" in " ".join(text.split())


def test_files_left_out_are_named_under_every_table(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(METHODS[0])], predictions=False)
    names = damage(folder)
    read = read_studies([folder])
    for text in (shown(folder, 200), markdown(read), latex(read)):
        flat = text.replace("\\", "")
        assert all(f"study/runs/{name}/record.json" in flat for name in names)


def test_the_csv_has_one_line_per_run_and_every_figure(selection: Selection) -> None:
    lines = list(csv.DictReader(io.StringIO(runs_sheet(selection.rows).csv())))
    assert len(lines) == 30
    by_name = {line["name"]: line for line in lines}
    for row in selection.rows:
        line = by_name[row.name]
        assert line["status"] == row.status
        assert line["parameters.trainable"] == str(row.parameters.trainable if row.parameters else "")
        assert line["config.training.learning_rate"] == str(row.resolved["training"]["learning_rate"])
        if row.primary is not None:
            assert float(line["primary.value"]) == row.primary.value
            assert float(line[f"metrics.validation.{row.primary.name}"]) == row.primary.value
            assert float(line["cost.train_seconds"]) == row.cost.train_seconds
        if row.error is not None:
            assert line["error.message"] == row.error.message


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2", "@x", "\tx"])
def test_no_spreadsheet_runs_a_text_of_the_csv(tmp_path: Path, text: str) -> None:
    folder = build_study(tmp_path / "study", [Run(replace(METHODS[0], label=text))], predictions=False)
    [line] = csv.DictReader(io.StringIO(runs_sheet(read_studies([folder]).rows).csv()))
    assert line["method"] == f"'{text}"
    assert float(line["primary.value"]) == score_of(Run(replace(METHODS[0], label=text)))


def test_markup_in_a_label_stays_text(tmp_path: Path) -> None:
    label = "a|b **c** <b> [bold]x[/bold] $\\alpha_1$ & 5 %"
    folder = build_study(tmp_path / "study", [Run(replace(METHODS[0], label=label))], predictions=False)
    read = read_studies([folder])
    assert "[bold]x[/bold]" in " ".join(shown(folder, 250).split())
    assert "a\\|b \\*\\*c\\*\\* \\<b\\>" in markdown(read)
    assert latex_text(label) in latex(read)
    assert latex_text("$\\alpha_1$ & 5 %") == r"\$\textbackslash{}alpha\_1\$ \& 5 \%"


def test_methods_and_pairs_have_a_line_each(selection: Selection) -> None:
    found = summary(selection)
    methods = list(csv.DictReader(io.StringIO(methods_sheet(found).csv())))
    assert [line["method"] for line in methods if line["task"] == "sst2"] == ["full", "lora", "ia3", "bitfit", "head"]
    assert [line["standing"] for line in methods[5:10]] == ["best", "tied", "tied", "worse", "worse"]
    assert [comparison.task for comparison in found.comparisons] == ["mrpc", "sst2", None]
    full = methods[5]
    assert float(full["low"]) < float(full["mean"]) < float(full["high"])
    assert float(full["train_seconds@cpu-2-2.13.0"]) == pytest.approx(31, rel=0.03)
    pairs = list(csv.DictReader(io.StringIO(pairs_sheet(found).csv())))
    assert len(pairs) == 30
    bitfit = next(line for line in pairs if (line["task"], line["first"], line["second"]) == ("sst2", "bitfit", "full"))
    assert bitfit["methods.differ"] == "True"
    assert float(bitfit["methods.adjusted_p"]) > float(bitfit["methods.p"])
    assert bitfit["models.test"] == "McNemar, mid-p"
    open_pair = next(
        line for line in pairs if (line["task"], line["first"], line["second"]) == ("mrpc", "bitfit", "full")
    )
    assert (open_pair["methods.p"], open_pair["methods.differ"]) == ("", "")
    assert "too few seeds" in open_pair["methods.reason"]
