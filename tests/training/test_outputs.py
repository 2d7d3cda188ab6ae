"""Outputs below the lowest trained block: stored only where that changes no bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from adaptlab.training.outputs import Room, Store, StoredOutputs

from .conftest import TinyRun

Build = Callable[..., TinyRun]


def storing(run: TinyRun, store: Store) -> TinyRun:
    """``run`` with its still blocks' outputs in ``store``."""
    member = run.member
    outputs = StoredOutputs(member.attached.model, run.base.layout.blocks, member.modes.still, lambda name: store)
    batch = member.plan.batch(0, 0)
    ids = torch.full((len(batch.rows), batch.length), 5)
    ids[:, 0] = torch.arange(len(batch.rows))
    member.modes.eval()
    outputs.check(member.attached.model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return run


def counted(run: TinyRun) -> list[int]:
    """Counts how often the first block's own layers run."""
    calls: list[int] = []
    first = run.member.attached.model.get_submodule(run.base.layout.blocks[0])
    next(first.children()).register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("family", ["bert", "opt", "distilbert"])
@pytest.mark.parametrize("method", ["head", "top-layers"])
def test_every_row_is_computed_once_and_no_loss_moves(tiny_run: Build, method: str, family: str) -> None:
    plain = tiny_run(method, family=family, steps=18).go()
    store = Store()
    run = storing(tiny_run(method, family=family, steps=18), store)
    assert store.sound
    calls = counted(run)
    assert run.go().losses == plain.losses
    epoch = run.member.plan.steps_per_epoch
    assert 0 < len(calls) <= 2 * epoch  # evaluation pads some rows otherwise
    other = storing(tiny_run(method, family=family, seed=1, steps=18), store)
    calls = counted(other)
    assert other.go().losses == tiny_run(method, family=family, seed=1, steps=18).go().losses
    assert not calls


@pytest.mark.parametrize("method", ["lora", "bitfit"])
def test_what_lies_above_something_trained_is_not_stored(tiny_run: Build, method: str) -> None:
    store = Store()
    run = tiny_run(method)
    model: Any = run.member.attached.model
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    outputs = StoredOutputs(bare, run.base.layout.blocks, run.member.modes.still, lambda name: store)
    assert not outputs.deep
    run.go()
    assert not store.rows


def test_outputs_that_depend_on_the_batch_are_not_stored(tiny_run: Build) -> None:
    store = Store()
    run = tiny_run("head")
    block = run.member.attached.model.get_submodule(run.base.layout.blocks[0])
    block.register_forward_hook(lambda module, args, output: output + output.mean(0))
    storing(run, store)
    assert store.sound is False
    run.go()
    assert not store.rows


def test_a_full_store_changes_nothing(tiny_run: Build) -> None:
    plain = tiny_run("head").go()
    room = Room(20_000)
    store = Store(room)
    run = storing(tiny_run("head"), store)
    assert run.go().losses == plain.losses
    assert 0 < store.size <= 20_000
    assert room.left == 20_000 - store.size
    other = Store(room)
    row = (next(iter(store.rows.values()))[0],)
    fitting = room.left // row[0].nbytes
    for number in range(fitting + 3):
        other.add(bytes([number]), row, 0.1)
    assert len(other.rows) == fitting  # the room is theirs together
    store.clear()
    other.add(b"more", row, 0.1)
    assert len(other.rows) == fitting + 1


def test_rows_that_others_computed_are_on_the_clock_once(tiny_run: Build) -> None:
    store = Store()
    first = tiny_run("head", steps=18)
    member = first.member
    outputs = StoredOutputs(member.attached.model, first.base.layout.blocks, member.modes.still, lambda name: store)
    store.sound = True
    first.go()
    assert len(store.seconds) == len(store.rows) > 0
    assert all(seconds > 0 for seconds in store.seconds.values())
    assert outputs.take_owed() == 0  # it computed them itself
    store.seconds = dict.fromkeys(store.rows, 1.0)
    other = tiny_run("head", seed=1, steps=18)
    model, still = other.member.attached.model, other.member.modes.still
    outputs = StoredOutputs(model, other.base.layout.blocks, still, lambda name: store)
    calls = counted(other)
    other.go()
    assert not calls
    assert outputs.take_owed() == pytest.approx(len(store.rows))  # many epochs, each row once
    assert outputs.take_owed() == 0
