"""The flags that make a study, declared once, and how their words become its values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from adaptlab import config
from adaptlab.config import ExecutionConfig, StudyConfig
from adaptlab.errors import ConfigError
from adaptlab.study.document import Flags

_WHAT, _DATA, _TRAINING, _WHERE = "What is compared", "Data", "Training", "Where and how it runs"
_ASKED = "How the model answers"


def _option(flag: str, metavar: str, help: str, panel: str) -> Any:
    return typer.Option(flag, metavar=metavar or None, help=help, rich_help_panel=panel, show_default=False)


Study = Annotated[
    Path | None, typer.Argument(metavar="STUDY.yaml", help="A study in YAML; flags go over it.", show_default=False)
]
Model = Annotated[
    str | None, _option("--model", "M[,M]", "Hub id or folder; minilm (the default) comes with adaptlab.", _WHAT)
]
Task = Annotated[str | None, _option("--task", "T[,T]", "A task's name, or a file or folder with your rows.", _WHAT)]
Methods = Annotated[str | None, _option("--methods", "A,B,..", "Ways of adapting: see `adaptlab list methods`.", _WHAT)]
Method = Annotated[str | None, _option("--method", "A", "Way of adapting: see `adaptlab list methods`.", _WHAT)]
Seeds = Annotated[
    str | None, _option("--seeds", "N|S,S", "How many seeds (3: 0, 1, 2), or which (0,1,2 or 5,).", _WHAT)
]
Seed = Annotated[str | None, _option("--seed", "S", "The run's seed; 0 by default.", _WHAT)]
Set = Annotated[
    list[str] | None,
    _option("--set", "METHOD.OPTION=V[,V]", "A method's own option; several values make a grid. May repeat.", _WHAT),
]
Targets = Annotated[
    str | None, _option("--targets", "WORDS", "Where adapters sit: query,value, mlp, all-linear, a regex ...", _WHAT)
]
Quantize = Annotated[
    str | None,
    _option("--quantize", "4bit|8bit|none", "Store the base's blocks in 4 or 8 bits; several make a grid.", _WHAT),
]
Readout = Annotated[
    str | None,
    _option("--readout", "NAME", f"How the model answers: {', '.join(get_args(config.Readout))} (head).", _ASKED),
]
Shots = Annotated[
    str | None, _option("--shots", "K[,K]", "Demonstrations before every question, from the training rows.", _ASKED)
]
ShotSampling = Annotated[
    str | None, _option("--shot-sampling", "random|balanced", "balanced shows as many of each class.", _ASKED)
]
ShotsPerQuery = Annotated[bool, _option("--shots-per-query", "", "Other demonstrations for every question.", _ASKED)]
VerbalizerLoss = Annotated[
    str | None, _option("--verbalizer-loss", "labels|vocabulary", "What a label's words are trained against.", _ASKED)
]
LengthNormalization = Annotated[
    str | None, _option("--length-normalization", "NAME", "Divide by length: none, tokens or characters.", _ASKED)
]
Calibration = Annotated[
    str | None,
    _option("--calibration", "none|content-free", "Take away what is answered to a row that says nothing.", _ASKED),
]
Objective = Annotated[
    str | None, _option("--objective", "NAME", f"{', '.join(get_args(config.Objective))} (supervised).", _TRAINING)
]
Teacher = Annotated[
    str | None,
    _option("--teacher", "frozen|recursive", "Of context distillation: the base, or the model as it is.", _ASKED),
]
TeacherShots = Annotated[str | None, _option("--teacher-shots", "K", "Demonstrations the teacher reads; 4.", _ASKED)]
Temperature = Annotated[str | None, _option("--temperature", "X", "Of context distillation; 1.", _ASKED)]
MaxNewTokens = Annotated[
    str | None, _option("--max-new-tokens", "N", "Tokens that --readout generate writes at most; 64.", _ASKED)
]
Beams = Annotated[str | None, _option("--beams", "N", "Beams of --readout generate; 1 is greedy.", _ASKED)]
Stop = Annotated[
    list[str] | None,
    _option("--stop", "TEXT", "Ends what --readout generate writes; \\n is a line break. May repeat.", _ASKED),
]
TrainExamples = Annotated[str | None, _option("--train-examples", "N|all", "Rows that training may see.", _DATA)]
UnlabelledExamples = Annotated[
    str | None,
    _option("--unlabelled-examples", "N|all", "Rows to distil on whose answers nobody looks at.", _DATA),
]
SelectExamples = Annotated[str | None, _option("--select-examples", "N|all", "Rows that choose the checkpoint.", _DATA)]
EvalExamples = Annotated[str | None, _option("--eval-examples", "N|all", "Rows of each report set.", _DATA)]
Balanced = Annotated[bool, _option("--balanced", "", "As many training rows of every class.", _DATA)]
Prompt = Annotated[
    str | None, _option("--prompt", "P[,P]", "A task's prompt by name: see `adaptlab list tasks --json`.", _WHAT)
]
AlsoEvaluate = Annotated[
    str | None, _option("--also-evaluate", "T[,T]", "Tasks to look at besides, e.g. out of the domain.", _DATA)
]
MaxLength = Annotated[str | None, _option("--max-length", "L|auto", "Tokens of a row that are read.", _DATA)]
DataSeed = Annotated[str | None, _option("--data-seed", "N", "Which rows a subset takes; 0 by default.", _DATA)]
DataRoot = Annotated[str | None, _option("--data-root", "DIR", "A folder of data sets laid out like the hub.", _DATA)]
TextColumns = Annotated[str | None, _option("--text-columns", "C[,C]", "Text columns of your own file.", _DATA)]
LabelColumn = Annotated[str | None, _option("--label-column", "C", "Label column of your own file.", _DATA)]
ExplanationColumn = Annotated[
    str | None, _option("--explanation-column", "C", "Why a row's answer is right, for demonstrations.", _DATA)
]
Delimiter = Annotated[str | None, _option("--delimiter", "CHAR", "Delimiter of your own file; tab for a tab.", _DATA)]
Epochs = Annotated[str | None, _option("--epochs", "E", "Passes over the training rows; 3 by default.", _TRAINING)]
Steps = Annotated[str | None, _option("--steps", "S", "Optimiser steps, instead of epochs.", _TRAINING)]
MaxExamples = Annotated[
    str | None,
    _option("--max-examples", "N", "Budget of a run: training rows, each as often as read.", _TRAINING),
]
MaxTokens = Annotated[str | None, _option("--max-tokens", "N", "Budget of a run: tokens without padding.", _TRAINING)]
MaxFlops = Annotated[
    str | None, _option("--max-flops", "X", "Budget of a run: operations of its training, such as 2e15.", _TRAINING)
]
MaxSeconds = Annotated[str | None, _option("--max-seconds", "X", "Budget of a run: seconds of its steps.", _TRAINING)]
MaxBytes = Annotated[str | None, _option("--max-bytes", "N", "Budget of a run: bytes of the texts read.", _TRAINING)]
BatchSize = Annotated[str | None, _option("--batch-size", "B", "Rows of a step; 32 by default.", _TRAINING)]
LearningRate = Annotated[
    str | None, _option("--learning-rate", "X|auto", "Peak rate; auto is each method's own default.", _TRAINING)
]
HeadLearningRate = Annotated[
    str | None, _option("--head-learning-rate", "X", "Peak rate of the head, if not that of the rest.", _TRAINING)
]
Optimizer = Annotated[
    str | None, _option("--optimizer", "NAME", f"{', '.join(get_args(config.Optimizer))}.", _TRAINING)
]
Schedule = Annotated[
    str | None,
    _option("--schedule", "NAME", f"Rate over the steps: {', '.join(get_args(config.Schedule))}.", _TRAINING),
]
WarmupRatio = Annotated[str | None, _option("--warmup-ratio", "X", "Share of steps that warm up; 0.06.", _TRAINING)]
WeightDecay = Annotated[str | None, _option("--weight-decay", "X", "Weight decay; 0 by default.", _TRAINING)]
MaxGradNorm = Annotated[
    str | None, _option("--max-grad-norm", "X|none", "Gradients are clipped to this norm; 1 by default.", _TRAINING)
]
EvalEvery = Annotated[
    str | None, _option("--eval-every", "N", "Steps between evaluations; once an epoch by default.", _TRAINING)
]
Select = Annotated[
    str | None, _option("--select", "best|last", "Which checkpoint is kept; best by default.", _TRAINING)
]
DType = Annotated[
    str | None, _option("--dtype", "auto|float32|bfloat16|float16", "Numbers that the model computes in.", _TRAINING)
]
Tune = Annotated[
    str | None,
    _option("--tune", "N", "Search N times for each method's rate (and listed options), then run its seeds.", _WHAT),
]
Equalize = Annotated[
    str | None,
    _option("--equalize", "flops|seconds", "One budget for all: what the dearest method takes for the epochs.", _WHAT),
]
Pruner = Annotated[
    str | None,
    _option("--pruner", "halving|median", "End poor trials of --tune early: successive halving, or the median.", _WHAT),
]
KeepWeights = Annotated[
    str | None, _option("--keep-weights", "all|best|none", "best keeps the best seed of each variant.", _WHERE)
]
Device = Annotated[str | None, _option("--device", "auto|cpu|cuda", "Where the model computes.", _WHERE)]
Threads = Annotated[str | None, _option("--threads", "N", "CPU threads of a run.", _WHERE)]
Launcher = Annotated[
    str | None, _option("--launcher", "inline|local|slurm|ray", "Where runs execute; inline, one by one, here.", _WHERE)
]
Workers = Annotated[str | None, _option("--workers", "N", "Worker processes of --launcher local.", _WHERE)]
DevicesPerRun = Annotated[
    str | None,
    _option("--devices-per-run", "N", "Share each batch among N GPUs (or processes on a CPU); same numbers.", _WHERE),
]
Shard = Annotated[
    bool,
    _option("--shard", "", "Keep a part of the weights on each of them, for a base that one has no room for.", _WHERE),
]
Wait = Annotated[
    bool | None,
    typer.Option(
        "--wait/--no-wait", help="Wait for a cluster's jobs, or leave them to it.", rich_help_panel=_WHERE,
        show_default=False,
    ),
]  # fmt: skip
RayAddress = Annotated[str | None, _option("--ray-address", "ADDRESS", "A Ray cluster that is there already.", _WHERE)]
Launch = Annotated[
    list[str] | None,
    _option("--launch", "OPTION=V", "The launcher's own option, such as partition=gpu. May repeat.", _WHERE),
]
MicroBatchSize = Annotated[
    str | None, _option("--micro-batch-size", "B", "Rows at once; gradients add up to a batch. Saves memory.", _WHERE)
]
GradientCheckpointing = Annotated[
    bool, _option("--gradient-checkpointing", "", "Compute blocks anew in the backward pass. Saves memory.", _WHERE)
]
Measure = Annotated[
    str | None,
    _option("--measure", "auto|probe|run", "Who measures memory and step: the run, or a probe on its own.", _WHERE),
]
Engine = Annotated[
    str | None,
    _option("--engine", "auto|solo|fused", "fused trains runs over one base together; auto does on a GPU.", _WHERE),
]
Track = Annotated[
    str | None, _option("--track", "T[,T]", "Follow runs in tensorboard, wandb, mlflow or trackio (extras).", _WHERE)
]
TrackProject = Annotated[str | None, _option("--track-project", "P", "Project or experiment there; adaptlab.", _WHERE)]
TrackEntity = Annotated[str | None, _option("--track-entity", "E", "Team or user, for wandb.", _WHERE)]
TrackGroup = Annotated[str | None, _option("--track-group", "G", "Group of runs there.", _WHERE)]
TrackName = Annotated[str | None, _option("--track-name", "N", "Begins each run's name there.", _WHERE)]
TrackMode = Annotated[str | None, _option("--track-mode", "online|offline|disabled", "For wandb; online.", _WHERE)]
Profile = Annotated[
    bool, _option("--profile", "", "Write a torch profiler trace and the costliest operations of each run.", _WHERE)
]
AllowPickle = Annotated[bool, _option("--allow-pickle", "", "Read pickled weights, safely (weights only).", _WHERE)]
TrustRemoteCode = Annotated[
    bool, _option("--trust-remote-code", "", "Run code that comes with a model: only if you trust it.", _WHERE)
]
Out = Annotated[Path | None, _option("--out", "DIR", "The study's folder; ./<tasks>-study by default.", _WHERE)]

_LISTS = (
    "model", "task", "methods", "quantize", "train_examples", "data_seed", "max_length", "epochs", "steps",
    "max_examples", "max_tokens", "max_flops", "max_seconds", "max_bytes", "unlabelled_examples",
    "batch_size", "learning_rate", "head_learning_rate", "optimizer", "weight_decay", "schedule", "warmup_ratio",
    "dtype", "readout", "shots", "shot_sampling", "verbalizer_loss", "length_normalization", "calibration",
    "max_new_tokens", "beams", "objective", "teacher", "teacher_shots", "temperature",
)  # fmt: skip
_OF_TASKS = ("text_columns", "label_column", "explanation_column", "delimiter", "prompt", "also_evaluate")
_OF_MODELS = ("allow_pickle", "trust_remote_code")
_WORDS = re.compile(r"[\w.-]+(,[\w.-]+)+")


def flag(key: object) -> str:
    """How a key is spelt as a flag."""
    return f"--{str(key).replace('_', '-')}"


def study_flags(given: Mapping[str, Any]) -> Flags:
    """The values of a command's flags, by parameter name, as what goes over a study file.

    Raises:
        ConfigError: a ``--set`` is not METHOD.OPTION=VALUE.
    """
    keys = {key: value for key, value in given.items() if value is not None and (value is not False or key == "wait")}
    if "launch" in keys:
        keys["launch"] = launch_options(keys["launch"])
    if "method" in keys:
        keys["methods"] = keys["method"]
    study: dict[str, Any] = {}
    for key in (*StudyConfig.model_fields, *ExecutionConfig.model_fields):
        if key in keys:
            study[key] = keys[key].split(",") if key in _LISTS else keys[key]
    if "seeds" in study:
        study["seeds"] = _seeds(study["seeds"])
    if "seed" in keys:
        study["seeds"] = [keys["seed"]]
    if _WORDS.fullmatch(study.get("targets", "")):
        study["targets"] = study["targets"].split(",")
    if "stop" in study:
        study["stop"] = [text.replace("\\n", "\n").replace("\\t", "\t") for text in study["stop"]]
    if study.get("max_grad_norm") == "none":
        study["max_grad_norm"] = None
    task = {key: keys[key] for key in _OF_TASKS if key in keys}
    for key in ("text_columns", "prompt", "also_evaluate"):
        if key in task:
            task[key] = task[key].split(",")
    model = {key: keys[key] for key in _OF_MODELS if key in keys}
    singular = {key: word for key, word in (("methods", "--method"), ("seeds", "--seed")) if word[2:] in given}
    return Flags(study, task, model, method_options(keys.get("set", ())), singular)


def method_options(settings: list[str] | tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """``["lora.r=4,8"]`` as ``{"lora": {"r": [4, 8]}}``."""
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        method, dot, option = name.partition(".")
        if not (equals and dot and method and option and value):
            raise ConfigError(f"--set {setting}: give METHOD.OPTION=VALUE, for example --set lora.r=16.")
        found.setdefault(method, {})[option.replace("-", "_")] = _option_value(value)
    return found


def launch_options(settings: Iterable[str]) -> dict[str, str]:
    """``["partition=gpu"]`` as ``{"partition": "gpu"}``."""
    found = {}
    for setting in settings:
        option, equals, value = setting.partition("=")
        if not (equals and option and value):
            raise ConfigError(f"--launch {setting}: give OPTION=VALUE, for example --launch partition=gpu.")
        found[option.replace("-", "_")] = value
    return found


def default_out(file: Path | None, study: StudyConfig) -> Path:
    """Where a study goes when nobody said: beside the work, under a name that the same command finds again."""
    if file is not None and file.name == "study.yaml" and (file.parent / "runs").is_dir():
        return file.parent  # the file is a study's own: go on with it
    if file is not None and file.stem != "study":
        return Path(f"{file.stem}-study")
    return Path(f"{'-'.join(Path(task.name).name.split('.')[0] or 'data' for task in study.task)}-study")


def _seeds(text: str) -> Any:
    return int(text) if text.isdecimal() else [part for part in text.split(",") if part]


def _option_value(text: str) -> Any:
    """One value, or the list that makes a grid. YAML's words for numbers, truth and lists; else the text itself."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe", pure=True).load(f"[{text}]")
    except YAMLError:
        return text  # a regular expression, most likely
    if not isinstance(values, list) or any(isinstance(value, dict) for value in values):
        return text
    return values[0] if len(values) == 1 else values
