"""``adaptlab evaluate``: score a finished run on a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptlab.cli import flags as f
from adaptlab.cli.output import Json, LogLevel, Output, Quiet
from adaptlab.config import Quantize, Readout, TaskConfig

if TYPE_CHECKING:
    from rich.table import Table

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run's folder: STUDY/runs/NAME.", show_default=False)]
#: As :data:`RunDir`, where something else may stand in its place.
OptionalRunDir = Annotated[
    Path | None, typer.Argument(metavar="RUN_DIR", help="A run's folder: STUDY/runs/NAME.", show_default=False)
]
BaseModel = Annotated[
    str | None,
    typer.Option("--model", metavar="M", help="The base, if it lies elsewhere now.", show_default=False),
]


def evaluate(
    task: Annotated[
        str, typer.Option("--task", metavar="T", help="A task's name, or a file or folder with your rows.")
    ],
    run: OptionalRunDir = None,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", metavar="DIR", help="An adapter's folder, instead of a run.", show_default=False),
    ] = None,
    model: BaseModel = None,
    quantize: Annotated[
        Quantize | None, typer.Option("--quantize", help="The bits of --adapter's base.", show_default=False)
    ] = None,
    readout: Annotated[
        Readout | None, typer.Option("--readout", help="How --adapter's model answers.", show_default=False)
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", metavar="P", help="The prompt that --adapter's model reads.", show_default=False),
    ] = None,
    eval_examples: f.EvalExamples = None,
    data_root: f.DataRoot = None,
    text_columns: f.TextColumns = None,
    label_column: f.LabelColumn = None,
    delimiter: f.Delimiter = None,
    device: f.Device = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Score a finished run, or any PEFT adapter (--adapter DIR --model BASE), on a task.

    A run's scores go into its evaluations folder, never over its record; an adapter's folder is left alone.
    """
    output = Output.start(json, quiet, log_level)
    from adaptlab import api
    from adaptlab.errors import ConfigError

    config = _task(
        {
            "name": task,
            "prompt": prompt,
            "eval_examples": eval_examples or "all",
            "text_columns": None if text_columns is None else text_columns.split(","),
            "label_column": label_column,
            "delimiter": delimiter,
        }
    )
    where = device or "auto"
    if run is not None and adapter is None:
        own = {"--quantize": quantize, "--readout": readout, "--prompt": prompt}
        if given := [flag for flag, value in own.items() if value is not None]:
            raise ConfigError(f"{given[0]} is for --adapter: a run is evaluated as it was trained.")
        result, name = api.evaluate(run, config, data_root=data_root, device=where, model=model), run.name
    elif adapter is not None and run is None:
        result = api.evaluate_adapter(
            adapter, model, config, quantize=quantize, readout=readout, data_root=data_root, device=where
        )
        name = adapter.name
    else:
        both = "were both given" if run is not None else "are both missing"
        raise ConfigError(f"A run's folder and --adapter {both}: give one of them.")
    for note in result.notes:
        output.note(f"Note: {note}")
    path = None if result.path is None else str(result.path)
    output.document({"path": path, "metrics": result.metrics, "notes": list(result.notes)})
    output.show(_table(result.metrics, f"{name} on {task}"))
    if path is not None:
        output.line(path)


def _task(settings: dict[str, object]) -> TaskConfig:
    from pydantic import ValidationError

    from adaptlab.errors import ConfigError
    from adaptlab.study.wording import problems_of

    try:
        return TaskConfig.model_validate(settings)
    except ValidationError as error:
        problems = problems_of(error, settings)
        raise ConfigError(
            one.message.replace(f"'{one.where[0]}'", f.flag(one.where[0]), 1) for one in problems
        ) from error


def _table(metrics: dict[str, dict[str, float]], title: str) -> Table:
    from rich.table import Table

    table = Table(title=title)
    table.add_column("metric")
    for name in metrics:
        table.add_column(name, justify="right")
    for metric in dict.fromkeys(metric for values in metrics.values() for metric in values):
        shown = [values.get(metric) for values in metrics.values()]
        table.add_row(metric, *("-" if v is None else f"{v:.0f}" if metric == "n" else f"{v:.4f}" for v in shown))
    return table
