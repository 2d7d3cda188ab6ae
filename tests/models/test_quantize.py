"""Quantised bases: what is quantised, what stays, what copies share, and what runs on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptlab.config import ModelConfig
from adaptlab.errors import ConfigError
from adaptlab.methods import registry
from adaptlab.methods._base import Attached, Setup
from adaptlab.models import quantize
from adaptlab.models.load import Base, fresh_model, load_base, skeleton
from adaptlab.training.precision import Precision
from tests.contracts.method_checks import LABELS, Bench, bench, differing, snapshot

pytest.importorskip("bitsandbytes")

FAMILIES = ("bert", "llama", "gpt2", "t5")
both = pytest.mark.parametrize("how", ["4bit", "8bit"])
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def bench_of(blocks_of_64: Callable[[str], Path]) -> Callable[[str, str], Bench]:
    built: dict[tuple[str, str], Bench] = {}

    def build(family: str, how: str) -> Bench:
        if (family, how) not in built:
            built[family, how] = bench(blocks_of_64(family), quantize=how)
        return built[family, how]

    return build


def lora(found: Bench, **options: Any) -> Attached:
    return found.attach(registry.get("lora"), **options)


@both
@every_family
def test_the_linears_of_the_blocks_are_quantised_and_nothing_else(
    family: str, how: str, bench_of: Callable[[str, str], Bench]
) -> None:
    base = bench_of(family, how).base
    found = [name for name, module in base.model.named_modules() if quantize.is_quantised(module)]
    assert tuple(found) == quantize.quantised_layers(base.model, base.layout)
    kept = {name for name in base.layout.words["all-linear"] if name not in found}
    assert all(name.endswith(".wo") for name in kept)
    assert bool(kept) == (family == "t5")
    dtypes = {p.dtype for n, p in base.model.named_parameters() if n.removesuffix(".weight") not in found}
    assert dtypes == {torch.float32}


@both
@every_family
def test_what_is_planned_without_weights_is_what_is_loaded(
    family: str, how: str, bench_of: Callable[[str, str], Bench]
) -> None:
    base = bench_of(family, how).base
    model, layout = skeleton(base.config, num_labels=LABELS)
    assert layout == base.layout
    assert quantize.quantised_layers(model, layout) == quantize.quantised_layers(base.model, base.layout)


@both
def test_bytes_are_those_in_memory(how: str, bench_of: Callable[[str, str], Bench]) -> None:
    base = bench_of("bert", how).base
    held = sum(p.numel() * p.element_size() for p in base.model.parameters())
    for module in base.model.modules():
        scales = module.state.SCB if how == "8bit" and hasattr(module, "state") else None
        scales = module.quant_state.absmax if how == "4bit" and hasattr(module, "quant_state") else scales
        held += 0 if scales is None else scales.numel() * scales.element_size()
    names = quantize.quantised_layers(base.model, base.layout)
    assert quantize.base_bytes(base.layout, names, how) == held
    assert quantize.base_bytes(base.layout, names, "none") == 4 * sum(map(base.layout.count, base.layout.parameters))


@both
@every_family
def test_lora_learns_and_every_trained_number_gets_a_gradient_after_an_evaluation_too(
    family: str, how: str, bench_of: Callable[[str, str], Bench]
) -> None:
    found = bench_of(family, how)
    attached = lora(found)
    before = found.loss(attached)  # an evaluation: bitsandbytes may repack weights for it
    found.train(attached, 10)
    assert found.loss(attached) < 0.95 * before
    found.train(attached, 1)
    assert [n for n, p in attached.trained.items() if p.grad is None or not p.grad.any()] == []


@both
def test_copies_share_the_quantised_weights_and_leave_them_alone(
    how: str, bench_of: Callable[[str, str], Bench]
) -> None:
    found = bench_of("bert", how)
    base = found.base
    name = quantize.quantised_layers(base.model, base.layout)[0]
    before = quantize.dequantised(base.model.get_submodule(name)).clone()
    first, second = lora(found), lora(found, seed=1)
    codes = [fresh_model(base, share=share).get_submodule(name).weight for share in (True, False)]
    assert codes[0] is base.model.get_submodule(name).weight
    assert codes[1].data_ptr() != codes[0].data_ptr()
    assert torch.equal(codes[1].data, codes[0].data)
    found.train(first, 3)
    alone = found.logits(second)
    found.train(first, 3)
    assert torch.equal(found.logits(second), alone)
    assert torch.equal(quantize.dequantised(base.model.get_submodule(name)), before)


@both
def test_dequantised_weights_are_close_to_what_they_stand_for(
    how: str, bench_of: Callable[[str, str], Bench], blocks_of_64: Callable[[str], Path]
) -> None:
    plain, found = bench(blocks_of_64("bert")).base, bench_of("bert", how).base
    for name in quantize.quantised_layers(found.model, found.layout):
        weight, codes = plain.model.get_submodule(name).weight, found.model.get_submodule(name)
        error = (quantize.dequantised(codes) - weight).norm() / weight.norm()
        assert 0 < error < (0.15 if how == "4bit" else 0.02)


@both
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_precision_casts_around_quantised_layers(how: str, dtype: str, bench_of: Callable[[str, str], Bench]) -> None:
    found = bench_of("bert", how)
    plain = found.logits(lora(found))
    attached = lora(found)
    precision = Precision(dtype, "cpu")
    precision.prepare(attached, {})
    quantised = [m for m in attached.model.modules() if quantize.is_quantised(m)]
    assert quantised
    assert all(not m.weight.dtype.is_floating_point for m in quantised)
    with precision.autocast(), torch.no_grad():
        attached.model.eval()
        close = attached.model(**found.inputs).logits
    torch.testing.assert_close(close.float(), plain, rtol=0, atol=0.3 if dtype == "bfloat16" else 0)
    attached.model.train()
    with precision.autocast():
        attached.model(**found.inputs, labels=found.labels).loss.backward()
    assert [n for n, p in attached.trained.items() if p.grad is None] == []


@both
def test_saving_and_loading_gives_the_same_logits(
    how: str, bench_of: Callable[[str, str], Bench], tmp_path: Path
) -> None:
    found = bench_of("bert", how)
    attached, other = lora(found), lora(found, seed=1)
    found.train(attached, 3)
    attached.method.save(attached, tmp_path)
    other.method.load(other, tmp_path)
    assert torch.equal(found.logits(other), found.logits(attached))


@both
@pytest.mark.parametrize(
    ("method", "options", "refused"),
    [
        ("full", {}, True),
        ("top-layers", {"n": 1}, True),
        ("partial", {"parameters": (r".*query\.weight",)}, True),
        ("partial", {"parameters": (r".*query\.bias",)}, False),
        ("bitfit", {}, False),
        ("layer-norm", {}, False),
        ("head", {}, False),
        ("pfeiffer-adapter", {}, False),
    ],
)
def test_methods_that_train_quantised_weights_are_refused_without_loading(
    method: str, options: dict[str, Any], refused: bool, how: str, blocks_of_64: Callable[[str], Path]
) -> None:
    plugin = registry.get(method)
    model, layout = skeleton(ModelConfig(id=str(blocks_of_64("bert")), quantize=how), num_labels=LABELS)
    trained = plugin.trains_of_base(layout, Setup(plugin.Config(**options)))
    why = quantize.refusal(model, layout, how, trained, method)
    assert (why is not None) == refused
    if why is not None:
        assert f"{method} trains weights of the base itself (bert.encoder.layer." in why
        assert f"a base in {how} stores as codes" in why


@both
def test_biases_and_norms_of_a_quantised_base_can_be_trained(how: str, bench_of: Callable[[str, str], Bench]) -> None:
    found = bench_of("bert", how)
    before = snapshot(found.base.model.named_parameters())
    for name in ("bitfit", "layer-norm", "pfeiffer-adapter"):
        attached = found.attach(registry.get(name))
        at_first = found.loss(attached)
        found.train(attached, 20)
        assert found.loss(attached) < at_first
        assert [n for n, p in attached.trained.items() if p.grad is None or not p.grad.any()] == []
    assert differing(before, found.base.model.named_parameters()) == []


def test_without_bitsandbytes_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, blocks_of_64: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    config = ModelConfig(id=str(blocks_of_64("bert")), quantize="4bit")
    with pytest.raises(ConfigError, match=r"needs bitsandbytes.*pip install 'adaptlab\[quantize\]'"):
        load_base(config, num_labels=2, regression=False, device="cpu")


def test_widths_whose_4_bit_scales_a_cpu_misreads_are_refused(tiny_model_folder: Callable[[str], Path]) -> None:
    config = ModelConfig(id=str(tiny_model_folder("bert")), quantize="4bit")
    with pytest.raises(ConfigError, match=r"32 inputs.*multiple of 64.*use 8bit"):
        load_base(config, num_labels=2, regression=False, device="cpu")


def test_a_pooler_that_the_checkpoint_has_stays_as_it_is(minilm_folder: Path) -> None:
    base: Base = load_base(
        ModelConfig(id=str(minilm_folder), quantize="4bit"), num_labels=2, regression=False, device="cpu"
    )
    assert not quantize.is_quantised(base.model.get_submodule("bert.pooler.dense"))
    assert len(quantize.quantised_layers(base.model, base.layout)) == 36
