"""``adaptlab train``: one run."""

from __future__ import annotations

import typer

from adaptlab.cli import flags as f
from adaptlab.cli.output import Json, LogLevel, Output, Quiet


def train(
    study: f.Study = None,
    model: f.Model = None,
    task: f.Task = None,
    method: f.Method = None,
    seed: f.Seed = None,
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
    allow_pickle: f.AllowPickle = False,
    trust_remote_code: f.TrustRemoteCode = False,
    out: f.Out = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Adapt a model to a task in one way: one run of a study.

    The run's folder is the last line: `adaptlab predict` and `adaptlab evaluate` take it.
    """
    given = dict(locals())
    output = Output.start(json, quiet, log_level)
    from adaptlab import api
    from adaptlab.cli.progress import outcome, progress
    from adaptlab.study.document import Flags, read_study

    flags = f.study_flags(given)
    if study is None and "seeds" not in flags.study:
        flags = Flags({**flags.study, "seeds": [0]}, flags.task, flags.model, flags.methods, flags.spelt)
    config = read_study(study, flags)
    folder = out or f.default_out(study, config)
    with progress(output) as listener:
        record = api.train(config, out=folder, listener=listener)
    if json:
        print(record.model_dump_json(by_alias=True, indent=1))
    output.show(f"{record.name}: {outcome(record)}")
    output.line(str(folder / "runs" / record.name))
    if record.status != "finished":
        raise typer.Exit(1)
