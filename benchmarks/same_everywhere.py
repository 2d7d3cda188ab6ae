"""One study of twelve runs under every launcher: do they leave the same records, to the bit?

    python benchmarks/same_everywhere.py [--launchers local slurm ray] [--markdown]

Three methods with four seeds of a tiny BERT, one thread a run, first in this process and then under each launcher. What
is compared is everything that must not depend on where a run executes: ids, configuration, metrics, parameters, the
course of training, every answer of ``predictions.parquet`` and the weights. Slurm is a real one of one node, which
needs root and Debian's packages (``make test-slurm``); Ray starts a cluster of this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaptlab
from tests.integration.conftest import write_table
from tests.launchers import slurm_cluster
from tests.launchers.studies import numbers
from tests.tiny_models import build_tiny_model

LAUNCHERS: dict[str, dict[str, Any]] = {
    "inline": {},
    "local": {"workers": 2},
    "slurm": {"launch": {"time_minutes": 10, "cpus": 1}},
    "ray": {"launch": {"cpus": 1}},
}


@contextlib.contextmanager
def ready(launcher: str, folder: Path) -> Iterator[None]:
    """What the launcher runs on; Ray and workers start by themselves."""
    if launcher == "slurm":
        state = folder / "cluster"
        state.mkdir()
        with slurm_cluster.cluster(state):
            yield
    else:
        yield


def main() -> int:
    """Run the study everywhere, print a table, and say by the exit code whether anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launchers", nargs="+", default=["local", "slurm", "ray"], choices=list(LAUNCHERS))
    given = parser.parse_args()
    if "slurm" in given.launchers and (why := slurm_cluster.missing()):
        sys.exit(f"There is no Slurm here: {why}.")
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        model = build_tiny_model("bert", folder / "model")
        table = write_table(folder / "weather.csv")
        expected: dict[str, Any] = {}
        different = 0
        print("| launcher | runs | finished | same metrics | same predictions | same weights and all else | seconds |")
        print("|---|---|---|---|---|---|---|")
        for launcher in ("inline", *given.launchers):
            where = {"device": "cpu", "threads": 1, "keep_weights": "all", "launcher": launcher, **LAUNCHERS[launcher]}
            study = adaptlab.study_of(
                model=str(model), task=str(table), methods=["head", "lora", "full"], seeds=4, steps=20, batch_size=8,
                eval_every=10, learning_rate=1e-3, dtype="float32", execution=where,
            )  # fmt: skip
            began = time.perf_counter()
            with ready(launcher, folder):
                result = adaptlab.compare(study, out=folder / launcher)
            seconds = time.perf_counter() - began
            found = numbers(result.folder)
            expected = expected or found
            same = [sum(equal(found, expected, parts)) for parts in (("metrics", "primary"), ("predictions",), None)]
            different += sum(len(expected) - count for count in same) + len(result.failed)
            finished = len(result.records) - len(result.failed)
            print(
                f"| {launcher} | {len(found)} | {finished} | {same[0]} | {same[1]} | {same[2]} | {seconds:.0f} |",
                flush=True,
            )
    return 1 if different else 0


def equal(found: dict[str, Any], expected: dict[str, Any], parts: tuple[str, ...] | None) -> Iterator[bool]:
    """For each run, whether these parts of what it left are the same; ``None`` for all of it."""
    for run, left in expected.items():
        names = parts or tuple(left)
        yield run in found and all(found[run][name] == left[name] for name in names)


if __name__ == "__main__":
    sys.exit(main())
