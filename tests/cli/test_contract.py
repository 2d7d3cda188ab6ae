"""Names of verbs and flags are a contract: nothing listed here is renamed or taken away; later work adds to it.

A new flag makes this test fail on purpose: write it down here, and it stays.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import Any

import pytest
import typer

from adaptlab.cli.main import app

_ALWAYS = {"--json", "--quiet", "-q", "--log-level"}
_RUNS = {
    "--track", "--track-project", "--track-entity", "--track-group", "--track-name", "--track-mode", "--profile",
    "--model", "--task", "--set", "--targets", "--readout", "--prompt", "--also-evaluate", "--balanced",
    "--shots", "--shot-sampling",
    "--shots-per-query", "--verbalizer-loss", "--length-normalization", "--calibration", "--max-new-tokens", "--beams",
    "--stop", "--unlabelled-examples", "--explanation-column",
    "--objective", "--teacher", "--teacher-shots", "--temperature",
    "--quantize", "--train-examples", "--select-examples", "--eval-examples",
    "--max-length", "--data-seed", "--data-root", "--text-columns", "--label-column", "--delimiter", "--epochs",
    "--max-examples", "--max-tokens", "--max-flops", "--max-seconds", "--max-bytes",
    "--steps", "--batch-size", "--learning-rate", "--head-learning-rate", "--optimizer", "--schedule",
    "--warmup-ratio", "--weight-decay", "--max-grad-norm", "--eval-every", "--select", "--dtype", "--keep-weights",
    "--device", "--threads", "--micro-batch-size", "--gradient-checkpointing", "--measure", "--engine",
    "--devices-per-run", "--shard", "--allow-pickle", "--trust-remote-code",
    "--out",
}  # fmt: skip
_LAUNCH = {"--launcher", "--workers", "--wait", "--no-wait", "--ray-address", "--launch"}
_FILES = {"--data-root", "--text-columns", "--label-column", "--delimiter"}
CONTRACT = {
    "compare": {"STUDY", "--methods", "--seeds", "--tune", "--pruner", "--equalize", *_RUNS, *_LAUNCH},
    "choose": {
        "--budget", "--max-memory", "--max-parameters", "--model", "--task", "--methods", "--seeds", "--set",
        "--targets", "--train-examples", "--select-examples", "--eval-examples", "--max-length", *_FILES, "--epochs",
        "--steps", "--batch-size", "--dtype", "--device", "--threads", "--launcher", "--workers", "--ray-address",
        "--launch", "--devices-per-run", "--shard", "--allow-pickle", "--trust-remote-code", "--out",
    },
    "plan": {"STUDY", "--methods", "--seeds", *_RUNS},
    "train": {"STUDY", "--method", "--seed", *_RUNS},
    "evaluate": {
        *("RUN", "--adapter", "--task", "--model", "--quantize", "--readout", "--prompt", "--eval-examples"),
        *("--device", *_FILES),
    },
    "predict": {"RUN", "TEXTS", "--input", "--split", "--data-root", "--out", "--model", "--device"},
    "export": {"RUN", "--to", "--merge", "--push", "--input", "--model", "--data-root", "--device"},
    "run-one": {"FOLDERS"},
    "report": {"STUDY", "--figures", "--where", "--out"},
    "watch": {"STUDY", "--once", "--interval"},
    "validate": {"STUDY"},
    "demo": {
        "--methods", "--seeds", "--train-examples", "--eval-examples", "--epochs", "--steps", "--dtype",
        "--keep-weights", "--device", "--threads", "--measure", "--out",
    },
    "list methods": {"--matrix"},
    "list tasks": set(),
    "list metrics": set(),
    "list models": set(),
    "list runs": {"STUDY"},
}  # fmt: skip


def commands() -> dict[str, Any]:
    root: Any = typer.main.get_command(app)
    found = {name: command for name, command in root.commands.items() if name != "list"}
    return found | {f"list {name}": command for name, command in root.commands["list"].commands.items()}


def words(command: Any) -> set[str]:
    found = set()
    for parameter in command.params:
        found |= (
            {parameter.name.upper()}
            if parameter.param_type_name == "argument"
            else {*parameter.opts, *parameter.secondary_opts}
        )
    return found


def test_no_verb_is_missing_and_none_is_unlisted() -> None:
    assert set(commands()) == set(CONTRACT)


@pytest.mark.parametrize("verb", CONTRACT)
def test_flags_are_those_of_the_contract(verb: str) -> None:
    assert words(commands()[verb]) - {"--help", "-h"} == CONTRACT[verb] | _ALWAYS


@pytest.mark.parametrize("words", [["--help"], *([*verb.split(), "--help"] for verb in CONTRACT)], ids=" ".join)
def test_help_names_every_flag(words: list[str]) -> None:
    environment = {**os.environ, "COLUMNS": "160"}
    call = [sys.executable, "-m", "adaptlab", *words]
    done = subprocess.run(call, capture_output=True, text=True, check=True, env=environment)
    verb = " ".join(words[:-1])
    for flag in CONTRACT.get(verb, set()):
        assert not flag.startswith("--") or f"{flag} " in done.stdout


_QUICK = """
import sys
from adaptlab.cli.main import main
code = main(sys.argv[1:])
heavy = {"torch", "transformers", "datasets", "pandas", "peft", "sklearn", "scipy", "altair"} & set(sys.modules)
sys.stderr.write(f"{code} {sorted(heavy)}")
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["compare", "--help"],
        ["list", "methods"],
        ["list", "methods", "--matrix"],
        ["list", "tasks"],
        ["list", "metrics"],
        ["list", "models"],
    ],
    ids=" ".join,
)
def test_quick_commands_import_nothing_heavy_and_take_under_a_second(words: list[str]) -> None:
    """Seconds of the processor, not of the clock: other work on the machine does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", _QUICK, *words], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr == "0 []"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_validate_imports_nothing_heavy(tmp_path: Any) -> None:
    (tmp_path / "study.yaml").write_text("task: sst2\nmethods: [{name: lora, r: [4, 8]}]\n")
    call = [sys.executable, "-c", _QUICK, "validate", str(tmp_path / "study.yaml")]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stderr == "0 []"
    assert "6 runs" in done.stdout
