"""Methods of PEFT's: where they sit, how many numbers they train, and that PEFT alone reads what is saved."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from adaptlab.config import HeadMode
from adaptlab.errors import ConfigError, ModelError
from adaptlab.methods import registry
from adaptlab.methods._base import Setup
from adaptlab.methods._peft import PeftMethod
from adaptlab.methods.peft_native import ROWS
from adaptlab.models.families import describe
from tests.contracts.method_checks import Bench, bench

PLAIN_PEFT = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
for case in json.load(open(sys.argv[1])):
    torch.manual_seed(99)
    model = AutoModelForSequenceClassification.from_pretrained(case["base"], num_labels=3, dtype=torch.float32)
    model.config.pad_token_id = case["pad"]
    model = PeftModel.from_pretrained(model, case["adapter"]).eval()
    batch = {name: torch.tensor(rows) for name, rows in case["batch"].items()}
    torch.save(model(**batch).logits.detach(), case["adapter"] + "/logits.pt")
assert not [name for name in sys.modules if name.startswith("adaptlab")]
"""


@pytest.fixture
def on(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Bench]:
    return lambda family: bench(tiny_model_folder(family))


def attach(bench: Bench, name: str, *, targets: Any = None, head: HeadMode = "trained", **options: Any) -> Any:
    method = registry.get(name)
    model = bench.attach(registry.get("full")).model  # a copy of its own, head drawn from the seed
    return method.attach(model, bench.base.layout, Setup(method.Config(**options), targets=targets, head=head))


def test_plain_peft_loads_what_was_saved_in_a_process_without_adaptlab(
    on: Callable[[str], Bench], tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    cases, expected = [], []
    for name, family, head in product(("lora", "ia3"), ("distilbert", "t5", "gpt2"), ("trained", "frozen", "adapted")):
        method, found = registry.get(name), on(family)
        attached = found.attach(method, head=head)
        found.train(attached, 2, rate=1e-2)
        folder = tmp_path / f"{name}-{family}-{head}"
        method.save(attached, folder)
        batch = {key: rows.tolist() for key, rows in found.inputs.items()}
        pad = found.base.tokenizer.pad_token_id
        cases.append({"base": str(tiny_model_folder(family)), "adapter": str(folder), "batch": batch, "pad": pad})
        expected.append(found.logits(attached))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    subprocess.run([sys.executable, "-W", "ignore", "-c", PLAIN_PEFT, str(tmp_path / "cases.json")], check=True)
    for case, logits in zip(cases, expected, strict=True):
        torch.testing.assert_close(torch.load(case["adapter"] + "/logits.pt"), logits, rtol=0, atol=1e-6)


def test_an_adapter_folder_is_the_same_bytes_and_names_no_path(on: Callable[[str], Bench], tmp_path: Path) -> None:
    found, method = on("bert"), registry.get("ia3")
    for name in ("one", "two"):
        method.save(found.attach(method), tmp_path / name)
    config = (tmp_path / "one" / "adapter_config.json").read_text()
    assert config == (tmp_path / "two" / "adapter_config.json").read_text()
    document = json.loads(config)
    assert document["base_model_name_or_path"] == "bert"
    assert document["modules_to_save"] == ["classifier", "score"]
    assert document["target_modules"] == sorted(document["target_modules"])


def test_the_head_is_saved_once_in_families_whose_head_peft_does_not_know(
    on: Callable[[str], Bench], tmp_path: Path
) -> None:
    for family in ("distilbert", "t5", "deberta-v2"):
        found, method = on(family), registry.get("lora")
        method.save(found.attach(method), tmp_path / family)
        saved = set(load_file(tmp_path / family / "adapter_model.safetensors"))
        assert {name for name in saved if "lora_" not in name} == {
            f"base_model.model.{name}" for name in found.base.layout.head
        }


@pytest.mark.parametrize(("rank", "alpha", "rslora"), [(4, 8, False), (8, 4, False), (4, 8, True)])
def test_the_update_is_scaled_by_alpha_over_r(rank: int, alpha: int, rslora: bool, on: Callable[[str], Bench]) -> None:
    found = on("bert")
    attached = attach(found, "lora", targets="query", r=rank, lora_alpha=alpha, use_rslora=rslora)
    layer = attached.model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
    a, b = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
    b.normal_()
    x = torch.randn(3, found.base.layout.hidden_size)
    scale = alpha / (rank**0.5 if rslora else rank)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + scale * (x @ a.T @ b.T))


def test_ia3_scales_what_the_paper_says(on: Callable[[str], Bench]) -> None:
    attached = attach(on("bert"), "ia3")
    names = {
        name.removeprefix("base_model.model.bert.encoder.layer.").removesuffix(".ia3_l") for name in attached.parameters
    }
    places = ("attention.self.key", "attention.self.value", "output.dense")
    assert names == {f"{block}.{place}" for block in range(2) for place in places}
    for block in range(2):  # the feed-forward's factor is on its input, 64 wide
        shape = attached.parameters[f"base_model.model.bert.encoder.layer.{block}.output.dense.ia3_l"].shape
        assert shape == (1, 64)


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_targets_that_match_nothing_are_refused_with_what_could(name: str, on: Callable[[str], Bench]) -> None:
    with pytest.raises(
        ConfigError, match=r"'q_proj' matches nothing in this bert model.*query.*attention\.self\.query"
    ):
        attach(on("bert"), name, targets="q_proj")


def test_a_word_for_a_part_of_a_fused_module_is_said(on: Callable[[str], Bench]) -> None:
    attached = attach(on("gpt2"), "lora")
    assert attached.warnings == [
        "In gpt2, query and value name a part of the fused module c_attn, which holds query, key, value: "
        "the whole module is adapted."
    ]
    assert attach(on("bert"), "lora").warnings == []


def test_tied_embeddings_are_adapted_once_and_said_or_refused(on: Callable[[str], Bench]) -> None:
    with pytest.raises(ConfigError, match=r"are one weight.*name only one"):
        attach(on("t5"), "lora", targets="embeddings")
    attached = attach(on("t5"), "lora", targets="transformer.encoder.embed_tokens")
    assert "shares its weight with transformer.shared, transformer.decoder.embed_tokens" in attached.warnings[0]


@pytest.mark.parametrize("family", ["bert", "opt", "gpt2"])
def test_embeddings_can_be_adapted_and_saved_without_the_base(
    family: str, on: Callable[[str], Bench], tmp_path: Path
) -> None:
    found, method = on(family), registry.get("lora")
    attached = attach(found, "lora", targets="embeddings", r=2)
    setup = Setup(method.Config(r=2), targets="embeddings")
    assert sum(p.numel() for p in attached.parameters.values()) == 2 * (400 + 32)
    assert method.trainable_count(found.base.layout, setup) == 2 * (400 + 32)
    found.train(attached, 2)
    assert all(p.grad is not None for p in attached.parameters.values())
    method.save(attached, tmp_path)
    assert sum(t.numel() for t in load_file(tmp_path / "adapter_model.safetensors").values()) == 2 * 432 + sum(
        p.numel() for p in attached.head.values()
    )


def test_a_head_among_the_targets_needs_an_adapted_head(on: Callable[[str], Bench]) -> None:
    with pytest.raises(ConfigError, match="use --head adapted"):
        attach(on("bert"), "lora", targets="query,head")
    attached = attach(on("bert"), "lora", targets="query", head="adapted")
    assert attached.head == {}
    assert any(name.startswith("base_model.model.classifier.lora_A") for name in attached.parameters)


def test_weights_of_another_rank_are_refused(on: Callable[[str], Bench], tmp_path: Path) -> None:
    found, method = on("bert"), registry.get("lora")
    method.save(attach(found, "lora", r=4), tmp_path)
    with pytest.raises(ModelError, match=r"do not fit this model and method.*lora_A.*has shape \(4, 32\)"):
        method.load(attach(found, "lora", r=8), tmp_path)


def test_a_row_cannot_offer_what_it_fixes() -> None:
    row = next(row for row in ROWS if row.name == "lora")
    with pytest.raises(ValueError, match=r"lora fixes \['use_rslora'\]"):
        PeftMethod(replace(row, fixed={"use_rslora": True}))


# --- counts known from elsewhere (public configurations on the meta device; head excluded) ---------------------------


def meta(model_class: str, config: Any) -> Any:
    with torch.device("meta"):
        model = getattr(transformers, model_class)(config)
    return describe(model, frozenset())


ROBERTA_BASE = transformers.RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
OPT_125M = transformers.OPTConfig()
T5_BASE = transformers.T5Config(d_model=768, d_ff=3072, d_kv=64, num_layers=12, num_heads=12)
REFERENCE = [
    ("OPTForCausalLM", OPT_125M, "ia3", "lm_head,q_proj,v_proj", {"feedforward_modules": "lm_head"}, 19_200),
    ("T5ForConditionalGeneration", T5_BASE, "lora", "query,value", {}, 884_736),
    ("RobertaForSequenceClassification", ROBERTA_BASE, "lora", "all-linear", {"r": 4}, 663_552),
    ("DistilBertForSequenceClassification", transformers.DistilBertConfig(), "lora", None, {}, 147_456),
]


@pytest.mark.parametrize(("model_class", "config", "name", "targets", "options", "count"), REFERENCE)
def test_counts_equal_the_published_ones(
    model_class: str, config: Any, name: str, targets: Any, options: dict[str, Any], count: int
) -> None:
    method, layout = registry.get(name), meta(model_class, config)
    assert method.trainable_count(layout, Setup(method.Config(**options), targets=targets)) == count


def test_opt_125m_has_its_published_size() -> None:
    layout = meta("OPTForCausalLM", OPT_125M)
    assert sum(layout.count(name) for name in layout.parameters) == 125_239_296
