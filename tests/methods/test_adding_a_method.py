"""docs/adding-a-method.md, carried out: its files are written where it says, and its commands are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_models import FAMILIES

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "adding-a-method.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's files in it and its row in the table."""
    root = tmp_path_factory.mktemp("checkout")
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "src", root / "src", ignore=without_caches)
    (root / "tests" / "methods").mkdir(parents=True)
    shutil.copytree(REPOSITORY / "tests" / "contracts", root / "tests" / "contracts", ignore=without_caches)
    for name in ("__init__.py", "conftest.py", "tiny_models.py", "methods/__init__.py"):
        shutil.copy(REPOSITORY / "tests" / name, root / "tests" / name)
    shutil.copy(REPOSITORY / "pyproject.toml", root)
    files = re.findall(r"^`(\S+\.py)`:\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert [path for path, _ in files] == ["src/adaptlab/methods/norm_gain.py", "tests/methods/test_norm_gain.py"]
    for path, text in files:
        (root / path).write_text(text, encoding="utf-8")
    (row,) = re.findall(r"^```python\n(Row\(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    table = root / "src" / "adaptlab" / "methods" / "_peft_low_rank.py"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("ROWS = (", f"ROWS = (\n{row.strip()},", 1), encoding="utf-8")
    return root


def run(checkout: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "ADAPTLAB_CACHE": str(checkout / "cache")}
    done = subprocess.run(
        [sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_s_tests_pass_and_the_contract_suite_finds_both_methods(checkout: Path) -> None:
    commands = re.findall(r"^python -m pytest (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    assert "1 passed" in run(checkout, "-m", "pytest", "-p", "no:cacheprovider", *commands[0].split())
    suite, _, name = commands[1].split()
    assert name == "norm-gain"
    others = " or ".join(family for family in FAMILIES if family != "bert")
    printed = run(
        checkout,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        suite,
        "-k",
        f"({name} or lora-sqrt) and not (real or {others})",
    )
    passed = re.search(r"(\d+) passed", printed)
    assert passed is not None
    assert int(passed[1]) == 2 * 10
    assert "failed" not in printed


def test_the_page_s_command_runs(checkout: Path) -> None:
    (command,) = re.findall(r"^adaptlab (train .*)$", PAGE, re.MULTILINE)
    assert "norm-gain" in run(checkout, "-m", "adaptlab.cli.main", "list", "methods")
    out = checkout / "study"
    smaller = ("--select-examples", "20", "--eval-examples", "20", "--out", str(out))
    run(checkout, "-m", "adaptlab.cli.main", *command.split(), *smaller)
    assert list(out.glob("runs/*/record.json"))
