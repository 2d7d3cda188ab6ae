"""LoRA+: B learns at a multiple of A's rate, in the groups that peft's own optimiser makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from pydantic import ValidationError

from adaptlab.config import TrainingConfig
from adaptlab.methods import registry
from adaptlab.training import optimizers
from tests.contracts.method_checks import Bench, bench

RATE, RATIO = 1e-3, 16.0


@pytest.fixture
def on(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Bench]:
    return lambda family: bench(tiny_model_folder(family))


def rates(optimizer: torch.optim.Optimizer) -> dict[int, float]:
    return {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("name", ["lora", "rslora", "dora", "pissa"])
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_adapters_have_the_rates_that_peft_gives_them(name: str, family: str, on: Callable[[str], Bench]) -> None:
    attached = on(family).attach(registry.get(name), loraplus_lr_ratio=RATIO)
    model: Any = attached.model
    theirs = rates(
        create_loraplus_optimizer(model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=RATIO, loraplus_weight_decay=0.1)
    )
    ours = rates(optimizers.build(TrainingConfig(learning_rate=RATE, steps=1), attached))
    assert set(ours) == set(theirs)
    for parameter in attached.parameters.values():
        assert ours[id(parameter)] == pytest.approx(theirs[id(parameter)])
    assert set(ours.values()) == {RATE, RATE * RATIO}
    # PEFT takes the head's bias for a part of B
    assert all(ours[id(parameter)] == RATE for parameter in attached.head.values())


def test_embeddings_follow_the_same_rule(on: Callable[[str], Bench]) -> None:
    """PEFT gives both their matrices a rate of 1e-6, whatever the run's."""
    found, method = on("bert"), registry.get("lora")
    setup = found.setup(method, loraplus_lr_ratio=4)
    model = found.attach(registry.get("full")).model
    attached = method.attach(model, found.base.layout, type(setup)(setup.options, targets="embeddings"))
    factors = {name: g.rate_factor for g in method.parameter_groups(attached) for name in g.names}
    assert {name.rpartition(".")[2]: f for name, f in factors.items() if "lora" in name} == {
        "lora_embedding_A": 1.0,
        "lora_embedding_B": 4.0,
    }


def test_it_trains_and_is_no_setting_of_peft_s(on: Callable[[str], Bench], tmp_path: Path) -> None:
    found, method = on("bert"), registry.get("lora")
    plain, plus = (found.attach(method, **options) for options in ({}, {"loraplus_lr_ratio": 8}))
    losses = [found.train(attached, 5, rate=1e-3)[-1] for attached in (plain, plus)]
    assert losses[1] < losses[0]
    method.save(plus, tmp_path)
    assert "loraplus" not in (tmp_path / "adapter_config.json").read_text()


def test_a_ratio_below_one_is_refused_and_none_is_no_part_of_a_run() -> None:
    config = registry.get("lora").Config
    with pytest.raises(ValidationError, match="greater than 1"):
        config(loraplus_lr_ratio=0.5)
    assert "loraplus_lr_ratio" not in config().resolved()
    assert config(loraplus_lr_ratio=16).resolved()["loraplus_lr_ratio"] == 16
