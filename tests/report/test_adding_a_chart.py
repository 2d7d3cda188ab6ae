"""docs/adding-a-chart.md, carried out: its chart keeps the contract that the page names, and stands on the page."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from adaptlab.report import write_report
from adaptlab.report.charts import Chart, registry
from adaptlab.report.select import Selection
from tests.contracts import test_charts as contract
from tests.contracts.test_charts import schema, selection  # noqa: F401 - fixtures
from tests.report.build import METHODS, OTHER_MACHINE, Run, build_study, record_of
from tests.source_tree import REPOSITORY

PAGE = (REPOSITORY / "docs" / "adding-a-chart.md").read_text(encoding="utf-8")


@pytest.fixture
def chart(monkeypatch: pytest.MonkeyPatch) -> Chart:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    module: dict[str, Any] = {"__name__": "step_time"}
    exec(compile(code, "step_time.py", "exec"), module)
    plugin = module["plugin"]
    registry.all()
    monkeypatch.setitem(registry._plugins, "step_time", plugin)
    monkeypatch.setattr(contract, "CHARTS", [*contract.CHARTS, plugin])
    assert isinstance(plugin, Chart)
    return plugin


def test_it_keeps_the_contract(chart: Chart, selection: Selection, schema: dict[str, Any], tmp_path: Path) -> None:  # noqa: F811
    contract.test_it_draws_valid_vega_lite_that_renders(chart, selection, schema)
    contract.test_its_caption_and_title_are_sentences_of_its_own(chart, selection)
    contract.test_a_method_keeps_its_colour_when_others_are_missing(chart, selection)
    contract.test_several_tasks_share_no_axis(chart, selection)
    contract.test_without_anything_to_show_it_says_so(chart, tmp_path / "nothing")
    contract.test_one_run_has_no_error_bar_or_band(chart, tmp_path / "one")
    contract.test_hostile_labels_stay_data(chart, tmp_path / "hostile")


def test_it_draws_the_records_and_tells_machines_apart(chart: Chart, tmp_path: Path) -> None:
    runs = [Run(METHODS[1], seed=0), Run(METHODS[1], seed=1), Run(METHODS[1], environment=OTHER_MACHINE)]
    rows = contract.rows_of(tmp_path / "study", runs)
    drawn = {value["label"]: value["x"] for value in contract.values_in(chart.draw(rows).to_dict())}
    own = [record_of(run).cost.step_seconds or 0.0 for run in runs]
    assert sorted(drawn.values()) == pytest.approx(sorted([1000 * statistics.fmean(own[:2]), 1000 * own[2]]))
    assert set(drawn) == {"lora [A]", "lora [B]"}
    assert "within one only" in chart.caption(rows)


def test_it_stands_on_the_page(chart: Chart, tmp_path: Path) -> None:
    page = write_report([build_study(tmp_path / "study", [Run(made) for made in METHODS], predictions=False)]).page
    assert f">{chart.title}</h3>" in page.read_text(encoding="utf-8")
