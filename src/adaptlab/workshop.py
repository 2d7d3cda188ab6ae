"""What the runs of one process share, and how a single run is set up from it: base, head, method, data, engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adaptlab.config import ExecutionConfig, RunConfig
from adaptlab.engines.solo import Solo
from adaptlab.evaluation import classify
from adaptlab.methods import registry as methods
from adaptlab.methods._base import Attached, Setup
from adaptlab.metrics import registry as metrics
from adaptlab.metrics._base import Answers
from adaptlab.models.load import Base, fresh_model, initialise_head, load_base
from adaptlab.resolve import ResolvedRun, device
from adaptlab.study.events import Listener
from adaptlab.tasks._base import TaskData
from adaptlab.training.batches import BatchPlan, collate
from adaptlab.training.dropout import DropoutClock, calls_functional_dropout, key_dropout
from adaptlab.training.encode import Encoded, encode
from adaptlab.training.member import Member
from adaptlab.training.modes import Modes
from adaptlab.training.objectives import build as build_objective
from adaptlab.training.precision import CastCache, Precision


@dataclass
class Workshop:
    """What runs of one process share: the base in memory, its 16-bit casts, the tokenised data, the stop signal."""

    execution: ExecutionConfig
    listener: Listener
    stop: Callable[[], bool] = lambda: False
    _bases: dict[str, Base] = field(default_factory=dict)
    casts: CastCache = field(default_factory=dict)
    _encoded: dict[tuple[str, ...], Encoded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = device(self.execution.device)
        if self.execution.threads is not None:
            torch.set_num_threads(self.execution.threads)

    def base(self, run: ResolvedRun) -> Base:
        """The pretrained base of ``run``; the last one stays in memory."""
        regression = run.data.kind == "regression"
        outputs = 1 if regression else len(run.data.labels)
        key = f"{run.identity.weights}|{run.resolved.model.model_dump_json()}|{outputs}|{regression}"
        if key not in self._bases:
            self._bases.clear()
            self.casts.clear()
            model = run.resolved.model
            self._bases[key] = load_base(model, num_labels=outputs, regression=regression, device=self.device)
        return self._bases[key]

    def encoded(self, run: ResolvedRun, base: Base, split: str) -> Encoded:
        """The tokenised rows of ``train``, ``select`` or a report set."""
        length = int(run.resolved.task.max_length)
        key = (run.identity.weights, run.identity.data, str(length), split)
        if key not in self._encoded:
            rows = splits(run.data)[split]
            regression = run.data.kind == "regression"
            self._encoded[key] = encode(base.tokenizer, rows, max_length=length, regression=regression)
        return self._encoded[key]


def splits(data: TaskData) -> dict[str, Any]:
    """Every split of a task by its name in records: train, select, and the report sets by theirs."""
    return {"train": data.train, "select": data.select, **data.report}


@dataclass
class Stage:
    """A run set up to train and to answer.

    Attributes:
        clock: what the dropouts of the run's own model look at.
        scores: ``[rows, outputs]`` of a model for tokenised rows.
        answered: answers from such scores.
    """

    member: Member
    backward: Solo
    precision: Precision
    clock: DropoutClock
    scores: Callable[[Any, Encoded], NDArray[np.float32]]
    answered: Callable[[NDArray[np.float32], Encoded], Answers]

    def answer(self, rows: Encoded) -> Answers:
        """The answers of the run's own model, which is in eval mode."""
        return self.answered(self.scores(self.member.attached.model, rows), rows)


def set_up(run: ResolvedRun, base: Base, workshop: Workshop) -> Stage:
    """The run at its first step: method attached, weights in their dtype, dropout keyed, batches planned."""
    config, training = run.resolved, run.resolved.training
    data = workshop.encoded(run, base, "train")
    precision = Precision(training.dtype, workshop.device)
    attached = attach(base, config)
    # A run with weights of its own would leave its casts behind; those of the shared base serve every run.
    precision.prepare(attached, {} if attached.method.placement == "base" else workshop.casts)
    clock = DropoutClock()
    key_dropout(attached.model, base.layout.blocks, clock)
    pad_id, side = base.tokenizer.pad_token_id, base.tokenizer.padding_side
    plan = BatchPlan(data.lengths, training.batch_size)
    first = plan.batch(0, config.seed)
    sample = collate(data, first.rows[:1], first.length, pad_id=pad_id, padding_side=side, device=workshop.device)
    regression = run.data.kind == "regression"
    with precision.autocast():
        modes = Modes(attached.model, sample.inputs)
    member = Member(
        name=run.name,
        seed=config.seed,
        attached=attached,
        modes=modes,
        data=data,
        plan=plan,
        training=training,
        objective=build_objective(config.objective, regression=regression),
        scaler=precision.scaler(),
        higher_is_better=metrics.get(run.data.metrics[0]).higher_is_better,
    )
    backward = Solo(
        precision,
        clock,
        pad_id=pad_id,
        padding_side=side,
        micro_batch_size=workshop.execution.micro_batch_size,
        functional=calls_functional_dropout(attached.model),
    )

    def scores(model: Any, rows: Encoded) -> NDArray[np.float32]:
        return classify.logits(model, rows, precision, pad_id=pad_id, padding_side=side)

    def answered(found: NDArray[np.float32], rows: Encoded) -> Answers:
        return classify.answers(found, rows.labels, regression=regression)

    return Stage(member, backward, precision, clock, scores, answered)


def attach(base: Base, config: RunConfig) -> Attached:
    """A fresh model with the run's method on it; head and adapter are drawn from the run's seed."""
    method = methods.get(config.method.name)
    setup = Setup(
        options=method.Config(**config.method.options),
        targets=config.method.targets,
        head=config.method.head,
        total_steps=config.training.steps,
    )
    model = fresh_model(base, share=method.placement != "base")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        initialise_head(model, base.layout)
        torch.manual_seed(config.seed)  # so that the adapter's draw does not depend on the head's
        return method.attach(model, base.layout, setup)
