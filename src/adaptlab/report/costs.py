"""What a method's runs cost: means over seeds, each clock for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptlab.report.select import RunRow
from adaptlab.report.statistics import summarise

#: Endings of the costs that depend on the machine; operations, tokens and bytes on disk do not.
_OF_MACHINE = ("_seconds", "_memory_bytes", "_joules")


@dataclass(frozen=True, slots=True)
class CostFigure:
    """One cost of one run, mean over the finished runs that have it.

    Attributes:
        name: as in ``cost`` of record.json, unit included.
        machine: the environment's fingerprint where the figure depends on it: figures of two machines do not compare.
    """

    name: str
    machine: str | None
    mean: float
    std: float | None
    n: int


def depends_on_machine(cost: str) -> bool:
    """Whether figures called ``cost`` compare only within one machine."""
    return cost.endswith(_OF_MACHINE)


def costs_of(runs: Sequence[RunRow]) -> tuple[CostFigure, ...]:
    """Every cost that any finished run of ``runs`` has."""
    values: dict[tuple[str, str | None], list[float]] = {}
    for run in runs:
        if run.status != "finished":
            continue
        for name, value in run.cost.model_dump().items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                machine = run.environment.fingerprint if depends_on_machine(name) else None
                values.setdefault((name, machine), []).append(float(value))
    figures = []
    for (name, machine), found in values.items():
        summary = summarise(found)
        if summary is not None:
            figures.append(CostFigure(name, machine, summary.mean, summary.std, summary.n))
    return tuple(figures)
