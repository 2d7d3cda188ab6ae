"""Texts to tokens, cut where the model ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab.config import ModelConfig
from adaptlab.models.load import local_tokenizer
from adaptlab.tasks._base import Example
from adaptlab.training.encode import encode
from adaptlab.training.questions import Pieces

LONG = Example(id="long", texts=("a list of words " * 20,), label=0)


def test_texts_longer_than_the_model_are_cut_without_a_word_of_the_library(
    tiny_model_folder: Callable[[str], Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="transformers")
    tokenizer = local_tokenizer(ModelConfig(id=str(tiny_model_folder("bert"))))
    tokenizer.model_max_length = 16
    found = encode(tokenizer, [LONG], max_length=16, regression=False)
    assert (found.lengths.tolist(), found.truncated) == ([16], 1)
    pieces = Pieces(tokenizer, "decoder")
    assert len(pieces.encode(LONG.texts)[0]) > 16
    assert pieces.first(LONG.texts[0], 2) == "a list"
    assert not caplog.records
    tokenizer(LONG.texts[0])
    assert "longer than the specified maximum" in caplog.text  # it would have been seen
