"""How long the report of a thousand runs takes, part by part, and how large its page is.

    python benchmarks/report_1000_runs.py [--runs 1000] [--browser] [--profile]

Synthetic records as real ones are laid out (20 methods x 5 tasks x 10 seeds, 400 answers and a curve each), with ten
damaged, old-schema or half-written ones among them. The whole is `adaptlab report` in a process of its own, start and
imports included; the parts are of one process, in which each profits from what those before it have read. Seconds are
the processor's, so other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adaptlab.measure.environment import processor_name
from adaptlab.report import read_studies, write_report
from adaptlab.report.answer import answer
from adaptlab.report.page import page
from adaptlab.report.summary import as_json, summary
from adaptlab.report.tables import results_grid
from tests.report.build import METHODS, TASKS, Run, build_study, damage

T = TypeVar("T")


def made(folder: Path, runs: int) -> Path:
    """A study of ``runs`` runs and ten records that cannot be used."""
    methods = [replace(METHODS[i % 5], label=f"{METHODS[i % 5].label}-{i}") for i in range(20)]
    tasks = [*TASKS, "cola", "rte", "qnli"]
    seeds = -(-runs // (len(methods) * len(tasks)))
    grid = [Run(method, task, seed) for seed in range(seeds) for task in tasks for method in methods]
    study = build_study(folder, grid[:runs])
    damage(study)
    return study


def timed(name: str, call: Callable[[], T]) -> T:
    """Call and print the seconds that it took."""
    started = time.process_time()
    result = call()
    print(f"| {name} | {time.process_time() - started:.2f} |")
    return result


def whole(study: Path) -> float:
    """Seconds of the processor that the command takes, from its start."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "adaptlab", "report", str(study)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


#: Moves a slider to a position and waits until the page has been painted anew; milliseconds.
_SLIDE = """async (position) => {
  const slider = document.querySelector("input[type=range]"), began = performance.now();
  slider.value = position;
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - began;
}"""


def in_browser(path: Path) -> str:
    """How soon the page is there in Chromium, and how soon it follows a slider."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        began = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector("input[type=range]")
        there = time.perf_counter() - began
        slides = [float(page.evaluate(_SLIDE, position)) for position in range(999, 0, -50)]
        browser.close()
    return (
        f"In Chromium it is there after {there:.1f} s, and follows a slider in {statistics.median(slides):.0f} ms "
        f"(the slowest of {len(slides)}: {max(slides):.0f} ms)."
    )


def main() -> None:
    """Print a table of seconds, then the whole report's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--browser", action="store_true", help="also how soon the page answers in Chromium")
    parser.add_argument("--profile", action="store_true", help="also the fifteen costliest functions")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = made(Path(folder) / "study", given.runs)
        print(f"{processor_name()}; {given.runs:,} runs\n\n| part | seconds |\n|---|---|")
        selection = timed("read records", lambda: read_studies([study]))
        found = timed("answers, claims, ties, power", lambda: summary(selection).comparisons)
        timed("answer in sentences", lambda: answer(selection))
        timed("table", lambda: results_grid(selection))
        timed("summary.json", lambda: as_json(summary(selection)))
        timed("page", lambda: page(selection))
        print(f"| whole: adaptlab report, a process of its own | {whole(study):.2f} |")
        profile = cProfile.Profile()
        if given.profile:
            profile.enable()
        paths = write_report([study])
        profile.disable()
        pairs = sum(len(comparison.pairs) for comparison in found)
        unusable = len(selection.problems)
        print(f"\n{len(selection.rows):,} runs, {pairs:,} pairs tested, {unusable} files named as unusable.")
        page_mb, summary_mb = (path.stat().st_size / 1e6 for path in (paths.page, paths.summary))
        print(f"The page has {page_mb:.1f} MB, summary.json {summary_mb:.1f} MB.")
        if given.browser:
            print(in_browser(paths.page))
        if given.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(15)


if __name__ == "__main__":
    main()
