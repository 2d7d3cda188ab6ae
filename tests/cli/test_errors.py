"""Each mistake ends in one clear sentence, exit code 2, no traceback, and nothing written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from adaptlab import api
from tests.report.build import METHODS, Run, build_study

from .conftest import Command

COMPARE = ("compare", "--task", "stdlib-docs", "--methods", "lora")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("compare", "--task", "sst22", "--methods", "lora"), ["No task is called 'sst22': did you mean sst2?"]),
        (("compare", "--task", "sst2", "--methods", "loar"), ["No method is called 'loar': did you mean lora"]),
        (("compare", "--methods", "lora"), ["No task was given: say it with --task, or name a study file."]),
        (("compare", "--task", "sst2"), ["No method was given: say it with --methods, or name a study file."]),
        (("train", "--task", "sst2"), ["No method was given: say it with --method, or name a study file."]),
        (("compare", "--task", "sst2", "--methods", "lora full"), [
            "--methods: No method is called 'lora full': separate several by commas, lora,full.",
        ]),
        ((*COMPARE, "--seeds", "0"), ["--seeds must be at least 1, not 0"]),
        ((*COMPARE, "--launcher", "local", "--launch", "cpus=3"), ["unknown key 'local.cpus': local takes none."]),
        (("train", "--task", "sst2", "--method", "lora", "--seed", "x"), ["--seed must be a whole number, not 'x'"]),
        (("compare", "--task", "no.csv", "--methods", "lora"), ["--task: There is no file or folder no.csv"]),
        ((*COMPARE, "--model", "./nowhere"), ["--model: There is no model folder './nowhere'"]),
        ((*COMPARE, "--batch-size", "x"), ["--batch-size must be a whole number, not 'x'"]),
        ((*COMPARE, "--batch-size", "0"), ["--batch-size must be at least 1, not '0'"]),
        ((*COMPARE, "--learning-rate", "fast"), ["--learning-rate must be a number or 'auto', not 'fast'"]),
        ((*COMPARE, "--device", "tpu"), ["--device must be 'auto', 'cpu' or 'cuda', not 'tpu'"]),
        ((*COMPARE, "--keep-weights", "some"), ["--keep-weights must be 'all', 'best' or 'none', not 'some'"]),
        ((*COMPARE, "--set", "lora.rank=4"), ["--set: unknown key 'lora.rank': allowed are "]),
        ((*COMPARE, "--set", "lora.r=big"), ["--set: 'lora.r' must be a whole number, not 'big'"]),
        ((*COMPARE, "--set", "ia3.r=4"), ["--set ia3.r: the study's methods are lora"]),
        ((*COMPARE, "--epochs", "1", "--steps", "2"), ["epochs and steps were both given"]),
        ((*COMPARE, "--device", "cpu", "--dtype", "float16"), ["float16"]),
        ((*COMPARE, "--max-length", "10000"), ["max-length is 10000, but minilm has 512 positions"]),
        (("compare", "nowhere.yaml"), ["There is no file nowhere.yaml"]),
        (("validate", "nowhere.yaml"), ["There is no file nowhere.yaml"]),
        (("report", "nowhere"), ["There is no folder nowhere"]),
        (("list", "runs", "nowhere"), ["nowhere is not a study's folder (no study.yaml)"]),
        (("predict", "nowhere", "text"), ["nowhere holds no record.json"]),
        (("evaluate", "nowhere", "--task", "sst2"), ["nowhere holds no record.json"]),
        (("evaluate", "x", "--task", "t", "--eval-examples", "x"), ["--eval-examples must be a whole number or 'all'"]),
        (("train", "--task", "stdlib-docs", "--method", "lora,full"), ["train does one run, and this makes 2"]),
        (
            (*COMPARE, "--batch-size", "x", "--threads", "y"),
            ["--batch-size must be", "--threads must be", "2 errors."],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_a_mistake_is_told_in_a_sentence(
    adaptlab: Command, tmp_path: Path, words: tuple[str, ...], expected: list[str]
) -> None:
    done = adaptlab(*words)
    assert done.code == 2
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == len(expected), done.err
    for line, start in zip(lines, expected, strict=True):
        assert start in line
    assert "Traceback" not in done.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("words", [("comparee",), ("compare", "--modle", "x"), ("list", "method"), ("predict",), ()])
def test_wrong_usage_ends_with_2(adaptlab: Command, words: tuple[str, ...]) -> None:
    done = adaptlab(*words)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_a_wrong_log_level_is_refused(adaptlab: Command) -> None:
    done = adaptlab("list", "models", "--log-level", "loud")
    assert done.code == 2
    assert "'loud' is not one of debug, info, warning, error" in done.err


def test_validate_tells_every_error_with_its_line(adaptlab: Command, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("task: sst2\nsedes: 3\nmethods: [lora, loar]\nepochs: many\n")
    done = adaptlab("validate", "s.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        "s.yaml:2: unknown key 'sedes': did you mean 'seeds'?",
        "s.yaml:3: No method is called 'loar': did you mean lora or lokr or loha? See `adaptlab list methods`.",
        "s.yaml:4: 'epochs' must be a number, not 'many'",
        "3 errors.",
    ]


def test_errors_are_json_too(adaptlab: Command, tmp_path: Path) -> None:
    import json

    (tmp_path / "s.yaml").write_text("task: sst2\nsedes: 3\nmethods: [lora]\n")
    done = adaptlab("validate", "s.yaml", "--json")
    assert done.code == 2
    assert json.loads(done.out) == {
        "error": {"type": "ConfigError", "problems": ["s.yaml:2: unknown key 'sedes': did you mean 'seeds'?"]}
    }


def test_a_study_where_a_run_is_wanted_and_a_run_where_a_study_is(adaptlab: Command, tmp_path: Path) -> None:
    run = build_study(tmp_path / "study", [Run(METHODS[0])]) / "runs" / Run(METHODS[0]).folder_name
    for words in (
        ("predict", "study", "text"),
        ("evaluate", "study", "--task", "sst2"),
        ("export", "study", "--to", "x"),
    ):
        done = adaptlab(*words)
        assert done.code == 2
        assert f"one of this study's runs, such as study/runs/{run.name}" in done.err
    done = adaptlab("report", run)
    assert (done.code, done.out) == (2, "")
    assert f"is a run's folder: give its study's, {tmp_path / 'study'}." in done.err
    assert not list(tmp_path.glob("*-report"))


def test_an_adapter_is_no_model(adaptlab: Command, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    done = adaptlab(*COMPARE, "--model", "adapter")
    assert done.code == 2
    assert "holds an adapter, not a model: give the adapter's base" in done.err


def test_a_folder_that_is_not_a_study_is_left_alone(adaptlab: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    done = adaptlab(*COMPARE, "--out", "mine")
    assert done.code == 2
    assert done.err.startswith("Error: mine is not empty and has no study.yaml of adaptlab")
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


def _raise(error: BaseException) -> Any:
    def compare(*arguments: Any, **named: Any) -> Any:
        raise error

    return compare


def test_a_bug_is_short_and_shows_where_on_request(adaptlab: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "compare", _raise(ZeroDivisionError("by zero")))
    short = adaptlab(*COMPARE)
    assert short.code == 1
    assert (
        short.err
        == "Unexpected ZeroDivisionError: by zero. Give --log-level debug to see where, and please report it.\n"
    )
    long = adaptlab(*COMPARE, "--log-level", "debug")
    assert long.code == 1
    assert "Traceback (most recent call last)" in long.err


def test_an_interrupt_says_how_to_go_on(adaptlab: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "compare", _raise(KeyboardInterrupt()))
    done = adaptlab(*COMPARE)
    assert done.code == 130
    assert done.err == "Interrupted: what was written is valid; give the same command again to go on.\n"


def test_a_reader_that_went_away_is_no_error_of_ours() -> None:
    import subprocess
    import sys

    call = f"{sys.executable} -m adaptlab list tasks --json | head -n 1"
    done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[\n", "")
