"""One run while it trains: its weights, optimiser, place in the data, best state so far."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptlab.config import TrainingConfig
from adaptlab.measure.flops import TrainingFlops
from adaptlab.methods._base import Attached
from adaptlab.training import optimizers, schedules
from adaptlab.training.batches import Batch, BatchPlan, BatchRows
from adaptlab.training.budget import Currency, affordable_steps
from adaptlab.training.encode import Rows
from adaptlab.training.modes import Modes
from adaptlab.training.objectives import Objective
from adaptlab.training.shards import cut_like, whole


@dataclass
class Progress:
    """How far a run is; plain numbers, saved with a checkpoint as they are."""

    step: int = 0
    examples: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    flops: float = 0.0
    useful_flops: float = 0.0
    bytes: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0  # since the last point of the curve
    loss_steps: int = 0
    last_loss: float | None = None
    best_step: int | None = None
    best_value: float | None = None
    diverged: bool = False
    plateau: tuple[float, int, float] = (math.inf, 0, 1.0)  # schedules.Plateau, for reduce-on-plateau
    step_seconds: list[float] = field(default_factory=list)


class Member:
    """A run of a group.

    Args:
        data: the training rows; ``collate`` makes a padded batch of some of them.
        training: resolved: ``eval_every`` and ``learning_rate`` are numbers, and ``steps`` where it is no budget alone
            that ends the training.
        row_bytes: ``[rows]`` bytes of each row's texts, where they are to be counted.
        higher_is_better: of the metric that selects the checkpoint.
    """

    def __init__(
        self,
        *,
        name: str,
        seed: int,
        attached: Attached,
        modes: Modes,
        data: Rows,
        collate: Callable[[Any, NDArray[np.int64], int], Batch],
        plan: BatchPlan,
        training: TrainingConfig,
        objective: Objective,
        scaler: torch.amp.GradScaler | None = None,
        higher_is_better: bool = True,
        row_bytes: NDArray[np.int64] | None = None,
    ) -> None:
        endless = training.steps is None and not training.has_budget
        if endless or training.eval_every is None or training.learning_rate == "auto":
            raise ValueError("a member trains a resolved configuration")
        self.name, self.seed, self.attached, self.modes = name, seed, attached, modes
        self.data, self.collate, self.plan = data, collate, plan
        self.training, self.objective = training, objective
        self.row_bytes = row_bytes
        #: ``None`` where the clock alone ends the training. Budgets are in it once :meth:`limit` was called.
        self.total_steps: int | None = training.steps
        self.ended_by: Currency | None = None
        self.eval_every: int = training.eval_every
        self.scaler = scaler
        self._reduces = training.schedule == "reduce-on-plateau"
        self._sign = 1.0 if higher_is_better else -1.0
        self.trained = attached.trained
        self.optimizer = optimizers.build(training, attached)
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        #: What a step computes; None where it was not counted.
        self.flops: TrainingFlops | None = None

    def limit(self) -> None:
        """Turn the budgets that steps can be counted for into steps; ``flops`` are known where they are limited.

        Raises:
            ConfigError: as :func:`adaptlab.training.budget.affordable_steps`.
        """
        if self.training.has_budget:
            self.total_steps, self.ended_by = affordable_steps(
                self.training, self.plan, self.data, seed=self.seed, row_bytes=self.row_bytes, flops=self.flops
            )

    @property
    def done(self) -> bool:
        """True when no step is left to do."""
        return self.progress.diverged or self._at_last_step or self.out_of_time

    @property
    def _at_last_step(self) -> bool:
        return self.total_steps is not None and self.progress.step >= self.total_steps

    @property
    def out_of_time(self) -> bool:
        """True when a step more would most likely take more than the seconds there are."""
        limit, progress = self.training.max_seconds, self.progress
        return limit is not None and progress.step > 0 and progress.seconds * (1 + 1 / progress.step) > limit

    @property
    def end(self) -> Currency | None:
        """Which budget ended the training; ``None`` where its epochs or steps did, or a loss that is not finite."""
        if self.progress.diverged:
            return None
        return self.ended_by if self._at_last_step else "seconds"

    @property
    def due(self) -> bool:
        """True when the selection split is to be evaluated now."""
        return self.progress.step % self.eval_every == 0 or self.done

    @property
    def expected_steps(self) -> int:
        """Steps of the whole training; where the clock may end it, as the steps so far make it seem."""
        limit, progress = self.training.max_seconds, self.progress
        if limit is None or not progress.seconds:
            return self.total_steps or 1
        by_clock = max(progress.step + 1, round(progress.step * limit / progress.seconds))
        return by_clock if self.total_steps is None else min(self.total_steps, by_clock)

    @property
    def learning_rate(self) -> float:
        """The rate of the coming step (of the last one when training is over)."""
        return float(self.training.learning_rate) * self._factor()

    def _factor(self) -> float:
        total = self.expected_steps
        step = max(0, min(self.progress.step, total - 1))
        shape = schedules.factor(self.training.schedule, step, total, self.training.warmup_ratio)
        return shape * schedules.Plateau(*self.progress.plateau).factor if self._reduces else shape

    def rows(self) -> BatchRows:
        """The rows of the coming step."""
        return self.plan.batch(self.progress.step, self.seed)

    def update(self, loss: float) -> None:
        """Take the optimiser step for the gradients at hand, or stop the run if ``loss`` is not finite."""
        if not math.isfinite(loss):
            self.progress.diverged = True
            self.progress.last_loss = loss
            return
        factor = self._factor()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_rate"] * factor
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.training.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.trained.values(), self.training.max_grad_norm)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self._count()
        self.progress.step += 1
        self.attached.method.after_step(self.attached, self.progress.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.last_loss = loss
        self.progress.loss_sum += loss
        self.progress.loss_steps += 1

    def _count(self) -> None:
        rows = self.rows()
        if self.row_bytes is not None:
            self.progress.bytes += int(self.row_bytes[rows.rows].sum())
        if self.flops is not None:
            executed, useful = self.flops.of_step(self.data.lengths[rows.rows], rows.length)
            self.progress.flops += executed
            self.progress.useful_flops += useful

    def consider(self, value: float, loss: float | None = None) -> None:
        """Remember the present weights if ``value`` of the selection metric is the best so far (``last``: always).

        ``loss`` is the selection loss, which reduce-on-plateau looks at.
        """
        if self._reduces and loss is not None:
            plateau = schedules.Plateau(*self.progress.plateau)
            plateau.see(loss)
            self.progress.plateau = (plateau.best, plateau.bad, plateau.factor)
        if self.progress.step == 0:
            return  # an untrained model is no candidate
        best = self.progress.best_value
        better = best is None or math.isnan(best) or self._sign * value > self._sign * best
        if self.training.select == "last" or better:
            self.progress.best_step, self.progress.best_value = self.progress.step, value
            self.best = {name: p.detach().clone() for name, p in self.trained.items()}

    def restore_best(self) -> None:
        """Put the selected weights back."""
        if self.best is not None:
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(self.best[name])

    def step_spread(self) -> tuple[float | None, float | None]:
        """Median and sample standard deviation of a step, over this process and, after a resume, those before."""
        seconds = self.progress.step_seconds
        median = statistics.median(seconds) if seconds else None
        return median, statistics.stdev(seconds) if len(seconds) > 1 else None

    def mean_loss_since_point(self) -> float | None:
        """Mean training loss since the last point of the curve, and start counting anew."""
        progress = self.progress
        mean = progress.loss_sum / progress.loss_steps if progress.loss_steps else None
        progress.loss_sum, progress.loss_steps = 0.0, 0
        return mean

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that a resumed run needs: tensors, and plain values.

        Where weights are sharded, every process has to ask, and the first one gets the tensors.
        """
        tensors = {f"trained/{name}": p.detach() for name, p in self.trained.items()}
        tensors |= {f"best/{name}": tensor for name, tensor in (self.best or {}).items()}
        tensors |= {f"state/{name}": tensor for name, tensor in self.attached.state.items()}
        moments, plain = _flat(self.optimizer.state_dict()["state"])
        tensors |= {f"optimizer/{path}": tensor for path, tensor in moments.items()}
        tensors = {name: whole(tensor) for name, tensor in tensors.items()}
        values = {
            "progress": dict(vars(self.progress)),
            "optimizer": plain,
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }
        return tensors, values

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave.

        Raises:
            KeyError, ValueError, RuntimeError: the state is not this run's.
        """
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(cut_like(tensors[f"trained/{name}"], parameter))
            for name, tensor in self.attached.state.items():
                tensor.copy_(tensors[f"state/{name}"])
        best = {k.removeprefix("best/"): v for k, v in tensors.items() if k.startswith("best/")}
        of = self.trained
        self.best = {name: cut_like(v.to(of[name].device), of[name]) for name, v in best.items()} or None
        moments = {k.removeprefix("optimizer/"): v for k, v in tensors.items() if k.startswith("optimizer/")}
        state = {int(index): value for index, value in _nested({**values["optimizer"], **moments}).items()}
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for index, value in state.items():
            value |= {key: cut_like(v, parameters[index]) for key, v in value.items() if isinstance(v, Tensor)}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if self.scaler is not None and values["scaler"]:
            self.scaler.load_state_dict(values["scaler"])
        self.progress = Progress(**values["progress"])


def _flat(state: Mapping[Any, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The leaves of a nested state by their path: tensors, and plain values."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for key, value in state.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            inner_tensors, inner_plain = _flat(value, f"{path}/")
            tensors |= inner_tensors
            plain |= inner_plain
        elif isinstance(value, Tensor):
            tensors[path] = value
        else:
            plain[path] = value
    return tensors, plain


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`_flat` took apart."""
    root: dict[str, Any] = {}
    for path, value in leaves.items():
        *parents, last = path.split("/")
        place = root
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return root
