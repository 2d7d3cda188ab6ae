"""Which rows a prompt shows before its question: from the training data alone, drawn by the run's seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptlab.config import AnsweringConfig
from adaptlab.errors import ConfigError
from adaptlab.tasks._base import Example, TaskData


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same demonstrations before every question."""

    rows: tuple[Example, ...]

    @property
    def count(self) -> int:
        """Demonstrations before a question."""
        return len(self.rows)

    def of(self, example: Example) -> tuple[Example, ...]:
        """The demonstrations before ``example``, in order."""
        return self.rows


@dataclass(frozen=True, slots=True)
class PerQuery:
    """Other demonstrations before every question, never the row itself; the same ones whenever it is asked."""

    pool: Sequence[Example]
    count: int
    seed: int
    balanced: bool

    def of(self, example: Example) -> tuple[Example, ...]:
        """The demonstrations before ``example``, in order."""
        key = int.from_bytes(hashlib.sha256(example.id.encode()).digest()[:8], "big")
        pool = [row for row in self.pool if row.id != example.id]
        return draw(pool, self.count, np.random.default_rng([self.seed, key]), balanced=self.balanced)


Demonstrations = Fixed | PerQuery


def choose(pool: Sequence[Example], count: int, *, seed: int, how: AnsweringConfig) -> Demonstrations | None:
    """``count`` demonstrations out of ``pool``, drawn by ``seed``; ``None`` for no demonstrations."""
    if not count:
        return None
    balanced = how.shot_sampling == "balanced"
    if how.shots_per_query:
        return PerQuery(pool, count, seed, balanced)
    return Fixed(draw(pool, count, np.random.default_rng([seed]), balanced=balanced))


def draw(pool: Sequence[Example], count: int, generator: np.random.Generator, *, balanced: bool) -> tuple[Example, ...]:
    """``count`` rows of ``pool`` in random order, none twice.

    Balanced draws shuffle the classes and deal them out in turn, so that those dealt once more are random too. A class
    that has no more rows is passed over.
    """
    if not balanced:
        return tuple(pool[int(i)] for i in generator.permutation(len(pool))[:count])
    rows: dict[object, list[int]] = {}
    for i, example in enumerate(pool):
        rows.setdefault(example.label, []).append(i)
    classes = [rows[label] for label in sorted(rows, key=str)]
    mixed = [generator.permutation(members) for members in classes]
    order = generator.permutation(len(classes))
    rounds = range(max(map(len, mixed), default=0))
    dealt = [int(mixed[int(c)][turn]) for turn in rounds for c in order if turn < len(mixed[int(c)])][:count]
    return tuple(pool[i] for i in generator.permutation(dealt)) if dealt else ()


def check(shots: int, how: AnsweringConfig, data: TaskData) -> None:
    """Raise :class:`ConfigError` where the training data cannot give ``shots`` demonstrations."""
    spare = 1 if how.shots_per_query else 0  # a question that is a training row itself is not shown
    if shots > len(data.train) - spare:
        raise ConfigError(
            f"{shots} shots were asked for, and there are {len(data.train)} training rows: give fewer shots or raise "
            "--train-examples."
        )
    if not shots or how.shot_sampling != "balanced":
        return
    if not data.labels:
        raise ConfigError(f"Balanced shots need classes, and this is {data.kind}: use --shot-sampling random.")
    least = -(-shots // len(data.labels))
    for index, label in enumerate(data.labels):
        have = sum(row.label == index for row in data.train) - spare
        if have < least:
            raise ConfigError(
                f"{shots} balanced shots need {least} training rows of every class, and '{label}' has {have}: give "
                "fewer shots, raise --train-examples, or use --shot-sampling random."
            )
