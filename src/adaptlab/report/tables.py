"""The results as one grid of texts, which the terminal, Markdown, LaTeX and the page write in their own ways."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from adaptlab.report.comparison import Comparison, Contender
from adaptlab.report.costs import costs_of
from adaptlab.report.select import RunRow, Selection
from adaptlab.report.statistics import AcrossTasks, Cell, Summary, across_tasks, label_of
from adaptlab.report.summary import ReportSummary, summary

NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the grid; ``number`` ones are set to the right."""

    title: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A field of the grid. ``value`` is what the text says as a number, for sorting; ``best`` what is set in bold."""

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


#: Costs with a column of their own, where any run has them: name in the record, title, unit.
_COSTS = (
    ("train_flops", "training TFLOP", 1e12),
    ("train_seconds", "training s", 1.0),
    ("peak_memory_bytes", "peak MB", 1e6),
)


def results_grid(selection: Selection) -> Grid:
    """One line per (model, method, setting), best first; one column per task; bold is the best and what is tied."""
    rows, found = selection.rows, summary(selection)
    tasks = sorted({row.task for row in rows})
    variants = across_tasks(rows)
    machines = machine_letters(rows)
    axes = sorted({axis for row in rows for axis in row.setting})
    several_models = len({row.model for row in rows}) > 1
    costs = [cost for cost in _COSTS if any(row.status == "finished" and getattr(row.cost, cost[0]) for row in rows)]
    columns = [Column("model")] if several_models else []
    columns += [Column("method"), *(Column(axis.replace("_", " "), number=True) for axis in axes)]
    columns += [Column(_task_title(task, variants), number=True) for task in tasks]
    columns += [Column("mean of tasks", number=True)] if len(tasks) > 1 else []
    titles = ["trained parameters", "head parameters", *(title for _, title, _ in costs)]
    columns += [*(Column(title, number=True) for title in titles), Column("runs finished")]
    lines = []
    for variant in variants:
        line = [Entry(variant.model)] if several_models else []
        line += [Entry(variant.method)]
        line += [_setting_entry(dict(variant.setting).get(axis)) for axis in axes]
        line += [_score_entry(variant.cells.get(task), _in_bold(found, variant, task)) for task in tasks]
        if len(tasks) > 1:
            line.append(_mean_entry(variant, _in_bold(found, variant, None)))
        line += [_count_entry(variant, "trainable"), _count_entry(variant, "head")]
        line += [_cost_entry(variant.runs, machines, name, unit) for name, _, unit in costs]
        lines.append((*line, _runs_entry(variant.runs)))
    left_out = tuple(f"Left out, {problem.file}: {problem.reason}." for problem in selection.problems)
    return Grid(tuple(columns), tuple(lines), tuple(_notes(selection, variants, machines)), left_out)


def _in_bold(found: ReportSummary, variant: AcrossTasks, task: str | None) -> bool:
    contender = found.contender(task, variant.model, variant.method, variant.setting)
    return contender is not None and contender.standing in ("best", "tied")


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


def _score_entry(cell: Cell | None, bold: bool) -> Entry:
    if cell is None:
        return Entry("not run", problem=True)
    if cell.score is None:
        return Entry(status_counts(cell.runs), problem=any(run.status != "running" for run in cell.runs))
    text = score_text(cell.score)
    if 1 < cell.score.n < len(cell.runs):
        text += f" (n={cell.score.n})"
    return Entry(text, cell.score.mean, best=bold)


def _mean_entry(variant: AcrossTasks, bold: bool) -> Entry:
    if variant.mean is None:
        return Entry("incomplete", problem=True)
    text = score_text(variant.mean)
    if variant.missing and variant.mean.n > 1:
        text += f" (n={variant.mean.n})"
    return Entry(text, variant.mean.mean, best=bold)


def _count_entry(variant: AcrossTasks, which: str) -> Entry:
    counts = {getattr(cell, which) for cell in variant.cells.values()} - {None}
    if not counts:
        return Entry(NOTHING)
    low, high = min(counts), max(counts)
    return Entry(f"{low:,}" if low == high else f"{low:,} to {high:,}", high)


def _cost_entry(runs: Sequence[RunRow], machines: Mapping[str, str], name: str, unit: float) -> Entry:
    """Mean of a finished run; of what depends on the machine one figure each, for they do not compare."""
    figures = [figure for figure in costs_of(runs) if figure.name == name]
    if not figures:
        return Entry(NOTHING)
    letters = [machines.get(figure.machine or "") for figure in figures]
    texts = [
        seconds_text(figure.mean / unit) + (f" ({letter})" if letter else "")
        for figure, letter in zip(figures, letters, strict=True)
    ]
    return Entry(" / ".join(texts), figures[0].mean / unit)


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
        rows_used = "" if selection.notes else ", on rows that neither trained nor selected anything"
        notes = [
            f"Scores are means ± sample standard deviation over seeds{rows_used}; n=1 is a single run, whose spread is "
            "unknown.",
            *_what_bold_means(summary(selection).comparisons),
        ]
        notes += _one_answer(summary(selection).of_tasks)
        if any(variant.missing for variant in variants) and len({row.task for row in rows}) > 1:
            notes.append("The mean of tasks is formed per seed, from seeds that have every task. " + _missing(variants))
        notes.append("Training s is the wall clock of the training steps of one run, without loading and evaluation.")
    notes += selection.notes
    if rows and selection.waiting:
        notes.append(f"Runs without a record yet: {len(selection.waiting)}.")
    if len(machines) > 1:
        first = {row.environment.fingerprint: row for row in reversed(rows)}
        names = "; ".join(f"{letter}: {machine_text(first[key])}" for key, letter in machines.items())
        notes.append(f"Clocks of {len(machines)} machines, comparable only within each: {names}.")
    return notes


def _what_bold_means(comparisons: Sequence[Comparison]) -> list[str]:
    scored = [comparison for comparison in comparisons if comparison.best is not None]
    tested = [
        comparison for comparison in scored if any(c.standing in ("tied", "worse") for c in comparison.contenders)
    ]
    if not tested:
        reasons = {
            c.reason for comparison in scored for c in comparison.contenders if c.standing == "open" and _mean(c)
        }
        why = f": {'; '.join(sorted(reason for reason in reasons if reason))}" if any(reasons) else ""
        return [f"Bold marks the best mean; no method is tested against another{why}."]
    apart = (
        " Lines are compared with those of the same model and amount of data."
        if len({(comparison.model, comparison.condition) for comparison in comparisons}) > 1
        else ""
    )
    notes = [
        "Bold marks the best mean and every method that is not shown to differ from it (t over seeds and rows, Holm's "
        f"correction over all pairs of a column, 5 %); tied is not equal.{apart}"
    ]
    return notes + _not_tested(scored)


def _not_tested(comparisons: Sequence[Comparison]) -> list[str]:
    """Who has a mean but no standing, by the reason."""
    names: dict[str, list[str]] = {}
    for comparison in comparisons:
        for contender in comparison.contenders:
            if contender.standing == "open" and contender.reason and _mean(contender):
                where = "the mean of tasks" if comparison.task is None else comparison.task
                names.setdefault(contender.reason, []).append(f"{contender.name} on {where}")
    return [f"Neither tied nor worse, as {reason}: {', '.join(found)}." for reason, found in names.items()]


def _one_answer(comparisons: Sequence[Comparison]) -> list[str]:
    """Whose score says nothing of the rows, as every one of them got the same answer."""
    models = len({comparison.model for comparison in comparisons}) > 1
    found = []
    for comparison in comparisons:
        where = f"{comparison.task} with {comparison.model}" if models else str(comparison.task)
        for contender in comparison.contenders:
            if contender.one_answer:
                answers = ", ".join(f"“{_short(one)}” {count}" for one, count in contender.one_answer.items())
                name = f"{contender.name} on {label_of(where, comparison.condition)}"
                found.append(f"{name} in {sum(contender.one_answer.values())} of {contender.finished} runs ({answers})")
    return [f"Every row got the same answer, whatever it says: {'; '.join(found)}."] if found else []


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."


def _mean(contender: Contender) -> bool:
    return contender.score is not None and math.isfinite(contender.score.mean)


def _missing(variants: Sequence[AcrossTasks]) -> str:
    gaps = [
        f"{' '.join([variant.method, *(f'{axis}={value}' for axis, value in variant.setting)])} lacks "
        + ", ".join(f"{task} seed {seed}" for task, (seed, _) in variant.missing)
        for variant in variants
        if variant.missing
    ]
    return "; ".join(gaps) + "."
