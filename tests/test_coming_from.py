"""docs/coming-from.md: every command on the page is run, with a tiny model, made-up rows and one step."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab.cli.main import main
from tests.source_tree import REPOSITORY
from tests.tasks.golden_rows import table_of
from tests.tasks.tables import write_parquet

PAGE = (REPOSITORY / "docs" / "coming-from.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(block.replace("\\\n", " "))
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
]
#: Models on the page by the tiny one that stands for them.
TINY = {"bert-base-cased": "bert", "t5-small": "t5", "opt-125m": "opt"}
#: Where each task's rows lie, and its splits.
SETS = {
    "mrpc": ("nyu-mll/glue/mrpc", ("train", "validation", "test")),
    "qqp": ("nyu-mll/glue/qqp", ("train", "validation")),
    "sst2": ("nyu-mll/glue/sst2", ("train", "validation")),
    "cola": ("nyu-mll/glue/cola", ("train", "validation")),
    "rte": ("nyu-mll/glue/rte", ("train", "validation")),
    "mnli": ("nyu-mll/glue/mnli", ("train", "validation_matched")),
    "imdb": ("stanfordnlp/imdb/plain_text", ("train", "test")),
    "hans": ("jhu-cogsys/hans", ("validation",)),
    "breaking-nli": ("breaking_nli", ("test",)),
    "med": ("med", ("test",)),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's data sets, a few dozen made-up rows each."""
    folder = tmp_path_factory.mktemp("data")
    for task, (place, splits) in SETS.items():
        table = table_of(task)
        for split in splits:
            rows = {name: list(values) * 12 for name, values in table.columns.items()}
            for name in rows:
                if name in ("premise", "sentence", "sentence1", "text"):
                    rows[name] = [f"{split} {number} {text}" for number, text in enumerate(rows[name])]
            write_parquet(folder / place / f"{split}.parquet", rows, dict(table.class_names))
    return folder


def write_own_rows(folder: Path) -> None:
    """The file of one's own that the page names."""
    lines = [f"a long text about the number {i},about {i}" for i in range(40)]
    (folder / "articles.csv").write_text("article,summary\n" + "\n".join(lines) + "\n")


def shortened(words: list[str], model: Callable[[str], Path], root: Path, run: Path | None) -> list[str]:
    """The command with a tiny model, as few steps and seeds as there can be, and the made-up rows."""
    short = list(words)
    for flag, value in (
        ("--epochs", None),
        ("--steps", None),
        ("--seeds", "1"),
        ("--max-length", "32"),
        ("--max-new-tokens", "4"),
    ):
        if flag in short:
            place = short.index(flag)
            short[place : place + 2] = [flag, value] if value else []
    if "--model" in short:
        place = short.index("--model") + 1
        short[place] = str(model(TINY[short[place]]))
    if short[0] == "plan":
        return [*short, "--steps", "1", "--data-root", str(root)]
    if short[0] == "predict":
        assert run is not None
        return [str(run) if word == "RUN" else word for word in short] + ["--data-root", str(root)]
    few = ["--steps", "1", "--batch-size", "4", "--eval-examples", "4", "--keep-weights", "all", "--device", "cpu"]
    if not {"--train-examples", "--shots"} & set(short):
        few += ["--train-examples", "8"]
    if "--unlabelled-examples" in short:
        short[short.index("--unlabelled-examples") + 1] = "8"
    if "--select-examples" not in short:
        few += ["--select-examples", "4"]
    return [*short, *few, "--dtype", "float32", "--threads", "1", "--data-root", str(root)]


def test_the_page_has_commands_for_each_heading() -> None:
    assert len(COMMANDS) >= 10
    assert all(words[0] == "adaptlab" for words in COMMANDS)


QUICK = ("train", "plan", "predict")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words[1:], marks=[] if words[1] in QUICK else [pytest.mark.slow], id=f"{place}-{words[1]}")
        for place, words in enumerate(COMMANDS)
    ],
)
def test_every_command_on_the_page_runs(
    words: list[str],
    root: Path,
    tiny_model_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_rows(tmp_path)
    run = None
    if words[0] == "predict":
        first = next(command[1:] for command in COMMANDS if command[1] == "train")
        assert main(shortened(first, tiny_model_folder, root, None)) == 0, capsys.readouterr().err
        (run,) = (tmp_path / "out" / "runs").iterdir()
    code = main(shortened(words, tiny_model_folder, root, run))
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "did not finish" not in said.err
    assert "failed" not in said.err
