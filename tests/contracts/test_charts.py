"""What every chart promises, whatever file it is in."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair
import jsonschema
import pytest
import vl_convert

from adaptlab.report.charts import Chart, NothingToDrawError, groups, methods_of, registry, themed
from adaptlab.report.page import VEGA_LITE
from adaptlab.report.select import RunRow, Selection, read_studies
from tests.report.build import (
    ITEMS,
    METHODS,
    OTHER_MACHINE,
    Run,
    answers_of,
    build_study,
    diverged,
    out_of_memory,
    score_of,
    standard_runs,
)

CHARTS = registry.all()
#: Charts without a spread: their points are counts, or the trials of one search.
PLAIN = {"reliability", "tuning"}


def named(chart: Chart) -> str:
    return chart.name


@pytest.fixture(scope="module")
def selection(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    runs = [replace(run, measured=True) for run in standard_runs()]
    return read_studies([build_study(tmp_path_factory.mktemp("charts") / "study", runs)])


def rows_of(folder: Path, runs: Sequence[Run]) -> Sequence[RunRow]:
    measured = [replace(run, measured=True) for run in runs]
    return read_studies([build_study(folder, measured)]).rows


def for_chart(chart: Chart, rows: Sequence[RunRow]) -> Sequence[RunRow]:
    """``rows`` with what only this chart shows: several amounts of data, or another domain."""
    amounts = {"score_by_train_examples": ("train_examples", "100", "2000"), "score_by_shots": ("shots", "0", "8")}
    if chart.name in amounts:
        axis, *values = amounts[chart.name]
        return [replace(row, setting={**row.setting, axis: value}) for row in rows for value in values]
    if chart.name == "score_by_domain":
        return [replace(row, metrics={**row.metrics, "elsewhere": _elsewhere(row)}) for row in rows]
    return rows


def _elsewhere(row: RunRow) -> dict[str, float]:
    return {} if row.primary is None else {row.primary.name: row.primary.value - 0.1}


def values_in(spec: Any) -> list[dict[str, Any]]:
    """Every row of data inside a specification."""
    if isinstance(spec, dict):
        own = spec["values"] if isinstance(spec.get("values"), list) and spec["values"] else []
        found = [value for value in own if isinstance(value, dict)]
        return found + [value for part in spec.values() for value in values_in(part)]
    return [value for part in spec for value in values_in(part)] if isinstance(spec, list) else []


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    path = Path(altair.__file__).parent / "vegalite" / "v6" / "schema" / "vega-lite-schema.json"
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


@pytest.mark.parametrize("chart", CHARTS, ids=named)
def test_it_draws_valid_vega_lite_that_renders(chart: Chart, selection: Selection, schema: dict[str, Any]) -> None:
    for rows in groups(selection.rows).values():
        spec = themed(chart.draw(for_chart(chart, rows), methods=methods_of(selection.rows)))
        jsonschema.validate(spec, schema)
        svg = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version=VEGA_LITE)
        assert svg.startswith("<svg")
        for method in methods_of(rows):
            assert f">{method}</text>" in svg, f"{method} is not named in the picture"


@pytest.mark.parametrize("chart", CHARTS, ids=named)
def test_its_caption_and_title_are_sentences_of_its_own(chart: Chart, selection: Selection) -> None:
    [rows, *_] = groups(selection.rows).values()
    assert chart.title
    assert chart.caption(rows).endswith(".")
    assert [other.title for other in CHARTS].count(chart.title) == 1


@pytest.mark.parametrize("chart", CHARTS, ids=named)
def test_a_method_keeps_its_colour_when_others_are_missing(chart: Chart, selection: Selection) -> None:
    [rows, *_] = groups(selection.rows).values()
    methods = methods_of(selection.rows)
    few = [row for row in rows if row.method in ("lora", "head")]
    scales = [json.dumps(scale) for part in (rows, few) for scale in _scales(chart, part, methods)]
    assert scales
    assert len(set(scales)) == 1


def _scales(chart: Chart, rows: Sequence[RunRow], methods: Sequence[str]) -> list[Any]:
    return colour_scales(chart.draw(for_chart(chart, rows), methods=methods))


def colour_scales(chart: altair.LayerChart) -> list[Any]:
    found = []

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("color"), dict) and "scale" in part["color"]:
                found.append(part["color"]["scale"])
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(chart.to_dict())
    return found


@pytest.mark.parametrize("chart", CHARTS, ids=named)
def test_several_tasks_share_no_axis(chart: Chart, selection: Selection) -> None:
    with pytest.raises(ValueError, match="several tasks or models"):
        chart.draw(selection.rows)


@pytest.mark.parametrize("chart", CHARTS, ids=named)
def test_without_anything_to_show_it_says_so(chart: Chart, tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "study", [replace(out_of_memory(Run(made)), curve=False) for made in METHODS])
    with pytest.raises(NothingToDrawError, match=r"\.$"):
        chart.draw(rows)
    assert chart.caption(rows)


@pytest.mark.parametrize("chart", [chart for chart in CHARTS if chart.name not in PLAIN], ids=named)
def test_one_run_has_no_error_bar_or_band(chart: Chart, tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "study", [Run(made) for made in METHODS])
    spans = [value for value in values_in(chart.draw(for_chart(chart, rows)).to_dict()) if "low" in value]
    assert spans
    assert all(value["low"] == value["high"] for value in spans)


@pytest.mark.parametrize("chart", CHARTS, ids=named)
def test_hostile_labels_stay_data(chart: Chart, tmp_path: Path) -> None:
    label = "</script><script>x()</script>\"'${alert(1)}"
    rows = rows_of(tmp_path / "study", [Run(replace(METHODS[1], label=label), seed=seed) for seed in (0, 1)])
    spec = themed(chart.draw(for_chart(chart, rows)))
    expressions = strings_under(spec, {"expr", "filter", "calculate", "labelExpr", "test"})
    assert all("alert" not in text for text in expressions)
    assert "<script" not in vl_convert.vegalite_to_svg(json.dumps(spec), vl_version=VEGA_LITE)


def strings_under(part: Any, keys: set[str], inside: bool = False) -> list[str]:
    if isinstance(part, dict):
        return [text for key, value in part.items() for text in strings_under(value, keys, inside or key in keys)]
    if isinstance(part, list):
        return [text for value in part for text in strings_under(value, keys, inside)]
    return [part] if inside and isinstance(part, str) else []


def test_a_method_that_trains_only_the_head_stands_at_zero(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "study", [Run(made) for made in METHODS])
    spec = registry.get("score_by_parameters").draw(rows).to_dict()
    points = {value["label"]: value for value in values_in(spec) if "cost" in value}
    assert points["head"]["cost"].startswith("0 + 770")
    assert points["head"]["x"] == 1_000  # a decade below the smallest decade, labelled 0
    assert points["lora"]["x"] == 73_728
    svg = vl_convert.vegalite_to_svg(json.dumps(themed(registry.get("score_by_parameters").draw(rows))))
    assert ">0</text>" in svg
    assert ">1k</text>" not in svg


def test_only_heads_can_be_drawn_too(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "study", [Run(METHODS[-1], seed=seed) for seed in (0, 1)])
    spec = themed(registry.get("score_by_parameters").draw(rows))
    assert ">0</text>" in vl_convert.vegalite_to_svg(json.dumps(spec))


def test_clocks_of_two_machines_are_told_apart_in_the_picture(tmp_path: Path) -> None:
    runs = [Run(METHODS[0]), Run(METHODS[1]), Run(METHODS[1], environment=OTHER_MACHINE)]
    rows = rows_of(tmp_path / "study", runs)
    chart = registry.get("score_by_seconds")
    svg = vl_convert.vegalite_to_svg(json.dumps(themed(chart.draw(rows))))
    assert "Clocks of 2 machines: compare seconds only within one." in svg
    assert ">lora [A]</text>" in svg
    assert ">lora [B]</text>" in svg
    assert "NVIDIA H200" in chart.caption(rows)


def test_few_shot_curves_have_a_mean_at_each_amount(tmp_path: Path) -> None:
    runs = [Run(METHODS[1], seed=seed, train_examples=n) for n in (2000, 32, 500) for seed in (0, 1)]
    spec = registry.get("score_by_train_examples").draw(rows_of(tmp_path / "study", runs)).to_dict()
    points = [value for value in values_in(spec) if "low" in value]
    assert [(value["label"], value["x"]) for value in points] == [("lora", 32), ("lora", 500), ("lora", 2000)]
    scores = [[score_of(run) for run in runs if run.train_examples == n] for n in (32, 500, 2000)]
    assert [value["y"] for value in points] == pytest.approx([statistics.fmean(found) for found in scores])
    spreads = [statistics.stdev(found) for found in scores]
    assert [(v["high"] - v["low"]) / 2 for v in points] == pytest.approx(spreads)
    assert '"type": "log"' in json.dumps(spec)


def test_reliability_is_of_all_seeds_answers(tmp_path: Path) -> None:
    runs = [Run(METHODS[1], seed=seed) for seed in (0, 1)]
    spec = registry.get("reliability").draw(rows_of(tmp_path / "study", runs)).to_dict()
    [point] = [value for value in values_in(spec) if "n" in value]  # every made-up answer has a probability of 0.9
    assert point["n"] == 2 * ITEMS
    assert point["x"] == pytest.approx(0.9)
    assert point["y"] == pytest.approx(statistics.fmean(score_of(run) for run in runs))


def test_what_there_is_to_beat_is_in_learning_curves(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "study", [Run(METHODS[1])])
    lines = [v for v in values_in(registry.get("learning_metric").draw(rows).to_dict()) if "meaning" in v]
    gold = answers_of(Run(METHODS[1]))[0]
    values = {v["text"].split()[0]: float(v["text"].split()[1]) for v in lines}
    assert values == {"chance": 0.5, "majority": pytest.approx(max(sum(gold), ITEMS - sum(gold)) / ITEMS, abs=6e-4)}
    loss = registry.get("learning_loss").draw(rows).to_dict()
    assert not [v for v in values_in(loss) if "meaning" in v]


def test_curves_against_seconds_never_average_two_machines(tmp_path: Path) -> None:
    runs = [Run(METHODS[1]), Run(METHODS[1], seed=1, environment=OTHER_MACHINE)]
    chart = registry.get("learning_metric_by_seconds")
    rows = rows_of(tmp_path / "study", runs)
    labels = {value["label"] for value in values_in(chart.draw(rows).to_dict()) if "low" in value}
    assert labels == {"lora [A]", "lora [B]"}
    assert "each with its letter" in chart.caption(rows)
    by_steps = registry.get("learning_metric").draw(rows).to_dict()
    assert {value["label"] for value in values_in(by_steps) if "low" in value} == {"lora"}


def test_a_diverged_run_is_a_line_of_its_own_outside_the_mean(tmp_path: Path) -> None:
    whole = [Run(METHODS[1], seed=seed) for seed in (0, 1)]
    chart = registry.get("learning_metric")
    means = [
        [value for value in values_in(chart.draw(rows_of(tmp_path / name, runs)).to_dict()) if "run" not in value]
        for name, runs in (("without", whole), ("with", [*whole, diverged(Run(METHODS[1], seed=2))]))
    ]
    assert means[0] == means[1]
    rows = rows_of(tmp_path / "again", [*whole, diverged(Run(METHODS[1], seed=2))])
    lost = [value for value in values_in(chart.draw(rows).to_dict()) if value.get("status") == "diverged"]
    assert [value["step"] for value in lost] == [0, 20, 40, 60]
    assert "did not finish" in chart.caption(rows)
