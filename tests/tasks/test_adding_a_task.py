"""docs/adding-a-task.md, carried out: its files are written where it says, and its commands are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.tables import write_parquet

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "adding-a-task.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(\S+\.py)`:\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
TASK, TEST = "src/adaptlab/tasks/rotten_tomatoes.py", "tests/tasks/test_rotten_tomatoes.py"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's files in it."""
    root = tmp_path_factory.mktemp("checkout")
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "src", root / "src", ignore=without_caches)
    for folder in ("tasks", "contracts"):
        shutil.copytree(REPOSITORY / "tests" / folder, root / "tests" / folder, ignore=without_caches)
    for name in ("__init__.py", "conftest.py", "hub_server.py"):
        shutil.copy(REPOSITORY / "tests" / name, root / "tests" / name)
    shutil.copy(REPOSITORY / "pyproject.toml", root)
    assert set(FILES) == {TASK, TEST}
    for path, text in FILES.items():
        (root / path).write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the page's data set, enough for the contract suite."""
    shared = tmp_path_factory.mktemp("shared")
    for split, count in (("train", 120), ("validation", 60), ("test", 60)):
        columns = {"text": [f"{split} review {i}" for i in range(count)], "label": [i % 2 for i in range(count)]}
        path = shared / "data" / "cornell-movie-review-data" / "rotten_tomatoes" / f"{split}.parquet"
        write_parquet(path, columns, {"label": ("neg", "pos")})
    return shared / "data"


def run(checkout: Path, *command: str, paths: tuple[Path, ...] = (), **variables: str) -> str:
    path = os.pathsep.join(map(str, (checkout / "src", *paths)))
    own = {"PYTHONPATH": path, "ADAPTLAB_CACHE": str(checkout / "cache"), **variables}
    done = subprocess.run(
        [sys.executable, *command], cwd=checkout, env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_page_s_tests_pass_and_the_contract_suite_finds_the_task(checkout: Path, rows: Path) -> None:
    commands = re.findall(r"^python -m pytest (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    pytest_ = ("-m", "pytest", "-p", "no:cacheprovider")
    assert "1 passed" in run(checkout, *pytest_, *commands[0].split())
    printed = run(checkout, *pytest_, *commands[1].split(), ADAPTLAB_SHARED=str(rows.parent))
    found = re.search(r"(\d+) passed", printed)
    assert found is not None
    assert int(found[1]) >= 8
    assert "failed" not in printed
    assert "skipped" not in printed


@pytest.mark.slow
def test_the_page_s_command_runs(checkout: Path, rows: Path) -> None:
    (command,) = re.findall(r"^adaptlab (train .*)$", PAGE, re.MULTILINE)
    out = checkout / "study"
    where = ("--data-root", str(rows), "--out", str(out))
    run(checkout, "-m", "adaptlab.cli.main", *command.split(), *where)
    (record,) = out.glob("runs/*/record.json")
    assert '"status": "finished"' in record.read_text() or '"status":"finished"' in record.read_text()


@pytest.mark.slow
def test_a_package_of_ones_own_can_offer_the_task(checkout: Path, tmp_path: Path) -> None:
    """As installed from the page's pyproject lines: the entry point stands in the package's metadata."""
    (group, line) = re.search(r'^\[project\.entry-points\."(.*?)"\]\n(.*)$', PAGE, re.MULTILINE).groups()  # type: ignore[union-attr]
    module = line.split(" = ")[1].strip('"').replace(".", "/")
    (tmp_path / "src").mkdir()
    shutil.copytree(REPOSITORY / "src" / "adaptlab", tmp_path / "src" / "adaptlab")
    site = tmp_path / "site"
    (site / "my_tasks-1.0.dist-info").mkdir(parents=True)
    (site / "my_tasks-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tasks\nVersion: 1.0\n")
    (site / "my_tasks-1.0.dist-info" / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    (site / module).parent.mkdir()
    (site / f"{module}.py").write_text(FILES[TASK])
    printed = run(tmp_path, "-c", "from adaptlab.tasks import registry; print(*registry.names())", paths=(site,))
    assert "rotten-tomatoes" in printed.split()
