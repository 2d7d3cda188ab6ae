"""``adaptlab watch``: a study's runs while they go on, wherever they do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptlab.cli.output import Json, LogLevel, Output, Quiet, cursor_restored, stdout_console
from adaptlab.cli.progress import counted, duration
from adaptlab.cli.report import StudyDir

if TYPE_CHECKING:
    from rich.console import RenderableType

    from adaptlab.report.live import Running, Standing

#: Runs of one kind that are listed; the others are counted.
_MOST_LINES = 12

Once = Annotated[bool, typer.Option("--once", help="Show it once and end.", show_default=False)]
Interval = Annotated[float, typer.Option("--interval", metavar="SECONDS", min=0.2, help="Between two looks.")]


def watch(
    study: StudyDir,
    once: Once = False,
    interval: Interval = 2.0,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Watch a study: runs done, running and failed, time left, best so far. Reads records only; Ctrl-C ends it.

    It ends by itself when nothing runs and nothing is left to begin.
    """
    output = Output.start(json, quiet, log_level)
    from adaptlab.report.live import Watcher

    watcher = Watcher(study, _planned(study))
    standing = watcher.look()
    if once or json:
        output.document(_document(standing))
        output.show(shown(study.name, standing))
        return
    from rich.live import Live

    console = stdout_console()
    try:
        with cursor_restored(console), Live(shown(study.name, standing), console=console, auto_refresh=False) as live:
            while not standing.over:
                time.sleep(interval)
                standing = watcher.look()
                live.update(shown(study.name, standing), refresh=True)
    except KeyboardInterrupt:  # the way to leave
        return


def _planned(folder: Path) -> int:
    """Runs that the study of ``folder`` asks for.

    Raises:
        StudyError: the folder is no study.
    """
    from adaptlab.errors import ConfigError
    from adaptlab.runs.store import StudyFolder
    from adaptlab.study.expand import expand

    study = StudyFolder(folder).read_study()
    try:
        return len(expand(study))
    except ConfigError:  # a method that is not installed here: the folders are counted alone
        return 0


def shown(name: str, standing: Standing) -> RenderableType:
    """The study's name and counts, what runs, what failed, and who leads."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"{name or '.'}: {headline(standing)}", style="bold")]
    if standing.running:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title, side in (("running", "left"), ("steps", "right"), ("loss", "right"), ("", "left")):
            table.add_column(title, justify="right" if side == "right" else "left", overflow="fold")
        for run in standing.running[:_MOST_LINES]:
            loss = "" if run.train_loss is None else f"{run.train_loss:.3f}"
            table.add_row(Text(run.name), _steps(run), loss, Text(_silence(run), style="yellow"))
        parts += [Text(""), table, *_more(len(standing.running))]
    for title, lines in (
        ("did not finish", [f"{n}: {why}" for n, why in standing.lost]),
        ("damaged", standing.damaged),
    ):
        if lines:
            parts += [Text(""), Text(title, style="dim")]
            parts += [Text(_short(line), style="red") for line in lines[-_MOST_LINES:]]
            parts += _more(len(lines))
    if standing.best:
        parts += [Text(""), Text("best mean so far", style="dim")]
        several = len({best.model for best in standing.best}) > 1
        for best in standing.best:
            where = f"{best.task} with {best.model}" if several else best.task
            parts.append(Text(f"{where}: {best.method}, {best.metric} {best.mean:.4f} ({counted(best.n, 'run')})"))
    return Group(*parts)


def headline(standing: Standing) -> str:
    """``12 of 30 runs done, 2 running, 1 did not finish, 15 to come, about 8 min left``."""
    words = [f"{standing.finished} of {counted(standing.total, 'run')} done"]
    if standing.running:
        words.append(f"{len(standing.running)} running")
    if standing.lost or standing.damaged:
        words.append(f"{len(standing.lost) + len(standing.damaged)} did not finish")
    if standing.to_come:
        words.append(f"{standing.to_come} to come")
    if standing.seconds_left is not None and not standing.over:
        words.append(f"about {duration(standing.seconds_left)} left")
    return ", ".join(words)


def _steps(run: Running) -> str:
    return f"{run.step:,}" if run.total_steps is None else f"{run.step:,}/{run.total_steps:,}"


def _silence(run: Running) -> str:
    from adaptlab.report.live import QUIET_SECONDS

    return f"nothing written for {duration(run.quiet_seconds)}" if run.quiet_seconds > QUIET_SECONDS else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 150 else f"{line[:149]}…"


def _more(count: int) -> list[RenderableType]:
    from rich.text import Text

    return [Text(f"and {count - _MOST_LINES} more", style="dim")] if count > _MOST_LINES else []


def _document(standing: Standing) -> dict[str, object]:
    import dataclasses

    return {**dataclasses.asdict(standing), "to_come": standing.to_come, "over": standing.over}
