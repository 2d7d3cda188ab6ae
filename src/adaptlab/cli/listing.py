"""``adaptlab list``: what there is to choose from, and the runs of a study."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptlab.cli.output import Json, LogLevel, Output, Quiet
from adaptlab.cli.report import StudyDir
from adaptlab.methods._capabilities import KINDS, SHOWN

if TYPE_CHECKING:
    from rich.table import Table

    from adaptlab.methods._capabilities import Capabilities

app = typer.Typer(no_args_is_help=True, help="What there is: methods, tasks, metrics, models, and the runs of a study.")


@app.command()
def methods(
    matrix: Annotated[
        bool, typer.Option("--matrix", help="What each method can do on which kind of model, as it was tried.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Ways of adapting a model, with their options (for --set METHOD.OPTION=V), or what each can do (--matrix)."""
    from adaptlab.config import SPELLINGS
    from adaptlab.methods import registry

    if matrix:
        _show_matrix(Output.start(json, quiet, log_level))
        return
    rows = [
        {
            "name": method.name,
            "summary": method.summary,
            "placement": method.placement,
            "learning_rate": method.learning_rates.default,
            "learning_rate_range": [method.learning_rates.low, method.learning_rates.high],
            "options": method.Config.model_json_schema().get("properties", {}),
            "aliases": method.aliases,
            "paper": method.paper,
            "note": method.note,
            "unusable": method.unusable,
        }
        for method in registry.all()
    ]
    output = Output.start(json, quiet, log_level)
    _show(
        output,
        rows,
        {
            "method": lambda row: row["name"],
            "what it does": lambda row: (
                f"cannot be trained here: {row['unusable']}" if row["unusable"] else row["summary"]
            ),
            "learning rate": lambda row: f"{row['learning_rate']:g}".replace("e-0", "e-"),
            "options": lambda row: "\n".join(_option_words(name, o) for name, o in row["options"].items()),
        },
        wraps="what it does",
    )
    for name, meant in SPELLINGS.items():
        output.show(f"{name} is {meant['name']} on a base in {meant['quantize']}.")


def _show_matrix(output: Output) -> None:
    """The shipped answers, three kinds of model side by side; ``list`` imports nothing heavy, so nothing is tried."""
    from dataclasses import asdict

    from adaptlab.methods._capabilities import capabilities

    found = capabilities()
    output.document(asdict(found))
    output.show(_matrix(found))
    output.show("enc encoder   dec decoder   e-d encoder-decoder, each with a head")
    output.show("tr trains   re saved and reloaded   me export --merge   4b 8b on a base in 4 or 8 bits (--quantize)")
    output.show("✓ yes   ✗ no   ~ yes, but PEFT's merge into quantised weights fails (export --merge does without it)")
    columns = {title: itemgetter(n) for n, title in enumerate(("method", "what", "where", "why not"))}
    output.show(_table(list(found.reasons(SHOWN)), columns, "why not"))
    versions = ", ".join(f"{name} {number}" for name, number in found.versions.items())
    output.show(f"Tried on tiny models ({', '.join(found.models.values())}) on a CPU, with {versions}.")


def _matrix(found: Capabilities) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("\nmethod", no_wrap=True)
    for kind in ("enc", "dec", "e-d"):
        for n, head in enumerate(("tr", "re", "me", "4b", "8b")):
            table.add_column(f"\n{head}" if n else f"{kind}\n{head}", no_wrap=True)
    styles = {"✓": "green", "~": "yellow", "✗": "red"}
    for name in found.methods:
        marks = [found.mark(name, kind, question) for kind in KINDS for question in SHOWN]
        table.add_row(name, *(Text(mark, styles[mark]) for mark in marks))
    return table


@app.command()
def tasks(json: Json = False, quiet: Quiet = False, log_level: LogLevel = "warning") -> None:
    """Tasks by name; your own files and folders need none."""
    from adaptlab.tasks import registry

    rows = [
        {
            "name": task.name,
            "summary": task.summary,
            "kind": task.kind,
            "metrics": list(task.metrics),
            "hub_id": task.hub_id,
            "prompts": {prompt.name: prompt.template for prompt in task.prompts},
            "trainable": task.trainable,
            "version": task.version,
        }
        for task in registry.all()
    ]
    _show(
        Output.start(json, quiet, log_level),
        rows,
        {
            "task": lambda row: row["name"],
            "what it asks": lambda row: row["summary"],
            "kind": lambda row: row["kind"],
            "metrics": lambda row: "\n".join(row["metrics"]),
            "on the hub": lambda row: row["hub_id"] or "-",
        },
        wraps="what it asks",
    )


@app.command()
def metrics(json: Json = False, quiet: Quiet = False, log_level: LogLevel = "warning") -> None:
    """Metrics, and which kinds of task they score."""
    from adaptlab.metrics import registry

    rows = [
        {
            "name": metric.name,
            "summary": metric.summary,
            "kinds": list(metric.kinds),
            "higher_is_better": metric.higher_is_better,
            "always": metric.always,
        }
        for metric in registry.all()
    ]
    _show(
        Output.start(json, quiet, log_level),
        rows,
        {
            "metric": lambda row: row["name"],
            "what it says": lambda row: row["summary"],
            "kinds of task": lambda row: "\n".join(row["kinds"]),
            "better": lambda row: "higher" if row["higher_is_better"] else "lower",
        },
        wraps="what it says",
    )


@app.command()
def models(json: Json = False, quiet: Quiet = False, log_level: LogLevel = "warning") -> None:
    """Models that have a name of their own; any encoder's hub id or folder will do as well."""
    from adaptlab.models.identity import ALIASES

    output = Output.start(json, quiet, log_level)
    rows = [{"name": name, "stands_for": stands_for} for name, stands_for in ALIASES.items()]
    _show(
        output,
        rows,
        {"model": lambda row: row["name"], "stands for": lambda row: row["stands_for"]},
        wraps="stands for",
    )
    output.show("Any Hugging Face encoder works too: give its hub id or its folder.")


@app.command()
def runs(study: StudyDir, json: Json = False, quiet: Quiet = False, log_level: LogLevel = "warning") -> None:
    """The runs of a study's folder, with their scores."""
    from adaptlab.runs.store import StudyFolder

    output = Output.start(json, quiet, log_level)
    folder = StudyFolder(study)
    folder.read_study()  # says what is wrong with a folder that is no study
    rows = [
        {
            "name": record.name,
            "status": record.status,
            "primary": None if record.primary is None else record.primary.model_dump(mode="json"),
            "train_seconds": record.cost.train_seconds,
            "error": None if record.error is None else record.error.message,
            "weights": run.adapter.is_dir(),
            "path": str(run.path),
        }
        for run in folder.runs()
        if (record := folder.record(run)) is not None
    ]
    for damaged in folder.damaged:
        output.note(f"Note: {damaged}")
    _show(
        output,
        rows,
        {
            "run": lambda row: row["name"],
            "status": lambda row: row["status"],
            "score": lambda row: _score(row["primary"]),
            "weights": lambda row: "kept" if row["weights"] else "-",
            "train s": lambda row: "-" if row["train_seconds"] is None else f"{row['train_seconds']:.1f}",
        },
        wraps="run",
    )


def _show(output: Output, rows: list[dict[str, Any]], columns: dict[str, Any], *, wraps: str) -> None:
    output.document(rows)
    output.show(_table(rows, columns, wraps))


def _table(rows: Sequence[Any], columns: dict[str, Any], wraps: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in columns:
        table.add_column(title, no_wrap=title != wraps, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell(row)) for cell in columns.values()))
    return table


def _option_words(name: str, option: dict[str, Any]) -> str:
    return f"{name}={option['default']}" if option.get("default") is not None else name


def _score(primary: dict[str, Any] | None) -> str:
    if primary is None:
        return "-"
    error = "" if primary["stderr"] is None else f" ± {primary['stderr']:.4f}"
    return f"{primary['name']} {primary['value']:.4f}{error}"
