"""record.json: what a run leaves behind, as a versioned schema.

The record is the source of truth: reports are drawn from records alone. Only pydantic and the standard library are
imported. Units are in the names; a value that was not measured is ``None``, never 0.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adaptlab.config import Prompt, RunConfig, RunIdentity

SCHEMA = 1

Status = Literal["running", "finished", "failed", "diverged", "out-of-memory", "interrupted"]
#: Statuses that a rerun of the same study leaves alone. A failed run is tried again.
SETTLED: tuple[Status, ...] = ("finished", "diverged")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings", protected_namespaces=())


class ConfigPart(_Part):
    """The configuration as it was given and with nothing left to decide."""

    given: RunConfig
    resolved: RunConfig
    identity: RunIdentity


class Primary(_Part):
    """The number that tables show: the task's first metric on its first report set. ``stderr`` is over the rows."""

    name: str
    value: float
    stderr: float | None = None
    n: int | None  # None: another tool did not say
    evaluation_set: str
    higher_is_better: bool = True


class Parameters(_Part):
    """Counts of numbers. ``total`` includes the head and what the method added."""

    trainable: int  # without the head
    head: int  # trainable head
    total: int


class Cost(_Part):
    """What the run used. Seconds are wall clock; clocks compare only between equal ``Environment.fingerprint``s."""

    load_seconds: float | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    step_seconds: float | None = None  # median
    step_seconds_std: float | None = None
    step_joules: float | None = None
    clock_source: Literal["run", "probe"] | None = None  # of step_seconds and what follows from it
    train_flops: float | None = None  # as executed, padding included
    useful_flops: float | None = None  # the same without padding
    train_tokens: int | None = None  # without padding
    padded_tokens: int | None = None  # with padding
    peak_memory_bytes: int | None = None  # of training
    reserved_memory_bytes: int | None = None  # of training, on CUDA
    eval_memory_bytes: int | None = None
    answer_seconds: float | None = None  # one row alone, by a probe
    merged_answer_seconds: float | None = None  # the same with the method merged into the base
    set_seconds: dict[str, float] = Field(default_factory=dict)  # of answering each report set
    set_memory_bytes: dict[str, int] = Field(default_factory=dict)  # the most while answering it, on CUDA
    memory_source: Literal["run", "probe"] | None = None
    adapter_bytes: int | None = None
    trials: int = 1


class OutOfDomainPart(_Part):
    """A report set with another task's rows. ``mapping``: what each class of both tasks counts as; empty: as itself."""

    task: str
    source: str
    revision: str | None = None
    labels: list[str] = Field(default_factory=list)
    mapping: dict[str, str] = Field(default_factory=dict)


class TuningPart(_Part):
    """The search that chose this run's values: equally many trials for every method, on the selection rows alone.

    ``scores`` are the trials' selection scores, higher is better, in the order in which they were proposed; seconds and
    FLOPs are all trials' together, and no part of the run's own cost.
    """

    trials: int
    chosen: dict[str, Any] = Field(default_factory=dict)
    scores: list[float | None] = Field(default_factory=list)
    train_seconds: float | None = None
    train_flops: float | None = None
    pruner: str | None = None  # what ended trials early, and the next five with it
    pruned: int | None = None
    short_scores: list[float | None] = Field(default_factory=list)  # after the first, shortest training
    steps: int | None = None  # that all trials were trained for
    steps_unpruned: int | None = None  # that they would have been without a pruner
    agreement: float | None = None  # share of pairs whose short scores had the order of the whole ones


class DataPart(_Part):
    """Which rows were used. ``sizes`` has train, select and one entry per report set."""

    id: str
    revision: str | None = None
    kind: str = "classification"  # a task kind: classification, regression, ...
    fingerprint: str
    labels: list[str] = Field(default_factory=list)
    sizes: dict[str, int] = Field(default_factory=dict)
    truncated: dict[str, int] = Field(default_factory=dict)  # rows that lost tokens, per split
    warnings: list[str] = Field(default_factory=list)
    out_of_domain: dict[str, OutOfDomainPart] = Field(default_factory=dict)  # by report set
    columns: list[str] = Field(default_factory=list)  # names of a row's texts, in order
    prompt: Prompt | None = None  # whole, with its answers
    demonstrations: list[dict[str, Any]] | None = None  # rows shown before every question, where they are the same


class Environment(_Part):
    """Where the run happened."""

    packages: dict[str, str] = Field(default_factory=dict)
    python: str = ""
    device: str = ""  # e.g. "cpu: AMD EPYC", "cuda: NVIDIA H200"
    threads: int | None = None
    commit: str | None = None
    dirty: bool | None = None
    fingerprint: str = ""  # hash of what makes clocks comparable: device, threads, torch version


class ErrorPart(_Part):
    """Why a run did not finish."""

    type: str
    message: str
    traceback: str = ""


class Record(_Part):
    """One run. See docs/records.md for every field and its unit."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    id: str
    name: str  # the run folder's name
    status: Status
    config: ConfigPart
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)  # {evaluation set: {metric: value, "n": n}}
    primary: Primary | None = None
    #: {evaluation set: {note: number}}: how a language model's answers came about, e.g. the labels' share.
    answering: dict[str, dict[str, float]] = Field(default_factory=dict)
    parameters: Parameters | None = None
    cost: Cost = Field(default_factory=Cost)
    tuning: TuningPart | None = None
    data: DataPart | None = None
    environment: Environment = Field(default_factory=Environment)
    engine: str = "solo"
    training: dict[str, Any] = Field(default_factory=dict)  # best step, steps, attention dropout, ...
    warnings: list[str] = Field(default_factory=list)
    error: ErrorPart | None = None
    started: str | None = None  # ISO 8601, UTC
    ended: str | None = None

    model_config = ConfigDict(extra="forbid", populate_by_name=True, ser_json_inf_nan="strings")


class CurvePoint(_Part):
    """A line of curve.jsonl: one evaluation during training. Losses and metrics are over the selection split."""

    step: int
    examples: int
    tokens: int
    flops: float | None = None
    seconds: float | None = None  # training clock, without evaluations; None where runs share a clock
    train_loss: float | None = None  # mean since the last point; None before the first step
    select_loss: float | None = None
    learning_rate: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
