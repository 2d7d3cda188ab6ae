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
from adaptlab.training.ranks import here


class Backward(Protocol):
    """An engine's forward and backward pass."""

    def __call__(self, members: Sequence[Member]) -> list[float]:
        """Gradients of every member's next batch, in its own parameters; returns each member's mean loss."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop asks of its surroundings.

    Attributes:
        evaluate: each member's metrics over the selection split, ``loss`` among them; the models are in eval mode.
        select_by: the metric that selects the checkpoint.
        on_point: a line of the curve.
        on_step: a step is done.
        save: write a checkpoint.
        stop: asked between steps; True ends training with everything saved.
        own_clock: False where runs share a clock, which then says nothing about any of them.
        owed: seconds since it was last asked that another run has spent on work of this one; they belong to its clock.
    """

    evaluate: Callable[[Sequence[Member]], Sequence[Mapping[str, float]]]
    select_by: str
    on_point: Callable[[Member, CurvePoint], None]
    on_step: Callable[[Member], None]
    save: Callable[[Member], None]
    stop: Callable[[], bool]
    checkpoint_seconds: float = 30.0
    own_clock: bool = True
    owed: Callable[[], float] = lambda: 0.0


def train(members: Sequence[Member], backward: Backward, hooks: Hooks) -> None:
    """Train every member to its last step, or until its loss is not finite (``member.progress.diverged``).

    Members may come from checkpoints of different steps: those behind catch up, then all go in step. On return each
    holds its selected weights.

    Raises:
        InterruptedRunError: ``hooks.stop`` said so; checkpoints are written.
    """
    _evaluate([member for member in members if member.progress.step == 0], hooks)
    for member in members:
        member.attached.method.before_training(member.attached, member.total_steps)
        member.modes.train()
    saved = time.monotonic()
    while unfinished := [member for member in members if not member.done]:
        step = min(member.progress.step for member in unfinished)
        active = [member for member in unfinished if member.progress.step == step]
        _step(active, backward, hooks)
        due = [member for member in active if member.due and not member.progress.diverged]
        _evaluate(due, hooks)
        for member in due:
            member.modes.train()
        late = time.monotonic() - saved >= hooks.checkpoint_seconds
        stopped, late = (votes > 0 for votes in here().total([hooks.stop(), late]))
        if stopped:
            _interrupt(unfinished, hooks)
        ended = [member for member in active if member.done and len(members) > 1]
        for member in unfinished if late else ended:
            hooks.save(member)
        saved = time.monotonic() if late else saved
    for member in members:
        member.restore_best()
        member.modes.eval()


def _step(active: Sequence[Member], backward: Backward, hooks: Hooks) -> None:
    started = time.perf_counter()
    losses = backward(active)
    for member, loss in zip(active, losses, strict=True):
        member.update(loss)
    seconds = here().of_first(time.perf_counter() - started + hooks.owed())
    for member in active:
        if hooks.own_clock:
            member.progress.seconds += seconds
            member.progress.step_seconds.append(seconds)
        hooks.on_step(member)


def _evaluate(members: Sequence[Member], hooks: Hooks) -> None:
    if not members:
        return
    for member in members:
        member.modes.eval()
    for member, metrics in zip(members, map(dict, hooks.evaluate(members)), strict=True):
        progress = member.progress
        member.consider(metrics[hooks.select_by], metrics.get("loss", metrics.get("mse")))
        point = CurvePoint(
            step=progress.step,
            examples=progress.examples,
            tokens=progress.tokens,
            flops=progress.flops if member.flops is not None else None,
            seconds=progress.seconds if hooks.own_clock else None,
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
