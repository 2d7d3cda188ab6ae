"""The one training loop. It drives a group of runs; a run on its own is a group of one.

Each run of the group has its own rows, loss, optimiser, rate, schedule, clipping and end. What they share is the pass
through the model, which the engine's :class:`Backward` does for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from adaptlab.errors import InterruptedRunError
from adaptlab.runs.record import CurvePoint
from adaptlab.training.member import Member


class Backward(Protocol):
    """An engine's forward and backward pass."""

    def __call__(self, members: Sequence[Member]) -> list[float]:
        """Gradients of every member's next batch, in its own parameters; returns each member's mean loss."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop asks of its surroundings.

    Attributes:
        evaluate: metrics over the selection split, ``loss`` among them; the model is in eval mode.
        select_by: the metric that selects the checkpoint.
        on_point: a line of the curve.
        on_step: a step is done.
        save: write a checkpoint.
        stop: asked between steps; True ends training with everything saved.
    """

    evaluate: Callable[[Member], Mapping[str, float]]
    select_by: str
    on_point: Callable[[Member, CurvePoint], None]
    on_step: Callable[[Member], None]
    save: Callable[[Member], None]
    stop: Callable[[], bool]
    checkpoint_seconds: float = 30.0


def train(members: Sequence[Member], backward: Backward, hooks: Hooks) -> None:
    """Train every member to its last step, or until its loss is not finite (``member.progress.diverged``).

    Members may come from a checkpoint. On return each holds its selected weights.

    Raises:
        InterruptedRunError: ``hooks.stop`` said so; checkpoints are written.
    """
    for member in members:
        if member.progress.step == 0:
            _evaluate(member, hooks)
        member.attached.method.before_training(member.attached, member.total_steps)
        member.modes.train()
    saved = time.monotonic()
    while active := [member for member in members if not member.done]:
        started = time.perf_counter()
        losses = backward(active)
        for member, loss in zip(active, losses, strict=True):
            member.update(loss)
        seconds = (time.perf_counter() - started) / len(active)
        for member in active:
            member.progress.seconds += seconds
            member.progress.step_seconds.append(seconds)
            hooks.on_step(member)
            if member.due and not member.progress.diverged:
                _evaluate(member, hooks)
                member.modes.train()
        if hooks.stop():
            _interrupt(active, hooks)
        if time.monotonic() - saved >= hooks.checkpoint_seconds:
            for member in active:
                hooks.save(member)
            saved = time.monotonic()
    for member in members:
        member.restore_best()
        member.modes.eval()


def _evaluate(member: Member, hooks: Hooks) -> None:
    member.modes.eval()
    metrics = dict(hooks.evaluate(member))
    progress = member.progress
    member.consider(metrics[hooks.select_by], metrics.get("loss", metrics.get("mse")))
    point = CurvePoint(
        step=progress.step,
        examples=progress.examples,
        tokens=progress.tokens,
        flops=progress.flops if member.flops is not None else None,
        seconds=progress.seconds,
        train_loss=member.mean_loss_since_point(),
        select_loss=metrics.get("loss", metrics.get("mse")),
        learning_rate=member.learning_rate,
        metrics=metrics,
    )
    hooks.on_point(member, point)


def _interrupt(active: Sequence[Member], hooks: Hooks) -> None:
    for member in active:
        if not member.done:
            hooks.save(member)
    raise InterruptedRunError("Stopped as asked; run the same command again to go on from here.")
