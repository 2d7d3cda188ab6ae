"""What the commands print: results on stdout, everything about the way there on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.", show_default=False)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no notes: only results and errors.", show_default=False)
]
LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        help="debug, info, warning or error: what is logged to stderr; debug also shows tracebacks.",
    ),
]
#: What is asked of adaptlab's log, and what libraries may then say: their warnings are seldom for who only wants a
#: comparison.
_LIBRARIES = {"debug": "INFO", "info": "WARNING", "warning": "ERROR", "error": "ERROR"}
#: Columns of a table that goes to a file or a pipe, where there is no terminal to ask.
_PIPED_WIDTH = 160


class _CurrentStderr(logging.Handler):
    """Writes to what stderr is at the time: a live display takes it over to print above its bars."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


@dataclass(frozen=True)
class Output:
    """Where a command's words go. With ``json`` stdout has one JSON document, with ``quiet`` stderr has errors only."""

    json: bool = False
    quiet: bool = False

    @classmethod
    def start(cls, json: bool, quiet: bool, log_level: str) -> Output:
        """Set up logging and give the command its output."""
        level = log_level.lower()
        if level not in _LIBRARIES:
            raise typer.BadParameter(f"'{log_level}' is not one of {', '.join(_LIBRARIES)}", param_hint="--log-level")
        logging.basicConfig(handlers=[_CurrentStderr()], format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("adaptlab").setLevel(level.upper())
        logging.getLogger().setLevel(_LIBRARIES[level])
        logging.captureWarnings(True)
        return cls(json, quiet)

    def note(self, text: str) -> None:
        """A sentence for the person who waits."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def document(self, document: Any) -> None:
        """The result, with ``--json``."""
        if self.json:
            print(json.dumps(document, indent=1, ensure_ascii=False))

    def show(self, *parts: RenderableType) -> None:
        """The result for a person: tables and texts."""
        if not self.json:
            console = stdout_console()
            for part in parts:
                console.print(part, soft_wrap=isinstance(part, str))

    def line(self, text: str) -> None:
        """A line of the result that another program may read: never wrapped, never styled."""
        if not self.json:
            print(text)


@contextmanager
def cursor_restored(console: Console) -> Iterator[None]:
    """Around a live display of rich's, which leaves the cursor hidden when Ctrl-C comes while it begins."""
    try:
        yield
    finally:
        console.show_cursor(True)


def stdout_console() -> Console:
    """A rich console on stdout, wide where there is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False, markup=False)
