"""The verbs, one after the other, on a study that takes seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Command


@pytest.fixture
def compared(adaptlab: Command, tiny_flags: list[str]) -> list[str]:
    """The command of a study that has run, in ./study."""
    command = ["compare", *tiny_flags, "--methods", "head,lora", "--seeds", "1", "--out", "study"]
    done = adaptlab(*command)
    assert done.code == 0, done.err
    return command


def run_of(study: str, method: str) -> Path:
    (found,) = Path(study, "runs").glob(f"*-{method}-*")
    return found


def test_compare_ends_with_the_table_and_the_page(adaptlab: Command, tiny_flags: list[str]) -> None:
    done = adaptlab("compare", *tiny_flags, "--methods", "head,lora", "--seeds", "2", "--out", "study")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "study/report/index.html"
    assert Path("study/report/index.html").is_file()
    assert "lora" in done.out
    assert "weather" in done.out
    assert done.err.splitlines()[0] == "4 runs to do, in study"
    assert [line[:5] for line in done.err.splitlines()[1:5]] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]


def test_the_same_command_again_runs_nothing_and_says_so(adaptlab: Command, compared: list[str]) -> None:
    before = run_of("study", "lora").joinpath("record.json").read_bytes()
    done = adaptlab(*compared)
    assert done.code == 0
    assert "0 runs to do, 2 already done, in study" in done.err
    assert run_of("study", "lora").joinpath("record.json").read_bytes() == before


def test_json_is_alone_on_stdout(adaptlab: Command, compared: list[str]) -> None:
    document = json.loads(adaptlab(*compared, "--json").out)
    assert [run["status"] for run in document["runs"]] == ["finished", "finished"]
    assert len(document["skipped"]) == 2
    assert document["page"] == "study/report/index.html"
    runs = json.loads(adaptlab("list", "runs", "study", "--json").out)
    assert sorted(run["name"] for run in runs) == sorted(run["name"] for run in document["runs"])
    assert json.loads(adaptlab("report", "study", "--json").out)["page"] == "study/report/index.html"


def test_quiet_leaves_results_alone(adaptlab: Command, compared: list[str]) -> None:
    done = adaptlab(*compared, "--quiet")
    assert done.err == ""
    assert done.out.endswith("study/report/index.html\n")


def test_a_damaged_record_runs_again_and_is_named(adaptlab: Command, compared: list[str]) -> None:
    damaged = run_of("study", "lora") / "record.json"
    damaged.write_text('{"schema": 1, "id"')
    done = adaptlab(*compared)
    assert done.code == 0
    assert "1 run to do, 1 already done" in done.err
    assert f"{damaged} is damaged" in done.err
    assert "set aside as record.json.damaged-1" in done.err
    assert json.loads(damaged.read_text())["status"] == "finished"


def test_another_protocol_in_the_same_folder_is_refused(adaptlab: Command, compared: list[str]) -> None:
    before = Path("study/study.yaml").read_text()
    done = adaptlab(*compared, "--batch-size", "16")
    assert done.code == 2
    assert "study holds another study (batch_size 8 there, 16 here): give another --out" in done.err
    assert Path("study/study.yaml").read_text() == before


def test_the_studys_own_file_goes_on_with_it(adaptlab: Command, compared: list[str]) -> None:
    done = adaptlab("compare", "study/study.yaml", "--methods", "bitfit")
    assert done.code == 0, done.err
    assert len(list(Path("study/runs").iterdir())) == 3


def test_a_run_is_trained_scored_asked_and_listed(adaptlab: Command, tiny_flags: list[str], table: Path) -> None:
    trained = adaptlab("train", *tiny_flags, "--method", "lora", "--seed", "3", "--set", "lora.r=2")
    assert trained.code == 0, trained.err
    run = trained.out.splitlines()[-1]
    assert run.startswith("weather-study/runs/weather-lora-s3-")
    before = Path(run, "record.json").read_bytes()

    scored = adaptlab("evaluate", run, "--task", table, "--json")
    assert scored.code == 0, scored.err
    document = json.loads(scored.out)
    assert document["path"].startswith(f"{run}/evaluations/")
    (metrics,) = document["metrics"].values()
    assert 0 <= metrics["accuracy"] <= 1
    assert Path(run, "record.json").read_bytes() == before
    assert "accuracy" in adaptlab("evaluate", run, "--task", table).out

    asked = adaptlab("predict", run, "the sun was seen", "snow on the road")
    assert asked.code == 0, asked.err
    answers = [json.loads(line) for line in asked.out.splitlines()]
    assert [set(answer) for answer in answers] == [{"label", "scores"}] * 2
    for answer in answers:
        assert set(answer["scores"]) == {"cold", "warm"}
        assert sum(answer["scores"].values()) == pytest.approx(1)
        assert answer["label"] == max(answer["scores"], key=answer["scores"].get)

    Path("input.jsonl").write_text('{"text": "the sun was seen"}\n{"text": "snow on the road"}\n')
    from_file = adaptlab("predict", run, "--input", "input.jsonl")
    assert from_file.out == asked.out

    listed = adaptlab("list", "runs", "weather-study").out
    assert Path(run).name in listed
    assert "finished" in listed


@pytest.mark.slow
def test_texts_come_from_stdin_too(compared: list[str], adaptlab: Command) -> None:
    run = run_of("study", "lora")
    call = [sys.executable, "-m", "adaptlab", "predict", str(run), "-"]
    done = subprocess.run(call, input="the sun was seen\nsnow on the road\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == adaptlab("predict", run, "the sun was seen", "snow on the road").out


@pytest.mark.slow
def test_a_study_that_was_interrupted_goes_on(adaptlab: Command, tiny_flags: list[str]) -> None:
    flags = list(tiny_flags)
    flags[flags.index("--steps") + 1] = "2000"
    command = ["compare", *flags, "--methods", "head", "--seeds", "1", "--eval-every", "1000", "--out", "study"]
    process = subprocess.Popen([sys.executable, "-m", "adaptlab", *command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(Path(".").glob("study/runs/*/curve.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "again" in said.splitlines()[-1]
    (run,) = Path("study/runs").iterdir()
    assert json.loads((run / "record.json").read_text())["status"] in ("interrupted", "running")
    assert [name for name in os.listdir(run) if name.endswith(".tmp")] == []
    done = adaptlab(*command)
    assert done.code == 0, done.err
    assert json.loads((run / "record.json").read_text())["status"] == "finished"


def test_targets_that_match_nothing_end_with_1_or_2_and_a_sentence(adaptlab: Command, tiny_flags: list[str]) -> None:
    done = adaptlab("compare", *tiny_flags, "--methods", "lora", "--seeds", "1", "--targets", "quary", "--out", "study")
    assert done.code == 2
    assert "The target 'quary' matches nothing" in done.err
    assert "Traceback" not in done.err
    assert not Path("study").exists()


def test_a_run_is_exported_and_scored_as_an_adapter(adaptlab: Command, compared: list[str], table: Path) -> None:
    run = run_of("study", "lora")
    done = adaptlab("export", run, "--to", "out", "--device", "cpu")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("An adapter for peft, checked: ")
    assert lines[1].startswith("Loaded again in a fresh process with transformers and peft only, on ")
    assert "largest logit difference" in lines[2]
    assert lines[-1] == "out"
    again = adaptlab("export", run, "--to", "out")
    assert (again.code, again.err) == (2, "Error: out is not empty: give a new or empty folder for --to.\n")

    model = compared[compared.index("--model") + 1]
    scored = adaptlab("evaluate", "--adapter", "out", "--model", model, "--task", table, "--device", "cpu", "--json")
    assert scored.code == 0, scored.err
    record = json.loads((run / "record.json").read_text())
    assert json.loads(scored.out)["path"] is None
    for name, metrics in json.loads(scored.out)["metrics"].items():
        assert metrics == pytest.approx(record["metrics"][name], abs=1e-4)


def test_how_an_adapter_is_read_is_not_asked_of_a_run(adaptlab: Command, compared: list[str], table: Path) -> None:
    done = adaptlab("evaluate", run_of("study", "lora"), "--task", table, "--quantize", "4bit")
    assert (done.code, done.err) == (2, "Error: --quantize is for --adapter: a run is evaluated as it was trained.\n")


@pytest.mark.parametrize("words", [("--adapter", "there", "here"), ()])
def test_evaluate_wants_a_run_or_an_adapter(adaptlab: Command, words: tuple[str, ...]) -> None:
    done = adaptlab("evaluate", "--task", "sst2", *words)
    assert done.code == 2
    assert "A run's folder and --adapter" in done.err
