"""Sizes that have to divide the features of every target: which ones do, and what to say of those that do not."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from math import gcd

from adaptlab.errors import ConfigError
from adaptlab.models._base import Layer, Layout


def layers_of(layout: Layout, names: Iterable[str]) -> list[Layer]:
    """The layers called ``names``."""
    return [layout.layer(name) for name in names]


def fitting_size(option: str, given: int | None, features: Iterable[int], *, limit: int, least: int = 2) -> int:
    """``given``, or the largest multiple of ``least`` up to ``limit`` that divides all ``features``.

    Raises:
        ConfigError: ``given`` does not divide them, or nothing does.
    """
    sizes = sorted(set(features))
    common = reduce(gcd, sizes)
    fitting = [size for size in range(least, common + 1, least) if common % size == 0]
    widths = ", ".join(map(str, sizes))
    if not fitting:
        raise ConfigError(
            f"No {option} divides the targets' features ({widths}): choose targets whose widths have a divisor in "
            f"common that is a multiple of {least}."
        )
    if given is None:
        return max((size for size in fitting if size <= limit), default=fitting[0])
    if given not in fitting:
        raise ConfigError(
            f"{option}={given} does not divide the targets' features ({widths}): give one of "
            f"{', '.join(map(str, fitting))}, or leave it out."
        )
    return given


def check_at_most(option: str, given: int, largest: int, reason: str) -> None:
    """Raise :class:`ConfigError` if ``given`` is above ``largest``."""
    if given > largest:
        raise ConfigError(f"{option}={given} is too large for these targets, {reason}: give {largest} or less.")
