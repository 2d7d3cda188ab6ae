"""The page: one offline file that says what the records say, usable by everyone, and running nobody's text."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from adaptlab.report._html import element, join, json_script
from adaptlab.report.page import page
from adaptlab.report.page.measured import measured
from adaptlab.report.select import Selection, read_studies
from adaptlab.report.tables import results_grid
from adaptlab.runs.record import ErrorPart
from tests.report.build import METHODS, OTHER_MACHINE, Run, build_study, damage, standard_runs

VOID = {"meta", "br", "input", "hr"}
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\"'&<!--"


class Page(HTMLParser):
    """Elements, attributes and texts of a page; fails on markup that does not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> dict[str, list[dict[str, object]]]:
        """What the page's script draws."""
        [block] = [text for text in self.scripts if text.startswith('{"specs"')]
        loaded: dict[str, list[dict[str, object]]] = json.loads(block)
        return loaded


@pytest.fixture(scope="module")
def written(selection: Selection) -> str:
    return page(selection)


@pytest.fixture(scope="module")
def parsed(written: str) -> Page:
    return Page(written)


def test_it_says_every_number_of_the_table(parsed: Page, selection: Selection) -> None:
    for text in ("22,565,376", "5 of 6; 1 out of memory", "31.2"):
        assert text in parsed.text
    for line in results_grid(selection).lines:
        assert all(entry.text in parsed.text for entry in line)


def test_every_run_is_there_with_status_configuration_and_error(parsed: Page) -> None:
    runs = standard_runs()
    assert len([run for run in parsed.all("details") if run.get("class") == "run"]) == len(runs)
    for run in runs:
        assert run.folder_name in parsed.text
        if run.error is not None:
            assert run.error.message in parsed.text
    assert "loss.backward()" in parsed.text
    assert "learning_rate: 0.0005" in parsed.text


def test_every_chart_of_every_task_is_in_it(parsed: Page) -> None:
    specs = parsed.data["specs"]
    places = [place for place in parsed.all("div") if "data-spec" in place]
    assert [place["data-spec"] for place in places] == [str(index) for index in range(len(specs))]
    assert len(specs) == 26
    assert all(place.get("aria-label") for place in places)
    assert {"mrpc", "sst2"} <= {option.get("value") for option in parsed.all("option")}


def test_nothing_is_fetched_from_anywhere(written: str, parsed: Page) -> None:
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    style = written.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    [policy] = [meta["content"] or "" for meta in parsed.all("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_it_is_usable_by_keyboard_and_screen_reader(parsed: Page) -> None:
    assert parsed.all("html")[0]["lang"] == "en"
    assert [tag for tag, _ in parsed.elements].count("h1") == 1
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 or after == 4 for before, after in itertools.pairwise(levels))
    assert all(header.get("scope") in ("col", "row") for header in parsed.all("th"))
    scrolling = [part for part in parsed.all("div") if part.get("class") == "scroll"]
    assert scrolling
    assert all(part.get("tabindex") == "0" and part.get("aria-label") for part in scrolling)
    identifiers = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for link in parsed.all("a"):
        assert (link["href"] or "")[1:] in identifiers


def test_it_fits_a_phone_and_the_dark(written: str) -> None:
    assert "width=device-width" in written
    assert "prefers-color-scheme: dark" in written
    assert "max-width: 600px" in written


def test_it_is_small(written: str) -> None:
    assert len(written.encode()) < 2_000_000


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    error = ErrorPart(type=HOSTILE, message=HOSTILE, traceback=HOSTILE)
    options = (("note", HOSTILE), (HOSTILE, 1))
    runs = [Run(replace(METHODS[1], label=HOSTILE, options=options), seed=seed) for seed in (0, 1)]
    runs.append(replace(runs[0], seed=2, status="failed", error=error, model=HOSTILE, task=HOSTILE))
    folder = build_study(tmp_path / "a<b>&study", [], predictions=False)
    for index, run in enumerate(runs):
        (folder / "runs" / f"r{index}").mkdir()
        write(folder / "runs" / f"r{index}", run)
    read = read_studies([folder])
    assert len(read.rows) == 3
    text = page(read)
    parsed = Page(text)
    assert len(parsed.all("script")) == 5
    assert parsed.all("img") == []
    assert parsed.text.count("window.hacked = 1") > 10  # it is shown, as text
    for script in parsed.scripts:
        assert "<script>window" not in script
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)


def write(folder: Path, run: Run) -> None:
    from tests.report.build import curve_of, record_of

    record = record_of(run).model_copy(update={"name": HOSTILE + folder.name, "warnings": [HOSTILE]})
    (folder / "record.json").write_text(record.model_dump_json(by_alias=True))
    (folder / "curve.jsonl").write_text("".join(point.model_dump_json() + "\n" for point in curve_of(run)))


def test_json_in_a_script_cannot_end_it() -> None:
    block = json_script("x", {"a": HOSTILE})
    assert "</script><script>" not in block
    inner = block.partition(">")[2].rpartition("<")[0]
    assert "<" not in inner
    assert json.loads(inner) == {"a": HOSTILE}


def test_markup_is_made_by_the_builder_alone() -> None:
    assert element("p", "<b>", class_='"x"') == '<p class="&quot;x&quot;">&lt;b&gt;</p>'
    assert join([element("b", "x"), "<i>", None]) == "<b>x</b>&lt;i&gt;"


def test_unreadable_files_are_listed(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(METHODS[0])], predictions=False)
    names = damage(folder)
    curve = next((folder / "runs").glob("sst2-*/curve.jsonl"))
    curve.write_text("{}\n" + curve.read_text())
    text = Page(page(read_studies([folder]))).text
    assert all(f"study/runs/{name}/record.json" in text for name in names)
    assert f"{curve.parent.name}/curve.jsonl" in text


def test_an_empty_study_has_a_page_that_says_so(tmp_path: Path) -> None:
    parsed = Page(page(read_studies([build_study(tmp_path / "study", [])])))
    assert "No run of this study has left a record yet" in parsed.text
    assert parsed.data["specs"] == []


def test_charts_that_cannot_be_drawn_say_why(tmp_path: Path) -> None:
    folder = build_study(tmp_path / "study", [Run(METHODS[0], curve=False)], predictions=False)
    parsed = Page(page(read_studies([folder])))
    assert "no run has a learning curve with this value" in parsed.text
    assert len(parsed.data["specs"]) == 4


def test_two_machines_are_both_described(tmp_path: Path) -> None:
    runs = [Run(METHODS[0]), Run(METHODS[1], environment=OTHER_MACHINE)]
    text = Page(page(read_studies([build_study(tmp_path / "study", runs, predictions=False)]))).text
    assert "A: cpu: AMD EPYC 7763, 2 threads" in text
    assert "B: cuda: NVIDIA H200, 16 threads" in text


def test_how_distillation_was_measured_is_said_where_runs_were_distilled(selection: Selection) -> None:
    assert "Context distillation" not in measured(selection.rows)
    distilled = replace(selection.rows[0], given={**selection.rows[0].given, "objective": "context-distillation"})
    assert "Context distillation" in measured([*selection.rows, distilled])
