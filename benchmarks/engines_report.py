"""What benchmarks/engines.py measured, as tables."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Result = dict[str, Any]

#: (part, variant): how many times as long it is to take as the variant it is compared with.
EXPECTED = {
    ("adapters", "trainer"): 1.5,
    ("adapters", "trainer, processes"): 2.5,
    ("frozen-below", "trainer"): 5.0,
    ("roberta-base", "trainer"): 10.0,
    ("roberta-base", "solo"): 6.0,
    ("opt-125m", "trainer"): 10.0,
    ("opt-125m", "solo"): 6.0,
}
EXPECTED_SHARE_OF_PEAK = 0.4


def write_report(results: Sequence[Result], *, device: str, threads: int, toy: bool, path: Path | None) -> None:
    """Print the tables, and write them to ``path`` if there is one."""
    parts = list(dict.fromkeys(result["part"] for result in results))
    body = "\n".join(_part(part, [r for r in results if r["part"] == part], device, threads, toy=toy) for part in parts)
    print("\n" + body)
    if path is not None:
        head = "# Engines: a grid of runs side by side\n\n" + _machine(device, threads)
        head += "\nToy sizes: this shows that it works, not how fast.\n" if toy else ""
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


def _part(part: str, results: list[Result], device: str, threads: int, *, toy: bool) -> str:
    if part == "growth":
        return _growth(results)
    variants = list(dict.fromkeys(result["variant"] for result in results))
    seconds = {v: _median(results, v, "grid_seconds") for v in variants}
    best = "fused" if "fused" in seconds else "solo"
    if device == "cpu" and "solo" in seconds:
        best = min((v for v in ("fused", "solo") if v in seconds), key=lambda v: seconds[v])
    grid = results[0]["grid"]
    examples = grid["examples"] * grid["epochs"]
    lines = [
        f"## {part}: {', '.join(grid['methods'])} x {grid['seeds']} seeds on {grid['base']}\n",
        f"{grid['examples']:,} rows, {grid['epochs']:g} epochs, batches of {grid['batch_size']}.\n",
        "| variant | grid s | wall s | examples/s a run | peak memory | mean score | "
        f"times as long as {best} |\n|---|---|---|---|---|---|---|",
    ]
    for variant in variants:
        scores = [score for r in results if r["variant"] == variant for score in r["scores"]]
        lines.append(
            f"| {variant} | {seconds[variant]:.1f} | {_median(results, variant, 'wall_seconds'):.1f} "
            f"| {examples * results[0]['runs'] / seconds[variant]:.0f} "
            f"| {_median(results, variant, 'peak_memory_bytes') / 2**20:.0f} MiB | {statistics.mean(scores):.3f} "
            f"| {seconds[variant] / seconds[best]:.2f}x |"
        )
    for (where, variant), least in EXPECTED.items():
        if where == part and variant in seconds and variant != best and not toy:
            ratio = seconds[variant] / seconds[best]
            said = "reached" if ratio >= least else "NOT reached"
            lines.append(f"\n- {variant} against {best}: {least:g}x expected, {ratio:.2f}x seen: {said}.")
    share = _share_of_peak([r for r in results if r["variant"] == "solo"], device, threads)
    return "\n".join([*lines, *share]) + "\n"


def _median(results: Sequence[Result], variant: str, value: str) -> float:
    return statistics.median(r[value] for r in results if r["variant"] == variant)


def _growth(results: Sequence[Result]) -> str:
    lines = [
        "## How the cost grows with the number of runs\n",
        "| runs | fused s | solo s | solo / fused |\n|---|---|---|---|",
    ]
    for runs in sorted({result["runs"] for result in results}):
        here = [r for r in results if r["runs"] == runs]
        fused, solo = (_median(here, variant, "grid_seconds") for variant in ("fused", "solo"))
        lines.append(f"| {runs} | {fused:.1f} | {solo:.1f} | {solo / fused:.2f}x |")
    return "\n".join(lines) + "\n"


def _share_of_peak(solo: Sequence[Result], device: str, threads: int) -> list[str]:
    """Operations on useful tokens, as a share of what the machine's best matrix product would have done meanwhile."""
    known = [r for r in solo if r["useful_flops"] and r["train_seconds"]]
    if not known:
        return []
    peak = matrix_peak(device, threads, known[0]["dtype"])
    share = statistics.median(r["useful_flops"] / r["train_seconds"] / peak for r in known)
    return [
        f"\nThe solo runs spend {100 * share:.0f} % of the {known[0]['dtype']} matrix peak "
        f"({peak / 1e12:.2f} TFLOP/s, same threads) on useful tokens; on a CPU "
        f"{100 * EXPECTED_SHARE_OF_PEAK:.0f} % is wanted."
    ]


def matrix_peak(device: str, threads: int, dtype: str) -> float:
    """Floating-point operations a second of the best product of shapes such as the runs have."""
    import torch

    torch.set_num_threads(threads)
    best = 0.0
    for tokens in (256, 512, 1024, 4096):
        for inputs, outputs in ((384, 384), (384, 1536), (768, 768), (768, 3072)):
            left = torch.randn(tokens, inputs, device=device, dtype=getattr(torch, dtype))
            right = torch.randn(inputs, outputs, device=device, dtype=getattr(torch, dtype))
            left @ right
            for _ in range(10):
                _synchronise(device)
                before = time.perf_counter()
                left @ right
                _synchronise(device)
                best = max(best, 2 * tokens * inputs * outputs / (time.perf_counter() - before))
    return best


def _synchronise(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
