"""What a model cannot be asked: each mistake one clear sentence and exit code 2; what goes on all the same is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import write_table
from tests.tasks.golden_rows import table_of
from tests.tasks.tables import write_parquet

from .conftest import Command, Done

Asked = Callable[..., Done]


@pytest.fixture
def asked(adaptlab: Command, tiny_model_folder: Callable[[str], Path], tmp_path: Path) -> Asked:
    """``asked(table, prompt={...}, shots=4)`` compares nothing but the untrained model, as a study file says."""

    def run(task: Path | str, prompt: dict[str, Any] | None = None, *flags: object, **keys: object) -> Done:
        study = {
            "model": str(tiny_model_folder(str(keys.pop("family", "gpt2")))),
            "task": {"name": str(task), **({} if prompt is None else {"prompts": [{"name": "mine", **prompt}]})},
            "methods": ["none"],
            "readout": "verbalizer",
            "seeds": [0],
            "dtype": "float32",
            "device": "cpu",
            "threads": 1,
            **keys,
        }
        file = tmp_path / "study.yaml"
        file.write_text(json.dumps(study))  # JSON is YAML
        return adaptlab("compare", file, "--out", tmp_path / "study", *flags)

    return run


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file with a text of its own for an answer in every row."""
    path = tmp_path / "sums.csv"
    path.write_text("question,answer\n" + "".join(f"what is {i} and {i},it is {2 * i}\n" for i in range(30)))
    return path


def refused(done: Done, expected: str, tmp_path: Path) -> None:
    """One sentence, exit code 2, nothing written."""
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert expected in line
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ({"template": "{text}", "answers": {"warm": " ", "cold": "no"}}, "has an empty answer for 'warm': give a word"),
        ({"template": "{txt} so"}, "names the column 'txt' in its template: there are text."),
        ({"template": "{text}", "answers": ["yes"]}, "has 1 answers for the 2 classes cold, warm"),
        ({"template": "{text}", "answers": ["yes", "yes"]}, "has the answer 'yes' for more than one class"),
        ({"template": "{text} {"}, "has a single '{' in its template: write {{ for a brace"),
    ],
)
def test_a_prompt_that_does_not_fit(
    prompt: dict[str, Any], expected: str, asked: Asked, table: Path, tmp_path: Path
) -> None:
    refused(asked(table, prompt), expected, tmp_path)


def test_more_balanced_shots_than_a_class_has_rows(asked: Asked, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("text,label\n" + "".join(f"row {i},{'rare' if i % 10 == 0 else 'usual'}\n" for i in range(60)))
    done = asked(path, shots=14, shot_sampling="balanced")
    refused(done, "14 balanced shots need 7 training rows of every class, and 'rare' has", tmp_path)


def test_a_head_is_not_for_options_or_free_text(
    asked: Asked, own: Path, tmp_path: Path, tiny_model_folder: Callable[[str], Path]
) -> None:
    done = asked(own, readout="head", methods=["lora"])
    refused(done, "is generation (its answers are free texts), which --readout head cannot answer: use", tmp_path)
    assert "use --readout generate, or say with --label-column which column has classes." in done.err
    table = table_of("commonsense_qa")
    for split in ("train", "validation"):
        rows = {name: list(values) * 12 for name, values in table.columns.items()}
        write_parquet(tmp_path / "data" / "tau" / "commonsense_qa" / f"{split}.parquet", rows, dict(table.class_names))
    done = asked("commonsense_qa", None, "--data-root", tmp_path / "data", readout="head", methods=["lora"])
    refused(
        done, "is multiple-choice, which --readout head cannot answer: use --readout verbalizer or generate.", tmp_path
    )


def test_label_words_that_begin_with_the_same_token_are_scored_whole_and_said(
    asked: Asked, table: Path, tmp_path: Path
) -> None:
    done = asked(table, {"template": "{text} It is", "answers": {"warm": "the sun", "cold": "the ice"}})
    assert done.code == 0, done.err
    assert "The words of 'cold' and 'warm' begin with the same token: all their tokens are scored." in done.err
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "study" / "runs").glob("*/record.json"))
    assert any("begin with the same token" in warning for warning in record["warnings"])
    (path,) = (tmp_path / "study" / "runs").glob("*/predictions.parquet")
    import pyarrow.parquet as pq

    # Scores of the first token alone would tell the two apart nowhere.
    assert all(row["scores"][0] != pytest.approx(0.5, abs=1e-6) for row in pq.read_table(path).to_pylist())


def test_nothing_written_counts_as_wrong_and_is_said(asked: Asked, own: Path, tmp_path: Path) -> None:
    done = asked(
        own,
        readout="generate",
        max_new_tokens=4,
        stop=[*"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *" .,'-`*:()=_"],
    )
    assert done.code == 0, done.err
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "study" / "runs").glob("*/record.json"))
    n = record["metrics"]["test"]["n"]
    assert record["answering"]["test"]["unusable"] == n
    assert record["metrics"]["test"]["unusable"] == 1
    assert record["metrics"]["test"]["exact_match"] == 0
    assert f"On test, nothing was written for {n:.0f} of {n:.0f} rows: they count as wrong." in done.err


def test_ones_own_free_text_is_trained_and_written(asked: Asked, own: Path, tmp_path: Path) -> None:
    keys = {"readout": "generate", "methods": ["lora"], "steps": 2, "batch_size": 4, "max_new_tokens": 8}
    done = asked(own, {"template": "{question} ?", "answers": "Well, {label}"}, "--stop", r"\n", "--stop", "!", **keys)
    assert done.code == 0, done.err
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "study" / "runs").glob("*/record.json"))
    assert record["data"]["kind"] == "generation"
    assert record["config"]["resolved"]["answering"]["stop"] == ["\n", "!"]
    assert record["primary"]["name"] == "rouge_l"


def test_a_table_is_still_asked_for_classes(asked: Asked, tmp_path: Path) -> None:
    """Words that come back are classes, however many rows there are."""
    done = asked(write_table(tmp_path / "weather.csv"), readout="generate", max_new_tokens=2)
    assert done.code == 0, done.err
    assert "they count as wrong." in done.err
