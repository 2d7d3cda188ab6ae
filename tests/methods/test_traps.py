"""Traps that others fell into, one test each: what looked like training, saving or comparing, and was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from adaptlab.errors import ConfigError
from adaptlab.methods import registry
from adaptlab.methods._base import Method, Setup
from tests.contracts.method_checks import Bench, bench

CURATED = [method for method in registry.all() if not method.generic]
#: Another value for each option whose type does not give one; sizes fit 32 features.
OTHER: dict[str, dict[str, Any]] = {
    "adalora": {"init_r": 10, "target_r": 4, "tinit": 3, "tfinal": 8, "deltaT": 3, "beta1": 0.5, "beta2": 0.5},
    "boft": {"boft_block_size": 8},
    "c3a": {"block_size": 8, "init_weights": "gaussian"},
    "fourierft": {"n_frequency": 50},
    "hra": {"r": 4},
    "ia3": {"feedforward_modules": "value"},
    "lokr": {"r": 2, "decompose_factor": 2},
    "lora": {"loraplus_lr_ratio": 16.0, "init_lora_weights": "gaussian"},
    "dora": {"loraplus_lr_ratio": 16.0, "init_lora_weights": "gaussian"},
    "rslora": {"loraplus_lr_ratio": 16.0, "init_lora_weights": "gaussian"},
    "pissa": {"loraplus_lr_ratio": 16.0},
    "miss": {"init_weights": "bat"},
    "oft": {"oft_block_size": 8, "r": 8},
    "p-tuning": {"encoder_hidden_size": 8},
    "parallel-adapter": {"reduction_factor": 4, "bottleneck": 5},
    "houlsby-adapter": {"reduction_factor": 4, "bottleneck": 5},
    "pfeiffer-adapter": {"reduction_factor": 4, "bottleneck": 5},
    "partial": {"parameters": "query"},
    "prefix-tuning": {"init_weights": "zero"},
    "road": {"variant": "road_2", "group_size": 8},
    "shira": {"r": 4},
    "top-layers": {"n": 2},
    "vblora": {"vector_length": 8, "topk": 3},
}
#: What an option needs beside it to be an option at all.
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("oft", "block_share"): {"oft_block_size": 8},
    ("p-tuning", "encoder_num_layers"): {"encoder_reparameterization_type": "LSTM"},
    ("prefix-tuning", "encoder_hidden_size"): {"prefix_projection": True},
    ("miss", "init_weights"): {"r": 8},
    ("lokr", "decompose_both"): {"r": 1},
}
LARGER = {"encoder_num_layers": 3, "encoder_hidden_size": 8}


@pytest.fixture(scope="module")
def on(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Bench]:
    built: dict[str, Bench] = {}

    def build(family: str) -> Bench:
        if family not in built:
            built[family] = bench(tiny_model_folder(family))
        return built[family]

    return build


def _another(method: Method, option: str) -> Any:
    """A value that is not the option's default."""
    given = OTHER.get(method.name, {})
    if option in given:
        return given[option]
    default = method.Config.model_fields[option].default
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default // 2 if default > 1 else default + 1
    if isinstance(default, float):
        return default + (0.4 if default < 1 else 1)
    if isinstance(default, str):
        choices = method.Config.model_json_schema()["properties"][option]["enum"]
        return next(choice for choice in choices if choice != default)
    return LARGER[option]


OPTIONS = [(method.name, option) for method in CURATED for option in method.Config.model_fields]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_no_two_values_of_an_option_train_the_same(name: str, option: str, on: Callable[[str], Bench]) -> None:
    """An option that changes nothing would put the same runs into a table under two names."""
    found, method = on("bert"), registry.get(name)
    beside = BESIDE.get((name, option), {})
    losses = []
    for value in ({}, {option: _another(method, option)}):
        attached = found.attach(method, **{**beside, **value})
        rates = {g.rate_factor for g in method.parameter_groups(attached)}
        losses.append((found.train(attached, 12, rate=1e-2), found.loss(attached), rates))
    assert losses[0] != losses[1]


def test_options_that_would_have_no_effect_are_refused() -> None:
    for name, options in (
        ("p-tuning", {"encoder_num_layers": 3}),
        ("prefix-tuning", {"encoder_hidden_size": 8}),
        ("oft", {"r": 4, "oft_block_size": 8}),
        ("parallel-adapter", {"reduction_factor": 8, "bottleneck": 4}),
    ):
        with pytest.raises(ValueError, match=r"no effect|give one"):
            registry.get(name).Config(**options)


def test_sharing_a_single_block_is_refused(on: Callable[[str], Bench]) -> None:
    method, layout = registry.get("oft"), on("bert").base.layout
    for options in ({}, {"r": 1}, {"oft_block_size": 32}):
        with pytest.raises(ConfigError, match="block_share has no effect"):
            method.trainable_count(layout, Setup(method.Config(block_share=True, **options)))


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_an_adapter_where_no_gradient_flows_is_found(family: str, on: Callable[[str], Bench]) -> None:
    """T5's shared embedding only lends its weight, so what is attached to it never trains: it is no target's word."""
    found = on(family)
    assert found.base.layout.words["embeddings"] != ("transformer.shared",)
    for name in ("lora", "prefix-tuning", "prompt-tuning"):
        attached = found.attach(registry.get(name))
        found.train(attached, 2)
        assert all(p.grad is not None and p.grad.any() for p in attached.trained.values())


@pytest.mark.parametrize("family", ["distilbert", "t5", "gpt2"])
@pytest.mark.parametrize("name", ["lora", "ia3", "prompt-tuning", "parallel-adapter", "bitfit"])
def test_the_head_is_saved_and_saved_once(name: str, family: str, on: Callable[[str], Bench], tmp_path: Path) -> None:
    if (name, family) == ("bitfit", "t5"):
        pytest.skip("it has no biases")
    found, method = on(family), registry.get(name)
    method.save(found.attach(method), tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    for leaf in found.base.layout.head:
        assert sum(f".{key}".endswith(f".{leaf}") for key in saved) == 1


def test_alpha_is_divided_by_the_rank(on: Callable[[str], Bench]) -> None:
    attached = on("bert").attach(registry.get("lora"), r=4, lora_alpha=8)
    layer: Any = attached.model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
    layer.lora_B["default"].weight.data.normal_()
    x = torch.randn(2, 32)
    update = functional.linear(functional.linear(x, layer.lora_A["default"].weight), layer.lora_B["default"].weight)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + 8 / 4 * update)


@pytest.mark.parametrize("name", ["ia3", "lora", "hira"])
def test_a_target_that_matches_nothing_is_an_error_that_says_what_could(name: str, on: Callable[[str], Bench]) -> None:
    method, layout = registry.get(name), on("bert").base.layout
    with pytest.raises(ConfigError, match=r"'q_proj' matches nothing.*query.*attention\.self\.query"):
        method.trainable_count(layout, Setup(method.Config(), targets="q_proj"))


def test_tied_embeddings_are_not_adapted_twice(on: Callable[[str], Bench]) -> None:
    method, layout = registry.get("lora"), on("t5").base.layout
    with pytest.raises(ConfigError, match="are one weight"):
        method.trainable_count(layout, Setup(method.Config(), targets="embeddings"))


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "opt", "gpt2", "llama", "t5"])
def test_a_prefix_reaches_the_answers(family: str, on: Callable[[str], Bench]) -> None:
    """Caches of another make, or a model that ignores them, would leave the answers as they are."""
    found = on(family)
    one, other = (found.attach(registry.get("prefix-tuning"), seed=seed) for seed in (0, 1))
    with torch.no_grad():
        for name, parameter in other.head.items():
            parameter.copy_(one.head[name])
    assert not torch.allclose(found.logits(one), found.logits(other), atol=1e-4)


def test_what_no_prefix_reaches_is_refused_before_anything_is_loaded(on: Callable[[str], Bench]) -> None:
    method = registry.get("prefix-tuning")
    for family in ("mpnet", "deberta-v2"):
        with pytest.raises(ConfigError, match="choose prompt-tuning"):
            method.trainable_count(on(family).base.layout, Setup(method.Config()))


@pytest.mark.parametrize("name", ["prompt-tuning", "p-tuning"])
def test_a_decoder_s_head_reads_the_last_token_and_not_the_last_position(name: str, on: Callable[[str], Bench]) -> None:
    found = on("opt")
    attached = found.attach(registry.get(name), num_virtual_tokens=3)
    attached.model.eval()
    ids = torch.arange(10, 16)[None]
    padded = torch.cat((ids, torch.full((1, 4), found.base.tokenizer.pad_token_id)), dim=1)
    mask = torch.tensor([[1] * 6 + [0] * 4])
    with torch.no_grad():
        alone = attached.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        beside_padding = attached.model(input_ids=padded, attention_mask=mask).logits
    torch.testing.assert_close(beside_padding, alone, rtol=0, atol=1e-5)


def test_adalora_s_schedule_needs_steps_and_gets_the_run_s(on: Callable[[str], Bench]) -> None:
    found, method = on("bert"), registry.get("adalora")
    config: Any = found.attach(method).model.peft_config["default"]  # type: ignore[index,union-attr]
    assert config.total_step == 20  # the bench's
    with pytest.raises(ConfigError, match="leave none"):
        found.attach(method, tinit=10, tfinal=10)


def test_oft_s_block_size_is_not_changed_behind_one_s_back(on: Callable[[str], Bench]) -> None:
    """PEFT takes the nearest size that fits, whatever was asked for."""
    found, method = on("bert"), registry.get("oft")
    with pytest.raises(ConfigError, match="does not divide"):
        found.attach(method, oft_block_size=24)
    layer: Any = found.attach(method, oft_block_size=8).model.get_submodule(
        "base_model.model.bert.encoder.layer.0.attention.self.query"
    )
    assert layer.oft_block_size["default"] == 8
    assert layer.r["default"] == 32 // 8


@pytest.mark.parametrize("name", ["lora", "prefix-tuning", "prompt-tuning", "p-tuning", "houlsby-adapter", "hira"])
def test_the_seed_reaches_the_adapter_s_start(name: str, on: Callable[[str], Bench]) -> None:
    found, method = on("bert"), registry.get(name)
    starts = []
    for seed in (0, 0, 1):
        torch.manual_seed(99)  # nothing may depend on what was drawn before
        starts.append([p.detach().clone() for p in found.attach(method, seed=seed).parameters.values()])
    assert all(torch.equal(a, b) for a, b in zip(starts[0], starts[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(starts[0], starts[2], strict=True))
