"""What a language model writes by itself after a question: greedily or by beams, with no look at the right one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList

from adaptlab.training.batches import BatchRows
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


def batches(contexts: Sequence[NDArray[np.int32]], *, max_new_tokens: int, beams: int) -> list[BatchRows]:
    """The batches that are gone on from together, with the tokens of the longest context."""
    lengths = [len(context) for context in contexts]
    found = _batches(lengths, max_new_tokens * beams)
    return [BatchRows(np.array(rows, dtype=np.int64), max(lengths[row] for row in rows)) for rows in found]


def passes(
    model: nn.Module, rows: int, length: int, precision: Precision, *, encoder: bool, max_new_tokens: int, beams: int
) -> Iterator[tuple[float, Callable[[], object]]]:
    """What :func:`write` passes through ``model`` for ``rows`` contexts of ``length`` tokens, whatever they say: the
    contexts, a token in the middle of what is written, and the last one behind the keys and values of all before.

    Gives how often, and a call. That transformers writes to the end is the longest it can take.
    """
    reader: Any = model
    ids = torch.zeros(rows * beams, length, dtype=torch.long, device=precision.device)
    last = {"logits_to_keep": 1} if "logits_to_keep" in _accepted(model) else {}

    def read(tokens: int, cache: Any = None) -> Any:
        """Pass ``tokens`` (of the decoder) through the model; behind ``cache`` the last of them alone."""
        begun = ids.new_zeros(rows * beams, 1 if cache is not None else tokens)
        if encoder:
            known = {"encoder_outputs": said, "attention_mask": torch.ones_like(ids)}
            return reader(**known, decoder_input_ids=begun, past_key_values=cache, use_cache=True)
        mask = ids.new_ones(rows * beams, tokens)
        return reader(input_ids=begun, attention_mask=mask, past_key_values=cache, use_cache=True, **last)

    said: Any = None
    if encoder:
        own: Any = reader.get_base_model() if hasattr(reader, "get_base_model") else reader
        body = own.get_encoder()
        yield 1, lambda: body(input_ids=ids, attention_mask=torch.ones_like(ids))
        said = body(input_ids=ids, attention_mask=torch.ones_like(ids))
    first, later = 1 if encoder else length, max_new_tokens - 1
    yield 1, lambda: read(first)
    for times, more in ((later, (later - 1) // 2), (0, later - 1)) if later else ():
        cache = read(first + more).past_key_values
        yield times, lambda cache=cache, tokens=first + more + 1: read(tokens, cache)  # type: ignore[misc]


def _accepted(model: nn.Module) -> set[str]:
    wrapped: Any = model
    own = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else model
    return set(inspect.signature(own.forward).parameters)


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
