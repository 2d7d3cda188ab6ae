"""What the README says is so: its links lead somewhere, its tree is the tree, its examples run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.source_tree import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((REPOSITORY / "docs").rglob("*.md"))


def blocks(language: str) -> list[str]:
    """The code blocks of a language; a fence opens and the next one closes."""
    fenced = README.split("```")[1::2]
    return [block.partition("\n")[2] for block in fenced if block.partition("\n")[0] == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert not [link for link in targets if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/fairness.md"])
def test_files_that_are_named_are_there(name: str) -> None:
    """Both spellings: from the repository's root, and from ``src/adaptlab``."""
    text = (REPOSITORY / name).read_text()
    named = re.findall(r"`((?:\.?\w[\w-]*/)+[\w.*-]*)`", text)
    assert named
    roots = (REPOSITORY, REPOSITORY / "src/adaptlab", REPOSITORY / "docs")
    missing = [path for path in named if not any(list(root.glob(path.rstrip("/"))) for root in roots)]
    assert not [path for path in missing if not path.startswith(("runs/", "report/index.html"))]  # those of a study


def test_the_tree_is_the_tree() -> None:
    (tree,) = [block for block in blocks("") if "src/adaptlab/\n" in block]
    top, _, rest = tree.partition("src/adaptlab/\n")
    package, _, tests = rest.partition("\ntests/")
    named = {line.split()[0] for line in package.splitlines()}
    entries = (REPOSITORY / "src/adaptlab").iterdir()
    present = {f"{entry.name}/" for entry in entries if any(file.stat().st_size for file in entry.glob("*.py"))}
    present |= {file.name for file in (REPOSITORY / "src/adaptlab").glob("[!_]*.py")}
    assert named == present
    assert tests
    assert not [line for line in top.splitlines() if not (REPOSITORY / line.split()[0]).exists()]


def test_the_study_is_valid(tmp_path: Path) -> None:
    from adaptlab.study.document import read_study
    from adaptlab.study.expand import expand

    (text,) = blocks("yaml")
    path = tmp_path / "study.yaml"
    path.write_text(text)
    assert len(expand(read_study(path))) == 3 * 5 * 3


def test_the_python_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_model_folder: Callable[[str], Path],
) -> None:
    """With a tiny model and one step in place of what would take minutes."""
    (code,) = blocks("python")
    small = f"seeds=1, train_examples=200, steps=1, model={str(tiny_model_folder('bert'))!r}"
    shortened = code.replace("seeds=3, train_examples=1200", small)
    assert shortened != code
    monkeypatch.chdir(tmp_path)
    exec(compile(shortened, "README.md", "exec"), {})
    assert "Prediction(label=" in capsys.readouterr().out
