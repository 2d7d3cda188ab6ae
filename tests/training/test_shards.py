"""What one of four processes holds of a model whose weights are cut, and that the plan says the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor

from adaptlab.config import ExecutionConfig, MethodConfig, ModelConfig, RunConfig, TaskConfig, TrainingConfig
from adaptlab.forecast import sharded
from adaptlab.methods._base import Attached
from adaptlab.models.load import Base, load_base
from adaptlab.simulating import Memory
from adaptlab.training.precision import Precision
from adaptlab.training.ranks import Together, among
from adaptlab.workshop import Workshop, attach

NOTHING = Memory(base=0, copies=0, trained=0, gradients=0, optimizer=0, best=0, activations=0, logits=0, answering=0)


@pytest.fixture
def first_of_four() -> Iterator[None]:
    """This process is the first of four, of which the others are not there: nothing is sent."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    try:
        with among(Together(torch.device("cpu"))):
            yield
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture
def cut(
    first_of_four: None, tiny_model_folder: Callable[[str], Path]
) -> Callable[..., tuple[Attached, Base, RunConfig]]:
    def build(method: str, dtype: str) -> tuple[Attached, Base, RunConfig]:
        config = RunConfig(
            model=ModelConfig(id=str(tiny_model_folder("bert"))),
            task=TaskConfig(name="t"),
            method=MethodConfig(name=method),
            training=TrainingConfig(dtype=dtype, steps=1, learning_rate=1e-3),
        )
        workshop = Workshop(ExecutionConfig(device="cpu", devices_per_run=4, shard=True), lambda event: None)
        assert workshop.shards
        base = load_base(config.model, num_labels=2, regression=False, device="cpu")
        attached = attach(base, config)
        Precision(dtype, "cpu").prepare(attached, workshop.casts)
        workshop.shard(attached, base)
        assert not workshop.casts
        assert all(parameter.is_meta for parameter in base.model.parameters())
        return attached, base, config

    return build


def held_bytes(parameter: torch.Tensor) -> int:
    return int((parameter.to_local() if isinstance(parameter, DTensor) else parameter).nbytes)


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2)])
def test_of_a_frozen_block_a_process_holds_its_part(
    cut: Callable[..., tuple[Attached, Base, RunConfig]], dtype: str, width: int
) -> None:
    attached, base, config = cut("lora", dtype)
    layout = base.layout
    inside = tuple(f"{block}." for block in layout.blocks)
    matrices = sum(layout.count(n) for n in layout.parameters if n.startswith(inside) and "Norm" not in n)
    frozen = [p for n, p in attached.model.named_parameters() if not p.requires_grad and "Norm" not in n]
    assert sum(held_bytes(p) for p in frozen if isinstance(p, DTensor)) == width * matrices // 4
    assert not any(isinstance(parameter, DTensor) for parameter in attached.trained.values())
    assert all(parameter.dtype == torch.float32 for parameter in attached.trained.values())
    planned = sharded(NOTHING, config, layout, 4)
    everything = [p for n, p in attached.model.named_parameters() if "lora" not in n and "modules_to_save" not in n]
    assert sum(map(held_bytes, everything)) == pytest.approx(planned.base, rel=0.05)  # norms stay float32


def test_weights_of_the_base_that_train_are_cut_with_everything_else(
    cut: Callable[..., tuple[Attached, Base, RunConfig]],
) -> None:
    attached, base, config = cut("full", "bfloat16")
    count = sum(base.layout.count(name) for name in base.layout.parameters)
    assert all(isinstance(parameter, DTensor) for parameter in attached.model.parameters())
    assert all(parameter.requires_grad for parameter in attached.trained.values())
    assert sum(parameter.numel() for parameter in attached.trained.values()) == count
    held = sum(map(held_bytes, attached.trained.values()))
    assert held == pytest.approx(4 * count / 4, rel=0.05)  # float32 masters; what has 2 rows cannot be cut in 4
    planned = sharded(replace(NOTHING, trained=4 * count, gradients=4 * count), config, base.layout, 4)
    assert held == pytest.approx(planned.trained, rel=0.05)
    assert planned.base == 0
