"""``adaptlab choose``: the best adapted model within a budget of time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from adaptlab.cli import flags as f
from adaptlab.cli.output import Json, LogLevel, Output, Quiet
from adaptlab.errors import ConfigError

if TYPE_CHECKING:
    from adaptlab.choosing import Chosen

_DEFAULTS = {"methods": "head,bitfit,ia3,lora,parallel-adapter,full", "seeds": "3"}
_SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "%": 0.01}

Budget = Annotated[str, typer.Option("--budget", metavar="TIME", help="All it may take, such as 20min, 90s, 1h30min.")]


def choose(
    budget: Budget,
    model: f.Model = None,
    task: f.Task = None,
    methods: f.Methods = None,
    max_memory: Annotated[
        str | None,
        typer.Option("--max-memory", metavar="BYTES", help="Of a training, such as 8GB.", show_default=False),
    ] = None,
    max_parameters: Annotated[
        str | None,
        typer.Option("--max-parameters", metavar="N|X%", help="Trained numbers, such as 1% or 2M.", show_default=False),
    ] = None,
    seeds: f.Seeds = None,
    set: f.Set = None,
    targets: f.Targets = None,
    train_examples: f.TrainExamples = None,
    select_examples: f.SelectExamples = None,
    eval_examples: f.EvalExamples = None,
    max_length: f.MaxLength = None,
    data_root: f.DataRoot = None,
    text_columns: f.TextColumns = None,
    label_column: f.LabelColumn = None,
    delimiter: f.Delimiter = None,
    epochs: f.Epochs = None,
    steps: f.Steps = None,
    batch_size: f.BatchSize = None,
    dtype: f.DType = None,
    device: f.Device = None,
    threads: f.Threads = None,
    devices_per_run: f.DevicesPerRun = None,
    shard: f.Shard = False,
    launcher: f.Launcher = None,
    workers: f.Workers = None,
    ray_address: f.RayAddress = None,
    launch: f.Launch = None,
    allow_pickle: f.AllowPickle = False,
    trust_remote_code: f.TrustRemoteCode = False,
    out: f.Out = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Find the method that suits a model and a task, within a budget, and hand over the adapted model.

    Methods race, the better ones at several learning rates and for longer; the winner is trained with
    several seeds and tested on rows that nothing looked at before.
    """
    given = {key: value for key, value in locals().items() if value is not None}
    output = Output.start(json, quiet, log_level)
    from adaptlab import api
    from adaptlab.cli.progress import progress
    from adaptlab.study.document import read_study

    seconds = amount("--budget", budget, _SECONDS, "20min")
    parameters = None if max_parameters is None else amount("--max-parameters", max_parameters, _COUNTS, "1% or 2M")
    memory = None if max_memory is None else amount("--max-memory", max_memory, _BYTES, "8GB")
    study = read_study(None, f.study_flags({**_DEFAULTS, **given}))
    with progress(output) as listener:
        chosen = api.choose(
            study,
            budget_seconds=seconds,
            out=out or f.default_out(None, study),
            max_parameters=parameters,
            max_memory_bytes=memory,
            listener=listener,
        )
    show(chosen, output)


def amount(flag: str, text: str, units: dict[str, float], example: str) -> float:
    """``"1h30min"`` in the units' base; a sum of numbers with units.

    Raises:
        ConfigError: it is not one, or not above 0.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z%]*)", text.lower())
    whole = "".join(number + unit for number, unit in parts)
    total = sum(float(number) * units.get(unit, 0.0) for number, unit in parts)
    if whole != re.sub(r"\s", "", text.lower()) or any(unit not in units for _, unit in parts) or total <= 0:
        raise ConfigError(f"{flag} {text}: give a number above 0 with a unit, such as {example}.")
    return total


def show(chosen: Chosen, output: Output) -> None:
    """What was chosen, in a few sentences; on the last line, alone, the model's folder."""
    from adaptlab.cli.progress import duration

    document = {**vars(chosen), **{name: str(getattr(chosen, name)) for name in ("folder", "model", "page")}}
    output.document(document)
    error = "" if chosen.stderr is None else f" ± {1.96 * chosen.stderr:.3f}"
    seeds = ", ".join(f"{score:.4f}" for score in chosen.seed_scores)
    output.show(
        f"{chosen.method} at learning rate {chosen.learning_rate:g}: {chosen.metric} {chosen.score:.4f}{error} on "
        f"{chosen.rows} rows that nothing looked at before (seeds: {seeds}; interval over rows, 95 %)."
    )
    tied = f"Within a standard error of it when last tried: {', '.join(chosen.tied)}." if chosen.tied else ""
    trials = f"{len(chosen.tried)} trials of {len({tried['method'] for tried in chosen.tried})} methods"
    output.show(f"{trials} in {duration(chosen.seconds)} of {duration(chosen.budget_seconds)}. {tied}".rstrip())
    for method, reason in chosen.left_out.items():
        output.show(f"Not tried: {method}: {reason}.")
    output.show(f"Every trial is in {chosen.folder}; the page: {chosen.page}")
    output.line(str(chosen.model))
