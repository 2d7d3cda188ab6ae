"""What the report says of tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adaptlab.report import read_studies
from adaptlab.report.charts import registry
from adaptlab.report.page.tuning import tuning
from tests.contracts.test_charts import values_in
from tests.report.build import METHODS, Run, build_study

LORA, HEAD = (next(made for made in METHODS if made.label == name) for name in ("lora", "head"))


def test_score_against_trials_is_the_best_so_far(tmp_path: Path) -> None:
    runs = [Run(LORA, seed=seed, measured=True) for seed in range(3)]
    rows = read_studies([build_study(tmp_path / "study", runs, predictions=False)]).rows
    drawn = [value for value in values_in(registry.get("tuning").draw(rows).to_dict()) if "trial" in value]
    best = [(value["trial"], value["y"]) for value in drawn]
    assert best == [(1, 0.846), (2, 0.846), (3, 0.846), (4, 0.876), (5, 0.876), (6, 0.886)]


def test_the_page_says_what_tuning_chose_and_cost(tmp_path: Path) -> None:
    runs = [Run(LORA, measured=True), Run(HEAD)]
    shown = tuning(read_studies([build_study(tmp_path / "study", runs, predictions=False)]).rows, {})
    assert shown is not None
    text = str(shown)
    for cell in ("<td>learning_rate 0.0005</td>", ">0.846<", ">0.886<", "2.25 min", "not measured"):
        assert cell in text, cell
    assert text.count('<th scope="row"') == 1  # head was not tuned


def test_the_same_table_says_what_a_pruner_saved(tmp_path: Path) -> None:
    runs = [Run(LORA, measured=True), Run(HEAD, measured=True)]
    rows = read_studies([build_study(tmp_path / "study", runs, predictions=False)]).rows
    assert "ended early" not in str(tuning(rows, {}))
    pruned = {
        "pruner": "halving",
        "scores": [0.8, None, None, 0.9, None, 0.7],
        "pruned": 2,
        "steps": 300,
        "steps_unpruned": 400,
        "agreement": 0.5,
    }
    rows = [
        replace(row, tuning=row.tuning.model_copy(update=pruned)) if row.tuning and row.method == "lora" else row
        for row in rows
    ]
    text = str(tuning(rows, {}))
    assert text.count("<table>") == 1
    assert "Trials were ended early by halving" in text
    lora, head = text.partition("<tbody>")[2].split("</tr>")[:2]
    entries = [line.rpartition(">")[2] for line in lora.split("</td>")]
    assert entries[:2] == ["6", "1"]  # one of the three without a score was not ended by the pruner
    assert entries[5:8] == ["2", "25%", "50%"]
    assert head.count("not known") == 2
    assert [line.rpartition(">")[2] for line in head.split("</td>")][5] == "0"


def test_without_tuning_there_is_no_such_section(tmp_path: Path) -> None:
    rows = read_studies([build_study(tmp_path / "study", [replace(Run(LORA))], predictions=False)]).rows
    assert tuning(rows, {}) is None
