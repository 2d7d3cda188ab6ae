"""A group of tiny runs, and the same runs alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adaptlab.config import MethodConfig, ModelConfig, RunConfig, TaskConfig, TrainingConfig
from adaptlab.engines.fused import Fused, bare
from adaptlab.engines.passing import Passing
from adaptlab.engines.solo import Solo
from adaptlab.models.load import Base, fresh_model
from adaptlab.training.batches import BatchPlan, collate
from adaptlab.training.dropout import DropoutClock, calls_functional_dropout, key_dropout
from adaptlab.training.encode import Encoded
from adaptlab.training.first_tokens import FirstTokens
from adaptlab.training.member import Member
from adaptlab.training.modes import Modes
from adaptlab.training.objectives.supervised import Supervised
from adaptlab.training.precision import CastCache, Precision
from adaptlab.workshop import attach
from tests.training.conftest import tiny_base

__all__ = ["tiny_base"]


@dataclass(frozen=True)
class Spec:
    """What one run of a group is."""

    method: str
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    learning_rate: float = 1e-2
    targets: str | None = None


@dataclass
class Group:
    """Members, and the engine that drives all of them (or one by one)."""

    members: list[Member]
    engines: list[Passing]

    def train(self, steps: int, on_step: Callable[[int], None] = lambda step: None) -> NDArray[np.float64]:
        """``[members, steps]`` losses; a member that has diverged is left out, its losses are NaN."""
        losses = np.full((len(self.members), steps), np.nan)
        for member in self.members:
            member.attached.method.before_training(member.attached, member.total_steps)
            member.modes.train()
        for step in range(steps):
            on_step(step)
            for engine, members in self._parts():
                if members:
                    for member, loss in zip(members, engine(members), strict=True):
                        member.update(loss)
                        losses[self.members.index(member), step] = loss
        return losses

    def _parts(self) -> list[tuple[Passing, list[Member]]]:
        alone = len(self.engines) == len(self.members)
        parts = [[m] for m in self.members] if alone else [self.members]
        return [(e, [m for m in p if not m.done]) for e, p in zip(self.engines, parts, strict=True)]


def rows_for(base: Base, rows: int = 48) -> Encoded:
    """Rows whose class can be read off their tokens, ended as the family ends them."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 20, size=rows)
    labels = rng.integers(0, 2, size=rows)
    end = base.tokenizer.eos_token_id if base.tokenizer.eos_token_id is not None else base.tokenizer.sep_token_id
    tokens = np.concatenate(
        [np.r_[rng.integers(10, 60, n - 1) + 100 * y, end] for n, y in zip(lengths, labels, strict=True)]
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Encoded(tuple(map(str, range(rows))), tokens.astype(np.int32), None, offsets, labels, 0)


@pytest.fixture
def group_of(tiny_base: Callable[..., Base]) -> Callable[..., Group]:
    """``group_of(specs, family=, dtype=, fused=, steps=)``."""

    def build(
        specs: Sequence[Spec], *, family: str = "bert", dtype: str = "float64", fused: bool, steps: int, **settings: Any
    ) -> Group:
        base, precision, casts = tiny_base(family), Precision(dtype, "cpu"), {}
        built = [_member(base, spec, precision, casts if fused else {}, steps) for spec in specs]
        members, clocks = [m for m, _ in built], [c for _, c in built]
        functional = calls_functional_dropout(base.model)
        if not fused:
            return Group(members, [Solo(precision, clock, functional=functional, **settings) for clock in clocks])
        trunk = fresh_model(base, share=True)
        precision.prepare_model(trunk, base.layout.head_modules, casts)
        engine = Fused(trunk, members, clocks, base.layout, precision=precision, functional=functional, **settings)
        torch.manual_seed(999)  # nothing below may depend on torch's own generator
        return Group(members, [engine])

    return build


def _member(base: Base, spec: Spec, precision: Precision, casts: CastCache, steps: int) -> tuple[Member, DropoutClock]:
    config = RunConfig(
        model=ModelConfig(id="tiny"),
        task=TaskConfig(name="tiny"),
        method=MethodConfig(name=spec.method, options=spec.options, targets=spec.targets),
        training=TrainingConfig(
            steps=steps, batch_size=8, eval_every=steps, learning_rate=spec.learning_rate, dtype=precision.name
        ),
        seed=spec.seed,
    )
    data, clock = rows_for(base), DropoutClock()
    attached = attach(base, config)
    precision.prepare(attached, casts)
    key_dropout(attached.model, base.layout.blocks, clock)
    FirstTokens(bare(attached.model), base.layout, [clock])
    plan = BatchPlan(data.lengths, config.training.batch_size)
    sample = collate(data, plan.batch(0, spec.seed).rows[:1], 20, pad_id=base.tokenizer.pad_token_id)
    with precision.autocast():
        modes = Modes(attached.model, sample.inputs)
    member = Member(
        name=spec.method,
        seed=spec.seed,
        attached=attached,
        modes=modes,
        data=data,
        collate=partial(collate, pad_id=base.tokenizer.pad_token_id),
        plan=plan,
        training=config.training,
        objective=Supervised(regression=False),
    )
    return member, clock
