"""Tiny models of every family the project names, built from a config and saved like a published checkpoint.

Each folder is what the family's authors put on the hub: the weights of the model that was *pretrained* (so the
classification head is missing, and with RoBERTa the pooler too), a fast tokenizer of the family's kind, and a
padding token only where the published model has one. Everything follows from a fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCABULARY = 400
POSITIONS = 128
HIDDEN = 32
LAYERS = 2
HEADS = 4
FEED_FORWARD = 64

#: Larger than the usual 0.02, which at a width of 32 would make every layer all but the identity.
INITIALIZER_RANGE = 0.15


@dataclass(frozen=True)
class Family:
    """How one family is built: config and pretraining class, special tokens, and which kind of tokenizer."""

    config: str
    model: str
    tokenizer: str  # wordpiece, bpe or unigram
    specials: tuple[str, ...]  # in the order of their ids
    roles: dict[str, str]  # "cls_token" -> "[CLS]" ...
    template: tuple[str, str] | None  # single and pair, as the post-processor writes them
    options: dict[str, Any] = field(default_factory=dict)


_BERT_LIKE = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": FEED_FORWARD,
}
_BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_BERT_ROLES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_BERT_TEMPLATE = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
_FLAT_BERT_TEMPLATE = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]")
_ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_ROBERTA_ROLES = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_ROBERTA_TEMPLATE = ("<s> $A </s>", "<s> $A </s> </s> $B </s>")
_DECODER_LIKE = {**_BERT_LIKE, "num_key_value_heads": 2, "tie_word_embeddings": False}

FAMILIES: dict[str, Family] = {
    "bert": Family(
        "BertConfig", "BertForPreTraining", "wordpiece", _BERT_TOKENS, _BERT_ROLES, _BERT_TEMPLATE,
        dict(_BERT_LIKE, max_position_embeddings=POSITIONS),
    ),
    "distilbert": Family(
        "DistilBertConfig", "DistilBertForMaskedLM", "wordpiece", _BERT_TOKENS, _BERT_ROLES, _FLAT_BERT_TEMPLATE,
        dict(dim=HIDDEN, n_layers=LAYERS, n_heads=HEADS, hidden_dim=FEED_FORWARD, max_position_embeddings=POSITIONS),
    ),
    "electra": Family(
        "ElectraConfig", "ElectraForPreTraining", "wordpiece", _BERT_TOKENS, _BERT_ROLES, _BERT_TEMPLATE,
        dict(_BERT_LIKE, embedding_size=HIDDEN // 2, max_position_embeddings=POSITIONS),
    ),
    "mpnet": Family(
        "MPNetConfig", "MPNetForMaskedLM", "wordpiece", ("<s>", "<pad>", "</s>", "[UNK]", "<mask>"),
        {**_ROBERTA_ROLES, "unk_token": "[UNK]"}, _ROBERTA_TEMPLATE,
        dict(_BERT_LIKE, max_position_embeddings=POSITIONS + 2, relative_attention_num_buckets=32),
    ),
    "roberta": Family(
        "RobertaConfig", "RobertaForMaskedLM", "bpe", _ROBERTA_TOKENS, _ROBERTA_ROLES, _ROBERTA_TEMPLATE,
        dict(_BERT_LIKE, max_position_embeddings=POSITIONS + 2, type_vocab_size=1),
    ),
    "deberta-v2": Family(
        "DebertaV2Config", "DebertaV2ForMaskedLM", "unigram", ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"),
        _BERT_ROLES, _BERT_TEMPLATE,
        dict(
            _BERT_LIKE, max_position_embeddings=POSITIONS, type_vocab_size=0, relative_attention=True,
            position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
            position_biased_input=False, pooler_hidden_size=HIDDEN,
        ),
    ),
    "modernbert": Family(
        "ModernBertConfig", "ModernBertForMaskedLM", "bpe", _BERT_TOKENS, _BERT_ROLES, _FLAT_BERT_TEMPLATE,
        dict(_BERT_LIKE, max_position_embeddings=POSITIONS, local_attention=16, global_attn_every_n_layers=2),
    ),
    "opt": Family(
        "OPTConfig", "OPTForCausalLM", "bpe", ("<s>", "<pad>", "</s>", "<unk>"),
        {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
        ("</s> $A", "</s> $A $B"),
        dict(
            hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, ffn_dim=FEED_FORWARD,
            word_embed_proj_dim=HIDDEN, max_position_embeddings=POSITIONS,
        ),
    ),
    "gpt2": Family(
        "GPT2Config", "GPT2LMHeadModel", "bpe", ("<|endoftext|>",),
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}, None,
        dict(n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, n_inner=FEED_FORWARD, n_positions=POSITIONS),
    ),
    "llama": Family(
        "LlamaConfig", "LlamaForCausalLM", "bpe", ("<unk>", "<s>", "</s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, ("<s> $A", "<s> $A $B"),
        dict(_DECODER_LIKE, max_position_embeddings=POSITIONS),
    ),
    "qwen2": Family(
        "Qwen2Config", "Qwen2ForCausalLM", "bpe", ("<|endoftext|>", "<|im_end|>"),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, None,
        dict(_DECODER_LIKE, max_position_embeddings=POSITIONS),
    ),
    "t5": Family(
        "T5Config", "T5ForConditionalGeneration", "unigram", ("<pad>", "</s>", "<unk>"),
        {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}, ("$A </s>", "$A </s> $B </s>"),
        dict(d_model=HIDDEN, num_layers=LAYERS, num_heads=HEADS, d_kv=HIDDEN // HEADS, d_ff=FEED_FORWARD),
    ),
}  # fmt: skip


#: Options that are widths; heads stay as many as they are and grow with them.
_WIDTHS = {
    "hidden_size", "intermediate_size", "embedding_size", "pooler_hidden_size", "dim", "hidden_dim", "ffn_dim",
    "word_embed_proj_dim", "n_embd", "n_inner", "d_model", "d_kv", "d_ff",
}  # fmt: skip


def build_tiny_model(architecture: str, folder: Path, *, seed: int = 0, times: int = 1) -> Path:
    """Write the tiny model of ``architecture`` (a key of ``FAMILIES``), weights and tokenizer, to ``folder``.

    ``times`` multiplies its widths: 4-bit weights come in blocks of 64.
    """
    family = FAMILIES[architecture]
    tokenizer = _build_tokenizer(family)
    tokenizer.save_pretrained(folder)

    widths = {name: size * times for name, size in family.options.items() if name in _WIDTHS}
    options = {"vocab_size": VOCABULARY, **family.options, **widths, **_special_ids(family)}
    if architecture == "t5":
        options["decoder_start_token_id"] = options["pad_token_id"]
    else:
        options["initializer_range"] = INITIALIZER_RANGE
    config = getattr(transformers, family.config)(**options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, family.model)(config)
    model.save_pretrained(folder)
    return folder


def _special_ids(family: Family) -> dict[str, int | None]:
    """``{"pad_token_id": 0, ...}``: special tokens come first in the vocabulary, in the order they are listed."""
    wanted = ("pad_token", "bos_token", "eos_token", "cls_token", "sep_token")
    given = {f"{role}_id": family.specials.index(family.roles[role]) for role in wanted if role in family.roles}
    return {"pad_token_id": None, **given}


def _build_tokenizer(family: Family) -> transformers.PreTrainedTokenizerFast:
    """Train a tokenizer of the family's kind on English that every Python carries: its own help topics."""
    specials = list(family.specials)
    unknown = family.roles.get("unk_token")
    if family.tokenizer == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=specials, show_progress=False)
    elif family.tokenizer == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=VOCABULARY, special_tokens=specials, unk_token=unknown, show_progress=False
        )
    tokenizer.train_from_iterator((topics[name] for name in sorted(topics)[:20]), trainer)
    if family.template is not None:
        single, pair = family.template
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[(token, specials.index(token)) for token in specials]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        model_input_names=_input_names(family),
        **family.roles,
    )


def _input_names(family: Family) -> list[str]:
    """Only families with segment embeddings are given ``token_type_ids``."""
    with_segments = family.config in ("BertConfig", "ElectraConfig")
    return ["input_ids", "token_type_ids", "attention_mask"] if with_segments else ["input_ids", "attention_mask"]
