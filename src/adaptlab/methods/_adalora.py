"""AdaLoRA: PEFT's allocator moves rank to where it matters, driven by the hooks of the training loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from adaptlab.errors import ConfigError
from adaptlab.methods._base import Attached, LearningRates, MethodOptions, Setup
from adaptlab.methods._peft import ADAPTER, PeftMethod, Row
from adaptlab.methods._peft_fixed_parts import ALL_LINEAR
from adaptlab.methods._peft_low_rank import LORA_ALIASES
from adaptlab.models._base import Layer, Layout

if TYPE_CHECKING:
    from torch import Tensor, nn


class AdaLoraOptions(MethodOptions):
    init_r: int = Field(12, ge=2, description="rank of each target at the start")
    target_r: int = Field(8, ge=1, description="rank of the targets at the end, on average")
    lora_alpha: int = Field(16, ge=1, description="the update is scaled by lora_alpha / init_r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    tinit: int | None = Field(None, ge=0, description="steps before ranks fall; by default a tenth of all")
    tfinal: int | None = Field(None, ge=0, description="steps at the end with ranks fixed; by default a third of all")
    deltaT: int = Field(1, ge=1, description="steps from one allocation to the next")  # noqa: N815 (PEFT's name)
    beta1: float = Field(0.85, gt=0, lt=1, description="smoothing of the importance")
    beta2: float = Field(0.85, gt=0, lt=1, description="smoothing of its uncertainty")
    orth_reg_weight: float = Field(0.5, ge=0, description="weight of the loss that keeps the directions orthogonal")

    @model_validator(mode="after")
    def _ranks_fall(self) -> Self:
        if self.target_r >= self.init_r:
            raise ValueError(f"target_r={self.target_r} must be below init_r={self.init_r}: ranks fall in training")
        return self


def _count(layer: Layer, options: Any) -> int:
    """init_r singular values with their two directions; those given up are zero, but still there."""
    return int(options.init_r) * (layer.inputs + layer.outputs + 1)


def schedule(options: AdaLoraOptions, total_steps: int | None) -> dict[str, int]:
    """PEFT's ``total_step``, ``tinit`` and ``tfinal``; without steps (only loading) one that is never followed.

    Raises:
        ConfigError: no step is left in which ranks could fall.
    """
    if total_steps is None:
        return {"total_step": 1, "tinit": 0, "tfinal": 0}
    tinit = total_steps // 10 if options.tinit is None else options.tinit
    tfinal = total_steps // 3 if options.tfinal is None else options.tfinal
    if tinit + tfinal >= total_steps:
        raise ConfigError(
            f"AdaLoRA's ranks fall between tinit={tinit} and tfinal={tfinal} steps before the end, and {total_steps} "
            f"steps leave none: give smaller ones, or train for longer."
        )
    return {"total_step": total_steps, "tinit": tinit, "tfinal": tfinal}


class AdaLora(PeftMethod):
    """LoRA as ``P diag(e) Q`` whose singular values ``e`` are given up where they matter least.

    ``Attached.state`` holds what the allocator remembers beside the weights: the smoothed importance and uncertainty of
    every adapter weight, and which singular values are kept. PEFT's own ``rank_pattern`` is set during a step alone:
    with one, PEFT would save the ranks of the last step with the weights of the best.
    """

    def __init__(self) -> None:
        super().__init__(ROW)

    def attach(self, model: nn.Module, layout: Layout, setup: Setup) -> Attached:
        import torch
        from peft.tuners._buffer_dict import BufferDict
        from peft.tuners.adalora.layer import AdaLoraLayer

        attached = super().attach(model, layout, setup)
        for layer in attached.model.modules():
            if isinstance(layer, AdaLoraLayer):  # a constant in the scale, which PEFT keeps as a parameter
                constants = {name: number.detach() for name, number in layer.ranknum.items()}
                layer.ranknum = BufferDict(constants, persistent=False)
        for name, parameter in _adapter_weights(attached):
            attached.state[f"{name}/importance"] = torch.zeros_like(parameter, requires_grad=False)
            attached.state[f"{name}/uncertainty"] = torch.zeros_like(parameter, requires_grad=False)
            if ".lora_E." in name:
                attached.state[f"{name}/kept"] = torch.ones_like(parameter, dtype=torch.bool, requires_grad=False)
        return attached

    def save(self, attached: Attached, folder: Path) -> None:
        config = _config(attached)
        config.orth_reg_weight = attached.setup.options.orth_reg_weight  # type: ignore[attr-defined]
        super().save(attached, folder)
        config.orth_reg_weight = 0.0

    def before_training(self, attached: Attached, total_steps: int | None) -> None:
        import torch

        if total_steps is None:
            raise ConfigError(
                "AdaLoRA's ranks fall until a step that must be known, and --max-seconds alone does not tell it: give "
                "--max-flops, --max-tokens or --epochs besides."
            )

        options = attached.setup.options
        assert isinstance(options, AdaLoraOptions)
        for name, steps in schedule(options, total_steps).items():
            setattr(_config(attached), name, steps)
        allocator = _tuner(attached).rankallocator
        for name, parameter in _adapter_weights(attached):
            allocator.ipt[name] = torch.zeros_like(parameter, requires_grad=False)
            allocator.exp_avg_ipt[name] = attached.state[f"{name}/importance"].clone()
            allocator.exp_avg_unc[name] = attached.state[f"{name}/uncertainty"].clone()

    def extra_loss(self, attached: Attached) -> Tensor | None:
        """The mean distance of every ``P^T P`` and ``Q Q^T`` from the identity, weighted."""
        import torch

        weight = attached.setup.options.orth_reg_weight  # type: ignore[attr-defined]
        if not weight:
            return None
        distances = []
        for name, parameter in _adapter_weights(attached):
            if ".lora_E." not in name:
                product = parameter @ parameter.T if ".lora_A." in name else parameter.T @ parameter
                distances.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)))
        return float(weight) * torch.stack(distances).mean()

    def after_step(self, attached: Attached, step: int) -> None:
        import torch

        config, tuner, state = _config(attached), _tuner(attached), attached.state
        if step > config.total_step - config.tfinal:
            config.rank_pattern = {
                name.removesuffix("/kept"): kept.view(-1).tolist()
                for name, kept in state.items()
                if name.endswith("/kept")
            }
        tuner.update_and_allocate(step)
        allocator = tuner.rankallocator
        for name, importance in allocator.exp_avg_ipt.items():
            state[f"{name}/importance"].copy_(importance)
            state[f"{name}/uncertainty"].copy_(allocator.exp_avg_unc[name])
        for name, kept in (config.rank_pattern or {}).items():
            state[f"{name}/kept"].copy_(torch.tensor(kept).view(-1, 1))
        config.rank_pattern = None

    def _settle(self, layout: Layout, names: tuple[str, ...], setup: Setup) -> tuple[Any, dict[str, Any]]:
        options, settings = super()._settle(layout, names, setup)
        # PEFT adds its loss inside the model where labels are given; ours is extra_loss, whoever makes the loss.
        return options, {**settings, **schedule(options, setup.total_steps), "orth_reg_weight": 0.0}


def _tuner(attached: Attached) -> Any:
    model: Any = attached.model
    return model.base_model


def _config(attached: Attached) -> Any:
    return _tuner(attached).peft_config[ADAPTER]


def _adapter_weights(attached: Attached) -> list[tuple[str, nn.Parameter]]:
    """P, Q and e of every target, under the allocator's names."""
    return [
        (name, parameter)
        for name, parameter in _tuner(attached).model.named_parameters()
        if any(f".{part}.{ADAPTER}" in name for part in ("lora_A", "lora_B", "lora_E"))
    ]


ROW = Row(
    name="adalora",
    summary="low-rank updates whose ranks fall in training, and stay where they matter",
    paper="Zhang et al. 2023, arXiv 2303.10512",
    peft_type="ADALORA",
    options=AdaLoraOptions,
    aliases=LORA_ALIASES,
    learning_rates=LearningRates(default=2e-2, low=5e-4, high=5e-2),
    count=_count,
    family_targets={**ALL_LINEAR, "roberta": ("all-linear",)},
    layer_kinds=("linear", "conv1d"),
)
