"""``adaptlab demo``: a real comparison that needs nothing but what is installed."""

from __future__ import annotations

from pathlib import Path

from adaptlab.cli import flags as f
from adaptlab.cli.output import Json, LogLevel, Output, Quiet

_DEFAULTS = {
    "model": "minilm",
    "task": "stdlib-docs",
    "methods": "head,bitfit,lora,ia3,full",
    "seeds": "2",
    "train_examples": "1200",
    "epochs": "2",
}


def demo(
    methods: f.Methods = None,
    seeds: f.Seeds = None,
    train_examples: f.TrainExamples = None,
    eval_examples: f.EvalExamples = None,
    epochs: f.Epochs = None,
    steps: f.Steps = None,
    dtype: f.DType = None,
    keep_weights: f.KeepWeights = None,
    device: f.Device = None,
    threads: f.Threads = None,
    measure: f.Measure = None,
    out: f.Out = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """See it work: five ways of adapting the embedded model to the embedded task, offline, in a few minutes.

    The task is real text that every Python carries: the docstrings of its standard library, sorted into areas.
    """
    given = {key: value for key, value in locals().items() if value is not None}
    output = Output.start(json, quiet, log_level)
    from adaptlab.cli.compare import run_study
    from adaptlab.study.document import read_study

    defaults = {key: value for key, value in _DEFAULTS.items() if not (key == "epochs" and steps is not None)}
    study = read_study(None, f.study_flags({**defaults, **given}))
    run_study(study, out or Path("demo-study"), output)
