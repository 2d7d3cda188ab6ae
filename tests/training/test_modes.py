"""Which modules stay in eval mode: those that finish before the first that trains starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from adaptlab.methods import registry
from adaptlab.training.dropout import KeyedDropout
from adaptlab.training.modes import Modes
from tests.training.conftest import TinyRun

WITH_DROPOUT = [
    (method.name, option)
    for method in registry.all()
    if method.trains and not method.generic
    for option in method.Config.model_fields
    if option.endswith("dropout")
]


class Layer(nn.Module):
    """A frozen layer, scaled by numbers that it may share with others."""

    def __init__(self, scale: nn.ParameterDict | None) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2).requires_grad_(False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return x if self.scale is None else x * self.scale["v"]


class Model(nn.Module):
    """Layers, of which some are scaled; the model itself holds the numbers too, as PEFT's tuners do."""

    def __init__(self, scaled: tuple[bool, ...]) -> None:
        super().__init__()
        self.scale = nn.ParameterDict({"v": nn.Parameter(torch.ones(2))})
        self.layers = nn.ModuleList(Layer(self.scale if one else None) for one in scaled)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("scaled", [(True, True, True), (False, True, True), (False, False, True)])
def test_numbers_that_layers_share_train_from_the_first_layer_on(scaled: tuple[bool, ...]) -> None:
    model = Model(scaled)
    modes = Modes(model, {"x": torch.ones(1, 2)})
    modes.train()
    assert tuple(layer.training for layer in model.layers) == scaled
    assert all(not layer.linear.training for layer, trains in zip(model.layers, scaled, strict=True) if not trains)
    modes.eval()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(("method", "option"), WITH_DROPOUT)
def test_a_method_s_own_dropout_is_drawn_in_every_layer_from_the_lowest_on(
    tiny_run: Callable[..., TinyRun], method: str, option: str
) -> None:
    run = tiny_run(method, options={option: 0.5}, steps=1, eval_every=1)
    dropped: dict[str, bool] = {}
    for name, module in run.member.attached.model.named_modules():
        if isinstance(module, KeyedDropout) and module.p == 0.5:
            dropped[name] = False

            def look(_: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                dropped[name] |= bool((output == 0).any())

            module.register_forward_hook(look)
    run.go()
    assert len(dropped) >= 4  # query and value of two blocks
    assert all(dropped.values()), dropped
