"""The page in a real Chromium: it draws, complains of nothing, and hostile text runs nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from adaptlab.report import write_report
from tests.report.build import METHODS, Run, build_study, standard_runs, write_run

pytestmark = pytest.mark.browser

#: Loads an image from nowhere, which a policy of no requests refuses, and sets a title when it runs.
HOSTILE = "</script><script>document.title = 'hacked'</script><img src=x onerror=\"document.title = 'hacked'\">"


def opened(page: Path, tmp_path: Path) -> tuple[str, str]:
    """The document after its scripts have run, and what the console said."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("Chromium is not installed: `apt install chromium` brings it")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", "--virtual-time-budget=10000", "--window-size=1200,900", "--dump-dom",
         page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


def test_every_chart_of_the_first_task_is_drawn(tmp_path: Path) -> None:
    page = write_report([build_study(tmp_path / "study", standard_runs(), predictions=False)]).page
    document, console = opened(page, tmp_path)
    assert console == ""
    assert len(re.findall(r'<svg[^>]*class="marks"', document)) == 5
    assert document.count(">bitfit</text>") >= 5


def test_hostile_text_runs_nothing(tmp_path: Path) -> None:
    made = replace(METHODS[1], label=HOSTILE, options=(("note", HOSTILE),))
    study = build_study(tmp_path / "study", [], predictions=False)
    for seed in (0, 1):
        write_run(study / "runs" / f"r{seed}", Run(made, seed=seed), predictions=False)
    document, console = opened(write_report([study]).page, tmp_path)
    assert console == ""
    assert "<title>study, adaptlab</title>" in document
    assert len(re.findall(r'<svg[^>]*class="marks"', document)) == 5
