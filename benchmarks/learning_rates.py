"""How each method's score depends on its learning rate: what the defaults and ranges in the code were read from.

    python benchmarks/learning_rates.py --data-root DIR --out learning-rates-study > table.md    (an hour on 2 cores)

MiniLM, 1,000 training rows of each task, three epochs, batches of 32. Every method of the registry is tried at
rates spread evenly (by their logarithm) over its range. A score is the task's primary metric on the *selection* rows
at the best evaluation of the run, which is what a tuner sees; the report rows are not looked at. Interrupted, it goes
on where it stopped.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.methods import registry
from adaptlab.methods._base import LearningRates, Method
from adaptlab.runs.store import StudyFolder

Scores = dict[tuple[str, float, str], list[float]]  # (method, rate, task) -> one score per seed


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="sst2,stdlib-docs", help="comma-separated")
    parser.add_argument("--methods", default=",".join(registry.names()), help="comma-separated")
    parser.add_argument("--rates", type=int, default=5, help="rates per method")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--train-examples", type=int, default=1000)
    parser.add_argument("--select-examples", type=int, default=200)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, default=Path("learning-rates-study"))
    given = parser.parse_args()
    study = StudyConfig.model_validate(
        {
            "task": given.task.split(","),
            "methods": [_entry(registry.get(name), given.rates) for name in given.methods.split(",")],
            "seeds": given.seeds,
            "train_examples": given.train_examples,
            "select_examples": given.select_examples,
            "eval_examples": 20,  # not looked at
            "execution": {
                "measure": "run",
                "data_root": given.data_root,
                "threads": given.threads,
                "keep_weights": "none",
            },
        }
    )
    adaptlab.compare(study, out=given.out)
    print("\n".join(_tables(_scores(given.out))))


def grid(rates: LearningRates, points: int) -> list[float]:
    """``points`` rates from low to high, evenly by their logarithm, to one significant digit."""
    step = math.log(rates.high / rates.low) / (points - 1)
    return sorted({float(f"{rates.low * math.exp(step * i):.0e}") for i in range(points)})


def _entry(method: Method, points: int) -> dict[str, Any]:
    fields = method.Config.model_fields
    needed = {name: (field.examples or [None])[0] for name, field in fields.items() if field.is_required()}
    return {"name": method.name, "learning_rate": grid(method.learning_rates, points), **needed}


def _scores(folder: Path) -> Scores:
    scores: Scores = defaultdict(list)
    study = StudyFolder(folder)
    for run in study.runs():
        record = study.record(run)
        if record is None or record.primary is None:
            continue
        resolved = record.config.resolved
        best = max(point.metrics[record.primary.name] for point in run.read_curve())
        scores[resolved.method.name, float(resolved.training.learning_rate), resolved.task.name].append(best)
    return scores


def _tables(scores: Scores) -> Iterator[str]:
    """A Markdown table for each method: rates across, tasks down."""
    for method in sorted({key[0] for key in scores}):
        rates = sorted({key[1] for key in scores if key[0] == method})
        yield f"| {method} | " + " | ".join(f"{rate:g}" for rate in rates) + " |"
        yield "|---|" + "---:|" * len(rates)
        for task in sorted({key[2] for key in scores if key[0] == method}):
            found = [statistics.mean(scores[method, rate, task]) for rate in rates]
            cells = [f"**{100 * s:.1f}**" if s == max(found) else f"{100 * s:.1f}" for s in found]
            yield f"| {task} | " + " | ".join(cells) + " |"
        yield ""


if __name__ == "__main__":
    main()
