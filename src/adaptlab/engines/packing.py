"""Which runs train together: those over one base whose batches have one shape, as many as memory holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from adaptlab.config import Engine, RunConfig, RunIdentity
from adaptlab.methods._base import Method, Placement

#: Why runs of a placement train alone, as a terminal says it; a method with a company of its own does not.
REASONS: dict[Placement, str] = {
    "base": "the method changes the base itself",
    "nothing": "the head alone is trained",
    "prompt": "the method changes what the whole model reads",
}
CHECKPOINTING = "with --gradient-checkpointing a block is computed anew, for one run at a time"
TIMED = "its budget is of seconds, which others would share"
NO_PARTNER = "no other run has its base, data, batches and dtype"
NO_COMPANY = "no other run has its base, data, batches, dtype and {company}"
NO_ROOM = "memory is predicted to hold none of its partners beside it"


class Packable(Protocol):
    """What packing needs to know of a run."""

    @property
    def name(self) -> str: ...
    @property
    def resolved(self) -> RunConfig: ...
    @property
    def identity(self) -> RunIdentity: ...


R = TypeVar("R", bound=Packable)


@dataclass
class Packing(Generic[R]):
    """Groups of runs, in the order of their first runs; ``alone`` says why a run is a group of one, by its name."""

    groups: list[list[R]] = field(default_factory=list)
    alone: dict[str, str] = field(default_factory=dict)


def chosen_engine(engine: Engine, device: str) -> Engine:
    """``auto`` decided: on a CPU one run keeps it busy, so sharing passes gains nothing."""
    if engine == "auto":
        return "fused" if device == "cuda" else "solo"
    return engine


def pack(
    runs: Sequence[R],
    method: Callable[[R], Method],
    *,
    run_bytes: Callable[[R], int] = lambda run: 0,
    budget_bytes: int | None = None,
    all_alone: str | None = None,
) -> Packing[R]:
    """Sort ``runs`` into groups that the fused engine can train.

    Args:
        method: a run's method.
        run_bytes: what a run adds to the memory of its group.
        budget_bytes: what a group may add to that of the base; ``None`` for no limit.
        all_alone: why none of them can share a pass, if that is so.
    """
    packing: Packing[R] = Packing()
    open_groups: dict[str, tuple[list[R], int]] = {}
    partners = Counter[str]()
    for run in runs:
        company = _company(run, method(run))
        reason = all_alone if company else REASONS.get(method(run).placement, all_alone)
        if reason is None and run.resolved.training.max_seconds is not None:
            reason = TIMED
        if reason is not None:
            packing.groups.append([run])
            packing.alone[run.name] = reason
            continue
        key, size = f"{profile(run)}|{company}", run_bytes(run)
        partners[key] += 1
        group, used = open_groups.get(key, ([], 0))
        if not group or (budget_bytes is not None and used + size > budget_bytes):
            group, used = [], 0
            packing.groups.append(group)
        group.append(run)
        open_groups[key] = (group, used + size)
    for group in packing.groups:
        group.sort(key=_kind)  # lanes of one kind side by side go through their layers together
        if len(group) == 1 and group[0].name not in packing.alone:
            company = _company(group[0], method(group[0]))
            missing = NO_COMPANY.format(company=company) if company else NO_PARTNER
            packing.alone[group[0].name] = NO_ROOM if partners[f"{profile(group[0])}|{company}"] > 1 else missing
    return packing


def _company(run: Packable, method: Method) -> str:
    return method.company(method.Config(**run.resolved.method.options))


def profile(run: Packable) -> str:
    """What runs of a group have in common: base, rows, readout, numbers of bits, and so the shape of every batch."""
    config = run.resolved
    common = config.model_copy(update={"method": None, "training": None, "seed": 0}).model_dump(
        mode="json", exclude={"method", "training", "seed"}
    )
    common["model"].pop("id")
    return str((run.identity.model_dump(), common, config.training.batch_size, config.training.dtype))


def _kind(run: Packable) -> str:
    method = run.resolved.method
    return str((method.name, method.targets, sorted(method.options.items()), run.resolved.seed))


def activation_bytes(model_config: Mapping[str, Any], *, rows: int, length: int, bytes_per_number: int) -> int:
    """Memory of a step's activations, an upper bound: ``s b h (17 + 2.5 a s / h)`` numbers a block.

    Korthikanti et al. 2022, arXiv 2205.05198, equation 2, whose ``34 + 5 a s / h`` are bytes of 16-bit numbers.
    """
    hidden = _first(model_config, "hidden_size", "d_model", "n_embd", "dim")
    blocks = _first(model_config, "num_hidden_layers", "num_layers", "n_layer", "n_layers")
    blocks += int(model_config.get("num_decoder_layers") or 0)
    heads = _first(model_config, "num_attention_heads", "num_heads", "n_head", "n_heads")
    numbers = rows * length * hidden * (17 + 2.5 * heads * length / hidden)
    return int(numbers * blocks * bytes_per_number)


def _first(model_config: Mapping[str, Any], *names: str) -> int:
    return next(int(model_config[name]) for name in names if model_config.get(name))
