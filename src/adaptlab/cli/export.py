"""``adaptlab export``: a finished run's model for others, checked in a fresh process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptlab.cli import flags as f
from adaptlab.cli.evaluate import BaseModel, RunDir
from adaptlab.cli.output import Json, LogLevel, Output, Quiet

if TYPE_CHECKING:
    from adaptlab.exporting import Export


def export(
    run: RunDir,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A new or empty folder.", show_default=False)],
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge into the base: a plain transformers folder.", show_default=False)
    ] = False,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="ID", help="Also upload to the hub; a new repository is private."),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="Rows to check it on, as for predict.", show_default=False),
    ] = None,
    model: BaseModel = None,
    data_root: f.DataRoot = None,
    device: f.Device = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
) -> None:
    """Export a finished run: an adapter that plain peft loads, or (--merge) a plain transformers folder.

    The export is loaded again in a fresh process that imports only transformers and peft, and answers real rows:
    how far its answers are from the run's is printed, and written beside it with a model card.
    """
    output = Output.start(json, quiet, log_level)
    from adaptlab import api
    from adaptlab.cli.predict import read_input

    texts = None if input is None else read_input(input)
    how: dict[str, Any] = {"model": model, "device": device or "auto", "data_root": data_root}
    done = api.export(run, to, merge=merge, push=push, texts=texts, **how)
    output.document({**done.document, "path": str(done.path), "url": done.url})
    for line in _lines(done):
        output.show(line)
    for note in done.notes:
        output.note(f"Note: {note}")
    output.line(done.url or str(done.path))


def _lines(done: Export) -> list[str]:
    from adaptlab.cli.plan import size_text

    files = sorted(path for path in done.path.rglob("*") if path.is_file())
    size = size_text(sum(path.stat().st_size for path in files))
    check = done.document["check"]
    rows, imports = check["rows"], " and ".join(check["imports"])
    lines = [
        f"{done.document['what'].capitalize()}, checked: {len(files)} files, {size}.",
        f"Loaded again in a fresh process with {imports} only, on {rows} rows of {check['source']}:",
        f"  largest logit difference {check['largest_logit_difference']:.2g}",
    ]
    if check["agreement"] is not None:
        lines.append(f"  the same answer on {round(check['agreement'] * rows)} of {rows}")
    return lines
