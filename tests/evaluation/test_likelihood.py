"""Likelihoods against the plainest way of computing them: one option at a time, whole, without batches or caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from adaptlab.evaluation import likelihood
from adaptlab.evaluation.likelihood import Reader, common_prefix, log_likelihoods
from adaptlab.models.load import Base
from adaptlab.training.precision import Precision
from adaptlab.training.questions import Pieces, Question

FAMILIES = ("gpt2", "opt", "llama", "qwen2", "t5")
WORDS = (" yes", " no", " not at all, it is not", " not so")


def plainly(base: Base, question: Question) -> list[float]:
    """Each option's log-likelihood by one forward pass over everything."""
    sums = []
    for option in question.options:
        if base.start is None:
            ids = torch.tensor([[*question.context, *option]])
            logits = base.model(input_ids=ids).logits[0, len(question.context) - 1 : -1]
        else:
            context = torch.tensor([question.context.tolist()])
            decoder = torch.tensor([[base.start, *option[:-1]]])
            logits = base.model(input_ids=context, decoder_input_ids=decoder).logits[0]
        found = logits.log_softmax(-1)[torch.arange(len(option)), torch.tensor(option)]
        sums.append(float(found.sum()))
    return sums


def asked(base: Base, texts: Sequence[str], words: Sequence[str] = WORDS) -> list[Question]:
    pieces = Pieces(base.tokenizer, base.layout.kind, start=base.start)
    contexts = pieces.contexts(texts)
    options = pieces.options(texts, contexts, [words] * len(texts))
    return [
        Question(np.array(context, dtype=np.int32), found, (1.0,) * len(found))
        for context, found in zip(contexts, options, strict=True)
    ]


def reader(base: Base, *, caches: bool = True) -> Reader:
    pad_id = base.tokenizer.pad_token_id
    return Reader(base.model, base.layout.word_head, Precision("float32", "cpu"), pad_id, base.start, caches)


SHARED = "a list keeps its order\nSo: yes\n\nimport a module\nSo: no\n\n"
TEXTS = [f"{SHARED}{'a float is a number ' * n}\nSo:" for n in (1, 3, 2, 1)]


@pytest.mark.parametrize("caches", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_are_those_of_a_plain_forward_pass(
    family: str, caches: bool, language_model: Callable[[str], Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = language_model(family)
    questions = asked(base, TEXTS)
    assert max(len(option) for option in questions[0].options) > 2
    expected = [plainly(base, question) for question in questions]
    for rows in (1, 3, 128):  # batches of several sizes; padding changes nothing
        monkeypatch.setattr(likelihood, "_BATCH_ROWS", rows)
        found = log_likelihoods(reader(base, caches=caches), questions)
        np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_shared_beginning_is_read_once(family: str, language_model: Callable[[str], Base]) -> None:
    base = language_model(family)
    questions = asked(base, TEXTS, (" yes", " no"))
    questions = [Question(q.context, tuple(o[:1] for o in q.options), q.divisors) for q in questions]
    read: list[int] = []
    handle = base.model.get_input_embeddings().register_forward_hook(  # type: ignore[operator]
        lambda module, args, output: read.append(args[0].numel())
    )
    try:
        log_likelihoods(reader(base), questions)
    finally:
        handle.remove()
    shared = len(common_prefix([question.context for question in questions]))
    longest = max(len(question.context) for question in questions)
    assert read == [shared, 4 * (longest - shared)]


def test_questions_of_different_groups_share_nothing(language_model: Callable[[str], Base]) -> None:
    base = language_model("gpt2")
    with_shots, without = asked(base, TEXTS[:2]), asked(base, ["a tuple\nSo:", "a dict\nSo:"])
    grouped = [Question(q.context, q.options, q.divisors, group=1) for q in with_shots] + without
    found = log_likelihoods(reader(base), grouped)
    np.testing.assert_allclose(found, [plainly(base, question) for question in grouped], atol=2e-4)


def test_the_common_beginning_leaves_every_question_a_token() -> None:
    rows = [np.array(tokens, dtype=np.int32) for tokens in ([1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 5])]
    assert common_prefix(rows).tolist() == [1, 2]
    assert common_prefix([rows[0], np.array([9, 2], dtype=np.int32)]).tolist() == []


def test_a_model_with_sliding_windows_is_read_whole(language_model: Callable[[str], Base]) -> None:
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    cache = DynamicCache()
    cache.layers = [DynamicLayer(), DynamicSlidingWindowLayer(sliding_window=4)]
    assert not likelihood._plain(cache)
    cache.layers = [DynamicLayer()]
    assert likelihood._plain(cache)
