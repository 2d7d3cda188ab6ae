"""A study in a notebook: frames, tables and charts that say what the records say and display by themselves."""

from __future__ import annotations

import ast
import base64
import json
import re
from pathlib import Path
from typing import Any

import altair
import pandas as pd
import pytest

import adaptlab
from adaptlab.errors import ConfigError, StudyError
from tests.report.build import METHODS, STEPS, Run, answers_of, build_study, damage, diverged, standard_runs

NOTEBOOK = Path(__file__).resolve().parent.parent / "examples" / "notebook.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = build_study(tmp_path_factory.mktemp("notebooks") / "demo-study", standard_runs(seeds=(0, 1, 2)))
    damage(built)
    return built


@pytest.fixture(scope="module")
def study(folder: Path) -> adaptlab.Study:
    return adaptlab.Study.load(folder)


def test_every_run_is_a_line_of_the_runs(study: adaptlab.Study) -> None:
    assert len(study.runs) == 30
    full = study.runs.query("task == 'sst2' and method == 'full' and seed == 1").iloc[0]
    gold, predicted = answers_of(Run(METHODS[0], "sst2", 1))
    assert full["primary.value"] == sum(g == p for g, p in zip(gold, predicted, strict=True)) / len(gold)
    assert len(study.selection.problems) == 10


def test_curves_and_predictions_are_frames(study: adaptlab.Study) -> None:
    assert {"study", "run", "task", "method", "seed", "step", "select_loss", "accuracy"} <= set(study.curves.columns)
    assert study.curves.query("task == 'sst2'")["step"].max() == STEPS
    by_method = study.predictions.query("task == 'sst2'").groupby(["method", "seed"])["right"].mean()
    scores = study.runs.query("task == 'sst2'").set_index(["method", "seed"])["primary.value"]
    pd.testing.assert_series_equal(by_method.sort_index(), scores.sort_index(), check_names=False)


def test_methods_and_pairs_are_frames(study: adaptlab.Study) -> None:
    assert study.methods.query("task == 'sst2'")["standing"].tolist() == ["best", "tied", "tied", "worse", "worse"]
    assert len(study.pairs) == 30


def test_it_displays_the_answer_and_the_table(study: adaptlab.Study) -> None:
    shown = study._repr_html_()
    assert study.answer.lead in shown
    assert "<strong>0.908 ± 0.010</strong>" in shown
    assert "full" in study.table.frame["method"].tolist()
    assert r"\toprule" in study.table.latex
    assert study.answer.lead in repr(study)


def test_every_chart_displays_by_itself_offline(study: adaptlab.Study) -> None:
    assert len(study.charts) >= 5
    for name in study.charts:
        shown = study.charts[name]._repr_html_()
        [drawn] = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', shown)
        assert base64.b64decode(drawn).startswith(b"<svg")
        assert "http" not in shown.replace("http://www.w3.org", "")
    assert isinstance(study.charts["scores"].altair, altair.LayerChart)


def test_a_chart_is_of_the_task_asked_for_and_can_be_saved(study: adaptlab.Study, tmp_path: Path) -> None:
    assert {row.task for row in study.charts["scores", "sst2"]._rows} == {"sst2"}
    assert study.charts["scores", "sst2", "minilm"].save(tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ConfigError, match=r"must end in \.svg, \.pdf, \.png"):
        study.charts["scores"].save(tmp_path / "a.gif")
    with pytest.raises(KeyError, match="There is no chart 'pie'"):
        study.charts["pie"]
    with pytest.raises(KeyError, match="there are mrpc with minilm, sst2 with minilm"):
        study.charts["scores", "rte"]


def test_studies_are_merged_and_filtered(folder: Path, tmp_path: Path) -> None:
    other = build_study(tmp_path / "more", [Run(METHODS[1], "sst2", seed) for seed in (3, 4)])
    both = adaptlab.Study.load(folder, other, where="method=lora,task=sst2")
    assert both.runs["seed"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(StudyError, match="no folder"):
        adaptlab.Study.load(tmp_path / "absent")
    with pytest.raises(ConfigError, match="No study"):
        adaptlab.Study.load()


def test_a_study_without_a_score_has_empty_frames(tmp_path: Path) -> None:
    empty = adaptlab.Study.load(build_study(tmp_path / "study", [diverged(Run(METHODS[0], curve=False))]))
    assert len(empty.runs) == 1
    assert (len(empty.curves), len(empty.predictions), list(empty.charts)) == (0, 0, [])
    assert "No run has learning" not in empty._repr_html_()
    assert "Score" in empty.charts["scores"]._repr_html_()


def test_the_example_notebook_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code cells, in order, the last expression of each displayed as Jupyter would."""
    monkeypatch.chdir(folder.parent)
    scope: dict[str, Any] = {}
    shown = []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(NOTEBOOK), "exec"), scope)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), scope)
            shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
    assert len(shown) == 8
    assert all(shown)
