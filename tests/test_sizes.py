"""How large things may grow before they are taken apart."""

from __future__ import annotations

from pathlib import Path

from tests.source_tree import REPOSITORY, functions, python_files

LONGEST_FUNCTION = 100
LONGEST_FILE = 600
FOLDERS = ("src", "tests", "benchmarks", "examples")


def too_long(path: Path) -> list[str]:
    """A sentence for the file and for each of its functions that is over the limit."""
    found = []
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > LONGEST_FILE:
        found.append(f"{path}: {lines} lines, {LONGEST_FILE} allowed")
    for name, line, length in functions(path):
        if length > LONGEST_FUNCTION:
            found.append(f"{path}:{line}: {name} has {length} lines, {LONGEST_FUNCTION} allowed")
    return found


def test_nothing_is_too_long() -> None:
    found = [sentence for path in python_files(*FOLDERS) for sentence in too_long(path)]
    assert not found, "\n".join(found)


def test_the_limits_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    x = 1\n" * 99)
    assert not too_long(path)
    path.write_text("@g\ndef f():\n" + "    x = 1\n" * 99)
    assert len(too_long(path)) == 1
    path.write_text("\n" * 601)
    assert len(too_long(path)) == 1
    assert REPOSITORY.joinpath("src").is_dir()
