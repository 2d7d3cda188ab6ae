"""How likely each answer is under a language model: exact, and nothing read twice.

Of all questions the tokens that they begin with (instruction and shared demonstrations) are read once, and their keys
and values serve every question; a question is read once, and serves all its answers; of answers that begin alike the
beginning is read once. An encoder-decoder's encoder reads a question once for all its answers.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptlab.training.batches import BatchRows
from adaptlab.training.precision import Precision
from adaptlab.training.questions import Question
from adaptlab.training.words import LOGIT_BYTES, Reading, find_word_head, logits_at

#: Padded tokens of a batch, and bytes of keys and values that may exist at once.
_BATCH_TOKENS, _BATCH_ROWS, _CACHE_BYTES = 4096, 128, 512 * 2**20
#: A common beginning shorter than this is not worth a pass of its own.
_SHORTEST_PREFIX = 8


@dataclass(frozen=True, slots=True)
class Reader:
    """A language model in eval mode, and what is needed to read it.

    Attributes:
        word_head: name of the module that gives logits over the vocabulary.
        start: the token that a decoder behind an encoder starts with; ``None`` for decoders alone.
        caches: False where keys and values must not be carried over between passes, because the model's method puts
            some of its own in front.
    """

    model: nn.Module
    word_head: str
    precision: Precision
    pad_id: int
    start: int | None = None
    caches: bool = True

    @property
    def vocabulary(self) -> int:
        """Numbers in the logits of a place."""
        weight: Any = find_word_head(self.model, self.word_head).weight
        return int(weight.shape[0])

    def at(self, places: Sequence[tuple[int, int]], columns: int, **inputs: Any) -> tuple[Tensor, Any]:
        """Log-probabilities ``[places, vocabulary]``, and the model's whole output."""
        wanted = torch.tensor(places, device=self.precision.device)
        logits, output = logits_at(self.model, self.word_head, inputs, wanted, columns=columns)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return logits.log_softmax(-1), output


def log_likelihoods(reader: Reader, questions: Sequence[Question]) -> list[NDArray[np.float64]]:
    """For every question ``[options]`` natural logarithms of the probability of each option after the context."""
    return _read(reader, questions, _scores)


def distributions(reader: Reader, questions: Sequence[Question]) -> list[NDArray[np.floating]]:
    """For every question ``[places, vocabulary]`` log-probabilities of all words where an answer's token is asked for.

    The places are those of :class:`adaptlab.training.words.Reading`, in their order.
    """
    return _read(reader, questions, _rows)


def _read(reader: Reader, questions: Sequence[Question], take: _Take) -> list[NDArray[Any]]:
    """What ``take`` makes of the log-probabilities behind every question."""
    found: list[NDArray[Any]] = [np.zeros(0)] * len(questions)
    with torch.inference_mode(), reader.precision.autocast():
        for members in _groups(questions):
            passes = _passes(reader, [questions[i] for i in members])
            for batch in _batches(reader, [questions[i] for i in members], passes.shared):
                asked = [questions[members[i]] for i in batch]
                for i, taken in zip(batch, take(asked, *_pass(passes, asked)), strict=True):
                    found[members[i]] = taken
    return found


def _groups(questions: Sequence[Question]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for i, question in enumerate(questions):
        groups.setdefault(question.group, []).append(i)
    return list(groups.values())


def _pass(passes: _Passes, asked: Sequence[Question]) -> tuple[list[Reading], Tensor, Tensor, list[NDArray[np.int64]]]:
    """What is read for ``asked``, as :data:`_Take` takes it."""
    first, state = passes.first(asked)
    readings = [Reading.of(question.options) for question in asked]
    rows = [row for row, reading in enumerate(readings) for stem in reading.stems if stem]
    tokens = [stem for reading in readings for stem in reading.stems if stem]
    later, starts = passes.rest(state, rows, tokens) if rows else (first, [])
    return readings, first, later, _places(readings, starts, len(first))


def batches(reader: Reader, questions: Sequence[Question]) -> list[BatchRows]:
    """The batches that ``questions`` are read in, with the tokens of the longest; what all begin with left out."""
    found = []
    for members in _groups(questions):
        own = [questions[i] for i in members]
        shared = len(_prefix(reader, own))
        for batch in _batches(reader, own, shared):
            length = max(len(own[i].context) - shared + max(map(len, own[i].options)) - 1 for i in batch)
            found.append(BatchRows(np.array([members[i] for i in batch], dtype=np.int64), length))
    return found


def read_batch(reader: Reader, questions: Sequence[Question], batch: BatchRows) -> None:
    """Read one of :func:`batches` as answers to all ``questions`` do, and what these begin with; look at no number."""
    group = questions[int(batch.rows[0])].group
    passes = _passes(reader, [question for question in questions if question.group == group])
    _pass(passes, [questions[int(row)] for row in batch.rows])


#: Questions, their readings, log-probabilities after the questions and after what was read on, and for each question
#: the row of either (the second counted on) where each of its places is; to an array for each question.
_Take = Callable[
    [Sequence[Question], Sequence[Reading], Tensor, Tensor, list[NDArray[np.int64]]], Iterator[NDArray[Any]]
]


class _Passes(Protocol):
    """Reads questions, and then what options have in common."""

    shared: int  # tokens that every question begins with and that are not read again

    def first(self, questions: Sequence[Question]) -> tuple[Tensor, Any]:
        """Log-probabilities ``[questions, vocabulary]`` of the token after each, and the state to go on from."""

    def rest(self, state: Any, rows: Sequence[int], tokens: Sequence[tuple[int, ...]]) -> tuple[Tensor, list[int]]:
        """Log-probabilities ``[places, vocabulary]`` after every token of each sequence, which goes on from a row.

        Also where each sequence's places start.
        """


def _passes(reader: Reader, questions: Sequence[Question]) -> _Passes:
    if not reader.caches:
        return _Whole(reader)
    if reader.start is not None:
        return _EncoderDecoder(reader)
    prefix = _prefix(reader, questions)
    several = any(len(option) > 1 for question in questions for option in question.options)
    if not len(prefix) and not several:
        return _Whole(reader)
    decoder = _Decoder(reader, prefix)
    return decoder if decoder.usable else _Whole(reader)


def _prefix(reader: Reader, questions: Sequence[Question]) -> NDArray[np.int32]:
    """What is read once for all ``questions``, which no two readings of a model that keeps nothing can share."""
    prefix = common_prefix([question.context for question in questions])
    carried = reader.start is None and reader.caches
    return prefix if carried and len(prefix) >= _SHORTEST_PREFIX and len(questions) > 1 else prefix[:0]


def common_prefix(contexts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """The tokens that all ``contexts`` begin with, short of the last token of the shortest."""
    shortest = min(map(len, contexts)) - 1
    common = contexts[0][:shortest]
    for context in contexts[1:]:
        different = np.nonzero(common != context[: len(common)])[0]
        if len(different):
            common = common[: different[0]]
    return common


def _batches(reader: Reader, questions: Sequence[Question], shared: int) -> Iterator[list[int]]:
    """Indices of questions of like length, as many as tokens, logits and caches allow."""
    lengths = np.array([len(question.context) - shared for question in questions])
    options = max(len(question.options) for question in questions)
    longest = max(len(option) for question in questions for option in question.options)
    order = np.argsort(-lengths, kind="stable")
    logits = reader.vocabulary * 4 * max(1, options * (longest - 1))
    start = 0
    while start < len(order):
        length = int(lengths[order[start]]) + longest - 1
        cache = (shared + length) * _cache_bytes(reader) * (options if longest > 1 else 1)
        most = min(_BATCH_ROWS, _BATCH_TOKENS // length, LOGIT_BYTES // logits, _CACHE_BYTES // cache)
        yield order[start : start + max(1, most)].tolist()
        start += max(1, most)


def _cache_bytes(reader: Reader) -> int:
    """Bytes of keys and values of one token, at most."""
    config: Any = getattr(reader.model, "config", None)
    layers, width = getattr(config, "num_hidden_layers", 12), getattr(config, "hidden_size", 1024)
    return int(2 * layers * width * 4)


def _places(readings: Sequence[Reading], starts: Sequence[int], questions: int) -> list[NDArray[np.int64]]:
    """Where each reading's places are: among the ``questions`` first rows, or behind them from its stem's start on."""
    begin, found = iter(starts), []
    for row, reading in enumerate(readings):
        offsets = [next(begin) if stem else 0 for stem in reading.stems]
        at = [questions + offsets[stem] + read - 1 if read else row for stem, read in reading.places]
        found.append(np.array(at, dtype=np.int64))
    return found


def _scores(
    questions: Sequence[Question],
    readings: Sequence[Reading],
    first: Tensor,
    later: Tensor,
    places: Sequence[NDArray[np.int64]],
) -> Iterator[NDArray[np.float64]]:
    """The sum of the log-probabilities of each option's tokens."""
    wanted = [
        (int(at[place]), token)
        for question, reading, at in zip(questions, readings, places, strict=True)
        for option, of_token in zip(question.options, reading.of_option, strict=True)
        for place, token in zip(of_token, option, strict=True)
    ]
    where = torch.tensor([place for place, _ in wanted], device=first.device)
    token_ids = torch.tensor([token for _, token in wanted], device=first.device)
    early = where < len(first)
    values = torch.empty(len(wanted), dtype=torch.float64, device=first.device)
    values[early] = first[where[early], token_ids[early]].double()
    values[~early] = later[where[~early] - len(first), token_ids[~early]].double()
    flat, at = values.cpu().numpy(), 0
    for question in questions:
        sums = []
        for option in question.options:
            sums.append(flat[at : at + len(option)].sum())
            at += len(option)
        yield np.array(sums)


def _rows(
    questions: Sequence[Question],
    readings: Sequence[Reading],
    first: Tensor,
    later: Tensor,
    places: Sequence[NDArray[np.int64]],
) -> Iterator[NDArray[Any]]:
    """Whole distributions."""
    for at in places:
        where = torch.from_numpy(at).to(first.device)
        early = where < len(first)
        values = first.new_empty(len(at), first.shape[1])
        values[early] = first[where[early]]
        values[~early] = later[where[~early] - len(first)]
        yield values.cpu().numpy()


def _right_padded(rows: Sequence[Sequence[int] | NDArray[np.int32]], reader: Reader) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    ids = np.full((len(rows), length), reader.pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    device = reader.precision.device
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _every_place(tokens: Sequence[tuple[int, ...]], offset: int = 0) -> tuple[list[tuple[int, int]], list[int]]:
    places = [(i, offset + j) for i, stem in enumerate(tokens) for j in range(len(stem))]
    starts = np.concatenate([[0], np.cumsum([len(stem) for stem in tokens])[:-1]]).astype(int).tolist()
    return places, starts


class _Whole:
    """Every sequence from its beginning: for models that carry nothing over, and where nothing is worth carrying."""

    shared = 0

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def first(self, questions: Sequence[Question]) -> tuple[Tensor, Any]:
        contexts = [question.context for question in questions]
        return self._read(contexts, [()] * len(contexts), [(i, 0) for i in range(len(contexts))]), contexts

    def rest(self, state: Any, rows: Sequence[int], tokens: Sequence[tuple[int, ...]]) -> tuple[Tensor, list[int]]:
        places, starts = _every_place(tokens, 1)
        return self._read([state[row] for row in rows], tokens, places), starts

    def _read(
        self, contexts: Sequence[NDArray[np.int32]], stems: Sequence[tuple[int, ...]], places: list[tuple[int, int]]
    ) -> Tensor:
        """``places`` are counted from the context's end: 0 is what follows it."""
        reader = self._reader
        if reader.start is None:
            read = [[*context, *stem] for context, stem in zip(contexts, stems, strict=True)]
            ids, mask = _right_padded(read, reader)
            at = [(i, len(contexts[i]) - 1 + column) for i, column in places]
            return reader.at(at, ids.shape[1], input_ids=ids, attention_mask=mask, use_cache=False)[0]
        ids, mask = _right_padded(contexts, reader)
        decoder, decoder_mask = _right_padded([(reader.start, *stem) for stem in stems], reader)
        inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": decoder}
        inputs["decoder_attention_mask"] = decoder_mask
        return reader.at(places, decoder.shape[1], **inputs, use_cache=False)[0]


class _Decoder:
    """A decoder that keeps the keys and values of what it has read."""

    def __init__(self, reader: Reader, prefix: NDArray[np.int32]) -> None:
        self._reader = reader
        self.shared = len(prefix)
        self._cache: Any = None
        self.usable = "position_ids" in _arguments(reader.model)
        if self.usable and len(prefix):
            ids, mask = _right_padded([prefix], reader)
            last = [(0, len(prefix) - 1)]
            _, output = reader.at(last, len(prefix), input_ids=ids, attention_mask=mask, use_cache=True)
            self._cache = output.past_key_values
            self.usable = _plain(self._cache)

    def first(self, questions: Sequence[Question]) -> tuple[Tensor, Any]:
        contexts = [question.context[self.shared :] for question in questions]
        ids, mask = _right_padded(contexts, self._reader)
        mask = torch.cat([mask.new_ones(len(contexts), self.shared), mask], dim=1)
        cache = None
        if self._cache is not None:
            cache = _forked(self._cache)
            cache.batch_repeat_interleave(len(contexts))
        several = any(len(option) > 1 for question in questions for option in question.options)
        places = [(i, len(context) - 1) for i, context in enumerate(contexts)]
        found, output = self._reader.at(
            places,
            ids.shape[1],
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=several or cache is not None,
        )
        return found, (output.past_key_values, mask)

    def rest(self, state: Any, rows: Sequence[int], tokens: Sequence[tuple[int, ...]]) -> tuple[Tensor, list[int]]:
        cache, mask = state
        ids, more = _right_padded(tokens, self._reader)
        index = torch.tensor(rows, device=ids.device)
        cache.batch_select_indices(index)
        before = mask[index]
        positions = before.sum(1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device)
        places, starts = _every_place(tokens)
        found, _ = self._reader.at(
            places,
            ids.shape[1],
            input_ids=ids,
            attention_mask=torch.cat([before, more], dim=1),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return found, starts


class _EncoderDecoder:
    """An encoder-decoder whose encoder reads every question once."""

    shared = 0

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def first(self, questions: Sequence[Question]) -> tuple[Tensor, Any]:
        ids, mask = _right_padded([question.context for question in questions], self._reader)
        start, _ = _right_padded([[self._reader.start or 0]] * len(questions), self._reader)
        places = [(i, 0) for i in range(len(questions))]
        found, output = self._reader.at(
            places, 1, input_ids=ids, attention_mask=mask, decoder_input_ids=start, use_cache=False
        )
        return found, (output.encoder_last_hidden_state, mask)

    def rest(self, state: Any, rows: Sequence[int], tokens: Sequence[tuple[int, ...]]) -> tuple[Tensor, list[int]]:
        from transformers.modeling_outputs import BaseModelOutput

        hidden, mask = state
        decoder, decoder_mask = _right_padded([(self._reader.start or 0, *stem) for stem in tokens], self._reader)
        index = torch.tensor(rows, device=decoder.device)
        places, starts = _every_place(tokens, 1)
        found, _ = self._reader.at(
            places,
            decoder.shape[1],
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden[index]),
            attention_mask=mask[index],
            decoder_input_ids=decoder,
            decoder_attention_mask=decoder_mask,
            use_cache=False,
        )
        return found, starts


def _arguments(model: nn.Module) -> set[str]:
    wrapped: Any = model
    base = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else model
    return set(inspect.signature(base.forward).parameters)


def _forked(cache: Any) -> Any:
    """A plain cache to go on from another: the same keys and values, which layers replace and never change."""
    forked = copy.copy(cache)
    forked.layers = [copy.copy(layer) for layer in cache.layers]
    return forked


def _plain(cache: Any) -> bool:
    """Whether a cache is keys and values of every token, nothing else: no sliding windows, no recurrent states."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers)
