"""Batch lengths belong to the data, not to the seed."""

from __future__ import annotations

import numpy as np
import pytest

from adaptlab.training.batches import BatchPlan, collate, evaluation_batches
from adaptlab.training.encode import Encoded

LENGTHS = np.random.default_rng(0).integers(3, 60, size=1003)


def encoded(lengths: np.ndarray, types: bool = True) -> Encoded:
    total = int(lengths.sum())
    return Encoded(
        ids=tuple(str(i) for i in range(len(lengths))),
        tokens=np.arange(1, total + 1, dtype=np.int32),
        types=np.ones(total, dtype=np.int8) if types else None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=np.arange(len(lengths)) % 2,
        truncated=0,
    )


def shapes(plan: BatchPlan, epoch: int, seed: int) -> list[tuple[int, int]]:
    return [(len(batch.rows), batch.length) for batch in plan.epoch(epoch, seed)]


def test_every_seed_has_the_same_shapes_and_other_rows() -> None:
    plan = BatchPlan(LENGTHS, 32)
    assert shapes(plan, 0, seed=1) == shapes(plan, 0, seed=2)
    ours, theirs = plan.epoch(0, seed=1), plan.epoch(0, seed=2)
    assert any(set(a.rows) != set(b.rows) for a, b in zip(ours, theirs, strict=True))


def test_epochs_differ_in_order_and_in_rows() -> None:
    plan = BatchPlan(LENGTHS, 32)
    assert shapes(plan, 0, 1) != shapes(plan, 1, 1)
    assert sorted(shapes(plan, 0, 1)) == sorted(shapes(plan, 1, 1))


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 32), (31, 32), (33, 32), (1003, 32), (1003, 7), (64, 64)])
def test_every_row_once_per_epoch_and_no_batch_more_than_needed(rows: int, batch_size: int) -> None:
    plan = BatchPlan(LENGTHS[:rows], batch_size)
    batches = plan.epoch(3, seed=5)
    assert sorted(np.concatenate([b.rows for b in batches])) == list(range(rows))
    assert len(batches) == plan.steps_per_epoch == -(-rows // batch_size)


def test_no_row_is_longer_than_its_batch_and_padding_is_small() -> None:
    plan = BatchPlan(LENGTHS, 8)
    for batch in plan.epoch(0, seed=0):
        assert LENGTHS[batch.rows].max() <= batch.length
    assert plan.padded_tokens_per_epoch <= 1.10 * LENGTHS.sum()


def test_a_step_is_found_by_its_number_alone() -> None:
    plan, fresh = BatchPlan(LENGTHS, 32), BatchPlan(LENGTHS, 32)
    step = 2 * plan.steps_per_epoch + 3
    for earlier in range(step):
        plan.batch(earlier, seed=4)
    assert list(plan.batch(step, seed=4).rows) == list(fresh.batch(step, seed=4).rows)


def test_the_seed_mixes_across_a_bin() -> None:
    """A row's companions change from epoch to epoch: a bin of one batch would keep them together for ever."""
    plan = BatchPlan(np.full(128, 10), 32)
    first, second = plan.epoch(0, 0)[0], plan.epoch(1, 0)[0]
    assert set(first.rows) != set(second.rows)


@pytest.mark.parametrize("side", ["right", "left"])
def test_collate_pads_each_row_on_its_side(side: str) -> None:
    data = encoded(np.array([3, 5, 2]))
    batch = collate(data, np.array([2, 1]), 6, pad_id=0, padding_side=side)
    ids = batch.inputs["input_ids"].tolist()
    expected = (
        [[9, 10, 0, 0, 0, 0], [4, 5, 6, 7, 8, 0]] if side == "right" else [[0, 0, 0, 0, 9, 10], [0, 4, 5, 6, 7, 8]]
    )
    assert ids == expected
    assert batch.inputs["attention_mask"].tolist() == [[int(t > 0) for t in row] for row in ids]
    assert batch.inputs["token_type_ids"].tolist() == batch.inputs["attention_mask"].tolist()
    assert batch.labels.tolist() == [0, 1]
    assert (batch.tokens, batch.padded_tokens) == (7, 12)


def test_evaluation_sees_every_row_once_within_its_bounds() -> None:
    batches = evaluation_batches(LENGTHS, most_tokens=256, most_rows=16)
    assert sorted(np.concatenate([b.rows for b in batches])) == list(range(len(LENGTHS)))
    assert all(len(b.rows) <= 16 and len(b.rows) * b.length <= 256 for b in batches)
