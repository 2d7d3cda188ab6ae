"""A layout says where things are, in every family, from the module tree alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from adaptlab.errors import ConfigError
from adaptlab.models._base import Layout, fused_notes, resolve_targets
from adaptlab.models.families import describe

BERT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
LLAMA = dict(BERT, num_key_value_heads=2, vocab_size=100)


def layout_of(prefix: str, config: Any, missing: tuple[str, ...] = ()) -> Layout:
    with torch.device("meta"):
        return describe(getattr(transformers, f"{prefix}ForSequenceClassification")(config), missing)


def four(query: str, key: str, value: str, output: str) -> dict[str, tuple[str, ...]]:
    return {"query": (query,), "key": (key,), "value": (value,), "output": (output,)}


def _config(name: str, **options: Any) -> Any:
    return getattr(transformers, f"{name}Config")(**options)


#: family -> layout, then for each word the ends of the names it means in one block (of the encoder, then the decoder).
FAMILIES: dict[str, tuple[Callable[[], Layout], dict[str, tuple[str, ...]]]] = {
    "bert": (
        lambda: layout_of("Bert", _config("Bert", **BERT)),
        four("self.query", "self.key", "self.value", "attention.output.dense")
        | {"mlp": ("intermediate.dense", "0.output.dense"), "mlp-output": ("0.output.dense",)},
    ),
    "roberta": (
        lambda: layout_of("Roberta", _config("Roberta", **BERT)),
        four("self.query", "self.key", "self.value", "attention.output.dense")
        | {"mlp": ("intermediate.dense", "0.output.dense")},
    ),
    "electra": (
        lambda: layout_of("Electra", _config("Electra", embedding_size=16, **BERT)),
        four("self.query", "self.key", "self.value", "attention.output.dense")
        | {"mlp": ("intermediate.dense", "0.output.dense")},
    ),
    "distilbert": (
        lambda: layout_of("DistilBert", _config("DistilBert", dim=32, n_layers=2, n_heads=4, hidden_dim=64)),
        four("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin")
        | {"mlp": ("ffn.lin1", "ffn.lin2"), "mlp-output": ("ffn.lin2",)},
    ),
    "deberta": (
        lambda: layout_of("Deberta", _config("Deberta", relative_attention=True, pos_att_type=["c2p", "p2c"], **BERT)),
        {"query": ("self.in_proj",), "value": ("self.in_proj",), "output": ("attention.output.dense",)},
    ),
    "deberta-v2": (
        lambda: layout_of("DebertaV2", _config("DebertaV2", **BERT)),
        four("query_proj", "key_proj", "value_proj", "attention.output.dense")
        | {"mlp": ("intermediate.dense", "0.output.dense")},
    ),
    "mpnet": (
        lambda: layout_of("MPNet", _config("MPNet", **BERT)),
        four("attn.q", "attn.k", "attn.v", "attn.o")
        | {"mlp": ("intermediate.dense", "0.output.dense")},
    ),
    "modernbert": (
        lambda: layout_of("ModernBert", _config("ModernBert", **BERT)),
        {"query": ("attn.Wqkv",), "output": ("attn.Wo",), "mlp": ("mlp.Wi", "mlp.Wo"), "mlp-output": ("mlp.Wo",)},
    ),
    "albert": (
        lambda: layout_of("Albert", _config("Albert", embedding_size=16, **BERT)),
        four("attention.query", "attention.key", "attention.value", "attention.dense")
        | {"mlp": ("0.ffn", "ffn_output"), "mlp-output": ("ffn_output",)},
    ),
    "opt": (
        lambda: layout_of("OPT", _config("OPT", hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                         ffn_dim=64, word_embed_proj_dim=32, vocab_size=100)),
        four("q_proj", "k_proj", "v_proj", "out_proj")
        | {"mlp": ("fc1", "fc2"), "mlp-output": ("fc2",)},
    ),
    "gpt2": (
        lambda: layout_of("GPT2", _config("GPT2", n_embd=32, n_layer=2, n_head=4, vocab_size=100)),
        {"query": ("attn.c_attn",), "key": ("attn.c_attn",), "output": ("attn.c_proj",),
         "mlp": ("mlp.c_fc", "mlp.c_proj"), "mlp-output": ("mlp.c_proj",)},
    ),
    "gpt_neox": (
        lambda: layout_of("GPTNeoX", _config("GPTNeoX", vocab_size=100, **BERT)),
        {"value": ("attention.query_key_value",), "output": ("attention.dense",),
         "mlp": ("dense_h_to_4h", "dense_4h_to_h")},
    ),
    "llama": (
        lambda: layout_of("Llama", _config("Llama", **LLAMA)),
        four("q_proj", "k_proj", "v_proj", "o_proj")
        | {"mlp": ("gate_proj", "up_proj", "down_proj"), "mlp-gate": ("gate_proj",), "mlp-output": ("down_proj",)},
    ),
    "qwen2": (
        lambda: layout_of("Qwen2", _config("Qwen2", **LLAMA)),
        four("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
    "qwen3": (
        lambda: layout_of("Qwen3", _config("Qwen3", head_dim=8, **LLAMA)),
        four("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
    "mistral": (
        lambda: layout_of("Mistral", _config("Mistral", **LLAMA)),
        four("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
    "gemma": (
        lambda: layout_of("Gemma", _config("Gemma", head_dim=8, **LLAMA)),
        four("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
    "phi": (
        lambda: layout_of("Phi", _config("Phi", vocab_size=100, **BERT)),
        four("q_proj", "k_proj", "v_proj", "self_attn.dense") | {"mlp": ("fc1", "fc2")},
    ),
    "phi3": (
        lambda: layout_of("Phi3", _config("Phi3", pad_token_id=0, **LLAMA)),
        {"query": ("qkv_proj",), "output": ("o_proj",), "mlp-gate": ("gate_up_proj",), "mlp-output": ("down_proj",)},
    ),
    "t5": (
        lambda: layout_of("T5", _config("T5", d_model=32, num_layers=2, num_heads=4, d_kv=8, d_ff=64, vocab_size=100)),
        four("SelfAttention.q", "SelfAttention.k", "SelfAttention.v", "SelfAttention.o")
        | {"mlp": ("DenseReluDense.wi", "DenseReluDense.wo"), "mlp-output": ("DenseReluDense.wo",)},
    ),
    "bart": (
        lambda: layout_of("Bart", _config("Bart", d_model=32, encoder_layers=2, decoder_layers=2, vocab_size=100,
                                          encoder_attention_heads=4, decoder_attention_heads=4,
                                          encoder_ffn_dim=64, decoder_ffn_dim=64)),
        four("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
        | {"mlp": ("fc1", "fc2")},
    ),
}  # fmt: skip

every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
def test_words_mean_the_right_modules(family: str) -> None:
    build, meanings = FAMILIES[family]
    layout = build()
    first = {layer.name for layer in layout.layers if layer.block == 0}
    for word, ends in meanings.items():
        found = [name for name in resolve_targets(layout, word) if name in first]
        assert len(found) == len(ends), (word, found)
        assert all(name.endswith(end) for name, end in zip(found, ends, strict=True)), (word, found)


@every_family
def test_all_linear_is_every_linear_inside_the_blocks_and_nothing_else(family: str) -> None:
    layout = FAMILIES[family][0]()
    linear = {layer.name for layer in layout.layers if layer.kind in ("linear", "conv1d")}
    inside = {name for name in linear if any(name.startswith(f"{block}.") for block in layout.blocks)}
    assert set(resolve_targets(layout, "all-linear")) == inside
    assert linear - inside  # the head at least
    covered = {name for word in ("query", "key", "value", "output", "mlp") for name in layout.words[word]}
    uncovered = {name.rpartition(".")[2] for name in inside - covered}
    assert uncovered <= {"pos_proj", "pos_q_proj"}  # DeBERTa's projections of positions


@every_family
def test_blocks_come_bottom_first_and_encoder_before_decoder(family: str) -> None:
    layout = FAMILIES[family][0]()
    assert len(layout.blocks) == {"t5": 4, "bart": 4, "albert": 1}.get(family, 2)
    assert layout.hidden_size == 32
    expected = "encoder-decoder" if family in ("t5", "bart") else None
    if expected:
        assert layout.kind == expected
        assert [".decoder." in block for block in layout.blocks] == [False, False, True, True]
    else:
        decoders = ("opt", "gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "mistral", "gemma", "phi", "phi3")
        assert layout.kind == ("decoder" if family in decoders else "encoder")


@every_family
def test_the_head_is_what_classifies(family: str) -> None:
    layout = FAMILIES[family][0]()
    heads = {
        "distilbert": ("pre_classifier", "classifier"),
        "t5": ("classification_head",),
        "bart": ("classification_head",),
    }
    decoder_head = ("score",) if layout.kind == "decoder" else ("classifier",)
    assert layout.head_modules == heads.get(family, decoder_head)
    assert set(layout.head) == {
        n for n in layout.parameters if n.startswith(tuple(f"{m}." for m in layout.head_modules))
    }
    assert set(layout.words["head"]) == {name.rpartition(".")[0] for name in layout.head}


@every_family
def test_embeddings_are_the_token_embeddings_that_are_used(family: str) -> None:
    layout = FAMILIES[family][0]()
    embeddings = layout.words["embeddings"]
    assert len(embeddings) == (2 if layout.kind == "encoder-decoder" else 1)
    assert not any(name.endswith("shared") for name in embeddings)
    assert {layout.layer(name).kind for name in embeddings} == {"embedding"}


def test_what_the_checkpoint_lacks_is_head_too() -> None:
    missing = ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")
    layout = layout_of("Bert", _config("Bert", **BERT), missing)
    assert layout.head == missing
    assert layout.head_modules == ("bert.pooler", "classifier")
    assert layout.words["head"] == ("bert.pooler.dense", "classifier")
    alone = layout_of("Bert", _config("Bert", **BERT), ("bert.encoder.layer.1.output.LayerNorm.bias",))
    assert alone.head_modules == ("bert.encoder.layer.1.output.LayerNorm", "classifier")
    assert "bert.encoder.layer.1.output.LayerNorm.weight" not in alone.head


def test_fused_words_are_named() -> None:
    assert fused_notes(FAMILIES["gpt2"][0](), "query,value,output") == [
        "In gpt2, query and value name a part of the fused module c_attn, which holds query, key, value: "
        "the whole module is adapted."
    ]
    assert set(FAMILIES["phi3"][0]().fused_words) == {"query", "key", "value", "mlp-input", "mlp-gate"}
    assert set(FAMILIES["deberta"][0]().fused_words) == {"query", "key", "value"}
    assert FAMILIES["bert"][0]().fused_words == {}


class TestTargets:
    layout = FAMILIES["bert"][0]()

    @pytest.mark.parametrize(
        ("targets", "count"),
        [
            ("query", 2),
            ("query, value", 4),
            (("query", "attention.output.dense"), 4),
            ("bert.encoder.layer.1.output.dense", 1),
            (r".*layer\.1\..*dense", 3),
            ("output.dense", 4),
            ("all-linear", 12),
            ("head", 1),
        ],
    )
    def test_words_names_ends_and_expressions(self, targets: Any, count: int) -> None:
        assert len(resolve_targets(self.layout, targets)) == count

    def test_the_order_is_the_model_s(self) -> None:
        assert resolve_targets(self.layout, "value,query") == resolve_targets(self.layout, "query,value")

    def test_expressions_do_not_reach_into_the_head(self) -> None:
        assert "classifier" not in resolve_targets(self.layout, r".*(query|classifier)")

    def test_one_that_matches_nothing_is_refused_though_others_match(self) -> None:
        with pytest.raises(ConfigError) as caught:
            resolve_targets(self.layout, "query,q_proj")
        message = str(caught.value)
        assert "'q_proj' matches nothing in this bert model" in message
        assert "all-linear, embeddings, head, key, mlp" in message
        assert "attention.self.query" in message

    def test_a_broken_expression_is_said(self) -> None:
        with pytest.raises(ConfigError, match=r"'\(query' is not a regular expression"):
            resolve_targets(self.layout, "(query")

    def test_no_target_at_all_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="matches nothing"):
            resolve_targets(self.layout, "")
