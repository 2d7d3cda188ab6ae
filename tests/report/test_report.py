"""write_report: every file, atomically, quickly."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from adaptlab.errors import ConfigError, StudyError
from adaptlab.report import read_studies, write_report
from tests.report.build import METHODS, TASKS, Run, build_study, damage


def test_a_report_stands_in_its_study(tmp_path: Path) -> None:
    study = build_study(tmp_path / "study", predictions=False)
    paths = write_report([study])
    files = sorted(path.name for path in (study / "report").iterdir())
    tables = ["methods.csv", "pairs.csv", "results.csv", "results.md", "results.tex", "summary.json"]
    assert files == ["index.html", *tables]
    assert paths.page == study / "report" / "index.html"
    assert paths.figures == ()
    written = (paths.csv, paths.methods, paths.pairs, paths.summary, paths.markdown, paths.latex)
    assert sorted(path.name for path in written) == tables


def test_the_same_records_give_the_same_files(tmp_path: Path) -> None:
    study = build_study(tmp_path / "study", predictions=False)
    first = {path.name: path.read_bytes() for path in write_report([study]).page.parent.iterdir()}
    second = {path.name: path.read_bytes() for path in write_report([study]).page.parent.iterdir()}
    assert first == second


def test_figures_come_when_asked_for(tmp_path: Path) -> None:
    study = build_study(tmp_path / "study", [Run(made) for made in METHODS], predictions=False)
    figures = write_report([study], figures=["svg", "png", "pdf"]).figures
    assert len(figures) % 3 == 0
    assert len({figure.stem for figure in figures}) >= 5
    with pytest.raises(ConfigError, match="not written as gif: give svg, pdf, png"):
        write_report([study], figures=["gif"])
    starts = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}
    for figure in figures:
        assert figure.read_bytes().startswith(starts[figure.suffix[1:]])
    assert figures[0].name.startswith("sst2-minilm-")


def test_several_studies_need_a_place_and_share_a_page(tmp_path: Path) -> None:
    first = build_study(tmp_path / "first", [Run(METHODS[0])], predictions=False)
    second = build_study(tmp_path / "second", [Run(METHODS[1])], predictions=False)
    with pytest.raises(ConfigError, match="2 studies"):
        write_report([first, second])
    with pytest.raises(ConfigError, match="No study"):
        write_report([])
    text = write_report([first, second], out=tmp_path / "both").page.read_text()
    assert "first + second" in text


def test_a_folder_that_is_no_study_is_left_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(StudyError):
        write_report([tmp_path])
    with pytest.raises(StudyError):
        read_studies([tmp_path])
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    study = build_study(tmp_path / "study", [Run(METHODS[0])], predictions=False)
    (study / "report").write_text("in the way")
    with pytest.raises(StudyError, match="report"):
        write_report([study])


@pytest.mark.slow
def test_a_thousand_runs_report_in_ten_seconds_and_ten_megabytes(tmp_path: Path) -> None:
    methods = [replace(METHODS[i % 5], label=f"{METHODS[i % 5].label}-{i}") for i in range(20)]
    tasks = [*TASKS, "cola", "rte", "qnli"]
    runs = [Run(made, task, seed) for made in methods for task in tasks for seed in range(10)]
    study = build_study(tmp_path / "study", runs)
    named = damage(study)
    started = time.process_time()
    paths = write_report([study])
    assert time.process_time() - started < 10
    assert paths.page.stat().st_size < 10_000_000
    assert len(paths.csv.read_text().splitlines()) == 1001
    assert all(f"study/runs/{name}/record.json" in paths.page.read_text() for name in named)
