"""Bases of published sizes with random weights, and sentences of SST-2's lengths: nothing is downloaded."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

#: Configurations as published, without what does not change the amount of work.
BASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "roberta-base": ("RobertaConfig", "RobertaForMaskedLM", {
        "vocab_size": 50265, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1,
    }),
    "opt-125m": ("OPTConfig", "OPTForCausalLM", {
        "vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072,
        "max_position_embeddings": 2048, "word_embed_proj_dim": 768,
    }),
    "opt-1.3b": ("OPTConfig", "OPTForCausalLM", {
        "vocab_size": 50272, "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "ffn_dim": 8192,
        "max_position_embeddings": 2048, "word_embed_proj_dim": 2048,
    }),
    "t5-base": ("T5Config", "T5ForConditionalGeneration", {
        "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_decoder_layers": 12,
        "num_heads": 12,
    }),
}  # fmt: skip
_TOY = {
    "vocab_size": 600, "hidden_size": 64, "d_model": 64, "word_embed_proj_dim": 64, "num_hidden_layers": 2,
    "num_layers": 2, "num_decoder_layers": 2, "num_attention_heads": 4, "num_heads": 4, "d_kv": 16,
    "intermediate_size": 128, "ffn_dim": 128, "d_ff": 128,
}  # fmt: skip
_SPECIALS = ["<pad>", "</s>", "<unk>", "<s>"]
_WORDS = 500


def build_base(name: str, folder: Path, *, toy: bool) -> Path:
    """Write the base called ``name`` with weights drawn from seed 0, and a tokenizer of whole words."""
    import torch
    import transformers

    config_class, model_class, shape = BASES[name]
    if toy:
        shape = {key: _TOY.get(key, value) for key, value in shape.items()}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3, "decoder_start_token_id": 0}
    config = getattr(transformers, config_class)(**shape, **ids)
    torch.manual_seed(0)
    getattr(transformers, model_class)(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate([*_SPECIALS, "a", *(f"w{n}" for n in range(_WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<s>",
        model_max_length=512,
    )


def write_rows(path: Path, *, rows: int) -> Path:
    """A CSV of sentences with SST-2's training lengths: log-normal, median 9 words, a tenth beyond 22, at most 60."""
    draw = random.Random(0)
    lines = ["text,label"]
    for row in range(rows):
        label = row % 2
        words = max(1, min(60, round(math.exp(draw.gauss(2.2, 0.7)))))
        half = _WORDS // 2
        text = " ".join(
            f"w{draw.randrange(half) + (half if draw.random() < 0.3 + 0.4 * label else 0)}" for _ in range(words)
        )
        lines.append(f"{text} w{row % _WORDS},{'positive' if label else 'negative'}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
