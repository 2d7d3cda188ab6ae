"""Training to write answers minimises what transformers' own loss says of them: after the right start, with the token
that ends a text, at the answer's places alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptlab.methods import registry
from adaptlab.readouts.generate import Generate, which
from tests.contracts.readout_checks import LABELS, asker, examples


@pytest.mark.parametrize("family", ["t5", "opt", "gpt2", "llama", "qwen2"])
def test_the_loss_is_transformers_own(family: str, tiny_model_folder: Callable[[str], Path]) -> None:
    asked = asker(tiny_model_folder(family), "generate")
    attached = asked.attach(registry.get("none"))
    rows, tokenizer = asked.rows(attached), asked.base.tokenizer
    ours = asked.losses(attached, rows, range(len(rows)))
    for row, example, loss in zip(rows.rows, examples(), ours, strict=True):  # type: ignore[attr-defined]
        text, word = f"{example.texts[0]}\nSo:", f" {LABELS[int(example.label)]}"
        if family == "t5":
            inputs = tokenizer(text, return_tensors="pt")
            labels = tokenizer(text_target=word.strip(), return_tensors="pt").input_ids
            assert labels[0, -1] == tokenizer.eos_token_id
        else:
            context = tokenizer(text).input_ids
            ids = [*tokenizer(text + word).input_ids, tokenizer.eos_token_id]
            inputs = {"input_ids": torch.tensor([ids])}
            labels = torch.tensor([[-100] * len(context) + ids[len(context) :]])
        assert row.options[0] == tuple(labels[labels != -100].tolist())
        theirs = attached.model(**inputs, labels=labels).loss
        assert float(loss) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("family", ["t5", "opt"])
def test_an_answer_is_what_the_model_itself_generates(family: str, tiny_model_folder: Callable[[str], Path]) -> None:
    """Trained until it says the words, row by row with transformers' own ``generate`` and no padding."""
    asked = asker(tiny_model_folder(family), "generate")
    attached = asked.attach(registry.get("full"))
    asked.train(attached, 60, rate=1e-2)
    answered = asked.answer(attached, examples())
    readout = asked.readout(attached.method)
    assert isinstance(readout, Generate)
    contexts = [row.context for row in readout.encode(examples(), training=False).questions.rows]  # type: ignore[union-attr]
    said = []
    for context in contexts:
        ids = torch.tensor(context[None].astype(np.int64))
        written = attached.model.generate(input_ids=ids, max_new_tokens=3, do_sample=False)[0]
        own = written[1:] if family == "t5" else written[ids.shape[1] :]
        text = asked.base.tokenizer.decode(own, skip_special_tokens=True)
        said.append(which(text.partition("\n")[0].strip(), LABELS))
    assert answered.answers.predicted.tolist() == said
    assert max(said) >= 0


def test_the_longest_word_that_is_said_counts_and_nothing_else() -> None:
    words = ("entail", "entail not", "neutral")
    assert which("Entail not, I think", words) == 1
    assert which("entail", words) == 0
    assert which("entailment", words) == -1
    assert which("it is neutral", words) == -1
    assert which("", words) == -1
