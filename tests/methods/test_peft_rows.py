"""The rows of PEFT's methods: sizes that fit, counts under other options, seeds and keys, what plain PEFT reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from adaptlab.errors import ConfigError
from adaptlab.methods import registry
from adaptlab.methods._base import Setup
from adaptlab.methods.peft_native import ROWS
from tests.contracts.method_checks import Bench, bench, differing, snapshot
from tests.methods.test_peft_native import OPT_125M, PLAIN_PEFT, ROBERTA_BASE, T5_BASE, attach, meta

NAMES = [*(row.name for row in ROWS), "adalora"]
#: What starts at random; the others start from constants, or from the base's own weights.
DRAWN = {"adalora", "c3a", "dora", "fourierft", "hra", "loha", "lokr", "lora", "rslora", "vblora"}


@pytest.fixture
def on(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Bench]:
    return lambda family: bench(tiny_model_folder(family))


OPT_LINEARS = "k_proj,q_proj,v_proj,out_proj,fc1,fc2"


@pytest.mark.parametrize(
    ("model_class", "config", "name", "targets", "options", "count"),
    [
        ("OPTForCausalLM", OPT_125M, "loha", OPT_LINEARS, {"r": 8}, 2_654_208),
        ("OPTForCausalLM", OPT_125M, "lokr", OPT_LINEARS, {"r": 8}, 98_304),
        ("T5ForConditionalGeneration", T5_BASE, "vera", "q,v", {"r": 256}, 73_728),
        ("RobertaForSequenceClassification", ROBERTA_BASE, "randlora", "all-linear", {"r": 64}, 718_848),
        ("RobertaForSequenceClassification", ROBERTA_BASE, "vera", "all-linear", {"r": 256}, 101_376),
    ],
)
def test_counts_equal_the_published_ones(
    model_class: str, config: Any, name: str, targets: str, options: dict[str, Any], count: int
) -> None:
    method, layout = registry.get(name), meta(model_class, config)
    assert method.trainable_count(layout, Setup(method.Config(**options), targets=targets)) == count


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lokr", {"r": 2, "decompose_both": True}),
        ("lokr", {"r": 3, "decompose_factor": 4}),
        ("lokr", {"r": 1, "decompose_factor": 5}),
        ("loha", {"r": 3}),
        ("oft", {"oft_block_size": 4}),
        ("oft", {"r": 4}),
        ("oft", {"r": 2, "block_share": True}),
        ("boft", {"boft_block_size": 8}),
        ("road", {"variant": "road_2"}),
        ("road", {"variant": "road_4", "group_size": 8}),
        ("c3a", {"block_size": 8}),
        ("miss", {"r": 5}),
        ("miss", {"r": 8, "init_weights": "bat"}),
        ("randlora", {"r": 5}),
        ("randlora", {"r": 40, "sparse": True}),
        ("fourierft", {"n_frequency": 50}),
        ("shira", {"r": 2}),
        ("vblora", {"vector_length": 8, "num_vectors": 6}),
        ("dora", {"r": 3}),
        ("adalora", {"init_r": 6, "target_r": 2}),
    ],
)
def test_the_closed_form_holds_under_other_options(
    name: str, options: dict[str, Any], family: str, on: Callable[[str], Bench]
) -> None:
    found, method = on(family), registry.get(name)
    attached = attach(found, name, targets="all-linear", **options)
    counted = sum(parameter.numel() for parameter in attached.parameters.values())
    setup = Setup(method.Config(**options), targets="all-linear")
    assert method.trainable_count(found.base.layout, setup) == counted
    assert torch.isfinite(found.logits(attached)).all()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("oft", {"oft_block_size": 24}, r"oft_block_size=24 does not divide.*\(32\).*2, 4, 8, 16, 32"),
        ("oft", {"r": 5}, "r=5 does not divide"),
        ("boft", {"boft_block_size": 5}, "boft_block_size=5 does not divide"),
        ("road", {"group_size": 48}, "group_size=48 does not divide"),
        ("c3a", {"block_size": 7}, "block_size=7 does not divide"),
        ("vblora", {"vector_length": 256}, "vector_length=256 does not divide"),
        ("miss", {"r": 64}, "r=64 is too large.*32 or less"),
        ("miss", {"r": 5, "init_weights": "bat"}, "r=5 does not divide"),
        ("miss", {"r": 8, "init_weights": "bat", "miss_dropout": 0.1}, "no effect"),
        ("shira", {"r": 17}, "r=17 is too large.*16 or less"),
        ("fourierft", {"n_frequency": 1025}, "n_frequency=1025 is too large.*1024 or less"),
        ("pissa", {"r": 33}, "r=33 is too large.*32 or less"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(
    name: str, options: dict[str, Any], said: str, on: Callable[[str], Bench]
) -> None:
    found, method = on("bert"), registry.get(name)
    with pytest.raises(ConfigError, match=said):
        attach(found, name, **options)
    with pytest.raises(ConfigError, match=said):
        method.trainable_count(found.base.layout, Setup(method.Config(**options)))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("oft", {"r": 4, "oft_block_size": 8}, "give one of them"),
        ("hra", {"r": 3}, "multiple of 2"),
        ("randlora", {"sparse": True, "very_sparse": True}, "give one of them"),
        ("vblora", {"topk": 9, "num_vectors": 8}, "cannot be chosen"),
        ("adalora", {"init_r": 8, "target_r": 8}, "must be below"),
    ],
)
def test_options_that_contradict_each_other_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        registry.get(name).Config(**options)


def test_default_sizes_divide_the_widths_of_every_target(on: Callable[[str], Bench]) -> None:
    layer = "base_model.model.model.layers.0.self_attn.v_proj"  # 32 to 16
    assert attach(on("llama"), "oft").model.get_submodule(layer).oft_block_size == {"default": 32}
    assert attach(on("llama"), "c3a").model.get_submodule(layer).block_size == {"default": 16}
    assert attach(on("llama"), "road").model.get_submodule(layer).group_size == {"default": 16}
    assert attach(on("llama"), "fourierft").model.get_submodule(layer).fourierft_n_frequency == {"default": 512}


@pytest.mark.parametrize("name", NAMES)
def test_the_run_s_seed_reaches_what_starts_at_random(name: str, on: Callable[[str], Bench]) -> None:
    found, method = on("bert"), registry.get(name)
    one, other = (found.attach(method, seed=seed) for seed in (0, 1))
    assert bool(differing(snapshot(one.parameters.items()), other.parameters.items())) == (name in DRAWN)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("vera", "projection_prng_key"),
        ("randlora", "projection_prng_key"),
        ("fourierft", "random_loc_seed"),
        ("shira", "random_seed"),
    ],
)
def test_fixed_parts_follow_their_own_key_and_not_the_run_s_seed(
    name: str, option: str, on: Callable[[str], Bench]
) -> None:
    found, method = on("bert"), registry.get(name)

    def output(seed: int, **options: Any) -> torch.Tensor:
        attached = found.attach(method, seed=seed, **options)
        torch.manual_seed(5)
        with torch.no_grad():
            for parameter in attached.parameters.values():
                parameter.normal_()
            layer = attached.model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
            return torch.as_tensor(layer(torch.ones(1, 32)))

    assert torch.equal(output(0), output(1))
    assert not torch.equal(output(0), output(0, **{option: 12}))


def test_vblora_s_bank_is_one_counted_and_saved_once(on: Callable[[str], Bench], tmp_path: Path) -> None:
    found, method = on("bert"), registry.get("vblora")
    attached = found.attach(method)
    assert [name for name in attached.parameters if "bank" in name] == ["base_model.vblora_vector_bank"]
    method.save(attached, tmp_path)
    assert set(load_file(tmp_path / "adapter_model.safetensors")) == set(attached.trained)


def test_pissa_starts_at_the_pretrained_model_and_leaves_the_shared_base_alone(on: Callable[[str], Bench]) -> None:
    found = on("bert")
    plain = found.attach(registry.get("head"))
    before = snapshot(found.base.model.named_parameters())
    pissa = found.attach(registry.get("pissa"))
    torch.testing.assert_close(found.logits(pissa), found.logits(plain), rtol=0, atol=1e-5)
    assert differing(before, found.base.model.named_parameters()) == []
    query = "bert.encoder.layer.0.attention.self.query"
    layer = pissa.model.get_submodule(f"base_model.model.{query}")
    weight = found.base.model.get_parameter(f"{query}.weight")
    assert not torch.equal(layer.base_layer.weight, weight)
    kept = torch.linalg.svdvals(layer.base_layer.weight)[:3]
    torch.testing.assert_close(kept, torch.linalg.svdvals(weight)[8:11])


def test_a_layer_of_another_kind_is_said_when_attaching_and_counting(on: Callable[[str], Bench]) -> None:
    found, method = on("gpt2"), registry.get("loha")
    said = "c_attn, a conv1d layer, and loha works on linear layers alone"
    with pytest.raises(ConfigError, match=said):
        attach(found, "loha", targets="query")
    with pytest.raises(ConfigError, match=said):
        method.trainable_count(found.base.layout, Setup(method.Config(), targets="all-linear"))


def test_plain_peft_loads_every_method(
    on: Callable[[str], Bench], tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    cases, expected = [], []
    for name, family in [*((n, "bert") for n in NAMES), *((n, "gpt2") for n in ("dora", "pissa", "vera", "adalora"))]:
        method, found = registry.get(name), on(family)
        attached = found.attach(method)
        found.train(attached, 3)
        folder = tmp_path / f"{name}-{family}"
        method.save(attached, folder)
        batch = {key: rows.tolist() for key, rows in found.inputs.items()}
        pad = found.base.tokenizer.pad_token_id
        cases.append({"base": str(tiny_model_folder(family)), "adapter": str(folder), "batch": batch, "pad": pad})
        expected.append(found.logits(attached))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    subprocess.run([sys.executable, "-W", "ignore", "-c", PLAIN_PEFT, str(tmp_path / "cases.json")], check=True)
    for case, logits in zip(cases, expected, strict=True):
        loaded = torch.load(case["adapter"] + "/logits.pt")
        torch.testing.assert_close(
            loaded, logits, rtol=0, atol=1e-5, msg=lambda m, case=case: f"{case['adapter']}: {m}"
        )
