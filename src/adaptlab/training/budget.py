"""How long a training lasts: epochs or steps, and budgets in other currencies, turned into steps beforehand.

Which rows make each batch is known from the data, the seed and the batch size alone. So a number of examples, tokens,
FLOPs or bytes is a number of steps before the first one is done, and a learning-rate schedule knows its end. Seconds
are not: they are looked at while training goes on (:attr:`adaptlab.training.member.Member.out_of_time`).

A budget is kept to: training ends with the last step that does not exceed it, and what several budgets allow is what
the least of them does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adaptlab.config import TrainingConfig
from adaptlab.errors import ConfigError
from adaptlab.measure.flops import TrainingFlops
from adaptlab.tasks._base import Example
from adaptlab.training.batches import BatchPlan, BatchRows
from adaptlab.training.encode import Rows

Currency = Literal["examples", "tokens", "flops", "seconds", "bytes"]
Price = Callable[[BatchRows], float]


def text_bytes(examples: Sequence[Example]) -> NDArray[np.int64]:
    """``[rows]`` bytes of each row's texts in UTF-8: a measure of data that no tokenizer and no prompt changes."""
    return np.array([sum(len(text.encode()) for text in example.texts) for example in examples], dtype=np.int64)


def affordable_steps(
    training: TrainingConfig,
    plan: BatchPlan,
    data: Rows,
    *,
    seed: int,
    row_bytes: NDArray[np.int64] | None,
    flops: TrainingFlops | None,
) -> tuple[int | None, Currency | None]:
    """The steps that ``training`` may take, ``None`` where the clock alone ends it; and which budget says so.

    No budget does where the epochs or steps that were given are over first.

    Args:
        row_bytes: ``[rows]``, of each row of ``data``.
        flops: of a step; micro-batches are not looked at, for they change no result and so must not move the end.

    Raises:
        ConfigError: not one step keeps within a budget, or FLOPs are limited and could not be counted.
    """
    steps = training.steps
    ends: Currency | None = "seconds" if steps is None else None
    for currency, limit, price in _priced(training, data, row_bytes, flops):
        allowed = _steps_within(limit, price, plan, seed, steps)
        if not allowed:
            first = price(plan.batch(0, seed))
            raise ConfigError(
                f"--max-{currency} {limit:g} is less than the first step takes, {first:g}: give more, or a smaller "
                "--batch-size."
            )
        if steps is None or allowed < steps:
            steps, ends = allowed, currency
    return steps, ends


def _priced(
    training: TrainingConfig, data: Rows, row_bytes: NDArray[np.int64] | None, flops: TrainingFlops | None
) -> list[tuple[Currency, float, Price]]:
    """Every limit that steps can be counted for: its currency, its size, and what a batch takes of it."""
    found: list[tuple[Currency, float, Price]] = []
    if training.max_examples is not None:
        found.append(("examples", training.max_examples, lambda batch: len(batch.rows)))
    if training.max_tokens is not None:
        found.append(("tokens", training.max_tokens, lambda batch: data.batch_tokens(batch.rows)))
    if training.max_bytes is not None:
        if row_bytes is None:
            raise ValueError("bytes are limited and were not counted")
        found.append(("bytes", training.max_bytes, lambda batch: int(row_bytes[batch.rows].sum())))
    if training.max_flops is not None:
        if flops is None:
            raise ConfigError(
                "--max-flops was given, and this run's operations cannot be counted (its record's warnings say why): "
                "limit examples, tokens or seconds instead."
            )
        whole, lengths = dataclasses.replace(flops, micro_batch_size=None), data.lengths
        found.append(("flops", training.max_flops, lambda b: whole.of_step(lengths[b.rows], b.length)[0]))
    return found


def _steps_within(limit: float, price: Price, plan: BatchPlan, seed: int, most: int | None) -> int:
    """How many steps cost no more than ``limit`` together; ``most`` at most."""
    step, spent = 0, 0.0
    while most is None or step < most:
        spent += price(plan.batch(step, seed))
        if spent > limit:
            break
        step += 1
    return step
