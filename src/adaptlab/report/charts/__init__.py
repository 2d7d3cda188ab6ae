"""Charts, one file each: ``registry.get("score_by_parameters").draw(rows)`` gives an altair chart."""

from __future__ import annotations

from adaptlab.registry import Registry
from adaptlab.report.charts._base import Chart, NothingToDrawError, groups, methods_of, themed

__all__ = ["Chart", "NothingToDrawError", "groups", "in_order", "methods_of", "registry", "themed"]

registry: Registry[Chart] = Registry("chart", "adaptlab.report.charts")


def in_order() -> list[Chart]:
    """All charts in the order in which they stand on the page."""
    return sorted(registry.all(), key=lambda chart: (chart.order, chart.name))
