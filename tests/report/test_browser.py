"""The page in a real Chromium: sliders move, numbers are those of the records, and hostile text runs nothing."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adaptlab.report import write_report
from tests.report.build import ITEMS, METHODS, Made, Run, answers_of, build_study, curve_of, score_of, write_run

pytestmark = pytest.mark.browser

#: Loads an image from nowhere, which a policy of no requests refuses, and sets a title when it runs.
HOSTILE = "</script><script>document.title = 'hacked'</script><img src=x onerror=\"document.title = 'hacked'\">"
RUNS = [Run(made, seed=seed, measured=True) for made in METHODS for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("Chromium is not installed: `apt install chromium` brings it")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "study"
    return write_report([with_texts(build_study(folder, RUNS))]).page


def with_texts(study: Path) -> Path:
    """The rows' texts beside the answers; each is a hostile one."""
    (study / "items").mkdir()
    texts = [f"row number {i} {HOSTILE}" for i in range(ITEMS)]
    gold = list(answers_of(RUNS[0])[0])
    rows = pa.table({"id": [str(i) for i in range(ITEMS)], "text": texts, "gold": gold})
    pq.write_table(rows, study / "items" / "sst2-validation.parquet")
    return study


class Opened:
    """A page in the browser, with whatever it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page(viewport={"width": options.pop("width", 1200), "height": 900}, **options)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def slide(self, resource: str, position: int) -> None:
        move = "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }"
        self.page.locator(f"#budget-{resource}").evaluate(move, position)

    @property
    def verdict(self) -> str:
        return str(self.page.locator("#budget-answer").inner_text())


@pytest.fixture
def opened(chromium: Any, index: Path) -> Iterator[Opened]:
    found = Opened(chromium, index)
    yield found
    found.page.close()


def test_it_draws_and_asks_for_nothing(opened: Opened, index: Path) -> None:
    opened.page.locator("#charts").scroll_into_view_if_needed()
    opened.page.locator("#rows").scroll_into_view_if_needed()
    opened.page.wait_for_selector("#charts .choice:not([hidden]) svg.marks", timeout=20_000)
    places = opened.page.locator("#charts .choice:not([hidden]) [data-spec]")
    for place in range(places.count()):
        places.nth(place).scroll_into_view_if_needed()
        places.nth(place).locator("svg.marks").wait_for(timeout=20_000)
    assert opened.said == []
    assert opened.asked == [index.as_uri()]
    assert opened.page.title() == "study, adaptlab"  # the hostile texts are in the page and ran nothing


def test_every_choice_of_every_chart_is_drawn(chromium: Any, tmp_path: Path) -> None:
    """With what not every study has: several amounts of training rows, and rows of another domain."""
    runs = [Run(made, measured=True, train_examples=n) for made in METHODS[:3] for n in (100, 2000)]
    study = build_study(tmp_path / "study", runs)
    for path in study.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        record["metrics"]["elsewhere"] = {"accuracy": 0.5, "loss": 0.9, "n": 100}
        record["cost"]["set_seconds"] = {"validation": 0.4, "elsewhere": 0.25}
        path.write_text(json.dumps(record))
    found = Opened(chromium, write_report([study]).page)
    page = found.page
    assert "2.5 ms a row" in page.locator("#data").inner_text()
    for figure in page.locator("main figure").all():
        select = figure.locator("select.choices")
        for option in [o.get_attribute("value") for o in select.locator("option").all()] or [None]:
            if option is not None:
                select.select_option(option)
            place = figure.locator(".choice:not([hidden]) [data-spec]")
            place.scroll_into_view_if_needed()
            place.locator("svg.marks").wait_for(timeout=20_000)
            assert place.locator("svg.marks").bounding_box()["height"] > 60
    drawn = page.locator("[data-drawn]").count()
    assert drawn == page.locator("[data-spec]").count()
    names = [place.get_attribute("data-name") for place in page.locator("[data-spec]").all()]
    wanted = ("score_by_train_examples", "score_by_domain", "reliability", "learning_metric_by_flops")
    assert all(any(name.endswith(f"-{chart}") for name in names) for chart in wanted)
    assert found.said == []
    page.close()


def test_it_answers_soon(opened: Opened) -> None:
    ready = opened.page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert 0 < ready < 10_000  # milliseconds; about a tenth of it on a quiet machine


def mean_score(made: Made) -> float:
    return statistics.fmean(score_of(run) for run in RUNS if run.made is made)


def test_without_limits_the_best_report_score_wins(opened: Opened) -> None:
    best = max(METHODS, key=mean_score)
    assert opened.verdict.startswith(f"Without limits {best.label} scores best: accuracy {mean_score(best):.3f}")


@pytest.mark.parametrize("position", [0, 300, 700, 995])
def test_the_parameter_slider_leaves_the_best_that_fits(opened: Opened, position: int) -> None:
    counts = [made.trainable for made in METHODS if made.trainable]
    limit = 0 if position == 0 else min(counts) * (max(counts) / min(counts)) ** (position / 999)
    fitting = [made for made in METHODS if made.trainable <= limit]
    best = max(fitting, key=mean_score)
    opened.slide("trainable", position)
    assert opened.verdict.startswith(f"Within this budget {best.label} scores best: accuracy {mean_score(best):.3f}")
    assert f"{len(fitting)} of {len(METHODS)} methods fit" in opened.verdict


@pytest.mark.parametrize("cost", ["flops", "seconds"])
@pytest.mark.parametrize("position", [300, 800])
def test_a_training_slider_reads_the_learning_curves(opened: Opened, cost: str, position: int) -> None:
    curves = {made.label: [curve_of(run) for run in RUNS if run.made is made] for made in METHODS}
    seen = json_stairs(opened, cost)
    spent = [getattr(point, cost) for found in curves.values() for curve in found for point in curve]
    high, low = max(spent), min(value for value in seen if value > 0)
    limit = low * (high / low) ** (position / 999)

    def reached(label: str) -> float:
        best = [max(p.metrics["accuracy"] for p in curve if getattr(p, cost) <= limit) for curve in curves[label]]
        return statistics.fmean(best)

    expected = max(curves, key=reached)
    opened.slide(f"train_{cost}", position)
    shown = re.search(r"budget (\S+) scores best: accuracy ([\d.]+)", opened.verdict)
    assert shown is not None, opened.verdict
    assert "selection rows" in opened.verdict
    assert math.isclose(float(shown[2]), reached(expected), abs_tol=0.0006)
    assert shown[1] == expected


def json_stairs(opened: Opened, cost: str) -> list[float]:
    """The costs that the slider's range is made of."""
    script = """cost => {
      const group = JSON.parse(document.getElementById("page-data").textContent).budget.groups[0];
      return group.cells.flatMap((cell) => [cell.costs[`train_${cost}`], ...cell.stairs[cost].flatMap(([c]) => c)]);
    }"""
    return [float(value) for value in opened.page.evaluate(script, cost)]


def test_what_was_not_measured_has_no_slider(chromium: Any, tmp_path: Path) -> None:
    page = write_report([build_study(tmp_path / "study", [Run(made) for made in METHODS], predictions=False)]).page
    found = Opened(chromium, page)
    assert found.page.locator("#budget-peak_memory_bytes").is_disabled()
    assert found.page.locator("#budget-peak_memory_bytes-said").inner_text() == "not measured"
    assert found.said == []
    found.page.close()


def test_two_methods_rows_are_shown_with_their_text(opened: Opened) -> None:
    page = opened.page
    page.locator("#rows-first").select_option(label="lora, seed 0")
    page.locator("#rows-second").select_option(label="head, seed 1")
    gold, first = answers_of(next(run for run in RUNS if run.made.label == "lora" and run.seed == 0))
    _, second = answers_of(next(run for run in RUNS if run.made.label == "head" and run.seed == 1))
    differ = sum(a != b for a, b in zip(first, second, strict=True))
    only_first = sum(a == g != b for a, b, g in zip(first, second, gold, strict=True))
    tally = page.locator("#rows-tally").inner_text()
    assert f"They differ on {differ} of {ITEMS} validation rows" in tally
    assert f"only lora, seed 0 {only_first}," in tally
    page.locator("#rows-kind").select_option("first")
    line = page.locator("#rows-table tbody tr").first
    number = int(line.locator("th").inner_text())
    assert f"row number {number} {HOSTILE}" in line.inner_text()
    assert first[number] == gold[number] != second[number]
    assert page.title() == "study, adaptlab"


def test_the_confusion_matrix_counts_every_answer(opened: Opened) -> None:
    cells = opened.page.locator("#rows-matrices td").all_inner_texts()
    assert sum(int(cell) for cell in cells) == 3 * ITEMS  # three seeds


def test_it_is_worked_by_keys(opened: Opened) -> None:
    opened.page.locator("#budget-trainable").focus()
    opened.page.keyboard.press("Home")
    assert opened.verdict.startswith("Within this budget head scores best")
    assert opened.page.locator("#budget-trainable").get_attribute("aria-valuetext") == "≤ 0"
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.id") == "budget-peak_memory_bytes"
    opened.page.keyboard.press("End")
    opened.page.locator("#budget-reset").focus()
    opened.page.keyboard.press("Enter")
    assert opened.verdict.startswith("Without limits")


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"width": 390}], ids=["dark", "phone"])
def test_it_fits_the_dark_and_a_phone(chromium: Any, index: Path, options: dict[str, Any]) -> None:
    found = Opened(chromium, index, **options)
    background = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is ("color_scheme" not in options)
    assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert found.said == []
    found.page.close()


def test_hostile_names_run_nothing(chromium: Any, tmp_path: Path) -> None:
    made = replace(METHODS[1], label=HOSTILE, options=(("note", HOSTILE),))
    study = build_study(tmp_path / "study", [], predictions=False)
    for seed in (0, 1):
        write_run(study / "runs" / f"r{seed}", Run(made, seed=seed), predictions=False)
    found = Opened(chromium, write_report([study]).page)
    found.slide("train_seconds", 500)
    found.page.locator("#charts").scroll_into_view_if_needed()
    found.page.wait_for_selector("#charts svg.marks", timeout=20_000)
    assert found.said == []
    assert found.page.title() == "study, adaptlab"
    assert HOSTILE in found.page.locator("#budget-lines").inner_text()
    found.page.close()
