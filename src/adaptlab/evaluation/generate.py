"""What a language model writes by itself after a question: greedily or by beams, with no look at the right one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList

from adaptlab.training.precision import Precision

#: Tokens, padding and what may be written included, of a batch.
_BATCH_TOKENS, _BATCH_ROWS = 8192, 64


def write(
    model: nn.Module,
    tokenizer: Any,
    contexts: Sequence[NDArray[np.int32]],
    precision: Precision,
    *,
    encoder: bool,
    max_new_tokens: int,
    beams: int,
    stop: Sequence[str],
) -> list[str]:
    """What ``model`` writes after each of ``contexts``, up to where one of ``stop`` begins, without white space around.

    Contexts of like length go together. A decoder's are padded on the left, where its positions begin with the text.

    Args:
        encoder: the contexts are an encoder's.
        beams: 1 writes greedily.
    """
    written = [""] * len(contexts)
    writer: Any = model
    config = arguments(model, tokenizer, max_new_tokens=max_new_tokens, beams=beams)
    with torch.inference_mode(), precision.autocast():
        for rows in _batches([len(context) for context in contexts], max_new_tokens * beams):
            ids, mask = _padded([contexts[i] for i in rows], tokenizer.pad_token_id, left=not encoder)
            ids, mask = ids.to(precision.device), mask.to(precision.device)
            begun = 1 if encoder else ids.shape[1]
            until = StoppingCriteriaList([_Stops(tokenizer, stop, begun)] if stop else [])
            output = writer.generate(input_ids=ids, attention_mask=mask, stopping_criteria=until, **config)
            texts = tokenizer.batch_decode(output[:, begun:], skip_special_tokens=True)
            for i, text in zip(rows, texts, strict=True):
                written[i] = cut(text, stop)
    return written


def arguments(model: nn.Module, tokenizer: Any, *, max_new_tokens: int, beams: int) -> dict[str, Any]:
    """What transformers' ``generate`` is told besides what to go on from."""
    writer: Any = model
    own: Any = writer.get_base_model() if hasattr(writer, "get_base_model") else writer
    return {
        "max_new_tokens": max_new_tokens,
        "num_beams": beams,
        "do_sample": False,
        "eos_token_id": sorted(_ends(tokenizer, own)) or None,
        "pad_token_id": tokenizer.pad_token_id,
    }


def cut(text: str, stop: Sequence[str]) -> str:
    """``text`` up to the first of ``stop``, without white space around."""
    ends = [text.index(one) for one in stop if one in text]
    return text[: min(ends, default=len(text))].strip()


def _ends(tokenizer: Any, model: Any) -> set[int]:
    """The tokens that end a text, by the tokenizer and by the model."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    return {token for token in found if token is not None}


def _batches(lengths: Sequence[int], more: int) -> list[list[int]]:
    order = np.argsort(-np.array(lengths), kind="stable").tolist()
    batches, start = [], 0
    while start < len(order):
        rows = max(1, min(_BATCH_ROWS, _BATCH_TOKENS // (lengths[order[start]] + more)))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def _padded(contexts: Sequence[NDArray[np.int32]], pad_id: int, *, left: bool) -> tuple[Tensor, Tensor]:
    length = max(map(len, contexts))
    ids = torch.full((len(contexts), length), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, context in enumerate(contexts):
        place = slice(length - len(context), None) if left else slice(len(context))
        ids[i, place] = torch.from_numpy(context.astype(np.int64))
        mask[i, place] = 1
    return ids, mask


class _Stops(StoppingCriteria):  # type: ignore[misc,unused-ignore]
    """Ends a row where a stop string has been written."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], begun: int) -> None:
        self._tokenizer, self._stop, self._begun = tokenizer, stop, begun
        self._longest = max(map(len, stop))

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
        # A stop string has at most as many tokens as characters; one token more may hold its beginning.
        recent = input_ids[:, self._begun :][:, -(self._longest + 1) :]
        texts = self._tokenizer.batch_decode(recent, skip_special_tokens=True)
        done = [any(one in text for one in self._stop) for text in texts]
        return torch.tensor(done, device=input_ids.device)
