"""Free generation: padding, stops, beams, and what counts as an answer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from adaptlab.evaluation import generate
from adaptlab.evaluation.generate import cut, write
from adaptlab.models.load import Base
from adaptlab.readouts.generate import which
from adaptlab.training.precision import Precision
from adaptlab.training.questions import Pieces

TEXTS = ["a list keeps its order", "import", "a float is a number with a point, and so on"]


def written(base: Base, texts: list[str], *, beams: int = 1, stop: tuple[str, ...] = ()) -> list[str]:
    pieces = Pieces(base.tokenizer, base.layout.kind, start=base.start)
    contexts = [np.array(tokens, dtype=np.int32) for tokens in pieces.contexts(texts)]
    precision, encoder = Precision("float32", "cpu"), base.start is not None
    return write(
        base.model, base.tokenizer, contexts, precision, encoder=encoder, max_new_tokens=8, beams=beams, stop=stop
    )


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_a_text_is_answered_alike_alone_and_among_others(
    family: str, beams: int, language_model: Callable[[str], Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = language_model(family)
    together = written(base, TEXTS, beams=beams)
    monkeypatch.setattr(generate, "_BATCH_ROWS", 1)
    assert written(base, TEXTS, beams=beams) == together
    assert any(together) or (family, beams) == ("t5", 1)  # this one writes padding only


def test_texts_of_like_length_are_written_together_and_long_ones_by_fewer() -> None:
    lengths = [5, 4000, 6, 3900, 7, 4, *[50] * 100]
    batches = generate._batches(lengths, 64)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert [len(batch) for batch in batches[:2]] == [2, 64]
    for batch in batches:
        assert len(batch) * (max(lengths[row] for row in batch) + 64) <= generate._BATCH_TOKENS or len(batch) == 1
    ends = [(max(lengths[row] for row in batch), min(lengths[row] for row in batch)) for batch in batches]
    assert all(low >= high for (_, low), (high, _) in pairwise(ends))


def test_greedy_is_the_likeliest_token_each_time(language_model: Callable[[str], Base]) -> None:
    base = language_model("gpt2")
    ids = base.tokenizer(TEXTS[0])["input_ids"]
    begun = len(ids)
    with torch.no_grad():
        for _ in range(8):
            ids.append(int(base.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == base.tokenizer.eos_token_id:
                break
    assert written(base, TEXTS[:1]) == [base.tokenizer.decode(ids[begun:], skip_special_tokens=True).strip()]


def test_writing_ends_at_a_stop_string(language_model: Callable[[str], Base]) -> None:
    base = language_model("gpt2")
    (whole,) = written(base, TEXTS[:1])
    stop = whole[3:5]
    assert written(base, TEXTS[:1], stop=(stop,)) == [whole[: whole.index(stop)].strip()]


def test_the_first_stop_string_counts() -> None:
    assert cut(" one two\nthree ", ("\n", "two")) == "one"
    assert cut(" one two ", ("\n",)) == "one two"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Yes", 1), ("yes, they do", 1), ("No", 0), ("Nothing", -1), ("not so", 2), ("", -1), ("I think yes", -1)],
)
def test_an_answer_is_a_word_of_the_task_or_begins_with_one(text: str, expected: int) -> None:
    assert which(text, ("No", "Yes", "not so")) == expected
