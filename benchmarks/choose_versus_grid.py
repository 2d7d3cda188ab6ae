"""Whether `adaptlab choose` finds what a full grid finds, at a quarter of the grid's cost or less.

    python benchmarks/choose_versus_grid.py --data-root DIR --page docs/benchmarks/choose-versus-grid.md

MiniLM, four tasks, one thread. The grid: 6 methods x 4 learning rates, evenly over each method's range by their
logarithm, x 2 seeds. Of every method the rate with the best mean score on the selection rows counts; the grid's winner
is the method with the best mean on the report rows, which is the hardest opponent there is: it was picked by looking
at what it is judged on. `choose` gets a quarter of what the grid took, has seeds of its own, and its pick is looked at
twice: the method's score in the grid, and the score of the models that `choose` itself trained, against one standard
error (over the report rows) of the winner's score.

Costs are seconds of the processor (of the one thread), so that what else the machine does costs neither side; the
clock's seconds stand beside them. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import adaptlab
from adaptlab.choosing import Chosen
from adaptlab.config import StudyConfig
from adaptlab.measure.environment import processor_name
from adaptlab.methods import registry
from adaptlab.methods._base import LearningRates
from adaptlab.runs.files import write_atomically
from adaptlab.runs.record import Record
from adaptlab.study.events import Event, RunEnded
from adaptlab.study.tuning import selection_score

METHODS = ("head", "bitfit", "ia3", "lora", "parallel-adapter", "full")
RATES, GRID_SEEDS, SHARE = 4, (100, 101), 0.25


def main() -> None:
    """Run what is missing of grids and choices, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="sst2,mrpc,ag_news,emotion", help="comma-separated")
    parser.add_argument("--train-examples", type=int, default=400)
    parser.add_argument("--select-examples", type=int, default=200)
    parser.add_argument("--eval-examples", type=int, default=400)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--choose-seeds", default="0,1,2", help="comma-separated; the first is that of the race")
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, default=Path("choose-versus-grid"))
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = [outcome(task, given) for task in given.task.split(",")]
    text = "\n".join(page(outcomes, given)) + "\n"
    print(text)
    if given.page is not None:
        given.page.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Cost:
    """Seconds of the processor, and of the clock."""

    processor: float
    clock: float


@dataclass(frozen=True)
class Outcome:
    """Both sides on one task. ``grid`` has each method's rate and mean score on the report rows, best first."""

    task: str
    metric: str
    grid: list[tuple[str, float, float]]
    stderr: float
    grid_cost: Cost
    choice: Chosen
    choice_cost: Cost

    @property
    def best(self) -> float:
        return self.grid[0][2]

    @property
    def pick_in_grid(self) -> float:
        return next(score for method, _, score in self.grid if method == self.choice.method)

    @property
    def pick(self) -> float:
        return statistics.mean(self.choice.seed_scores)


def outcome(task: str, given: argparse.Namespace) -> Outcome:
    """Grid and choice of one task, those that are done read from their folders."""
    folder = given.out / task
    records, grid_cost = grid(task, given, folder / "grid")
    table = by_method(records)
    best = [r for r in records if r.config.resolved.method.name == table[0][0] and rate_of(r) == table[0][1]]
    errors = [r.primary.stderr for r in best if r.primary is not None and r.primary.stderr is not None]
    choice, choice_cost = chosen(task, given, folder, SHARE * grid_cost.processor)
    metric = best[0].primary.name if best[0].primary is not None else ""
    return Outcome(task, metric, table, statistics.mean(errors), grid_cost, choice, choice_cost)


def grid(task: str, given: argparse.Namespace, folder: Path) -> tuple[list[Record], Cost]:
    """Every run of the grid, and what they took together; what each took is kept beside them."""
    path = folder.with_name("grid-seconds.json")
    taken: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}
    last = Watch()

    def ended(event: Event) -> None:
        nonlocal last
        if isinstance(event, RunEnded):
            taken[event.name] = [last.cost.processor, last.cost.clock]
            write_atomically(path, json.dumps(taken).encode())
            last = Watch()

    methods = [{"name": name, "learning_rate": rates(registry.get(name).learning_rates)} for name in METHODS]
    folder.parent.mkdir(parents=True, exist_ok=True)
    study = study_of(task, given, methods=methods, seeds=GRID_SEEDS)
    records = adaptlab.compare(study, out=folder, listener=ended).records
    return records, Cost(*(sum(part) for part in zip(*taken.values(), strict=True)))


def chosen(task: str, given: argparse.Namespace, folder: Path, budget: float) -> tuple[Chosen, Cost]:
    """What ``choose`` comes to within ``budget`` seconds of the processor."""
    seeds = tuple(int(seed) for seed in given.choose_seeds.split(","))
    name = f"choose-{seeds[0]}"
    path = folder / f"{name}-seconds.json"
    watch = Watch()
    study = study_of(task, given, methods=list(METHODS), seeds=seeds)
    found = adaptlab.choose(study, budget_seconds=budget, out=folder / name, clock=processor_seconds)
    if not path.exists():
        write_atomically(path, json.dumps(asdict(watch.cost)).encode())
    return found, Cost(**json.loads(path.read_text()))


def processor_seconds() -> float:
    """Of this process and those that it has waited for."""
    return sum(os.times()[:4])


class Watch:
    """What has passed since it was made."""

    def __init__(self) -> None:
        self._processor, self._clock = processor_seconds(), time.monotonic()

    @property
    def cost(self) -> Cost:
        return Cost(processor_seconds() - self._processor, time.monotonic() - self._clock)


def study_of(task: str, given: argparse.Namespace, **more: Any) -> StudyConfig:
    """What both sides have in common: rows, length of a whole run, threads, nothing measured besides."""
    execution = {"data_root": given.data_root, "threads": 1, "measure": "run", "device": "cpu"}
    return adaptlab.study_of(
        task=task,
        train_examples=given.train_examples,
        select_examples=given.select_examples,
        eval_examples=given.eval_examples,
        epochs=given.epochs,
        batch_size=given.batch_size,
        execution=execution,
        **more,
    )


def rates(within: LearningRates) -> list[float]:
    """Evenly over the range by their logarithm."""
    step = math.log(within.high / within.low) / (RATES - 1)
    return [float(f"{within.low * math.exp(step * i):.2g}") for i in range(RATES)]


def rate_of(record: Record) -> float:
    return float(record.config.resolved.training.learning_rate)


def by_method(records: list[Record]) -> list[tuple[str, float, float]]:
    """Each method with its best rate by the selection rows, and its mean on the report rows at that rate."""
    found: dict[tuple[str, float], list[Record]] = defaultdict(list)
    for record in records:
        found[record.config.resolved.method.name, rate_of(record)].append(record)
    table = []
    for method in METHODS:
        selected = {
            rate: statistics.mean(-math.inf if (s := selection_score(r)) is None else s for r in own)
            for (name, rate), own in found.items()
            if name == method
        }
        rate = max(selected, key=lambda one: selected[one])
        scores = [r.primary.value for r in found[method, rate] if r.primary is not None]
        table.append((method, rate, statistics.mean(scores)))
    return sorted(table, key=lambda row: -row[2])


def page(outcomes: list[Outcome], given: argparse.Namespace) -> Iterator[str]:
    """The page in Markdown."""
    command = (
        f"python benchmarks/choose_versus_grid.py --task {given.task} --train-examples {given.train_examples} "
        f"--select-examples {given.select_examples} --eval-examples {given.eval_examples} --epochs {given.epochs:g} "
        f"--batch-size {given.batch_size} --choose-seeds {given.choose_seeds} --data-root DIR"
    )
    yield "# `adaptlab choose` against the full grid"
    yield ""
    yield f"    {command}"
    yield ""
    yield from (
        line.removeprefix("    ") for line in __doc__.split("DIR --page", 1)[1].split("\n\n", 1)[1].splitlines()
    )
    yield ""
    yield (
        f"{processor_name()}, one thread, torch {torch.__version__}. The sizes are small, so that all of it takes less "
        f"than an hour: {given.train_examples} training rows, {given.epochs:g} epochs of batches of "
        f"{given.batch_size}, {given.select_examples} selection rows, {given.eval_examples} report rows of each task. "
        "What holds here need not hold for trainings a hundred times as long."
    )
    yield ""
    yield (
        "| task | the grid's best | score | 1 stderr | pick | its score in the grid | score of choose's own models | "
        "within 1 stderr | grid, CPU s | choose, CPU s | share | budget kept |"
    )
    yield "|---|---|---:|---:|---|---:|---:|---|---:|---:|---:|---|"
    for one in outcomes:
        floor = one.best - one.stderr
        both = (one.pick_in_grid >= floor, one.pick >= floor)
        words = "yes" if all(both) else "no" if not any(both) else f"grid: {_yes(both[0])}, own: {_yes(both[1])}"
        used = one.choice_cost.processor / one.choice.budget_seconds
        cells = (
            one.task,
            f"{one.grid[0][0]} at {one.grid[0][1]:g}",
            f"{one.metric} {one.best:.4f}",
            f"{one.stderr:.4f}",
            f"{one.choice.method} at {one.choice.learning_rate:g}",
            f"{one.pick_in_grid:.4f}",
            f"{one.pick:.4f}",
            words,
            f"{one.grid_cost.processor:.0f}",
            f"{one.choice_cost.processor:.0f}",
            f"{one.choice_cost.processor / one.grid_cost.processor:.0%}",
            f"{_yes(used <= 1.1)} ({used:.0%})",
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "Every method in the grid, at the rate that the selection rows chose, by its mean on the report rows:"
    yield ""
    for one in outcomes:
        listed = ", ".join(f"{name} {score:.4f} ({rate:g})" for name, rate, score in one.grid)
        tied = f" Named as tied with its pick: {', '.join(one.choice.tied)}." if one.choice.tied else ""
        yield f"- {one.task}: {listed}.{tied}"
    yield ""
    clock = sum(one.grid_cost.clock + one.choice_cost.clock for one in outcomes)
    processor = sum(one.grid_cost.processor + one.choice_cost.processor for one in outcomes)
    yield f"All of it took {processor / 60:.0f} minutes of the processor, {clock / 60:.0f} of the clock."


def _yes(true: bool) -> str:
    return "yes" if true else "no"


if __name__ == "__main__":
    main()
