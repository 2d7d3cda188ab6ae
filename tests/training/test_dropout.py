"""Masks are a function of (run seed, step, site, row) and of nothing else."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adaptlab.training.dropout import (
    DropoutClock,
    KeyedDropout,
    SharedRowsError,
    apply_keyed,
    find_shared,
    functional_dropout,
    hash_grid,
    key_dropout,
    row_numbers,
    site_of,
)

CPU = torch.device("cpu")
SHAPE = torch.Size([32, 24, 64])


def mask(
    clock: DropoutClock, step: int, runs: list[tuple[int, int, int]], shape: torch.Size = SHAPE, site: int = 7
) -> torch.Tensor:
    clock.set(step, runs)
    return clock.keep(shape, 0.1, site, CPU)


def test_same_key_same_mask_and_any_other_key_another() -> None:
    clock = DropoutClock()
    reference = mask(clock, 3, [(1, 32, 0)])
    assert torch.equal(reference, mask(DropoutClock(), 3, [(1, 32, 0)]))
    for other in (mask(clock, 4, [(1, 32, 0)]), mask(clock, 3, [(2, 32, 0)]), mask(clock, 3, [(1, 32, 0)], site=8)):
        agreement = (reference == other).float().mean().item()
        assert agreement == pytest.approx(0.9**2 + 0.1**2, abs=0.01)


def test_a_run_draws_the_same_alone_and_beside_others() -> None:
    clock = DropoutClock()
    alone = mask(clock, 5, [(9, 8, 0)], torch.Size([8, 24, 64]))
    together = mask(clock, 5, [(1, 8, 0), (9, 8, 0), (4, 16, 0)])
    assert torch.equal(alone, together[8:16])


def test_micro_batches_draw_the_slices_of_the_whole_batch() -> None:
    clock = DropoutClock()
    whole = mask(clock, 5, [(9, 32, 0)])
    assert torch.equal(whole[20:], mask(clock, 5, [(9, 12, 20)], torch.Size([12, 24, 64])))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_rate_is_kept_overall_by_row_and_by_column(p: float) -> None:
    clock = DropoutClock()
    clock.set(0, [(0, 256, 0)])
    kept = clock.keep(torch.Size([256, 16, 256]), p, 1, CPU).float()
    deviation = math.sqrt(p * (1 - p))
    assert kept.mean().item() == pytest.approx(1 - p, abs=4 * deviation / math.sqrt(kept.numel()))
    for means, n in ((kept.mean((1, 2)), 16 * 256), (kept.mean((0, 1)), 256 * 16)):
        assert (means - (1 - p)).abs().max().item() < 5 * deviation / math.sqrt(n)


def test_hashes_are_the_same_wherever_their_keys_are_computed() -> None:
    clock = DropoutClock()
    clock.set(11, [(2**31, 32, 4), (7, 32, 4)])
    keys = clock.keys(5, [0, 1], CPU)
    numbers = torch.cat([row_numbers(12, 108, CPU) + key for key in keys])
    expected = hash_grid(numbers, 48, clock.column_key(5))
    assert torch.equal(clock.hashes(torch.Size([64, 3, 48]), 5, CPU).view(192, 48), expected)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_multiplied_on_a_cpu_is_what_the_mask_says(p: float, dtype: torch.dtype) -> None:
    clock = DropoutClock()
    clock.set(3, [(5, 32, 0), (6, 32, 0)])
    x = torch.randn(64, 9, 65, dtype=dtype)
    dropped = apply_keyed(x, p, 7, clock)
    assert dropped.dtype == dtype
    assert torch.equal(dropped, torch.where(clock.keep(x.shape, p, 7, CPU), x * (1 / (1 - p)), 0.0))


def test_neighbouring_elements_are_uncorrelated() -> None:
    kept = mask(DropoutClock(), 0, [(0, 32, 0)], torch.Size([32, 64, 256])).float() - 0.9
    flat = kept.view(-1, 256)
    bound = 4 / math.sqrt(flat.numel())
    for product in (
        flat[1:] * flat[:-1],
        flat[:, 1:] * flat[:, :-1],
        flat[1:, 1:] * flat[:-1, 1:] * flat[1:, :-1] * flat[:-1, :-1] / 0.09,
    ):
        assert abs(product.mean().item() / 0.09) < bound


def test_scaling_keeps_the_mean_and_gradients_follow_the_mask() -> None:
    clock = DropoutClock()
    clock.set(0, [(0, 64, 0)])
    layer = KeyedDropout(0.25, 1, clock)
    x = torch.ones(64, 128, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    assert y.detach().unique().tolist() == pytest.approx([0.0, 4 / 3])
    layer.eval()
    assert torch.equal(layer(x), x)


class Block(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(F.dropout(x, 0.5, self.training), 0.5, self.training)


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(x)
        for block in self.blocks:
            x = block(x)
        return x


def test_functional_dropout_is_keyed_by_block_and_order() -> None:
    clock, model = DropoutClock(), Stack()
    assert key_dropout(model, ["blocks.0", "blocks.1"], clock) == 1
    x = torch.ones(16, 512)

    def run(seed: int) -> torch.Tensor:
        clock.set(1, [(seed, 16, 0)])
        with functional_dropout(clock):
            return model(x)

    original = F.dropout
    first = run(3)
    assert F.dropout is original
    assert torch.equal(first, run(3))
    assert not torch.equal(first, run(4))
    assert (first > 0).float().mean().item() == pytest.approx(0.5**5, abs=0.02)  # five independent masks


def test_sites_are_named_the_same_inside_peft() -> None:
    assert site_of("base_model.model.bert.drop") == site_of("bert.drop") != site_of("bert.pool")


class WithTable(nn.Module):
    """Adds to every token what a table of positions says, with dropout on the table."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(positions, 8))
        self.on_table, self.on_tokens = nn.Dropout(0.5), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.on_tokens(x.flatten(0, 1)).view_as(x)
        return tokens + self.on_table(self.table)[: x.shape[1]]


def test_what_all_rows_share_has_one_mask_in_every_micro_batch() -> None:
    clock, model, x = DropoutClock(), WithTable(16), torch.ones(8, 4, 8)
    key_dropout(model, [], clock)
    model.eval()
    model(x[:1])
    find_shared(model, clock, 1, lambda: model(x[:2]))
    assert clock.shared == {model.on_table.site}
    model.train()
    clock.set(0, [(0, 8, 0)])
    whole = model(x)
    parts = []
    for first in (0, 4):  # the table's 16 rows are a multiple of 4
        clock.set(0, [(0, 4, first)])
        parts.append(model(x[first : first + 4]))
    assert torch.equal(torch.cat(parts), whole)
    clock.set(0, [(0, 4, 0), (1, 4, 0)])
    with pytest.raises(SharedRowsError):
        model(x)
