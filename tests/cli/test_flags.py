"""Words of the command line become a study's values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adaptlab import api
from adaptlab.cli.flags import default_out, method_options
from adaptlab.config import StudyConfig
from adaptlab.errors import ConfigError

from .conftest import Command


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[StudyConfig, Path]]:
    """What the verbs ask of the package, which here does nothing and reports an empty study."""
    calls: list[tuple[StudyConfig, Path]] = []

    def stop(study: StudyConfig, *, out: Path, listener: Any) -> Any:
        calls.append((study, out))
        raise ConfigError("asked")

    monkeypatch.setattr(api, "compare", stop)
    monkeypatch.setattr(api, "train", stop)
    return calls


#: What a method's entry leaves to the study.
UNSAID = dict.fromkeys(
    [
        *("targets", "quantize", "learning_rate", "readout", "objective", "shots"),
        *("teacher", "verbalizer_loss", "optimizer", "schedule"),
    ]
)
#: What the flags below say of where runs execute.
EXECUTION = {
    "devices_per_run": 2,
    "shard": True,
    "gradient_checkpointing": True,
    "device": "cpu",
    "threads": 2,
    "data_root": "somewhere",
    "keep_weights": "all",
    "micro_batch_size": 4,
    "engine": "fused",
    "checkpoint_seconds": 30.0,
    "measure": "probe",
    "track": ["wandb", "mlflow"],
    "track_project": "p",
    "track_entity": "e",
    "track_group": "g",
    "track_name": "n",
    "track_mode": "offline",
    "profile": True,
    "launcher": "slurm",
    "workers": 3,
    "wait": False,
    "ray_address": "auto",
    "launch": {"partition": "gpu", "time_minutes": "5"},
}


def test_every_flag_of_compare_reaches_the_study(adaptlab: Command, asked: list[tuple[StudyConfig, Path]]) -> None:
    done = adaptlab(
        "compare",
        *("--model", "a/b,c/d", "--task", "sst2,mrpc", "--methods", "lora,full", "--seeds", "0,4"),
        *("--set", "lora.r=4,8", "--set", "lora.alpha=16", "--targets", "query,value", "--tune", "9"),
        *("--prompt", "p,q", "--also-evaluate", "hans,med", "--balanced"),
        *("--train-examples", "100,all", "--select-examples", "50", "--eval-examples", "20", "--max-length", "64,auto"),
        *("--data-seed", "1,2", "--data-root", "somewhere", "--text-columns", "x,y", "--label-column", "z"),
        *("--delimiter", ";", "--steps", "10,20", "--batch-size", "8,16", "--learning-rate", "auto,1e-3"),
        *("--head-learning-rate", "1e-2", "--quantize", "none,8bit"),
        *("--optimizer", "adam", "--schedule", "cosine", "--warmup-ratio", "0.1", "--weight-decay", "0.5"),
        *("--max-grad-norm", "none", "--eval-every", "5", "--select", "last", "--dtype", "float32,bfloat16"),
        *("--keep-weights", "all", "--device", "cpu", "--threads", "2", "--micro-batch-size", "4"),
        *("--launcher", "slurm", "--workers", "3", "--no-wait", "--ray-address", "auto"),
        *("--launch", "partition=gpu", "--launch", "time-minutes=5"),
        *("--readout", "verbalizer,generate", "--objective", "context-distillation", "--shots", "0,4"),
        *("--shot-sampling", "balanced", "--shots-per-query", "--verbalizer-loss", "vocabulary"),
        *("--length-normalization", "tokens", "--calibration", "content-free", "--max-new-tokens", "5"),
        *("--beams", "2", "--teacher", "recursive", "--teacher-shots", "3", "--temperature", "2"),
        *("--engine", "fused", "--measure", "probe", "--track", "wandb,mlflow", "--track-project", "p"),
        *("--track-entity", "e", "--track-group", "g", "--track-name", "n", "--track-mode", "offline", "--profile"),
        *("--explanation-column", "w", "--unlabelled-examples", "0,all", "--stop", "a\\n", "--stop", "b"),
        *("--max-examples", "1,2", "--max-tokens", "3", "--max-flops", "4e9", "--max-seconds", "5", "--max-bytes", "6"),
        *("--pruner", "halving", "--gradient-checkpointing", "--devices-per-run", "2", "--shard"),
        *("--allow-pickle", "--trust-remote-code", "--out", "here"),
    )
    assert (done.code, done.err) == (2, "Error: asked\n")
    ((study, out),) = asked
    assert out == Path("here")
    assert study.model_dump(mode="json") == {
        "model": [
            {"id": name, "revision": None, "quantize": "none", "trust_remote_code": True, "allow_pickle": True}
            for name in ("a/b", "c/d")
        ],
        "task": [
            {
                "name": name,
                "text_columns": ["x", "y"],
                "label_column": "z",
                "explanation_column": "w",
                "delimiter": ";",
                "prompt": ["p", "q"],
                "prompts": [],
                "also_evaluate": ["hans", "med"],
            }
            for name in ("sst2", "mrpc")
        ],
        "methods": [
            {"name": "lora", "label": "", "head": ["trained"], **UNSAID, "r": [4, 8], "alpha": 16},
            {"name": "full", "label": "", "head": ["trained"], **UNSAID},
        ],
        "seeds": [0, 4],
        "targets": ["query", "value"],
        "quantize": ["none", "8bit"],
        "train_examples": [100, "all"],
        "select_examples": 50,
        "eval_examples": 20,
        "data_seed": [1, 2],
        "balanced": True,
        "unlabelled_examples": [0, "all"],
        "max_length": [64, "auto"],
        "readout": ["verbalizer", "generate"],
        "objective": ["context-distillation"],
        "shots": [0, 4],
        "shot_sampling": ["balanced"],
        "shots_per_query": [True],
        "verbalizer_loss": ["vocabulary"],
        "length_normalization": ["tokens"],
        "calibration": ["content-free"],
        "max_new_tokens": [5],
        "beams": [2],
        "stop": ["a\n", "b"],
        "teacher": ["recursive"],
        "teacher_shots": [3],
        "temperature": [2.0],
        "epochs": None,
        "steps": [10, 20],
        "max_examples": [1, 2],
        "max_tokens": [3],
        "max_flops": [4e9],
        "max_seconds": [5],
        "max_bytes": [6],
        "batch_size": [8, 16],
        "learning_rate": ["auto", 1e-3],
        "head_learning_rate": [1e-2],
        "optimizer": ["adam"],
        "weight_decay": [0.5],
        "schedule": ["cosine"],
        "warmup_ratio": [0.1],
        "max_grad_norm": None,
        "eval_every": 5,
        "select": "last",
        "dtype": ["float32", "bfloat16"],
        "tune": 9,
        "pruner": "halving",
        "equalize": None,
        "equal_budgets": None,
        "execution": EXECUTION,
    }


@pytest.mark.parametrize(("words", "seeds"), [([], (0, 1, 2)), (["--seeds", "2"], (0, 1)), (["--seeds", "5,"], (5,))])
def test_seeds_are_a_number_or_a_list(
    adaptlab: Command, asked: list[tuple[StudyConfig, Path]], words: list[str], seeds: tuple[int, ...]
) -> None:
    adaptlab("compare", "--task", "sst2", "--methods", "lora", *words)
    assert asked[0][0].seeds == seeds


def test_train_is_compare_in_the_singular(adaptlab: Command, asked: list[tuple[StudyConfig, Path]]) -> None:
    adaptlab("train", "--task", "sst2", "--method", "lora")
    adaptlab("train", "--task", "sst2", "--method", "lora", "--seed", "7", "--epochs", "0.5", "--set", "lora.r=2")
    assert asked[0][0].seeds == (0,)
    assert (asked[1][0].seeds, asked[1][0].epochs, asked[1][0].methods[0].options) == ((7,), (0.5,), {"r": 2})


def test_the_demo_can_be_made_small(adaptlab: Command, asked: list[tuple[StudyConfig, Path]]) -> None:
    adaptlab("demo")
    adaptlab("demo", "--methods", "head", "--seeds", "1", "--train-examples", "50", "--steps", "3", "--out", "x")
    (study, out), (small, elsewhere) = asked
    assert [entry.name for entry in study.methods] == ["head", "bitfit", "lora", "ia3", "full"]
    assert (study.task[0].name, study.model[0].id, study.seeds) == ("stdlib-docs", "minilm", (0, 1))
    assert (study.train_examples, study.epochs, out) == ((1200,), (2.0,), Path("demo-study"))
    assert (small.train_examples, small.epochs, small.steps, elsewhere) == ((50,), None, (3,), Path("x"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("4,8", [4, 8]),
        ("1e-3", 1e-3),
        ("true", True),
        ("gaussian", "gaussian"),
        ("[0,1]", [0, 1]),
        ("[0],[0,1]", [[0], [0, 1]]),
        ("layer.[0-9]+", "layer.[0-9]+"),
        ("a: b", "a: b"),
        (".*bias", ".*bias"),
        ("null", None),
        ('"4"', "4"),
        ("!!python/object/apply:os.system [x]", "!!python/object/apply:os.system [x]"),
    ],
)
def test_an_option_has_the_value_that_yaml_would_give_it(text: str, value: Any) -> None:
    assert method_options([f"lora.r={text}"]) == {"lora": {"r": value}}


@pytest.mark.parametrize("word", ["lora", "lora.r", "r=4", "lora.=4", ".r=4", "lora.r="])
def test_an_option_without_method_name_or_value_is_refused(adaptlab: Command, word: str) -> None:
    done = adaptlab("compare", "--task", "sst2", "--methods", "lora", "--set", word)
    assert done.code == 2
    assert done.err == f"Error: --set {word}: give METHOD.OPTION=VALUE, for example --set lora.r=16.\n"


def test_a_study_goes_to_a_folder_that_can_be_foretold(tmp_path: Path) -> None:
    study = StudyConfig.model_validate({"task": ["sst2", "data/my reviews.csv"], "methods": "lora"})
    assert default_out(None, study) == Path("sst2-my reviews-study")
    assert default_out(Path("examples/few-shot.yaml"), study) == Path("few-shot-study")
    assert default_out(Path("study.yaml"), study) == Path("sst2-my reviews-study")
    (tmp_path / "runs").mkdir()
    assert default_out(tmp_path / "study.yaml", study) == tmp_path
