"""A step without numbers: its memory to the byte where arithmetic gives it, its operations those of a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptlab.config import MethodConfig, ModelConfig, RunConfig, TaskConfig, TrainingConfig
from adaptlab.measure import machine
from adaptlab.measure.machine import Machine, calibrated
from adaptlab.methods import registry as methods
from adaptlab.models.load import skeleton
from adaptlab.simulating import Simulated, _Ledger, _weightless, simulate
from adaptlab.tokens_ahead import padded, unread_head
from tests.measure.test_flops import full_closed_form, left_out, lora_closed_form

_MACHINE = Machine({"float32": {100: 1e9, 1000: 1e11}}, bytes_per_second=1e10, call_seconds=1e-6)


@pytest.fixture(scope="module")
def simulated(tiny_model_folder: Callable[[str], Path]) -> Callable[..., Simulated]:
    def run(
        method: str, family: str = "bert", dtype: str = "float32", rows: int = 8, micro: int | None = None, **more: Any
    ) -> Simulated:
        model, layout = skeleton(ModelConfig(id=str(tiny_model_folder(family))), num_labels=3)
        config = RunConfig(
            model=ModelConfig(id="tiny"),
            task=TaskConfig(name="tiny"),
            method=MethodConfig(name=method, options=more),
            training=TrainingConfig(steps=20, dtype=dtype),
        )
        return simulate(
            config, model, layout, device="cpu", machine=_MACHINE, readout=unread_head(layout),
            train=(padded(rows, 64),), answer=padded(8, 64),
            micro_batch_size=micro,
        )  # fmt: skip

    return run


def test_the_ledger_knows_what_is_held_at_most() -> None:
    ledger = _Ledger(None)

    def work() -> int:
        kept = torch.zeros(100)
        torch.zeros(1000).sum()
        return int(kept.view(10, 10).nbytes)

    with ledger:
        most, result, seconds = ledger.of(work)
    assert (most, result, seconds) == (4400 + 4, 400, 0.0)
    assert ledger.live == 0


def test_rows_become_tensors_without_numbers_on_the_way_to_any_device() -> None:
    with _weightless(None) as ledger:
        rows = torch.from_numpy(np.ones((3, 5), dtype=np.int64)).pin_memory()
        assert (type(rows).__name__, tuple(rows.shape), rows.dtype) == ("FakeTensor", (3, 5), torch.int64)
        assert ledger.live == 3 * 5 * 8
    assert type(torch.from_numpy(np.ones(3))) is torch.Tensor


def test_weights_gradients_and_moments_are_arithmetic(simulated: Callable[..., Simulated]) -> None:
    memory = simulated("full").memory
    assert memory.trained == memory.gradients == memory.best == memory.optimizer // 2
    assert memory.base - memory.trained == 2 * 128 * 8  # two buffers over the positions
    assert memory.total == memory.base + memory.copies + memory.optimizer + 3 * memory.trained + memory.activations


def test_frozen_weights_cost_their_casts_and_nothing_else(simulated: Callable[..., Simulated]) -> None:
    plain, mixed = simulated("lora").memory, simulated("lora", dtype="bfloat16").memory
    assert plain.gradients < plain.base / 10
    assert 0.4 * plain.base < mixed.copies - plain.copies < 0.5 * plain.base  # norms stay as they are


@pytest.mark.parametrize("family", ["bert", "opt", "t5"])
def test_simulated_operations_are_real_ones(simulated: Callable[..., Simulated], family: str) -> None:
    full, lora = (simulated(method, family).flops.training.of(8, 64) for method in ("full", "lora"))
    assert full == pytest.approx(full_closed_form(family, 8, 64) - 3 * left_out(family, 8, 64))
    assert lora == pytest.approx(lora_closed_form(family, 8, 64) - 2 * left_out(family, 8, 64))


def test_what_an_optimiser_adds_is_no_matter_of_passes(simulated: Callable[..., Simulated]) -> None:
    adamw = simulated("lora")
    sgd = adamw.under(TrainingConfig(optimizer="sgd", max_grad_norm=None))
    assert (sgd.memory.optimizer, adamw.memory.optimizer) == (0, 2 * adamw.memory.gradients)
    assert (sgd.flops.per_step, adamw.flops.per_step) == (adamw.memory.gradients / 2, 17 * adamw.memory.gradients / 4)
    assert sgd.under(TrainingConfig()) == adamw


def test_micro_batches_hold_less_and_take_as_long(simulated: Callable[..., Simulated]) -> None:
    whole, parts = simulated("lora", rows=16), simulated("lora", rows=16, micro=4)
    assert parts.memory.activations < 0.4 * whole.memory.activations
    assert parts.step_seconds[16, 64] > 0.9 * whole.step_seconds[16, 64]


@pytest.mark.parametrize(
    "name",
    ["oft", "fourierft", "dora", "adalora", "pissa", "prefix-tuning", "parallel-adapter", "houlsby-adapter", "loha",
     "lokr"],
)  # fmt: skip
def test_methods_of_every_kind_can_be_simulated(simulated: Callable[..., Simulated], name: str) -> None:
    if name not in methods:
        pytest.skip(f"there is no method {name} yet")
    assert simulated(name).memory.activations > 100_000


def test_seconds_are_the_longer_of_computing_and_moving() -> None:
    assert _MACHINE.seconds(1e9, 0, 50, "float32") == pytest.approx(1 + 1e-6)
    assert _MACHINE.seconds(1e9, 0, 316.2, "float32") == pytest.approx(0.1, rel=0.01)
    assert _MACHINE.seconds(1e9, 10**11, 5000, "bfloat16") == pytest.approx(10 + 1e-6)


def test_a_machine_is_calibrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SECONDS", 0.2)
    first = calibrated("cpu", "here", tmp_path)
    monkeypatch.setattr(machine, "calibrate", None)
    assert calibrated("cpu", "here", tmp_path) == first
    assert min(first.products["float32"].values()) > 1e8
    assert first.call_seconds < 1e-3
