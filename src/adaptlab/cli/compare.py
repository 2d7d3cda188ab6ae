"""``adaptlab compare``: run what a study still lacks and show what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from adaptlab.cli import flags as f
from adaptlab.cli.output import Json, LogLevel, Output, Quiet
from adaptlab.config import StudyConfig

if TYPE_CHECKING:
    from adaptlab.api import StudyResult


def compare(
    study: f.Study = None,
    model: f.Model = None,
    task: f.Task = None,
    methods: f.Methods = None,
    seeds: f.Seeds = None,
    set: f.Set = None,
    targets: f.Targets = None,
    tune: f.Tune = None,
    pruner: f.Pruner = None,
    equalize: f.Equalize = None,
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
    stop: f.Stop = None,
    objective: f.Objective = None,
    teacher: f.Teacher = None,
    teacher_shots: f.TeacherShots = None,
    temperature: f.Temperature = None,
    train_examples: f.TrainExamples = None,
    unlabelled_examples: f.UnlabelledExamples = None,
    balanced: f.Balanced = False,
    select_examples: f.SelectExamples = None,
    eval_examples: f.EvalExamples = None,
    max_length: f.MaxLength = None,
    data_seed: f.DataSeed = None,
    data_root: f.DataRoot = None,
    text_columns: f.TextColumns = None,
    label_column: f.LabelColumn = None,
    explanation_column: f.ExplanationColumn = None,
    delimiter: f.Delimiter = None,
    epochs: f.Epochs = None,
    steps: f.Steps = None,
    max_examples: f.MaxExamples = None,
    max_tokens: f.MaxTokens = None,
    max_flops: f.MaxFlops = None,
    max_seconds: f.MaxSeconds = None,
    max_bytes: f.MaxBytes = None,
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
    devices_per_run: f.DevicesPerRun = None,
    micro_batch_size: f.MicroBatchSize = None,
    gradient_checkpointing: f.GradientCheckpointing = False,
    measure: f.Measure = None,
    track: f.Track = None,
    track_project: f.TrackProject = None,
    track_entity: f.TrackEntity = None,
    track_group: f.TrackGroup = None,
    track_name: f.TrackName = None,
    track_mode: f.TrackMode = None,
    profile: f.Profile = False,
    engine: f.Engine = None,
    launcher: f.Launcher = None,
    workers: f.Workers = None,
    wait: f.Wait = None,
    ray_address: f.RayAddress = None,
    launch: f.Launch = None,
    allow_pickle: f.AllowPickle = False,
    trust_remote_code: f.TrustRemoteCode = False,
    out: f.Out = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Compare ways of adapting a model to a task: a grid of runs, a table, and a page.

    Runs that have finished are not run again, and interrupted ones go on: give the same command again.
    """
    given = dict(locals())
    output = Output.start(json, quiet, log_level)
    from adaptlab.study.document import read_study

    config = read_study(study, f.study_flags(given))
    run_study(config, out or f.default_out(study, config), output)


def run_study(study: StudyConfig, out: Path, output: Output) -> None:
    """Run ``study`` in ``out``, show its table, and end with the page's path; exit code 1 if some run failed."""
    from adaptlab import api
    from adaptlab.cli.progress import progress

    with progress(output) as listener:
        result = api.compare(study, out=out, listener=listener)
    show_result(result, output)
    if result.failed:
        raise typer.Exit(1)


def show_result(result: StudyResult, output: Output) -> None:
    """Notes on stderr; on stdout the table and, alone on the last line, the page's path."""
    from adaptlab.cli.progress import counted
    from adaptlab.report import read_studies, terminal_report

    for warning in result.warnings:
        output.note(f"Note: {warning}")
    if result.skipped:
        output.note(f"{counted(len(result.skipped), 'run')} had been done before and did not run again.")
    for sentence, names in _met(result).items():
        output.note(f"Note: {sentence} ({', '.join(names) if len(names) < 4 else counted(len(names), 'run')})")
    output.document(_document(result))
    output.show(terminal_report(read_studies([result.folder])))
    for reason, names in _failures(result).items():
        output.note(f"{counted(len(names), 'run')} {reason}: {', '.join(names)}")
    if result.page is not None:
        output.line(str(result.page))


def _met(result: StudyResult) -> dict[str, list[str]]:
    """What the runs met and went on with, and which did; runs that had been done before have said it then."""
    found: dict[str, list[str]] = {}
    for record in result.records:
        for sentence in record.warnings if record.name not in result.skipped else ():
            found.setdefault(sentence, []).append(record.name)
    return found


def _failures(result: StudyResult) -> dict[str, list[str]]:
    """Names of the runs that did not finish, by how they ended; one sentence for what befell all of them."""
    from adaptlab.cli.progress import outcome

    reasons: dict[str, list[str]] = {}
    for record in result.records:
        if record.name in result.failed:
            reasons.setdefault(outcome(record), []).append(record.name)
    return reasons


def _document(result: StudyResult) -> dict[str, Any]:
    import json

    return {
        "folder": str(result.folder),
        "page": None if result.page is None else str(result.page),
        "runs": [json.loads(record.model_dump_json(by_alias=True)) for record in result.records],
        "skipped": list(result.skipped),
        "failed": list(result.failed),
        "warnings": list(result.warnings),
    }
