"""The results as tables: one grid of texts, written for the terminal, Markdown and LaTeX; and every figure as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from adaptlab.report.select import RunRow, Selection, read_studies
from adaptlab.report.statistics import AcrossTasks, Cell, Summary, across_tasks, best_variants

NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the grid; ``number`` ones are set to the right."""

    title: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A field of the grid. ``value`` is what the text says as a number, for sorting."""

    text: str
    value: float | None = None
    best: bool = False
    problem: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """The table of results, ready to be written in any form.

    ``notes`` are the sentences below it, ``left_out`` those about files that could not be read.
    """

    columns: tuple[Column, ...]
    lines: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


def results_grid(selection: Selection) -> Grid:
    """One line per (model, method, setting), best first; one column per task; best means marked."""
    rows = selection.rows
    tasks = sorted({row.task for row in rows})
    variants = across_tasks(rows)
    machines = machine_letters(rows)
    axes = sorted({axis for row in rows for axis in row.setting})
    several_models = len({row.model for row in rows}) > 1
    columns = [Column("model")] if several_models else []
    columns += [Column("method"), *(Column(axis.replace("_", " "), number=True) for axis in axes)]
    columns += [Column(_task_title(task, variants), number=True) for task in tasks]
    columns += [Column("mean of tasks", number=True)] if len(tasks) > 1 else []
    columns += [Column(title, number=True) for title in ("trained parameters", "head parameters", "training s")]
    columns += [Column("runs finished")]
    best = {task: best_variants(variants, task) for task in tasks}
    best_mean = max((v.mean.mean for v in variants if v.mean), default=None, key=_direction(variants))
    lines = []
    for variant in variants:
        line = [Entry(variant.model)] if several_models else []
        line += [Entry(variant.method)]
        line += [_setting_entry(dict(variant.setting).get(axis)) for axis in axes]
        for task in tasks:
            line.append(_score_entry(variant.cells.get(task), best[task]))
        if len(tasks) > 1:
            line.append(_mean_entry(variant, best_mean))
        line += [_count_entry(variant, "trainable"), _count_entry(variant, "head")]
        line += [_seconds_entry(variant.runs, machines), _runs_entry(variant.runs)]
        lines.append(tuple(line))
    left_out = tuple(f"Left out, {problem.file}: {problem.reason}." for problem in selection.problems)
    return Grid(tuple(columns), tuple(lines), tuple(_notes(selection, variants, machines)), left_out)


def _direction(variants: Sequence[AcrossTasks]) -> Any:
    lower = any(not cell.higher_is_better for variant in variants for cell in variant.cells.values())
    return (lambda mean: -mean) if lower else (lambda mean: mean)


def _task_title(task: str, variants: Iterable[AcrossTasks]) -> str:
    metrics = {variant.cells[task].metric for variant in variants if task in variant.cells} - {None}
    return " ".join([task, *sorted(str(metric) for metric in metrics)])


def _setting_entry(value: str | None) -> Entry:
    if value is None:
        return Entry(NOTHING)
    try:
        return Entry(value, float(value))
    except ValueError:
        return Entry(value)


def _score_entry(cell: Cell | None, best: set[Any]) -> Entry:
    if cell is None:
        return Entry("not run", problem=True)
    if cell.score is None:
        return Entry(status_counts(cell.runs), problem=any(run.status != "running" for run in cell.runs))
    text = score_text(cell.score)
    if 1 < cell.score.n < len(cell.runs):
        text += f" (n={cell.score.n})"
    return Entry(text, cell.score.mean, best=cell.variant in best)


def _mean_entry(variant: AcrossTasks, best: float | None) -> Entry:
    if variant.mean is None:
        return Entry("incomplete", problem=True)
    text = score_text(variant.mean)
    if variant.missing and variant.mean.n > 1:
        text += f" (n={variant.mean.n})"
    return Entry(text, variant.mean.mean, best=variant.mean.mean == best)


def _count_entry(variant: AcrossTasks, which: str) -> Entry:
    counts = {getattr(cell, which) for cell in variant.cells.values()} - {None}
    if not counts:
        return Entry(NOTHING)
    low, high = min(counts), max(counts)
    return Entry(f"{low:,}" if low == high else f"{low:,} to {high:,}", high)


def _seconds_entry(runs: Sequence[RunRow], machines: Mapping[str, str]) -> Entry:
    """Mean seconds of a finished run; machines apart, for their clocks do not compare."""
    seconds: dict[str, list[float]] = {fingerprint: [] for fingerprint in machines}
    for run in runs:
        if run.status == "finished" and run.cost.train_seconds is not None:
            seconds[run.environment.fingerprint].append(run.cost.train_seconds)
    means = {fingerprint: statistics.fmean(found) for fingerprint, found in seconds.items() if found}
    texts = [
        seconds_text(mean) + (f" ({machines[fingerprint]})" if machines[fingerprint] else "")
        for fingerprint, mean in means.items()
    ]
    return Entry(" / ".join(texts), next(iter(means.values()))) if means else Entry(NOTHING)


def _runs_entry(runs: Sequence[RunRow]) -> Entry:
    finished = sum(run.status == "finished" for run in runs)
    if finished == len(runs):
        return Entry(str(finished), finished)
    others = status_counts(run for run in runs if run.status != "finished")
    return Entry(f"{finished} of {len(runs)}; {others}", finished, problem=True)


def status_counts(runs: Iterable[RunRow]) -> str:
    """E.g. ``1 diverged, 2 failed``."""
    counts = Counter(run.status for run in runs)
    return ", ".join(f"{count} {status.replace('-', ' ')}" for status, count in sorted(counts.items()))


def score_text(summary: Summary) -> str:
    """``0.894 ± 0.006``; one value has no spread, and says so."""
    if math.isnan(summary.mean):
        return "undefined"
    if summary.std is None:
        return f"{number_text(summary.mean)} (n=1)"
    tiny = 0 < summary.std < 0.0005
    return f"{number_text(summary.mean)} ± {'<0.001' if tiny else number_text(summary.std)}"


def number_text(value: float) -> str:
    """Three decimals below ten, four figures above."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def seconds_text(seconds: float) -> str:
    """Three figures: ``0.42``, ``6.20``, ``31.0``, ``1,240``."""
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}" if seconds < 100 else f"{seconds:,.0f}"


def machine_letters(rows: Sequence[RunRow]) -> dict[str, str]:
    """Environment fingerprints of ``rows`` to A, B, ...; to nothing where there is only one."""
    found = list(dict.fromkeys(row.environment.fingerprint for row in rows))
    if len(found) == 1:
        return {found[0]: ""}
    return {fingerprint: _letters(index) for index, fingerprint in enumerate(found)}


def _letters(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else _letters(index // 26 - 1) + chr(ord("A") + index % 26)


def machine_text(row: RunRow) -> str:
    """The machine a run's clock belongs to, in words."""
    environment = row.environment
    parts = [environment.device or "an unknown device"]
    if environment.threads is not None:
        parts.append(f"{environment.threads} thread{'s' if environment.threads != 1 else ''}")
    if "torch" in environment.packages:
        parts.append(f"torch {environment.packages['torch']}")
    return ", ".join(parts)


def _notes(selection: Selection, variants: Sequence[AcrossTasks], machines: Mapping[str, str]) -> list[str]:
    rows = selection.rows
    if not rows:
        where = "; the files below could not be read" if selection.problems else ""
        run = f"`adaptlab compare ... --out {selection.studies[0]}` runs it"
        notes = [f"No run of this study has left a record yet{where}: {run}."]
    else:
        notes = [
            "Scores are means ± sample standard deviation over seeds, on rows that neither trained nor selected "
            "anything; n=1 is a single run, whose spread is unknown. Bold marks the best mean; whether it differs from "
            "the next is not tested here."
        ]
        if any(variant.missing for variant in variants) and len({row.task for row in rows}) > 1:
            notes.append("The mean of tasks is formed per seed, from seeds that have every task. " + _missing(variants))
        notes.append("Training s is the wall clock of the training steps of one run, without loading and evaluation.")
    if rows and selection.waiting:
        notes.append(f"Runs without a record yet: {len(selection.waiting)}.")
    if len(machines) > 1:
        first = {row.environment.fingerprint: row for row in reversed(rows)}
        names = "; ".join(f"{letter}: {machine_text(first[key])}" for key, letter in machines.items())
        notes.append(f"Clocks of {len(machines)} machines, comparable only within each: {names}.")
    return notes


def _missing(variants: Sequence[AcrossTasks]) -> str:
    gaps = [
        f"{' '.join([variant.method, *(f'{axis}={value}' for axis, value in variant.setting)])} lacks "
        + ", ".join(f"{task} seed {seed}" for task, (seed, _) in variant.missing)
        for variant in variants
        if variant.missing
    ]
    return "; ".join(gaps) + "."


def terminal_table(folder: Path) -> Table:
    """The results of the study in ``folder`` for a terminal.

    Raises:
        StudyError: ``folder`` is not a study.
    """
    selection = read_studies([folder])
    grid = results_grid(selection)
    notes = Text("\n".join(grid.notes + grid.left_out))
    table = Table(title=Text(" + ".join(selection.studies)), box=box.SIMPLE_HEAD, title_justify="left")
    if not grid.lines:
        table.add_column()
        table.add_row(notes)
        return table
    table.caption, table.caption_justify = notes, "left"
    for column in grid.columns:
        table.add_column(Text(column.title), justify="right" if column.number else "left", overflow="fold")
    for line in grid.lines:
        table.add_row(*(Text(entry.text, style=_style(entry)) for entry in line))
    return table


def _style(entry: Entry) -> str:
    return "bold" if entry.best else "red" if entry.problem else ""


def markdown(selection: Selection) -> str:
    """The results as a Markdown table with its notes."""
    grid = results_grid(selection)
    lines = [f"# {_markdown_text(' + '.join(selection.studies))}", ""]
    if grid.lines:
        lines.append(_markdown_line(_markdown_text(column.title) for column in grid.columns))
        lines.append(_markdown_line("---:" if column.number else ":---" for column in grid.columns))
        for entries in grid.lines:
            texts = [(_markdown_text(entry.text), entry.best) for entry in entries]
            lines.append(_markdown_line(f"**{text}**" if best else text for text, best in texts))
        lines.append("")
    return "\n".join(lines) + "\n" + "\n\n".join(_markdown_text(note) for note in grid.notes + grid.left_out) + "\n"


def _markdown_line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _markdown_text(text: str) -> str:
    flat = " ".join(text.split())
    for character in "\\|*_<>[]&":
        flat = flat.replace(character, "&amp;" if character == "&" else f"\\{character}")
    return flat


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def latex(selection: Selection) -> str:
    """The results as a LaTeX ``table`` for the package booktabs, its notes as a caption."""
    grid = results_grid(selection)
    if not grid.lines:
        return "".join(f"% {' '.join(note.split())}\n" for note in grid.notes + grid.left_out)
    shape = "".join("r" if column.number else "l" for column in grid.columns)
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{shape}}}", r"\toprule"]
    lines.append(" & ".join(latex_text(column.title) for column in grid.columns) + r" \\")
    lines.append(r"\midrule")
    for entries in grid.lines:
        texts = [(latex_text(entry.text), entry.best) for entry in entries]
        lines.append(" & ".join(rf"\textbf{{{text}}}" if best else text for text, best in texts) + r" \\")
    caption = " ".join(latex_text(note) for note in grid.notes + grid.left_out)
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """``text`` with every character that LaTeX would interpret escaped, on one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def results_csv(rows: Sequence[RunRow]) -> str:
    """One line per run with every figure; columns are the paths of record.json, joined by dots.

    A text that a spreadsheet would run as a formula is preceded by an apostrophe.
    """
    lines = [_csv_line(row) for row in rows]
    found = dict.fromkeys(column for line in lines for column in line)
    sections = list(dict.fromkeys(column.partition(".")[0] for column in found))
    columns = sorted(found, key=lambda column: sections.index(column.partition(".")[0]))  # stable inside a section
    out = io.StringIO()
    writer = csv.DictWriter(out, columns or ["run"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _csv_value(value) for column, value in line.items()} for line in lines)
    return out.getvalue()


def _csv_line(row: RunRow) -> dict[str, Any]:
    names: dict[str, Any] = {"study": row.study, "name": row.name, "id": row.id, "status": row.status, "task": row.task}
    names |= {"model": row.model, "method": row.method, "seed": row.seed, "data_seed": row.data_seed}
    nested = {
        "primary": row.primary.model_dump() if row.primary else {},
        "metrics": row.metrics,
        "parameters": row.parameters.model_dump() if row.parameters else {},
        "cost": row.cost.model_dump(),
        "config": row.resolved,
        "data": row.data.model_dump() if row.data else {},
        "training": row.training,
        "environment": row.environment.model_dump(),
        "engine": row.engine,
        "started": row.started,
        "ended": row.ended,
        "warnings": list(row.warnings),
        "error": row.error.model_dump(exclude={"traceback"}) if row.error else {},
    }
    return names | dict(_paths(nested))


def _paths(nested: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" != "config.method.options":
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _csv_value(value: Any) -> Any:
    if isinstance(value, (list, tuple, dict)):
        value = json.dumps(value, ensure_ascii=False) if value else ""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
