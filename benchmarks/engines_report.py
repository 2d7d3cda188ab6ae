"""What benchmarks/engines.py measured, as tables."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from engines_profile import profile_table

Result = dict[str, Any]

#: (part, variant): how many times as long it is to take as adaptlab's best variant.
EXPECTED = {
    ("adapters", "trainer"): 1.5,
    ("adapters", "trainer, processes"): 2.5,
    ("frozen-below", "trainer"): 5.0,
    ("roberta-base", "trainer"): 10.0,
    ("roberta-base", "solo"): 6.0,
    ("opt-125m", "trainer"): 10.0,
    ("opt-125m", "solo"): 6.0,
}
EXPECTED_SHARE_OF_PEAK = 0.4  # of a single LoRA run
EXPECTED_OVERHEAD_SECONDS = 0.5
OURS = ("solo", "fused", "workers")


def write_report(
    results: Sequence[Result], *, planned: int, device: str, threads: int, toy: bool, path: Path | None
) -> None:
    """Print the tables, and write them to ``path`` if there is one; ``planned`` is how many results there would be."""
    parts = list(dict.fromkeys(result["part"] for result in results))
    body = "\n".join(_part(part, [r for r in results if r["part"] == part], toy=toy) for part in parts)
    print("\n" + body)
    if path is not None:
        head = "# Engines: a grid of runs side by side\n\n" + _machine(device, threads)
        head += "\nToy sizes: this shows that it works, not how fast.\n" if toy else ""
        if len(results) < planned:
            head += f"\nUnfinished: {len(results)} of {planned} measurements.\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{head}\n{body}", encoding="utf-8")


def _machine(device: str, threads: int) -> str:
    from adaptlab.measure.environment import processor_name

    name = processor_name()
    if device == "cuda":
        import torch

        name = f"{torch.cuda.get_device_name()}; {name}"
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "peft", "adaptlab"))
    return f"Machine: {name}, {cores} cores, {threads} threads. Python {platform.python_version()}, {versions}.\n"


def _part(part: str, results: list[Result], *, toy: bool) -> str:
    if part == "growth":
        return _growth(results)
    profiles = [r for r in results if r["variant"] == "profile"]
    results = [r for r in results if r["variant"] != "profile" and _is_whole(r, results)]
    variants = list(dict.fromkeys(result["variant"] for result in results))
    if not set(variants) & set(OURS):
        return f"## {part}: nothing measured yet\n"
    seconds = {v: _seconds(results, v, "grid_seconds") for v in variants}
    walls = {v: _seconds(results, v, "wall_seconds") for v in variants}
    best = min((v for v in OURS if v in seconds), key=lambda v: seconds[v])
    grid = results[0]["grid"]
    examples = grid["examples"] * grid["epochs"] * len(grid["methods"]) * grid["seeds"]
    lines = [
        f"## {part}: {', '.join(grid['methods'])} x {grid['seeds']} seeds on {grid['base']}\n",
        f"{grid['examples']:,} rows, {grid['epochs']:g} epochs, batches of {grid['batch_size']}.\n",
        "| variant | grid s | wall s | examples/s, all runs | peak memory of a process | mean score | "
        f"times as long as {best} |\n|---|---|---|---|---|---|---|",
    ]
    for variant in variants:
        own = [r for r in results if r["variant"] == variant]
        memory = max(r["peak_memory_bytes"] for r in own) / 2**20
        score = statistics.mean(score for r in own for score in r["scores"])
        lines.append(
            f"| {variant} | {seconds[variant]:.1f} | {walls[variant]:.1f} "
            f"| {examples / seconds[variant]:.0f} | {memory:.0f} MiB | {score:.3f} "
            f"| {_ratio(variant, best, seconds, walls):.2f}x |"
        )
    lines.append("")
    for (where, variant), least in EXPECTED.items():
        if where == part and variant in seconds and variant not in OURS[1:] and not toy:
            beside = [ours for ours in OURS if ours in seconds and ours != variant]
            lines += [_verdict(variant, ours, _ratio(variant, ours, seconds, walls), least) for ours in beside]
    solo = [r for r in results if r["variant"] == "solo"]
    profile = profile_table(profiles[0]) if profiles else []
    return "\n".join([*lines, *_single_runs(solo, toy=toy), *profile]) + "\n"


def _is_whole(result: Result, results: Sequence[Result]) -> bool:
    """Whether all runs of the grid were measured by its variant in its round."""
    beside = [r for r in results if (r["variant"], r["round"]) == (result["variant"], result["round"])]
    return bool(sum(r["runs"] for r in beside) == len(result["grid"]["methods"]) * result["grid"]["seeds"])


def _ratio(variant: str, ours: str, seconds: dict[str, float], walls: dict[str, float]) -> float:
    """How many times as long a variant takes; of a process for every run, whose starts are its cost, by the wall."""
    clock = walls if variant == "trainer, processes" else seconds
    return clock[variant] / clock[ours]


def _verdict(variant: str, ours: str, ratio: float, least: float) -> str:
    said = "reached" if ratio >= least else "NOT reached"
    return f"- {variant} against {ours}: {least:g}x expected, {ratio:.2f}x seen: {said}."


def _seconds(results: Sequence[Result], variant: str, value: str) -> float:
    """Median over the rounds of what a round's processes took together."""
    own = [r for r in results if r["variant"] == variant]
    rounds = sorted({r["round"] for r in own})
    return statistics.median(sum(r[value] for r in own if r["round"] == turn) for turn in rounds)


def _growth(results: Sequence[Result]) -> str:
    lines = [
        "## How the cost grows with the number of runs\n",
        "| runs | fused s | solo s | solo / fused |\n|---|---|---|---|",
    ]
    for runs in sorted({result["runs"] for result in results}):
        here = [r for r in results if r["runs"] == runs]
        if len(here) < 2:
            continue
        fused, solo = (_seconds(here, variant, "grid_seconds") for variant in ("fused", "solo"))
        lines.append(f"| {runs} | {fused:.1f} | {solo:.1f} | {solo / fused:.2f}x |")
    return "\n".join(lines) + "\n"


def _single_runs(solo: Sequence[Result], *, toy: bool) -> list[str]:
    """What each method's runs make of the machine, and what they spend beside training and answering."""
    # Runs that are handed what others have computed have it on their clocks too, which then say nothing of the grid's.
    known = [r for r in solo if "peak_flops" in r and r["part"] != "frozen-below"]
    if not known:
        return []
    lines = [
        "\n### A run alone\n",
        "Of the solo grids, from the second run on (the base is in memory): the share of the best matrix product in "
        "the run's own shapes, same threads, that goes into useful tokens while it trains, and the seconds of a run "
        "beside its training and its answers.\n",
        "| method | share of the peak | padding | train s | answers s | beside s |\n|---|---|---|---|---|---|",
    ]
    shares: dict[str, float] = {}
    beside: dict[str, float] = {}
    for method in known[0]["grid"]["methods"]:
        rows = [row for r in known for row in _later_runs(r) if row["method"] == method]
        middle = {key: statistics.median(row[key] for row in rows) for key in ("share", "beside", "padding")}
        train, answers = (statistics.median(row[key] for row in rows) for key in ("train_seconds", "eval_seconds"))
        shares[method], beside[method] = middle["share"], middle["beside"]
        lines.append(
            f"| {method} | {100 * middle['share']:.0f} % | {100 * middle['padding']:.0f} % | {train:.2f} "
            f"| {answers:.2f} | {middle['beside']:.2f} |"
        )
    peak = statistics.median(r["peak_flops"] for r in known)
    after = statistics.median(r["after_seconds"] for r in known)
    lines.append(
        f"\nPeak: {peak / 1e12:.2f} TFLOP/s in {known[0]['dtype']}. After the last run, report: {after:.1f} s.\n"
    )
    if "lora" in shares and not toy:
        said = "reached" if shares["lora"] >= EXPECTED_SHARE_OF_PEAK else "NOT reached"
        lines.append(f"- lora: {EXPECTED_SHARE_OF_PEAK:.0%} of the peak expected, {shares['lora']:.0%} seen: {said}.")
    said = "reached" if max(beside.values()) <= EXPECTED_OVERHEAD_SECONDS else "NOT reached"
    lines.append(
        f"- beside: at most {EXPECTED_OVERHEAD_SECONDS} s expected, at most {max(beside.values()):.2f} s seen: {said}."
    )
    return lines


def _later_runs(result: Result) -> list[dict[str, Any]]:
    """All runs of a solo grid but the first, in the order in which they ended."""
    runs = sorted(result["runs_detail"], key=lambda run: run["ended"])
    return [
        {
            **run,
            "share": run["useful_flops"] / run["train_seconds"] / result["peak_flops"],
            "padding": 1 - run["tokens"] / run["padded_tokens"],
            "beside": run["ended"] - before["ended"] - run["train_seconds"] - run["eval_seconds"],
        }
        for before, run in pairwise(runs)
    ]
