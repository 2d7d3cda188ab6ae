"""What a run costs, measured on the run as it is set up: its operations today, memory and clock by a solo probe."""

from __future__ import annotations

import dataclasses

from adaptlab.config import ExecutionConfig
from adaptlab.engines.solo import Solo
from adaptlab.measure.flops import LONGEST_COUNTED, Counted, TrainingFlops, count, fit, optimizer_flops
from adaptlab.resolve import ResolvedRun
from adaptlab.training.batches import BatchPlan
from adaptlab.training.member import Member
from adaptlab.training.ranks import ALONE, among
from adaptlab.workshop import Stage

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
        forward, training = fit(
            lambda rows, length: _pass(stage.backward, member, rows, length), longest=longest, once=extra.total
        )
        clips = run.resolved.training.max_grad_norm is not None
        update = optimizer_flops(
            run.resolved.training.optimizer, sum(p.numel() for p in member.trained.values()), clips=clips
        )
        _counted[key] = TrainingFlops(forward, training, update + extra.total, execution.micro_batch_size)
    return _counted[key]


def cost_key(run: ResolvedRun, execution: ExecutionConfig) -> str:
    """Equal for runs that cost the same a step: seed, rates, schedule, subset of rows do not matter."""
    config = run.resolved
    document = config.model_dump_json(exclude={"seed": True, "task": True, "training": True, "method": {"label"}})
    training = config.training
    parts = (
        run.identity.weights,
        document,
        training.optimizer,
        training.dtype,
        str(training.max_grad_norm is not None),
        str(execution.micro_batch_size) + "r" * execution.gradient_checkpointing,
        f"{run.data.kind}:{len(run.data.labels)}:{config.task.prompt}:{config.task.max_length}",
    )
    return "|".join(parts)


def _pass(backward: Solo, member: Member, rows: int, length: int) -> Counted:
    """Operations of one forward and backward over ``rows`` rows of ``length`` tokens."""
    data, plan, progress = member.data, member.plan, member.progress
    member.data = data.sized(rows, length)
    member.plan = BatchPlan(member.data.lengths, rows)
    member.progress = dataclasses.replace(progress, step=0)
    member.modes.eval()  # dropout is no product, and what is random stays untouched
    try:
        with among(ALONE):
            return count(lambda: backward([member]))
    finally:
        member.data, member.plan, member.progress = data, plan, progress
        member.optimizer.zero_grad(set_to_none=True)


def _extra_loss(member: Member) -> None:
    extra = member.attached.method.extra_loss(member.attached)
    if extra is not None:
        extra.backward()  # type: ignore[no-untyped-call]
