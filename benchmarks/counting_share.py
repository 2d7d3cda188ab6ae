"""How much of a study's time goes into counting its operations.

    python benchmarks/counting_share.py [--methods full,lora] [--seeds 3]

MiniLM on docstrings of the standard library, one thread, every run of the study in this process, as `adaptlab compare`
does it. Operations are counted once for each cost configuration, whatever its seeds and rates. Seconds are the
processor's, so other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import adaptlab
from adaptlab import costing, experiment
from adaptlab.measure.environment import processor_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="head,bitfit,ia3,lora,full")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-examples", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=3.0)
    given = parser.parse_args()
    spent: list[float] = []
    experiment.training_flops = timed(costing.training_flops, spent)  # type: ignore[attr-defined]
    study = adaptlab.study_of(
        model="minilm", task="stdlib-docs", methods=given.methods.split(","), seeds=given.seeds,
        train_examples=given.train_examples, epochs=given.epochs, execution={"threads": 1, "keep_weights": "none"},
    )  # fmt: skip
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = adaptlab.compare(study, out=folder)
    whole = time.process_time() - began
    print(f"{processor_name()}; {len(result.records)} runs of {given.train_examples} rows, {given.epochs:g} epochs")
    print(
        f"counting {sum(spent):.2f} s of {whole:.1f} s: {sum(spent) / whole:.2%}; the most of a run: {max(spent):.2f} s"
    )


def timed(call: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """``call``, whose seconds of the processor are added to ``spent``."""

    def timing(*given: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return call(*given, **named)
        finally:
            spent.append(time.process_time() - began)

    return timing


if __name__ == "__main__":
    main()
