"""Reading a language model: logits where answers stand and nowhere else, and the log-probabilities of answers.

The hidden states of the wanted positions are picked out *before* the vocabulary's matrix, so that its product is as
large as the answers, whatever the length of the texts. What an architecture does to its logits afterwards (scaling,
soft caps) is done as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: Bytes of float32 logits that may exist at once in evaluation.
LOGIT_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Wanted:
    """The answers that a batch is read for.

    Attributes:
        places: ``[places, 2]`` sequence and column of every position whose next token is asked for. Columns are those
            of the model's inputs (the decoder's, where there is one).
        entries: ``[tokens, 3]`` for every token of every answer: its place, its id, and the answer it belongs to.
        counts: ``[rows, options]`` tokens of each answer, 0 where a row has fewer options. Answer
            ``r * options + o`` is option ``o`` of row ``r``.
        divisors: ``[rows, options]`` what its log-likelihood is divided by before answers are compared.
    """

    places: Tensor
    entries: Tensor
    counts: Tensor
    divisors: Tensor

    def scores(self, logits: Tensor) -> Tensor:
        """``[rows, options]`` sums of log-probabilities, from logits ``[places, vocabulary]``; -inf for no option."""
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        place, token, answer = self.entries.unbind(1)
        found = logits[place, token] - logits.logsumexp(-1)[place]
        sums = found.new_zeros(self.counts.numel()).index_add(0, answer, found).view(self.counts.shape)
        return sums.masked_fill(self.counts == 0, -torch.inf)


@contextmanager
def only_at(model: nn.Module, word_head: str, places: Tensor, columns: int) -> Iterator[None]:
    """While active, ``model`` gives logits ``[1, places, vocabulary]`` instead of those of every position.

    Args:
        columns: how many columns the inputs have; hidden states that a method put in front of them are passed over.
    """
    rows, wanted = places.unbind(1)

    def pick(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        (hidden, *_) = args
        return (hidden[rows, wanted + (hidden.shape[1] - columns)].unsqueeze(0),)

    handle = find_word_head(model, word_head).register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def logits_at(
    model: nn.Module, word_head: str, inputs: Mapping[str, Any], places: Tensor, *, columns: int
) -> tuple[Tensor, Any]:
    """``[places, vocabulary]`` logits, and the model's whole output."""
    with only_at(model, word_head, places, columns):
        output: Any = model(**inputs)
    return output.logits.squeeze(0), output


def read(model: nn.Module, word_head: str, inputs: Mapping[str, Tensor], places: Tensor | None) -> Tensor:
    """What ``model`` says in training: ``[rows, outputs]`` of a head, or at ``places`` ``[places, vocabulary]``."""
    if places is None:
        logits: Tensor = model(**inputs).logits
        return logits
    columns = inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]
    return logits_at(model, word_head, {**inputs, "use_cache": False}, places, columns=columns)[0]


def find_word_head(model: nn.Module, name: str) -> nn.Module:
    """The module called ``name``, with or without PEFT's wrapping around the model."""
    wrapped: Any = model
    base = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else model
    found: nn.Module = base.get_submodule(name)
    return found


@dataclass(frozen=True, slots=True)
class Reading:
    """How the answers to one question are read.

    Attributes:
        stems: the token sequences that are read behind the question, see :func:`stems`.
        places: stem, and how many of its tokens have been read, of every place whose next token is asked for.
        of_option: for each option the places of its tokens, in order.
    """

    stems: list[tuple[int, ...]]
    places: list[tuple[int, int]]
    of_option: list[list[int]]

    @classmethod
    def of(cls, options: Sequence[Sequence[int]]) -> Reading:
        """The reading of ``options``. The first token of all is asked for once, before any stem."""
        kept, which = stems(options)
        places: dict[tuple[int, int], int] = {}
        of_option = [
            [places.setdefault((stem, read) if read else (0, 0), len(places)) for read in range(len(option))]
            for option, stem in zip(options, which, strict=True)
        ]
        return cls(kept, list(places), of_option)


def stems(options: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """What has to be read to score every option: the fewest token sequences, and for each option which of them.

    An option's last token is never read. Options that begin alike share a sequence: ``World`` and ``Sci/Tech`` need
    only ``Sci/``, for the first token of either is asked for before it.
    """
    wanted = {tuple(option[:-1]) for option in options}
    kept: list[tuple[int, ...]] = []
    for stem in sorted(wanted, key=len, reverse=True):
        if not any(longer[: len(stem)] == stem for longer in kept):
            kept.append(stem)
    kept.sort()
    which = [next(i for i, s in enumerate(kept) if s[: len(o) - 1] == tuple(o[:-1])) for o in options]
    return kept, which
