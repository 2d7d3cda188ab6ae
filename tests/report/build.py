"""Study folders as a real study leaves them, with made-up numbers: what the report's tests are drawn from."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adaptlab.config import MethodConfig, ModelConfig, RunConfig, RunIdentity, TaskConfig, TrainingConfig
from adaptlab.runs.record import (
    ConfigPart,
    Cost,
    CurvePoint,
    DataPart,
    Environment,
    ErrorPart,
    Parameters,
    Primary,
    Record,
    Status,
    TuningPart,
)

STEPS = 120
EVERY = 20
ITEMS = 400
MACHINE = Environment(
    packages={"adaptlab": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"},
    python="3.11.9",
    device="cpu: AMD EPYC 7763",
    threads=2,
    commit="0123456789abcdef0123456789abcdef01234567",
    dirty=False,
    fingerprint="cpu-2-2.13.0",
)
OTHER_MACHINE = MACHINE.model_copy(
    update={"device": "cuda: NVIDIA H200", "threads": 16, "fingerprint": "h200-16-2.13.0"}
)


@dataclass(frozen=True)
class Made:
    """What is made up about a method: its score, how many numbers it trains and how long that takes."""

    label: str
    name: str
    score: float
    trainable: int
    seconds: float
    learning_rate: float
    options: tuple[tuple[str, Any], ...] = ()


METHODS = (
    Made("full", "full", 0.894, 22_565_376, 31.0, 5e-5),
    Made("lora", "lora", 0.886, 73_728, 22.5, 5e-4, (("r", 8), ("lora_alpha", 16))),
    Made("ia3", "ia3", 0.871, 13_824, 21.0, 5e-3),
    Made("bitfit", "bitfit", 0.862, 28_032, 19.5, 2e-3),
    Made("head", "head", 0.801, 0, 6.2, 5e-3),
)
TASKS = {"sst2": ("accuracy", 0.0), "mrpc": ("f1", -0.045)}


@dataclass(frozen=True)
class Run:
    """One run to be written."""

    made: Made
    task: str = "sst2"
    seed: int = 0
    status: Status = "finished"
    error: ErrorPart | None = None
    environment: Environment = field(default_factory=lambda: MACHINE)
    train_examples: int = 2000
    curve: bool = True
    model: str = "minilm"
    measured: bool = False

    @property
    def folder_name(self) -> str:
        return f"{self.task}-{self.made.label}-s{self.seed}-{self.id[:8]}".replace("/", "_").replace("\0", "_")

    @property
    def id(self) -> str:
        text = f"{self.made}{self.task}{self.seed}{self.train_examples}{self.model}{self.environment.fingerprint}"
        return hashlib.sha256(text.encode()).hexdigest()


def out_of_memory(run: Run) -> Run:
    """``run`` as one that failed."""
    error = ErrorPart(
        type="OutOfMemoryError",
        message="The machine has no memory left: 31.2 GB of 32 GB were in use.",
        traceback='Traceback (most recent call last):\n  File "loop.py", line 12, in step\n    loss.backward()\n'
        "OutOfMemoryError: The machine has no memory left",
    )
    return replace(run, status="out-of-memory", error=error)


def diverged(run: Run) -> Run:
    """``run`` as one whose loss became infinite."""
    return replace(run, status="diverged", error=ErrorPart(type="Diverged", message="The loss was nan at step 61."))


def standard_runs(tasks: Sequence[str] = tuple(TASKS), seeds: Sequence[int] = (0, 1, 2)) -> list[Run]:
    """Five methods by tasks by seeds; on mrpc, seed 1 of full fails and seed 2 of ia3 diverges."""
    runs = [Run(made, task, seed) for task in tasks for made in METHODS for seed in seeds]
    broken = {("mrpc", "full", 1): out_of_memory, ("mrpc", "ia3", 2): diverged}
    return [broken.get((run.task, run.made.label, run.seed), lambda run: run)(run) for run in runs]


def build_study(folder: Path, runs: Sequence[Run] | None = None, *, predictions: bool = True) -> Path:
    """Write ``runs`` (the standard ones by default) as a study into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text("task: [sst2, mrpc]\nmethods: [full, lora, ia3, bitfit, head]\n")
    (folder / "runs").mkdir(exist_ok=True)
    for run in standard_runs() if runs is None else runs:
        write_run(folder / "runs" / run.folder_name, run, predictions=predictions)
    return folder


def write_run(folder: Path, run: Run, *, predictions: bool = True) -> None:
    """The files of one run."""
    folder.mkdir()
    record = record_of(run)
    (folder / "record.json").write_text(record.model_dump_json(by_alias=True, indent=1))
    if run.curve:
        lines = [point.model_dump_json() for point in curve_of(run)]
        (folder / "curve.jsonl").write_text("\n".join(lines) + "\n")
    if predictions and run.status == "finished":
        pq.write_table(predictions_of(run), folder / "predictions.parquet")


def score_of(run: Run) -> float:
    """The made-up score: what the run's predictions come to."""
    gold, predicted = answers_of(run)
    right = [g == p for g, p in zip(gold, predicted, strict=True)]
    if TASKS.get(run.task, ("accuracy", 0.0))[0] == "accuracy":
        return sum(right) / ITEMS
    found = sum(g == p == 1 for g, p in zip(gold, predicted, strict=True))
    return 2 * found / (sum(gold) + sum(predicted))


def answers_of(run: Run) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Right and given answers: some rows are hard for every method, whose skill is moved by task and seed."""
    return _answers(run.task, run.made, run.seed, run.train_examples)


@cache
def _answers(task: str, made: Made, seed: int, train_examples: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    hard = random.Random(f"rows of {task}")
    rows = [(hard.randrange(2), hard.gauss(0, 3)) for _ in range(ITEMS)]
    luck = random.Random(f"{task}{made.label}{seed}")
    skill = made.score + TASKS.get(task, ("accuracy", 0.0))[1] - 0.03 * math.log10(2000 / train_examples)
    ability = 2.03 * math.log(skill / (1 - skill)) + luck.gauss(0, 0.04)
    right = [luck.random() < 1 / (1 + math.exp(difficulty - ability)) for _, difficulty in rows]
    gold = tuple(g for g, _ in rows)
    return gold, tuple(g if r else 1 - g for g, r in zip(gold, right, strict=True))


def record_of(run: Run) -> Record:
    """The record of ``run``."""
    metric = TASKS.get(run.task, ("accuracy", 0.0))[0]
    given = RunConfig(
        model=ModelConfig(id=run.model),
        task=TaskConfig(name=run.task, train_examples=run.train_examples),
        method=MethodConfig(name=run.made.name, label=run.made.label, options=dict(run.made.options)),
        training=TrainingConfig(steps=STEPS, eval_every=EVERY),
        seed=run.seed,
    )
    training = given.training.model_copy(update={"learning_rate": run.made.learning_rate, "dtype": "float32"})
    done = run.status == "finished"
    score = score_of(run)
    seconds = run.made.seconds * random.Random(f"{run.seed}{run.made.label}").uniform(0.97, 1.03)
    return Record(
        id=run.id,
        name=run.folder_name,
        status=run.status,
        config=ConfigPart(
            given=given,
            resolved=given.model_copy(update={"training": training}),
            identity=RunIdentity(weights="sha256:53aa5117", data="sha256:11", task=run.task, task_version=1),
        ),
        metrics={"validation": {metric: score, "loss": round(1.2 - score, 4), "n": ITEMS}} if done else {},
        primary=Primary(name=metric, value=score, stderr=0.016, n=ITEMS, evaluation_set="validation") if done else None,
        parameters=Parameters(
            trainable=run.made.trainable, head=770, total=22_713_986 + run.made.trainable % 22_565_376
        ),
        cost=Cost(
            load_seconds=0.8,
            train_seconds=round(seconds, 3) if done else None,
            eval_seconds=1.1 if done else None,
            step_seconds=round(seconds / STEPS, 5) if done else None,
            train_flops=flops_of(run) if run.measured else None,
            peak_memory_bytes=int(3e8 + 16 * run.made.trainable) if run.measured else None,
            train_tokens=52_000,
            padded_tokens=55_300,
            adapter_bytes=4 * (run.made.trainable + 770) if done else None,
        ),
        data=DataPart(
            id="nyu-mll/glue",
            fingerprint="sha256:11",
            labels=["negative", "positive"],
            sizes={"train": run.train_examples, "select": 436, "validation": ITEMS},
        ),
        environment=run.environment,
        tuning=tuning_of(run) if run.measured and done else None,
        training={"best_step": 100, "steps": STEPS, "attention_dropout": 0.0},
        error=run.error,
        started="2026-01-05T10:00:00Z",
        ended="2026-01-05T10:00:40Z" if run.status != "running" else None,
    )


def flops_of(run: Run) -> float:
    """Made-up operations: two thirds of full fine-tuning's where the base is frozen."""
    return 3e12 if run.made.name == "full" else 2e12


def tuning_of(run: Run) -> TuningPart:
    """A search of six trials, the second of which diverged, that ends a little above where it began."""
    gains = (-0.04, None, -0.06, -0.01, -0.02, 0.0)
    scores = [None if gain is None else round(run.made.score + gain, 4) for gain in gains]
    chosen = {"learning_rate": run.made.learning_rate}
    return TuningPart(trials=6, chosen=chosen, scores=scores, train_seconds=6 * run.made.seconds, train_flops=None)


def curve_of(run: Run) -> list[CurvePoint]:
    """A learning curve that ends at the run's score, or half way for a run that did not finish."""
    metric = TASKS.get(run.task, ("accuracy", 0.0))[0]
    noise = random.Random(f"curve{run.task}{run.made.label}{run.seed}")
    last = STEPS if run.status == "finished" else STEPS // 2
    points = []
    for step in range(0, last + 1, EVERY):
        done = 1 - math.exp(-4 * step / STEPS)
        value = 0.5 + (score_of(run) - 0.5) * done + noise.gauss(0, 0.004)
        points.append(
            CurvePoint(
                step=step,
                examples=step * 32,
                tokens=step * 430,
                flops=flops_of(run) * step / STEPS if run.measured else None,
                seconds=round(run.made.seconds * step / STEPS, 3),
                train_loss=None if step == 0 else round(0.69 - 0.5 * done, 4),
                select_loss=round(0.70 - (run.made.score - 0.42) * done + noise.gauss(0, 0.003), 4),
                learning_rate=run.made.learning_rate * (1 - step / STEPS),
                metrics={metric: round(value, 4)},
            )
        )
    return points


def predictions_of(run: Run) -> pa.Table:
    """The answers of :func:`answers_of` as predictions.parquet has them."""
    gold, predicted = answers_of(run)
    return pa.table(
        {
            "evaluation_set": ["validation"] * ITEMS,
            "id": [str(i) for i in range(ITEMS)],
            "gold": list(gold),
            "prediction": list(predicted),
            "scores": [[0.9, 0.1] if p == 0 else [0.1, 0.9] for p in predicted],
        }
    )


def damage(folder: Path) -> dict[str, str]:
    """Add ten unusable records to a study; returns a word of the reason that must be named, by run folder."""
    whole = next((folder / "runs").glob("*/record.json")).read_text()
    document = json.loads(whole)
    contents: dict[str, tuple[str | None, str]] = {
        "half-written": (whole[: len(whole) // 2], "cut off"),
        "empty": ("", "cut off"),
        "binary": ("\x00\x01\x02", "cut off"),
        "a-list": ("[]", "schema None"),
        "old-schema": (json.dumps(document | {"schema": 0}), "schema 0"),
        "new-schema": (json.dumps(document | {"schema": 99, "id": "x"}), "schema 99"),
        "no-schema-of-ours": (json.dumps({"epoch": 3, "eval_accuracy": 0.9}), "schema None"),
        "wrong-type": (json.dumps(document | {"metrics": "good"}), "metrics"),
        "field-missing": (json.dumps({k: v for k, v in document.items() if k != "status"}), "status"),
        "a-folder": (None, "Cannot read"),
    }
    for name, (content, _) in contents.items():
        (folder / "runs" / name).mkdir()
        if content is None:
            (folder / "runs" / name / "record.json").mkdir()
        else:
            (folder / "runs" / name / "record.json").write_text(content)
    return {name: reason for name, (_, reason) in contents.items()}
