"""Context distillation: a prompt's effect, trained into weights (Snell et al. 2022, arXiv 2209.15189).

The teacher reads instruction, demonstrations and question; the student the question alone. The student is drawn to the
teacher's probabilities of the labels, whatever the gold answer: rows need none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from adaptlab.training.batches import Batch


class ContextDistillation:
    """The divergence from the teacher's distribution over a row's answers to the student's, both at a temperature.

    Times the temperature's square, so that gradients keep their size (Hinton et al. 2015, arXiv 1503.02531).
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[rows]`` divergences in nats, from logits ``[places, vocabulary]`` and ``batch.teacher``."""
        assert batch.wanted is not None
        assert batch.teacher is not None
        there = batch.wanted.counts > 0
        scores = batch.wanted.scores(logits)
        student = (scores / batch.wanted.divisors.to(scores.dtype) / self._temperature).log_softmax(-1)
        teacher = (batch.teacher.to(scores.dtype) / self._temperature).log_softmax(-1)
        difference = (teacher - student).masked_fill(~there, 0.0)
        return (teacher.exp() * difference).sum(-1) * self._temperature**2
