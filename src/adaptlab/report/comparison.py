"""What is known about methods beside each other: contenders, the claims about each pair, and who is tied with the best.

Plain values, made by :mod:`adaptlab.report.standings`. The two claims of :mod:`adaptlab.report.significance` are kept
apart: ``methods`` is about new seeds on new rows, ``models`` about the two trained models at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adaptlab.report.costs import CostFigure
from adaptlab.report.statistics import Setting, Summary

ALPHA = 0.05
#: Best: the best mean. Tied: not shown to differ from it. Worse: shown to. Open: nothing can be claimed.
Standing = Literal["best", "tied", "worse", "open"]


@dataclass(frozen=True, slots=True)
class Claim:
    """First minus second, or why nothing is claimed.

    Attributes:
        difference: what was observed; ``None`` where even that is unknown.
        p, adjusted_p: two-sided; the second after Holm's correction over all pairs of the comparison.
        test: what gave ``p``.
        reason: why there is no ``p``, as the end of a sentence; ``None`` where there is one.
        subjects: the names of the two runs, where the claim is about trained models.
    """

    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    adjusted_p: float | None = None
    test: str | None = None
    reason: str | None = None
    subjects: tuple[str, str] | None = None

    @property
    def differ(self) -> bool:
        """Whether a difference is shown. ``False`` never says that the two are equal."""
        return self.adjusted_p is not None and self.adjusted_p < ALPHA


@dataclass(frozen=True, slots=True)
class Power:
    """What the comparison of two methods could see, from its own variances, each with a chance of 80 %.

    Attributes:
        detectable: the difference that this many seeds and rows find.
        seeds_needed: seeds of each method that find the observed difference on as many rows; ``None``: no number does.
        rows_needed: rows that find it with as many seeds; ``None``: no number does.
    """

    seeds: int
    rows: int
    detectable: float
    seeds_needed: int | None
    rows_needed: int | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two contenders by their names; ``power`` is there for pairs with the best about which a claim is made."""

    first: str
    second: str
    methods: Claim
    models: Claim
    power: Power | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """One method under one setting: what a line of the table says of it.

    Attributes:
        name: tells it from the others of its comparison.
        method: the label that gives it its colour; ``method_name`` is the plugin's.
        score: over seeds; ``None`` without a finished run.
        interval: of the mean for new seeds and new rows; ``None`` below three seeds or without answers.
        runs, finished, statuses: how many runs, and how many of each status.
        at_hand: name of its best run by the selection score.
        missing: (task, seed) pairs without a score, over several tasks.
        reason: why its standing is open.
        one_answer: how many runs gave every row the same answer, by that answer; ``None`` over several tasks and where
            no answers were kept.
    """

    name: str
    method: str
    method_name: str
    setting: Setting
    score: Summary | None
    interval: tuple[float, float] | None
    runs: int
    finished: int
    statuses: Mapping[str, int]
    trainable: int | None
    head: int | None
    total: int | None
    costs: tuple[CostFigure, ...]
    at_hand: str | None = None
    missing: tuple[tuple[str, int], ...] = ()
    standing: Standing = "open"
    reason: str | None = None
    one_answer: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything on one task (or the mean of several), with one model, under one condition; best contender first.

    Attributes:
        task: ``None`` for the mean over ``tasks``.
        metric: the primary one's name (names joined by "and" over several tasks); ``None`` without a score.
        rows: of the report set, where all runs answered the same.
    """

    task: str | None
    tasks: tuple[str, ...]
    model: str
    condition: Setting
    metric: str | None
    evaluation_set: str | None
    higher_is_better: bool
    rows: int | None
    contenders: tuple[Contender, ...]
    pairs: tuple[Pair, ...]

    @property
    def best(self) -> Contender | None:
        """The contender with the best mean, should any have one."""
        return next((contender for contender in self.contenders if contender.standing == "best"), None)

    @property
    def tied(self) -> tuple[Contender, ...]:
        """The best and those not shown to differ from it, where that was tested."""
        return tuple(contender for contender in self.contenders if contender.standing in ("best", "tied"))

    def pair(self, first: str, second: str) -> Pair | None:
        """The pair in whichever order it stands; its differences are those of ``Pair.first`` minus ``Pair.second``."""
        return next((pair for pair in self.pairs if {pair.first, pair.second} == {first, second}), None)
