"""What must not be in the repository: a machine's paths, drawers for leftovers, promises instead of code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.source_tree import REPOSITORY, python_files

TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".jsonl", ".csv", ".html", ".svg", ".cfg", ""}
#: A folder that exists on somebody's machine only. Ada's, whom tests about home folders invented, is nobody's.
MACHINE_PATH = re.compile(
    r"(?<![\w.$}<>~/-])/(?:home/(?!a\b|adam?\b)|root/|Users/|work/|mnt/|tmp/|opt/|srv/|var/)[\w.@-]+|\b[A-Z]:\\\\?Users\b"
)
DRAWERS = re.compile(r"(^|/)(utils|util|common|helpers|misc)(\.py|/)|manager[^/]*\.py$")
PROMISES = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError|assert True$", re.MULTILINE)


def tracked_files() -> list[Path]:
    """Every file that git tracks or would; without git (an unpacked archive) every file outside hidden folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        paths = [REPOSITORY / line for line in listed.stdout.splitlines()]
    else:
        paths = [
            p for p in REPOSITORY.rglob("*") if not any(q.startswith(".") for q in p.relative_to(REPOSITORY).parts)
        ]
    return [path for path in paths if path.is_file()]


def test_no_paths_of_a_machine() -> None:
    found = []
    for path in tracked_files():
        if path.suffix in TEXT and path != Path(__file__).resolve():
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if match := MACHINE_PATH.search(line):
                    found.append(f"{path.relative_to(REPOSITORY)}:{number}: {match.group()}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("reads /home/ann/data", True),
        ("reads /home/ada/data", False),
        ('"/root/.cache/x"', True),
        (r"C:\\Users\ann", True),
        ("../shared/data", False),
        ("<env>/home/x, $HOME/work/y", False),
        ("https://host/home/page", False),
    ],
)
def test_a_machine_path_is_seen(text: str, seen: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is seen


def test_no_drawers_for_leftovers() -> None:
    names = [str(path.relative_to(REPOSITORY)) for path in python_files("src", "tests", "benchmarks")]
    assert not [name for name in names if DRAWERS.search(name)]
    assert DRAWERS.search("src/adaptlab/utils.py")
    assert DRAWERS.search("src/adaptlab/run_manager.py")


def test_no_promises_instead_of_code() -> None:
    found = []
    for path in python_files("src", "tests", "benchmarks"):
        if path != Path(__file__).resolve() and (match := PROMISES.search(path.read_text(encoding="utf-8"))):
            found.append(f"{path.relative_to(REPOSITORY)}: {match.group()}")
    assert not found, "\n".join(found)
