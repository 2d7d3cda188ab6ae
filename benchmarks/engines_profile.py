"""Where the time of a training step goes, by what is computed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

#: Of a run: the steps that are recorded, after those in which kernels are made ready.
_FIRST, _LAST = 20, 50
_NARROW = 32  # the longest side of an adapter's matrices that is not the model's
_KINDS = {
    "attention": ("bmm", "baddbmm", "_softmax", "_softmax_backward_data", "scaled_dot_product_attention"),
    "activation": ("gelu", "gelu_backward"),
    "normalisation": ("native_layer_norm", "native_layer_norm_backward"),
    "integers of dropout": (
        "bitwise_xor_", "bitwise_xor", "__rshift__", "bitwise_right_shift_", "bitwise_and_", "neg_", "mul_",
    ),
    "elementwise": ("mul", "add", "add_", "where", "sum", "div"),
    "copies and casts": ("copy_", "clone", "_to_copy", "cat"),
    "optimiser": ("_fused_adamw_", "_foreach_norm", "_foreach_mul_", "linalg_vector_norm"),
}  # fmt: skip
REST = "Python, dispatch, autograd, small operations"


def profile_steps(study: Any, out: str) -> dict[str, Any]:
    """Seconds a step by kind, of the last of the study's runs; ``step_seconds`` is that of the run before it.

    A profiler slows small operations: what it adds is not counted, since the rest is what the unprofiled step leaves.
    """
    import torch

    from adaptlab import api
    from adaptlab.training import loop

    own, steps = loop._step, 0
    runs, last = [], 0
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True)

    def step(active: Sequence[Any], *rest: Any) -> None:
        nonlocal steps, last
        if active[0].progress.step == 0:
            runs.append(active[0])
        inside = len(runs) == 3 and _FIRST <= active[0].progress.step < _LAST
        if inside and not steps:
            profiler.start()
        own(active, *rest)
        steps += inside
        if steps == _LAST - _FIRST and not last:
            profiler.stop()
            last = 1

    loop._step = step
    try:
        api.compare(study, out=out)
    finally:
        loop._step = own
    seconds = statistics.fmean(runs[1].progress.step_seconds[_FIRST:_LAST])
    kinds = dict.fromkeys(("products of the base", "products of the adapter", *_KINDS), 0.0)
    for event in profiler.key_averages(group_by_input_shape=True):
        kind = _kind(event.key.removeprefix("aten::"), event.input_shapes)
        if kind is not None:
            kinds[kind] += event.self_cpu_time_total / 1e6 / steps
    return {"profile": {**kinds, REST: max(0.0, seconds - sum(kinds.values()))}, "step_seconds": seconds}


def _kind(name: str, shapes: Sequence[Sequence[int]]) -> str | None:
    if name in ("mm", "addmm"):
        narrow = any(0 < side <= _NARROW for shape in shapes if len(shape) == 2 for side in shape)
        return "products of the adapter" if narrow else "products of the base"
    return next((kind for kind, names in _KINDS.items() if name in names), None)


def profile_table(result: dict[str, Any]) -> list[str]:
    """A line of Markdown a kind."""
    seconds = result["step_seconds"]
    lines = [
        "\n### Where the time of a LoRA step goes\n",
        f"torch.profiler over {_LAST - _FIRST} steps of the third run, {1000 * seconds:.1f} ms a step unprofiled.\n",
        "| what | ms | share |\n|---|---|---|",
    ]
    for kind, spent in sorted(result["profile"].items(), key=lambda item: -item[1]):
        lines.append(f"| {kind} | {1000 * spent:.1f} | {100 * spent / seconds:.0f} % |")
    return lines
