"""What a run costs beside its training: runs of zero length through persistent workers.

    python benchmarks/scheduling.py [--runs 100 1000 10000] [--workers 1 8 64] [--profile] [--markdown FILE]

Everything is the real thing but the training: the schedule, the local launcher's processes and what they are told,
``job.json``, locks, and records laid out as real ones, written and synced to the disk. A worker loads no torch.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from adaptlab.config import (
    ExecutionConfig,
    MethodConfig,
    ModelConfig,
    RunConfig,
    RunIdentity,
    StudyConfig,
    TaskConfig,
    run_id,
)
from adaptlab.launchers import local
from adaptlab.measure.environment import processor_name
from adaptlab.runs.job import Job
from adaptlab.runs.record import ConfigPart, Primary, Record
from adaptlab.runs.store import RunFolder, StudyFolder
from adaptlab.study.expand import run_name
from adaptlab.study.schedule import run_study

IDENTITY = RunIdentity(weights="sha256:0", data="sha256:0", task="sst2", task_version=1)


@dataclass(frozen=True)
class Nothing:
    """A run that has nothing to train."""

    resolved: RunConfig

    @property
    def given(self) -> RunConfig:
        return self.resolved

    @property
    def identity(self) -> RunIdentity:
        return IDENTITY

    @property
    def label(self) -> str:
        return self.resolved.method.label

    @cached_property
    def id(self) -> str:
        return run_id(self.resolved, IDENTITY)

    @cached_property
    def name(self) -> str:
        return run_name("sst2", self.label, self.resolved.seed, self.id)


class NothingDone:
    """Executes such runs: a record when it begins, one when it ends."""

    def __init__(self, execution: ExecutionConfig) -> None:
        self._execution = execution

    def resolve(self, job: Job, folder: RunFolder) -> Nothing:
        """The run of a job."""
        return Nothing(job.run)

    def pack(self, runs: Sequence[Nothing]) -> list[list[Nothing]]:
        """Each alone."""
        return [[run] for run in runs]

    def execute(self, jobs: Sequence[tuple[Nothing, RunFolder]], study: StudyFolder) -> None:
        """Leave the records."""
        for run, folder in jobs:
            config = ConfigPart(given=run.given, resolved=run.resolved, identity=IDENTITY)
            record = Record(id=run.id, name=folder.name, status="running", config=config)
            folder.write_record(record)
            seed = run.resolved.seed
            primary = Primary(name="accuracy", value=(seed % 97) / 97, stderr=0.01, n=872, evaluation_set="test")
            metrics = {"test": {"accuracy": primary.value, "n": 872.0}}
            training = {"select_score": (seed % 89) / 89, "select_metric": "accuracy", "dropout": "keyed"}
            update = {"status": "finished", "primary": primary, "metrics": metrics, "training": training}
            folder.write_record(record.model_copy(update=update))


def grid(runs: int) -> list[Nothing]:
    """Ten variants with as many seeds as it takes."""
    options = [{"rank": 2**power} for power in range(10)]
    return [
        Nothing(
            RunConfig(
                model=ModelConfig(id="minilm"),
                task=TaskConfig(name="sst2"),
                method=MethodConfig(name="lora", label=f"lora {number % 10}", options=options[number % 10]),
                seed=number // 10,
            )
        )
        for number in range(runs)
    ]


@dataclass(frozen=True)
class Measured:
    """Seconds of the wall for all runs, workers' starts apart; CPU seconds of the scheduler and of all workers."""

    runs: int
    workers: int
    start: float
    wall: float
    scheduler: float
    workers_cpu: float
    memory_mb: float

    def line(self) -> str:
        """A row of the table, milliseconds a run."""
        each = [f"{1000 * seconds / self.runs:.2f}" for seconds in (self.wall, self.scheduler, self.workers_cpu)]
        return f"| {self.runs:,} | {self.workers} | {' | '.join(each)} | {self.start:.1f} | {self.memory_mb:.0f} |"


def measure(folder: Path, runs: int, workers: int, *, profile: bool) -> Measured:
    """Time a study of ``runs`` runs; the first run of each worker, which waits for its start, is not counted."""
    execution = ExecutionConfig(device="cpu", threads=1, launcher="local", workers=workers)
    study = StudyFolder.open_or_create(folder, StudyConfig(task="sst2", methods=("lora",), execution=execution))  # type: ignore[arg-type]
    local.command = lambda folders: [sys.executable, __file__, "--worker"]  # type: ignore[assignment]
    pool = local.plugin.open(study.path, execution, local.plugin.Config(), lambda: False)
    todo = grid(runs + workers)
    nothing: Any = lambda event: None  # noqa: E731
    try:
        began = time.perf_counter()
        run_study(study, todo[runs:], pool, execution=execution, listener=nothing)
        start = time.perf_counter() - began
        cpu_of_workers = _cpu_of_children(pool)
        profiler = cProfile.Profile()
        if profile:
            profiler.enable()
        began, cpu = time.perf_counter(), time.process_time()
        outcome = run_study(study, todo[:runs], pool, execution=execution, listener=nothing)
        wall, scheduler = time.perf_counter() - began, time.process_time() - cpu
        profiler.disable()
        cpu_of_workers = _cpu_of_children(pool) - cpu_of_workers
    finally:
        pool.close()
    assert len(outcome.records) == runs
    assert not outcome.failed
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(runs, workers, start, wall, scheduler, cpu_of_workers, memory)


def _cpu_of_children(pool: local.LocalPool) -> float:
    import psutil

    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children())


def main() -> None:
    """Measure every size with every number of workers, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--profile", action="store_true", help="also the scheduler's costliest functions")
    parser.add_argument("--folder", type=Path, help="where the studies are written; the system's by default")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work()
        return
    print(f"{processor_name()}, {len(os.sched_getaffinity(0))} cores. Milliseconds a run:\n")
    print("| runs | workers | wall | scheduler's CPU | workers' CPU | starting them, seconds | scheduler's MB |")
    print("|---|---|---|---|---|---|---|")
    for runs in given.runs:
        for workers in given.workers:
            with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                found = measure(Path(folder, "study"), runs, workers, profile=given.profile)
                print(found.line(), flush=True)


def work() -> None:
    """Be a worker: the loop of ``adaptlab run-one -``."""
    from adaptlab.cli.run_one import serve
    from adaptlab.worker import Worker

    serve(Worker(NothingDone), ["-"], lambda: False, print)


if __name__ == "__main__":
    main()
