"""What a readout is, and what it has to know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adaptlab.config import AnsweringConfig, Prompt
from adaptlab.evaluation.demonstrations import Demonstrations
from adaptlab.metrics._base import Answers, as_objects
from adaptlab.models._base import Layout
from adaptlab.tasks._base import Example, Kind
from adaptlab.training.encode import Rows

if TYPE_CHECKING:
    from torch import nn

    from adaptlab.training.batches import Batch, BatchRows
    from adaptlab.training.objectives import Objective
    from adaptlab.training.precision import Precision


@dataclass(frozen=True, slots=True)
class Setting:
    """A task's rows before a model.

    Attributes:
        labels: the names of the classes; empty for other kinds.
        prompt: how rows are put to a language model; ``None`` for a head that reads the bare texts.
        start: the token that a decoder behind an encoder starts with.
        caches: whether a decoder's keys and values may be carried from one pass to the next.
        shots: demonstrations before every question that is answered; none in training.
        distils: the model is to answer without the prompt's instruction, which a teacher reads in its place.
    """

    tokenizer: Any
    layout: Layout
    kind: Kind
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    prompt: Prompt | None
    max_length: int
    start: int | None = None
    caches: bool = True
    shots: Demonstrations | None = None
    distils: bool = False
    how: AnsweringConfig = field(default_factory=AnsweringConfig)

    @property
    def regression(self) -> bool:
        """Whether the answer is a number."""
        return self.kind == "regression"


@dataclass(frozen=True, slots=True)
class Answered:
    """A model's answers to a split.

    Attributes:
        notes: numbers for the record, e.g. the labels' share of the probability.
        warnings: sentences for the record, e.g. that some answers were none.
    """

    answers: Answers
    notes: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def about(self, examples: Sequence[Example]) -> Answered:
        """The same with the rows themselves, which some metrics look at."""
        return replace(self, answers=replace(self.answers, examples=as_objects(examples)))


class Readout(ABC):
    """How a model answers. Knows rows and tokenizer; the model comes with each call."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @abstractmethod
    def encode(self, examples: Sequence[Example], *, training: bool) -> Rows:
        """Rows as tokens: to be trained on, or to be answered."""

    @abstractmethod
    def collate(self, rows: Any, which: NDArray[np.int64], length: int, *, device: str) -> Batch:
        """A batch of ``which`` rows, padded to ``length``. Padding changes no number."""

    @abstractmethod
    def objective(self) -> Objective:
        """What supervised training minimises."""

    @abstractmethod
    def answer(self, model: nn.Module, rows: Any, precision: Precision) -> Answered:
        """The model's own answers to ``rows``; the model is in eval mode."""

    @abstractmethod
    def answer_batches(self, model: nn.Module, rows: Any) -> list[BatchRows]:
        """The batches in which ``rows`` are answered, and the tokens that each is padded to; ``model`` may be on the
        meta device."""

    @abstractmethod
    def passes(
        self, model: nn.Module, rows: Any, batch: BatchRows, precision: Precision
    ) -> Iterator[tuple[float, Callable[[], object]]]:
        """What :meth:`answer` passes through ``model``, in eval mode, for one of :meth:`answer_batches`: how often, and
        a call that does it and looks at no number."""

    def answers(self, model: Any, rows: Any, precision: Precision, *, models: int) -> list[Answered] | None:
        """The answers of ``models`` models whose outputs ``model`` gives side by side.

        ``None`` where the readout has to ask each model by itself.
        """
        return None

    def at_once(self, rows: Any) -> int | None:
        """How many rows a training step may pass through the model together; ``None`` for any number."""
        return None

    def warnings(self, rows: Any) -> list[str]:
        """Sentences for the record about ``rows`` that are to be answered."""
        return []
