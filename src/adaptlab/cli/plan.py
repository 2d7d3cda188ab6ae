"""``adaptlab plan``: what a study's methods would train and weigh, before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adaptlab.cli import flags as f
from adaptlab.cli.output import Json, LogLevel, Output, Quiet
from adaptlab.cli.progress import planning
from adaptlab.cli.taking import PLAN, takes

if TYPE_CHECKING:
    from rich.table import Table

    from adaptlab.planning import Plan

#: Stands where a study must have a task and none was given; its rows are not read.
_NO_TASK = "stdlib-docs"


@takes(PLAN)
def plan(
    study: f.Study = None,
    json: Json = False,
    quiet: Quiet = False,
    log_level: LogLevel = "warning",
    **flags: Any,
) -> None:
    """Before training: what each method trains, and its memory, operations, time and disk. Takes compare's flags.

    Needs a model's config.json and no weights. Without a task, heads have 2 labels and costs are those of one step. The
    first plan on a machine calibrates it, which takes ten seconds.
    """
    output = Output.start(json, quiet, log_level)
    from adaptlab import api
    from adaptlab.planning import DEFAULT_LABELS
    from adaptlab.study.document import read_study

    with_task = study is not None or flags["task"] is not None
    if not with_task:
        flags["task"] = _NO_TASK
        output.note(f"No task was given: heads are counted with {DEFAULT_LABELS} labels.")
    asked = read_study(study, f.study_flags(flags))
    with planning(output) as progress:
        plans = api.plan(asked, with_task=with_task, progress=progress)
    _show(plans, output)


def _show(plans: list[Plan], output: Output) -> None:
    output.document([asdict(one) for one in plans])
    output.show(_counts(plans))
    costed = [one for one in plans if one.forecast is not None]
    if costed:
        output.show(_costs(costed), _memory(costed))
        for line in _verdicts(costed):
            output.line(line)
    for line in _groups(plans):
        output.line(line)
    for note in dict.fromkeys(note for one in plans for note in one.notes):
        output.note(f"Note: {note}.")


def _told(plans: list[Plan]) -> list[str]:
    """What has to be said beside the method to tell the plans apart."""
    return [
        key
        for key in ("model", "task", "readout", "shots", "batch_size")
        if len({getattr(one, key) for one in plans}) > 1
    ]


def _table(plans: list[Plan], title: str, columns: tuple[str, ...], told: list[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for name in (*told, "method"):
        table.add_column(name.replace("_size", ""), overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _names(one: Plan, told: list[str]) -> list[str]:
    return [*(str(getattr(one, key) or "-") for key in told), one.method]


def _counts(plans: list[Plan]) -> Table:
    told = _told(plans)
    title = plans[0].model if plans[0].task is None else f"{plans[0].model} on {plans[0].task}"
    columns = ("trainable", "% of all", "head", "in all", "base", "on disk")
    table = _table(plans, "" if {"model", "task"} & set(told) else title, columns, told)
    for one in plans:
        table.add_row(
            *_names(one, told),
            f"{one.trainable:,}",
            f"{100 * one.trainable / one.total:.2f}",
            f"{one.head:,}",
            f"{one.total:,}",
            size_text(one.base_bytes),
            size_text(one.adapter_bytes),
        )
    return table


def _costs(plans: list[Plan]) -> Table:
    """Of one run, and how many there are."""
    told = _told(plans)
    columns = ("batch", "steps", "operations", "training", "answering", "memory", "fits", "runs")
    table = _table(plans, f"What a run takes{_on_devices(plans)}", columns, told)
    for one in plans:
        ahead = one.forecast
        assert ahead is not None
        steps = 1 if ahead.steps is None else ahead.steps
        flops = ahead.step_flops if ahead.train_flops is None else ahead.train_flops
        seconds = ahead.step_seconds if ahead.train_seconds is None else ahead.train_seconds
        table.add_row(
            *_names(one, told),
            f"{ahead.rows} x {ahead.length}",
            f"{steps:,}",
            operations_text(flops),
            seconds_text(seconds),
            "-" if ahead.eval_seconds is None else seconds_text(ahead.eval_seconds),
            size_text(ahead.memory_bytes),
            "yes" if ahead.fits else "no",
            str(one.runs),
        )
    return table


def _on_devices(plans: list[Plan]) -> str:
    """Nothing where a run has one device."""
    devices = plans[0].forecast.devices if plans[0].forecast is not None else 1
    return f" on {devices} devices (memory of each)" if devices > 1 else ""


def _memory(plans: list[Plan]) -> Table:
    """What holds the memory."""
    told = _told(plans)
    parts = ("base", "copies", "trained", "gradients", "optimizer", "best", "activations", "total", "answering")
    table = _table(plans, f"Memory while training, by what holds it{_on_devices(plans)}", parts, told)
    for one in plans:
        assert one.forecast is not None
        memory = one.forecast.memory
        table.add_row(*_names(one, told), *(size_text(memory[part]) for part in parts))
    return table


def _verdicts(plans: list[Plan]) -> list[str]:
    """What does not fit and what would help, and what the study takes in all."""
    lines, ahead = [], plans[0].forecast
    assert ahead is not None
    for one in plans:
        found = one.forecast
        if found is None or found.fits:
            continue
        needs = f"{one.method} needs {size_text(found.memory_bytes)} and {size_text(found.available_bytes)} are free"
        if found.advice:
            lines.append(f"{needs}: add {', or '.join(found.advice)}.")
        else:
            lines.append(f"{needs}: no flag makes it fit; take a smaller model, or shorter texts (--max-length).")
    runs = sum(one.runs for one in plans)
    forecasts = [(one, one.forecast) for one in plans if one.forecast is not None]
    if all(found.train_seconds is not None for _, found in forecasts):
        seconds = sum(one.runs * ((f.train_seconds or 0.0) + (f.eval_seconds or 0.0)) for one, f in forecasts)
        flops = sum(one.runs * (f.train_flops or 0.0) for one, f in forecasts)
        disk = sum(one.disk_bytes - f.checkpoint_bytes for one, f in forecasts)
        disk += max(f.checkpoint_bytes for _, f in forecasts)
        lines.append(
            f"In all: {runs} runs, {operations_text(flops)}, about {seconds_text(seconds)} one after the other on "
            f"this {ahead.device} in {ahead.dtype}, {size_text(disk)} of disk."
        )
    if ahead.steps is not None and not ahead.exact_lengths:
        lines.append("The tokenizer is not here: lengths are estimated from words.")
    return lines


def _groups(plans: list[Plan]) -> list[str]:
    """Which runs the fused engine trains together, which not and why; nothing where there is one run."""
    if sum(one.runs for one in plans) < 2:
        return []
    fused = plans[0].engine == "fused"
    lines = [] if fused else ["The engine here is solo, one run after the other; --engine fused would do this:"]
    labels: dict[int, list[str]] = {}
    reasons: dict[str, list[str]] = {}
    for one in plans:
        for number in one.groups:
            labels.setdefault(number, []).append(one.method)
        if one.alone:
            reasons.setdefault(one.alone, []).append(one.method)
    lines += [f"Fused, group {number}: {', '.join(dict.fromkeys(labels[number]))}." for number in sorted(labels)]
    return lines + [f"Solo, {reason}: {', '.join(dict.fromkeys(names))}." for reason, names in reasons.items()]


def size_text(count: int) -> str:
    """Bytes for people: ``1.2 MB``, in powers of 1,000 as file managers and hubs show them."""
    size, units = float(count), ["B", "kB", "MB", "GB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}" if units[0] != "B" else f"{count} B"


def operations_text(count: float) -> str:
    """Floating-point operations for people: ``12.3 TFLOP``."""
    units = ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:.3g} {units[0]}"


def seconds_text(seconds: float) -> str:
    """``0.31 s``, ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    if minutes < 10:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
