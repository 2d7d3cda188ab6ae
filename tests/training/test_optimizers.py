"""Every optimiser trains, resumes to the bit, spares biases and norms, and gives the head a rate of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch

from adaptlab.config import Optimizer
from adaptlab.errors import InterruptedRunError
from adaptlab.training import checkpoint

from .conftest import TinyRun

Build = Callable[..., TinyRun]
RATES = {"sgd": 1.0, "sgd-momentum": 0.1, "sgd-nesterov": 0.1, "lion": 1e-3}


def needs_library(name: str) -> None:
    if name in ("lion", "adamw-8bit"):
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is an extra")


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_every_optimizer_learns(tiny_run: Build, name: str) -> None:
    needs_library(name)
    rate = RATES.get(name, 1e-2)
    losses = tiny_run("full", optimizer=name, learning_rate=rate, steps=30, schedule="constant").go().losses
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_every_optimizer_resumes_to_the_bit(tiny_run: Build, tmp_path: Path, name: str) -> None:
    needs_library(name)
    settings = {"optimizer": name, "learning_rate": RATES.get(name, 1e-2), "schedule": "reduce-on-plateau"}
    whole = tiny_run("full", **settings).go()
    broken = tiny_run("full", **settings)
    with pytest.raises(InterruptedRunError):
        broken.go(stop_after=7, save=lambda member: checkpoint.save(member, tmp_path / "checkpoint"))
    resumed = tiny_run("full", **settings)
    assert checkpoint.load(resumed.member, tmp_path / "checkpoint")
    resumed.go()
    assert broken.losses + resumed.losses == whole.losses
    assert all(torch.equal(p, resumed.member.trained[n]) for n, p in whole.member.trained.items())


def test_the_head_has_a_rate_of_its_own(tiny_run: Build) -> None:
    run = tiny_run("lora", head_learning_rate=0.5, weight_decay=0.1)
    rates = {id(p): g["peak_rate"] for g in run.member.optimizer.param_groups for p in g["params"]}
    assert {rates[id(p)] for p in run.member.attached.head.values()} == {0.5}
    assert {rates[id(p)] for p in run.member.attached.parameters.values()} == {1e-2}


def test_weight_decay_spares_biases_and_norms(tiny_run: Build) -> None:
    run = tiny_run("full", weight_decay=0.1)
    for group in run.member.optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.1 if parameter.ndim >= 2 else 0.0)
