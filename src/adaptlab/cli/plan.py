"""``adaptlab plan``: what a study's methods would train and weigh, before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from adaptlab.cli import flags as f
from adaptlab.cli.output import Json, LogLevel, Output, Quiet

if TYPE_CHECKING:
    from rich.table import Table

    from adaptlab.planning import Plan

#: Stands where a study must have a task and none was given; its rows are not read.
_NO_TASK = "stdlib-docs"


def plan(
    study: f.Study = None,
    model: f.Model = None,
    task: f.Task = None,
    methods: f.Methods = None,
    seeds: f.Seeds = None,
    set: f.Set = None,
    targets: f.Targets = None,
    quantize: f.Quantize = None,
    also_evaluate: f.AlsoEvaluate = None,
    readout: f.Readout = None,
    prompt: f.Prompt = None,
    shots: f.Shots = None,
    shot_sampling: f.ShotSampling = None,
    shots_per_query: f.ShotsPerQuery = False,
    verbalizer_loss: f.VerbalizerLoss = None,
    length_normalization: f.LengthNormalization = None,
    calibration: f.Calibration = None,
    max_new_tokens: f.MaxNewTokens = None,
    beams: f.Beams = None,
    train_examples: f.TrainExamples = None,
    balanced: f.Balanced = False,
    select_examples: f.SelectExamples = None,
    eval_examples: f.EvalExamples = None,
    max_length: f.MaxLength = None,
    data_seed: f.DataSeed = None,
    data_root: f.DataRoot = None,
    text_columns: f.TextColumns = None,
    label_column: f.LabelColumn = None,
    delimiter: f.Delimiter = None,
    epochs: f.Epochs = None,
    steps: f.Steps = None,
    batch_size: f.BatchSize = None,
    learning_rate: f.LearningRate = None,
    head_learning_rate: f.HeadLearningRate = None,
    optimizer: f.Optimizer = None,
    schedule: f.Schedule = None,
    warmup_ratio: f.WarmupRatio = None,
    weight_decay: f.WeightDecay = None,
    max_grad_norm: f.MaxGradNorm = None,
    eval_every: f.EvalEvery = None,
    select: f.Select = None,
    dtype: f.DType = None,
    keep_weights: f.KeepWeights = None,
    device: f.Device = None,
    threads: f.Threads = None,
    micro_batch_size: f.MicroBatchSize = None,
    measure: f.Measure = None,
    engine: f.Engine = None,
    allow_pickle: f.AllowPickle = False,
    trust_remote_code: f.TrustRemoteCode = False,
    out: f.Out = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Count before training: what each method trains, and what its adapter weighs on disk. Takes compare's flags.

    Needs a model's config.json and no weights. Without a task, the head is counted with 2 labels.
    """
    given = dict(locals())
    output = Output.start(json, quiet, log_level)
    from adaptlab import api
    from adaptlab.planning import DEFAULT_LABELS
    from adaptlab.study.document import read_study

    with_task = study is not None or task is not None
    if not with_task:
        given["task"] = _NO_TASK
        output.note(f"No task was given: heads are counted with {DEFAULT_LABELS} labels.")
    plans = api.plan(read_study(study, f.study_flags(given)), with_task=with_task)
    output.document([asdict(one) for one in plans])
    output.show(_table(plans))
    for note in dict.fromkeys(note for one in plans for note in one.notes):
        output.note(f"Note: {note}.")


def _table(plans: list[Plan]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    told = [key for key in ("model", "task") if len({getattr(one, key) for one in plans}) > 1]
    for title in (*told, "method"):
        table.add_column(title, overflow="fold")
    for title in ("trainable", "% of all", "head", "in all", "base", "on disk"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in plans:
        table.add_row(
            *(str(getattr(one, key) or "-") for key in told),
            one.method,
            f"{one.trainable:,}",
            f"{100 * one.trainable / one.total:.2f}",
            f"{one.head:,}",
            f"{one.total:,}",
            size_text(one.base_bytes),
            size_text(one.adapter_bytes),
        )
    if not told:
        table.title = plans[0].model if plans[0].task is None else f"{plans[0].model} on {plans[0].task}"
        table.title_justify = "left"
    return table


def size_text(count: int) -> str:
    """Bytes for people: ``1.2 MB``, in powers of 1,000 as file managers and hubs show them."""
    size, units = float(count), ["B", "kB", "MB", "GB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}" if units[0] != "B" else f"{count} B"
