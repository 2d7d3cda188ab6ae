"""Every chart as a file for a paper or a slide: SVG, PNG and PDF, in the light theme."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptlab.errors import ConfigError
from adaptlab.report.charts import NothingToDrawError, groups, in_order, methods_of, themed
from adaptlab.report.page import VEGA_LITE
from adaptlab.report.select import Selection
from adaptlab.runs.files import cannot_write, write_atomically

#: Pixels of a PNG per pixel of the chart.
PNG_SCALE = 2.0
#: The kinds of files a figure can be.
KINDS = ("svg", "pdf", "png")


def write_figures(selection: Selection, folder: Path, kinds: Sequence[str] = KINDS) -> tuple[Path, ...]:
    """Draw every chart of every task and model into ``folder``; charts with nothing to show are left out.

    Raises:
        ConfigError: there is no such kind of file.
        StudyError: a file cannot be written.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ConfigError(f"Figures are not written as {', '.join(unknown)}: give {', '.join(KINDS)}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    methods = methods_of(selection.rows)
    written = []
    for (task, model), rows in groups(selection.rows).items():
        for chart in in_order():
            try:
                spec = themed(chart.draw(rows, methods=methods))
            except NothingToDrawError:
                continue
            for kind in kinds:
                path = folder / f"{_file_name(task, model, chart.name)}.{kind}"
                write_atomically(path, rendered(spec, kind))
                written.append(path)
    return tuple(written)


def rendered(spec: Mapping[str, Any], kind: str) -> bytes:
    """A Vega-Lite specification drawn as one of :data:`KINDS`, offline."""
    import vl_convert

    text = json.dumps(spec)
    options: dict[str, Any] = {"vl_version": VEGA_LITE}
    if kind == "svg":
        return str(vl_convert.vegalite_to_svg(text, **options)).encode()
    if kind == "png":
        return bytes(vl_convert.vegalite_to_png(text, scale=PNG_SCALE, **options))
    return bytes(vl_convert.vegalite_to_pdf(text, **options))


def _file_name(*parts: str) -> str:
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", part).strip("._") or "_" for part in parts)
