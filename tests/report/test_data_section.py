"""The page's section on amounts of data and other domains says what the records say, or is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adaptlab.report.page.data import data_section
from adaptlab.report.select import Selection, read_studies
from adaptlab.report.statistics import summarise
from adaptlab.report.tables import score_text
from tests.report.build import METHODS, Run, build_study, score_of


def test_it_is_left_out_where_nothing_varies(selection: Selection) -> None:
    assert data_section(selection.rows, {}) is None


def test_scores_stand_below_their_number_of_training_examples_in_its_order(tmp_path: Path) -> None:
    runs = [Run(METHODS[1], seed=seed, train_examples=n) for n in (2000, 100) for seed in (0, 1)]
    text = str(data_section(read_studies([build_study(tmp_path / "study", runs, predictions=False)]).rows, {}))
    for amount in (100, 2000):
        summary = summarise([score_of(run) for run in runs if run.train_examples == amount])
        assert summary is not None
        assert f">{score_text(summary)}<" in text
    assert text.index(">100<") < text.index(">2000<")
    assert "one draw of the training rows" in text


def test_another_set_shows_its_score_and_the_change(tmp_path: Path) -> None:
    rows = read_studies([build_study(tmp_path / "study", [Run(METHODS[0])], predictions=False)]).rows
    score = rows[0].score
    assert score is not None
    other = dict(rows[0].metrics) | {"<hans>": {"accuracy": score - 0.125}}
    text = str(data_section([replace(rows[0], metrics=other)], {}))
    assert ">-0.125<" in text
    assert "&lt;hans&gt;" in text
    assert "<hans>" not in text
