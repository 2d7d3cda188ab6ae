"""Where question and answer meet in tokens, and batches of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptlab.config import ModelConfig
from adaptlab.methods import registry as methods
from adaptlab.methods._base import Attached, Setup
from adaptlab.models.load import Base, fresh_model, load_base
from adaptlab.training.batches import Batch
from adaptlab.training.objectives.words import Labels, Vocabulary
from adaptlab.training.questions import Pieces, Question, Questions, collate
from adaptlab.training.words import read, stems

FAMILIES = ("gpt2", "opt", "llama", "t5")


@pytest.fixture(scope="module")
def base_of(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Base]:
    built: dict[str, Base] = {}

    def load(family: str) -> Base:
        if family not in built:
            config = ModelConfig(id=str(tiny_model_folder(family)))
            built[family] = load_base(config, num_labels=2, regression=False, device="cpu", readout="verbalizer")
        return built[family]

    return load


def said(attached: Attached, batch: Batch) -> torch.Tensor:
    return read(attached.model, attached.layout.word_head, batch.inputs, batch.places)


def questions(base: Base, words: tuple[str, ...] = (" yes", " not at all", " not so")) -> Questions:
    pieces = Pieces(base.tokenizer, base.layout.kind, start=base.start)
    texts = ["a list\nSo:", "import the module by its name\nSo: ", "x\nSo:"]
    contexts = pieces.contexts(texts)
    options = pieces.options(texts, contexts, [words] * 3)
    rows = tuple(
        Question(np.array(c, dtype=np.int32), o, (1.0,) * len(o)) for c, o in zip(contexts, options, strict=True)
    )
    return Questions(("a", "b", "c"), rows, np.array([0, 1, 2]), base.start)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_a_batch_are_known_without_making_it(family: str, base_of: Callable[[str], Base]) -> None:
    data = questions(base_of(family))
    for rows in (np.array([0]), np.array([2, 1]), np.array([0, 1, 2])):
        batch = collate(data, rows, int(data.lengths.max()), pad_id=0)
        assert data.batch_tokens(rows) == batch.tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_and_its_answer_are_the_tokens_of_the_whole_text(
    family: str, base_of: Callable[[str], Base]
) -> None:
    base = base_of(family)
    found = questions(base).rows[1]
    text = "import the module by its name\nSo:"
    if base.start is None:  # the space at the question's end went to the answer
        whole = base.tokenizer(text + "  not so")["input_ids"]
        assert [*found.context, *found.options[2]] == whole
    else:
        assert found.context.tolist() == base.tokenizer(text)["input_ids"]
        assert list(found.options[2]) == base.tokenizer("  not so", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_an_empty_question_is_read_as_the_token_that_begins_texts(family: str, base_of: Callable[[str], Base]) -> None:
    base = base_of(family)
    pieces = Pieces(base.tokenizer, base.layout.kind)
    (context,) = pieces.contexts([""])
    begin = base.tokenizer.bos_token_id
    assert context == [begin]
    assert pieces.options([""], [context], [["yes"]])[0][0] == tuple(
        base.tokenizer("yes", add_special_tokens=False)["input_ids"]
    )


def test_options_that_begin_alike_are_read_once() -> None:
    kept, which = stems([(1,), (2, 3, 4), (2, 3, 5), (2, 6), (7, 8)])
    assert kept == [(2, 3), (7,)]
    assert which == [0, 0, 0, 0, 1]
    assert stems([(1,), (2,)]) == ([()], [0, 0])


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_single_rows_and_single_options(family: str, base_of: Callable[[str], Base]) -> None:
    base = base_of(family)
    method = methods.get("full")
    attached = method.attach(fresh_model(base, share=False), base.layout, Setup(method.Config()))
    attached.model.eval()
    data = questions(base)
    length = int(data.lengths.max()) + 3  # more padding than needed
    batch = collate(data, np.array([0, 1, 2]), length, pad_id=base.tokenizer.pad_token_id)
    assert batch.wanted is not None
    with torch.no_grad():
        logits = said(attached, batch)
        scores = batch.wanted.scores(logits)
        labels, vocabulary = Labels().losses(logits, batch), Vocabulary().losses(logits, batch)
    assert len(logits) == len(batch.wanted.places) < batch.sequences * length
    expected = []
    for question in data.rows:
        for option in question.options:
            one = Questions(("a",), (Question(question.context, (option,), (1.0,)),), np.array([0]), base.start)
            alone = collate(one, np.array([0]), int(one.lengths[0]), pad_id=0)
            assert alone.wanted is not None
            with torch.no_grad():
                expected.append(float(alone.wanted.scores(said(attached, alone))[0, 0]))
    torch.testing.assert_close(scores.flatten(), torch.tensor(expected), atol=1e-4, rtol=1e-4)
    gold = scores[torch.arange(3), torch.arange(3)]
    torch.testing.assert_close(labels, -(gold - scores.logsumexp(1)))
    counts = torch.tensor([len(row.options[i]) for i, row in enumerate(data.rows)])
    torch.testing.assert_close(vocabulary, -gold / counts)


def test_rows_with_fewer_options_have_no_others(base_of: Callable[[str], Base]) -> None:
    base = base_of("gpt2")
    data = questions(base)
    fewer = Question(data.rows[1].context, data.rows[1].options[:2], (1.0, 1.0))
    data = Questions(data.ids, (data.rows[0], fewer, data.rows[2]), np.array([0, 1, 2]))
    batch = collate(data, np.array([0, 1]), int(data.lengths.max()), pad_id=0)
    assert batch.wanted is not None
    scores = batch.wanted.scores(torch.zeros(len(batch.wanted.places), base.tokenizer.vocab_size))
    assert scores[1, 2] == -torch.inf
    assert batch.sequences % 2 == 0


def test_counts_of_tokens_leave_padding_out(base_of: Callable[[str], Base]) -> None:
    base = base_of("gpt2")
    data = questions(base, (" yes", " no"))
    short = tuple(Question(q.context, tuple(o[:1] for o in q.options), (1.0, 1.0)) for q in data.rows)
    data = Questions(data.ids, short, data.labels)
    batch = collate(data, np.arange(3), 40, pad_id=0)
    assert batch.sequences == 3
    assert batch.tokens == sum(len(row.context) for row in data.rows)
    assert batch.padded_tokens == 3 * 40
