"""A tiny run set up from the real parts: tiny BERT, a method, real batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptlab.config import MethodConfig, ModelConfig, RunConfig, TaskConfig, TrainingConfig
from adaptlab.engines.fused import bare
from adaptlab.engines.solo import Solo
from adaptlab.evaluation import classify
from adaptlab.models.load import Base, load_base
from adaptlab.training.batches import BatchPlan, collate
from adaptlab.training.dropout import DropoutClock, calls_functional_dropout, key_dropout
from adaptlab.training.encode import Encoded
from adaptlab.training.first_tokens import FirstTokens
from adaptlab.training.loop import Hooks, train
from adaptlab.training.member import Member
from adaptlab.training.modes import Modes
from adaptlab.training.objectives.supervised import Supervised
from adaptlab.training.precision import Precision
from adaptlab.workshop import attach


@dataclass
class TinyRun:
    """Everything a test may want to look at or change."""

    base: Base
    member: Member
    data: Encoded
    backward: Solo
    precision: Precision
    clock: DropoutClock
    losses: list[float]
    curve: list[Any]

    def go(self, stop_after: int | None = None, save: Callable[[Member], None] = lambda m: None) -> TinyRun:
        """Train to the end, or until ``stop_after`` steps are done (then ``InterruptedRunError``)."""

        def on_step(member: Member) -> None:
            assert member.progress.last_loss is not None
            self.losses.append(member.progress.last_loss)

        def evaluate(members: Sequence[Member]) -> list[dict[str, float]]:
            (member,) = members
            scores = classify.logits(member.attached.model, self.data, self.precision, pad_id=0)
            accuracy = float((scores.argmax(1) == self.data.labels).mean())
            return [{"accuracy": accuracy, "loss": 0.0}]

        hooks = Hooks(
            evaluate=evaluate,
            select_by="accuracy",
            on_point=lambda _, point: self.curve.append(point),
            on_step=on_step,
            save=save,
            stop=lambda: stop_after is not None and self.member.progress.step >= stop_after,
            checkpoint_seconds=1e9,
        )
        train([self.member], self.backward, hooks)
        return self


def tiny_data(rows: int = 48, seed: int = 0) -> Encoded:
    """Rows whose class can be read off their tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 20, size=rows)
    labels = rng.integers(0, 2, size=rows)
    tokens = np.concatenate(
        [np.r_[2, rng.integers(10, 60, n - 2) + 100 * y, 3] for n, y in zip(lengths, labels, strict=True)]
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Encoded(tuple(map(str, range(rows))), tokens.astype(np.int32), None, offsets, labels, 0)


@pytest.fixture(scope="session")
def tiny_base(tiny_model_folder: Callable[[str], Path]) -> Callable[..., Base]:
    built: dict[tuple[str, bool], Base] = {}

    def build(family: str = "bert", regression: bool = False) -> Base:
        if (family, regression) not in built:
            config = ModelConfig(id=str(tiny_model_folder(family)))
            outputs = 1 if regression else 2
            built[family, regression] = load_base(config, num_labels=outputs, regression=regression, device="cpu")
        return built[family, regression]

    return build


@pytest.fixture
def tiny_run(tiny_base: Callable[..., Base]) -> Callable[..., TinyRun]:
    def build(
        method: str = "lora",
        *,
        family: str = "bert",
        seed: int = 0,
        dtype: str = "float32",
        micro: int | None = None,
        options: dict[str, Any] | None = None,
        rows: int = 48,
        all_tokens: bool = False,
        targets: str | None = None,
        **training: Any,
    ) -> TinyRun:
        settings = {"steps": 12, "batch_size": 8, "eval_every": 6, "learning_rate": 1e-2, "dtype": dtype, **training}
        config = RunConfig(
            model=ModelConfig(id="tiny"),
            task=TaskConfig(name="tiny"),
            method=MethodConfig(name=method, options=options or {}, targets=targets),
            training=TrainingConfig(**settings),
            seed=seed,
        )
        base, data = tiny_base(family), tiny_data(rows)
        precision, clock = Precision(dtype, "cpu"), DropoutClock()
        attached = attach(base, config)
        precision.prepare(attached, {})
        key_dropout(attached.model, base.layout.blocks, clock)
        if not all_tokens:
            FirstTokens(bare(attached.model), base.layout, [clock])
        plan = BatchPlan(data.lengths, config.training.batch_size)
        sample = collate(data, plan.batch(0, seed).rows[:1], 20, pad_id=0)
        with precision.autocast():
            modes = Modes(attached.model, sample.inputs)
        member = Member(
            name=method,
            seed=seed,
            attached=attached,
            modes=modes,
            data=data,
            collate=partial(collate, pad_id=0),
            plan=plan,
            training=config.training,
            objective=Supervised(regression=False),
        )
        functional = calls_functional_dropout(attached.model)
        backward = Solo(precision, clock, micro_batch_size=micro, functional=functional)
        torch.manual_seed(999)  # nothing below may depend on torch's own generator
        return TinyRun(base, member, data, backward, precision, clock, [], [])

    return build
