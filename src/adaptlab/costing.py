"""What a run costs, measured on the run as it is set up: its operations today, memory and clock by a solo probe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from adaptlab.config import ExecutionConfig, RunConfig
from adaptlab.measure.flops import LONGEST_COUNTED, Counted, TrainingFlops, count, fit, optimizer_flops
from adaptlab.methods import registry as methods
from adaptlab.resolve import ResolvedRun
from adaptlab.training.batches import BatchPlan
from adaptlab.training.member import Member
from adaptlab.training.ranks import ALONE, among
from adaptlab.workshop import Stage

#: Batches about which a teacher is asked so that its operations are known.
_ASKED_BATCHES = 5

#: Counted once a process and cost configuration: runs that differ in seed or rate have the same operations.
_counted: dict[str, TrainingFlops] = {}


def training_flops(run: ResolvedRun, stage: Stage, execution: ExecutionConfig) -> TrainingFlops:
    """The operations of the run's training at any batch shape, from a few short passes of the run itself.

    The run is left as it was: no weight, gradient, count or mode of it changes.

    Raises:
        NotPolynomialError: they follow no polynomial of the batch's shape.
    """
    key = cost_key(run, execution)
    if key not in _counted:
        member = stage.member
        longest = max(4, min(LONGEST_COUNTED, int(run.resolved.task.max_length)))
        extra = count(lambda: _extra_loss(member))
        member.optimizer.zero_grad(set_to_none=True)
        forward, training = fit(lambda rows, length: _pass(stage, rows, length), longest=longest, once=extra.total)
        clips = run.resolved.training.max_grad_norm is not None
        update = optimizer_flops(
            run.resolved.training.optimizer, sum(p.numel() for p in member.trained.values()), clips=clips
        )
        _counted[key] = TrainingFlops(forward, training, update + extra.total, execution.micro_batch_size)
    found = _counted[key]
    if stage.teacher is None or stage.teacher.keeps:
        return found
    more = _of_teacher(stage)
    return dataclasses.replace(found, forward=found.forward.with_row(*more), training=found.training.with_row(*more))


def _of_teacher(stage: Stage) -> tuple[float, float]:
    """Operations a row of a teacher that is asked in every step: a constant, and a factor of the student's tokens.

    Its prompts have lengths of their own, and what they begin with is read once a batch: so it is asked about a few
    batches of an epoch, from the shortest to the longest, and a line is laid through them.
    """
    batches = sorted(stage.member.plan.epoch(0, 0), key=lambda batch: batch.length)
    some = [batches[int(at)] for at in np.unique(np.linspace(0, len(batches) - 1, _ASKED_BATCHES).round())]
    lengths = np.array([batch.length for batch in some], dtype=np.float64)
    asked = np.array([_asked(stage, batch.rows) / len(batch.rows) for batch in some])
    away = lengths - lengths.mean()
    factor = float(away @ asked / (away @ away)) if away.any() else 0.0
    return float(asked.mean() - factor * lengths.mean()), factor


def pass_key(config: RunConfig) -> str:
    """Equal for runs whose models compute the same on the same rows: seed, rates, optimiser and names do not matter."""
    options = methods.get(config.method.name).Config(**config.method.options)
    costly = {name: value for name, value in options.resolved().items() if name not in options.free}
    method = config.method.model_copy(update={"label": "", "options": costly})
    same = config.model_copy(update={"method": method})
    return same.model_dump_json(exclude={"seed", "task", "training", "report"})


def cost_key(run: ResolvedRun, execution: ExecutionConfig) -> str:
    """Equal for runs that cost the same a step: seed, rates, schedule, subset of rows do not matter."""
    config = run.resolved
    training = config.training
    parts = (
        run.identity.weights,
        pass_key(config),
        training.optimizer,
        training.dtype,
        str(training.max_grad_norm is not None),
        str(execution.micro_batch_size) + "r" * execution.gradient_checkpointing,
        f"{run.data.kind}:{len(run.data.labels)}:{config.task.prompt}:{config.task.max_length}",
    )
    return "|".join(parts)


def _asked(stage: Stage, rows: Iterable[int]) -> float:
    """Operations of asking the teacher about ``rows`` of the data."""
    teacher, data = stage.teacher, stage.member.data
    return 0.0 if teacher is None else count(lambda: teacher.targets([data.ids[row] for row in rows])).total


def _pass(stage: Stage, rows: int, length: int) -> Counted:
    """Operations of one forward and backward over ``rows`` rows of ``length`` tokens, without those of a teacher."""
    member = stage.member
    data, plan, progress = member.data, member.plan, member.progress
    member.data = data.sized(rows, length)
    member.plan = BatchPlan(member.data.lengths, rows)
    member.progress = dataclasses.replace(progress, step=0)
    member.modes.eval()  # dropout is no product, and what is random stays untouched
    try:
        with among(ALONE):
            found = count(lambda: stage.backward([member]))
            return dataclasses.replace(found, forward=found.forward - _asked(stage, range(rows)))
    finally:
        member.data, member.plan, member.progress = data, plan, progress
        member.optimizer.zero_grad(set_to_none=True)


def _extra_loss(member: Member) -> None:
    extra = member.attached.method.extra_loss(member.attached)
    if extra is not None:
        extra.backward()  # type: ignore[no-untyped-call]
