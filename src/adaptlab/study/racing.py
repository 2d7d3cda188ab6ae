"""A race of methods within a budget of seconds: which adapts this model to this task best?

Every method starts at its default learning rate; the better third goes on, at other rates too. Then the trials train
longer and fewer go on (successive halving, arXiv 1502.07943), until one is left. It is trained anew, as long as what is
left allows, with several seeds if there is time, and only then are the report rows looked at. All seconds count:
loading, evaluation, failures, what an interrupted call of before has spent. No trial is too short to tell methods
apart: where time or data are short, there are fewer rounds.

Three biases to know: a short round favours what learns fast at high rates, a method whose default rate does not suit
the task may go before another is tried, and methods are compared on one seed until the end. Methods whose trial of the
last length ended within a standard error of the winner's are therefore named as tied with it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adaptlab.config import RunConfig
from adaptlab.errors import ConfigError
from adaptlab.methods import registry as methods
from adaptlab.runs.files import write_atomically
from adaptlab.runs.record import Record
from adaptlab.study.tuning import Do, selection_score

FILE = "choice.json"
#: A trial of the first round has this share of the steps of a whole run, but not fewer than these; of each next round
#: three times as many.
_FIRST_SHARE = 1 / 9
_FEWEST_STEPS = 40
_GROWTH = 3
_RATES = (1.0, 1 / 3, 3.0)
#: Steps of the lap in which every method shows what a step costs it.
_LAP_STEPS = 4
#: No method starts its lap after this share of the budget.
_LAP_SHARE = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Entrant:
    """A method at a learning rate. ``run`` says everything but steps and seed."""

    run: RunConfig

    @property
    def label(self) -> str:
        return self.run.method.label

    @property
    def rate(self) -> float:
        return float(self.run.training.learning_rate)

    def trial(self, steps: int, seed: int) -> RunConfig:
        """The run of a round: it never looks at the report rows, and at the selection rows as seldom as it can."""
        return self._run(steps, seed, report=False, eval_every=steps)

    def final(self, steps: int, seed: int) -> RunConfig:
        """The run that is reported."""
        return self._run(steps, seed, report=True, eval_every=max(1, math.ceil(steps / 3)))

    def _run(self, steps: int, seed: int, *, report: bool, eval_every: int) -> RunConfig:
        training = self.run.training.model_copy(update={"steps": steps, "eval_every": eval_every})
        return self.run.model_copy(update={"training": training, "seed": seed, "report": report})


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial of the race. ``score`` is on the selection rows, higher is better; ``None``: it did not finish."""

    method: str
    learning_rate: float
    steps: int
    score: float | None
    seconds: float
    run: str


@dataclass
class Choice:
    """What the race came to.

    Attributes:
        method, learning_rate: of the winner.
        records: of its final runs, one a seed, on the report rows.
        tied: methods whose last trial was within a standard error of the winner's.
        tried: every trial, in order.
        left_out: methods that did not start, and why.
        seconds: what everything took, former calls included; ``budget_seconds`` what it was allowed to.
    """

    method: str
    learning_rate: float
    records: list[Record]
    tied: list[str]
    tried: list[Tried]
    left_out: dict[str, str]
    seconds: float
    budget_seconds: float


def entrants(runs: Iterable[RunConfig]) -> list[Entrant]:
    """Each method of ``runs`` at its default rate, a third of it and three times it, within its range."""
    found = []
    for run in runs:
        rates = methods.get(run.method.name).learning_rates
        given = run.training.learning_rate
        wanted = [given] if given != "auto" else [rates.default * factor for factor in _RATES]
        kept = [rate for rate in wanted if given != "auto" or rates.low <= rate <= rates.high]
        for rate in kept:
            training = run.training.model_copy(update={"learning_rate": float(f"{rate:.2g}")})
            found.append(Entrant(run.model_copy(update={"training": training})))
    return found


@dataclass
class Race:
    """Runs a race. ``do`` has runs done, those that are settled skipped.

    Args:
        whole: the steps of a whole run, if there is time for that, from the record of a short one.
        reserve_seconds: of the budget, for what comes after the race.
        seeds: of the winner's final runs; as many as there is time for, at least the first.
        folder: the study's; what former calls have spent is read from there.
    """

    entrants: Sequence[Entrant]
    do: Do
    whole: Callable[[Record], int]
    seeds: Sequence[int]
    budget_seconds: float
    reserve_seconds: float
    folder: Path
    clock: Callable[[], float] = time.monotonic
    tried: list[Tried] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._spent = _read_spent(self.folder)
        self._began = self.clock()
        self._step_seconds: dict[str, float] = {}
        self._overhead: dict[str, float] = {}
        self._most_steps = 0
        self._limit = self.budget_seconds - self.reserve_seconds

    @property
    def seconds(self) -> float:
        """What the race has taken so far."""
        return self._spent + self.clock() - self._began

    def run(self) -> Choice:
        """Race to the end.

        Raises:
            ConfigError: no method could be tried within the budget.
        """
        field_ = self._lap()
        steps = self._affordable_steps(field_)
        first, *longer = round_steps(steps)
        alike = self._scored([entrant for entrant in self._defaults() if entrant.label in field_], first)
        ahead = {entrant.label for entrant in _better_third(alike)}
        others = [entrant for entrant in self.entrants if entrant.label in ahead and entrant not in alike]
        alike |= self._scored(others, first, first_at_least=False)
        scores = {entrant: score for entrant, score in alike.items() if entrant.label in ahead}
        for length in longer:
            go_on = _best_of_each(scores) if length == longer[0] else _better_third(scores)
            if len(go_on) > 1 or length == longer[0]:
                alike = scores = self._scored(go_on, length)
        winner = max(scores, key=lambda entrant: scores[entrant])
        records = self._final(winner, max(steps, self._steps_left_for(winner)))
        return Choice(
            winner.label, winner.rate, records, self._tied(winner, alike, records), self.tried, self.left_out,
            self.seconds, self.budget_seconds,
        )  # fmt: skip

    def _lap(self) -> list[str]:
        """Every method for a few steps: what a step costs it, and what costs time besides."""
        field_: list[str] = []
        for entrant in self._defaults():
            if field_ and self.seconds > self._limit * _LAP_SHARE:
                self.left_out[entrant.label] = "the budget is too small to try it"
                continue
            record, seconds = self._timed(entrant.trial(_LAP_STEPS, self.seeds[0]))
            if record.status != "finished":
                reason = record.error.message if record.error else ""
                self.left_out[entrant.label] = f"{record.status} {reason}".strip()
                continue
            self._most_steps = self.whole(record)
            train = record.cost.train_seconds
            if train is None:  # others did some of its work: all of its time may be that of its steps
                train = seconds
            # A clock that stands still while others have the processor runs slower than that of the record.
            slower = min(1.0, seconds / max(_known(record), 1e-9))
            self._step_seconds[entrant.label] = slower * (record.cost.step_seconds or train / _LAP_STEPS)
            self._overhead[entrant.label] = max(0.0, seconds - slower * train)
            field_.append(entrant.label)
        if not field_:
            reasons = "; ".join(f"{label}: {reason}" for label, reason in self.left_out.items())
            raise ConfigError(f"No method could be tried ({reasons}).")
        return field_

    def _affordable_steps(self, field_: Sequence[str]) -> int:
        """Steps of a whole run, as many as let the rounds and a final seed fit into what is left."""
        left = self._limit - self.seconds
        steps = self._most_steps
        while steps > _LAP_STEPS and self._whole_race(field_, steps) > left:
            steps = math.floor(steps * 0.95)
        return max(2 * _LAP_STEPS, steps)

    def _whole_race(self, field_: Sequence[str], steps: int) -> float:
        """Seconds of a race to ``steps``, if those that go on are the dearest."""
        rates = {label: sum(1 for entrant in self.entrants if entrant.label == label) for label in field_}
        dearest = sorted(field_, key=lambda label: self._seconds_of(label, steps))[-math.ceil(len(field_) / _GROWTH) :]
        first, *longer = round_steps(steps)
        trials = sum(self._seconds_of(label, first) for label in field_)
        trials += sum((rates[label] - 1) * self._seconds_of(label, first) for label in dearest)
        trials += sum(self._seconds_of(label, length) for length in longer for label in dearest)
        return trials + self._seconds_of(dearest[-1], steps)

    def _scored(self, field_: Sequence[Entrant], steps: int, *, first_at_least: bool = True) -> dict[Entrant, float]:
        """Train these for ``steps``; those that time allows and, unless told otherwise, the first in any case."""
        scores: dict[Entrant, float] = {}
        for entrant in field_:
            reserve = self._estimate(entrant, steps)
            if (scores or not first_at_least) and self.seconds + self._estimate(entrant, steps) + reserve > self._limit:
                continue
            record, seconds = self._timed(entrant.trial(steps, self.seeds[0]))
            score = selection_score(record)
            self.tried.append(Tried(entrant.label, entrant.rate, steps, score, seconds, record.name))
            scores[entrant] = -math.inf if score is None else score
        if first_at_least and all(score == -math.inf for score in scores.values()):
            raise ConfigError("Every trial of a round failed: see the study's records, and try other methods or rates.")
        return scores

    def _steps_left_for(self, winner: Entrant) -> int:
        """Steps of the winner's run that what is left allows, up to a whole run's: one long run before short ones."""
        left = 0.9 * (self._limit - self.seconds) - self._overhead[winner.label]
        return max(0, min(self._most_steps, math.floor(left / max(self._step_seconds[winner.label], 1e-9))))

    def _final(self, winner: Entrant, steps: int) -> list[Record]:
        records: list[Record] = []
        for seed in self.seeds:
            if records and self.seconds + self._estimate(winner, steps) > self._limit:
                break
            record, _ = self._timed(winner.final(steps, seed))
            records.append(record)
        return records

    def _tied(self, winner: Entrant, scores: dict[Entrant, float], records: Sequence[Record]) -> list[str]:
        errors = [record.primary.stderr for record in records if record.primary and record.primary.stderr is not None]
        margin = errors[0] if errors else 0.0
        close = [e.label for e, score in scores.items() if scores[winner] - score <= margin and e.label != winner.label]
        return list(dict.fromkeys(close))

    def _timed(self, run: RunConfig) -> tuple[Record, float]:
        began = self.clock()
        _, (record,) = self.do([run])
        took, known = self.clock() - began, _known(record)
        seconds = known if took < known / 10 else took  # of a run that a former call has done, the clock says nothing
        _write_spent(self.folder, self.seconds)
        return record, seconds

    def _estimate(self, entrant: Entrant, steps: int) -> float:
        return self._seconds_of(entrant.label, steps)

    def _seconds_of(self, label: str, steps: int) -> float:
        return self._overhead[label] + steps * self._step_seconds[label]

    def _defaults(self) -> list[Entrant]:
        return list({entrant.label: entrant for entrant in reversed(self.entrants)}.values())[::-1]


def round_steps(steps: int) -> tuple[int, ...]:
    """Steps of each round's trials in a race to ``steps``: (34, 100, 300) to 300, and (50,) to 50."""
    lengths = [steps]
    while (shorter := math.ceil(lengths[0] / _GROWTH)) >= max(_FEWEST_STEPS, math.ceil(steps * _FIRST_SHARE)):
        lengths.insert(0, shorter)
    return tuple(lengths)


def _best_of_each(scores: dict[Entrant, float]) -> list[Entrant]:
    """Every method at its best rate, the best first."""
    best: dict[str, Entrant] = {}
    for entrant, score in scores.items():
        if entrant.label not in best or score > scores[best[entrant.label]]:
            best[entrant.label] = entrant
    return sorted(best.values(), key=lambda entrant: -scores[entrant])


def _better_third(scores: dict[Entrant, float]) -> list[Entrant]:
    return sorted(scores, key=lambda entrant: -scores[entrant])[: math.ceil(len(scores) / _GROWTH)]


def _known(record: Record) -> float:
    """Seconds that the run itself has noted."""
    cost = record.cost
    return sum(part or 0.0 for part in (cost.load_seconds, cost.train_seconds, cost.eval_seconds))


def _read_spent(folder: Path) -> float:
    try:
        return float(json.loads((folder / FILE).read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _write_spent(folder: Path, seconds: float) -> None:
    write_atomically(folder / FILE, json.dumps({"seconds": seconds}).encode() + b"\n")
