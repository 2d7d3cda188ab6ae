"""A new head on the model's features: one number for each class, or one for regression."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from adaptlab.evaluation import classify
from adaptlab.readouts._base import Answered, Readout
from adaptlab.tasks._base import Example
from adaptlab.tasks._prompts import render
from adaptlab.training.batches import Batch, BatchRows, collate, evaluation_batches
from adaptlab.training.encode import Encoded, encode
from adaptlab.training.objectives.supervised import Supervised
from adaptlab.training.precision import Precision


class Head(Readout):
    """Texts alone, or in the prompt that was asked for, without its answer."""

    def encode(self, examples: Sequence[Example], *, training: bool) -> Encoded:
        setting, rows = self.setting, examples
        if setting.prompt is not None:
            asked = [render(setting.prompt, setting.columns, example).query for example in examples]
            rows = [replace(example, texts=(query,)) for example, query in zip(examples, asked, strict=True)]
        return encode(setting.tokenizer, rows, max_length=setting.max_length, regression=setting.regression)

    def collate(self, rows: Encoded, which: NDArray[np.int64], length: int, *, device: str) -> Batch:
        pad_id = self.setting.tokenizer.pad_token_id
        return collate(rows, which, length, pad_id=pad_id, device=device, padding_side=self.padding_side)

    @property
    def padding_side(self) -> str:
        """Where padding goes. A decoder's, behind the text: there no token sees it, and positions count from the text's
        first token whatever the batch; its head reads the last token that is none."""
        kind = self.setting.layout.kind
        return "right" if kind == "decoder" else str(self.setting.tokenizer.padding_side)

    def objective(self) -> Supervised:
        return Supervised(regression=self.setting.regression)

    def answer(self, model: nn.Module, rows: Encoded, precision: Precision) -> Answered:
        scores = self.logits(model, rows, precision)
        return Answered(classify.answers(scores, rows.labels, regression=self.setting.regression))

    def answer_batches(self, model: nn.Module, rows: Encoded) -> list[BatchRows]:
        return evaluation_batches(rows.lengths)

    def passes(
        self, model: nn.Module, rows: Encoded, batch: BatchRows, precision: Precision
    ) -> Iterator[tuple[float, Callable[[], object]]]:
        padding = {"pad_id": self.setting.tokenizer.pad_token_id, "padding_side": self.padding_side}
        yield 1, partial(classify.logits_of, model, rows, batch, precision, **padding)

    def answers(self, model: Any, rows: Encoded, precision: Precision, *, models: int) -> list[Answered]:
        wide = np.split(self.logits(model, rows, precision), models, axis=1)
        return [Answered(classify.answers(own, rows.labels, regression=self.setting.regression)) for own in wide]

    def logits(self, model: nn.Module, rows: Encoded, precision: Precision) -> NDArray[np.float32]:
        """``[rows, outputs]`` raw scores."""
        pad_id = self.setting.tokenizer.pad_token_id
        return classify.logits(model, rows, precision, pad_id=pad_id, padding_side=self.padding_side)
