"""Every study under examples/ is valid, is what its first line says, and runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab import api
from adaptlab.study.document import Flags, read_study
from adaptlab.study.expand import expand
from tests.source_tree import REPOSITORY

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
RUNS = {
    "demo": 10,
    "few-shot-nli": 36,
    "glue-six": 90,
    "glue-small": 45,
    "imdb-lora-grid": 18,
    "lora-ranks": 27,
    "qqp-decoder": 27,
    "quantised": 15,
    "text-to-text": 16,
    "training-set-size": 36,
}
#: Of these, zero-shot runs that differ in their seed alone are one run.
ALIKE = {"few-shot-nli": 4, "qqp-decoder": 2}
#: The kind of model that an example asks; the others ask an encoder.
FAMILIES = {"few-shot-nli": "opt", "qqp-decoder": "opt", "text-to-text": "t5"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_as_large_as_expected(path: Path) -> None:
    assert len(expand(read_study(path))) == RUNS[path.stem]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_validate_accepts_an_example(path: Path) -> None:
    command = [sys.executable, "-m", "adaptlab.cli.main", "validate", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_the_command_that_runs_it(path: Path) -> None:
    assert re.search(rf"^#   adaptlab compare examples/{path.name} ", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    path: Path, tmp_path: Path, blocks_of_64: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    """With a tiny model, few rows and one step, so that every method and option in it is really used."""
    small = {
        "model": str(blocks_of_64(FAMILIES.get(path.stem, "bert"))),
        "seeds": [0],
        "train_examples": [200],
        "select_examples": 20,
        "eval_examples": 20,
        "steps": 1,
        "keep_weights": "none",
        "measure": "run",
    }
    if "generate" in path.read_text():
        small["max_new_tokens"] = 4
    if "--data-root" in path.read_text():
        small["data_root"] = str(request.getfixturevalue("data_root"))
    study = read_study(path, Flags(study=small))
    result = api.compare(study, out=tmp_path / "study")
    assert not result.failed
    assert {record.status for record in result.records} == {"finished"}
    assert result.page is not None
    assert result.page.stat().st_size > 0


def test_the_page_of_examples_has_every_file_and_its_runs() -> None:
    page = (REPOSITORY / "docs" / "examples.md").read_text()
    assert dict(re.findall(r"^\| `([^`]+)\.yaml` \|.*\| (\d+) \|$", page, re.MULTILINE)) == {
        name: str(runs - ALIKE.get(name, 0)) for name, runs in RUNS.items()
    }


def test_the_entries_shown_on_the_page_are_a_study(tmp_path: Path) -> None:
    shown, learning = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs" / "examples.md").read_text(), re.DOTALL)
    path = tmp_path / "study.yaml"
    path.write_text(learning)
    assert [run.method.label for run in expand(read_study(path))] == ["none", "full"]
    path.write_text(f"task: mnli\nseeds: 1\n{shown}")
    assert [run.method.label for run in expand(read_study(path))] == [
        "none-shots0",
        "none-shots4",
        "lora-supervised-adamw-linear",
        "lora-context-distillation-teacher-frozen-adamw-linear",
        "lora-context-distillation-teacher-recursive-adamw-linear",
        "lora-supervised-adafactor-cosine",
        "lora-supervised-sgd-momentum-cosine",
    ]
