"""Context distillation: a prompt's effect, trained into weights (Snell et al. 2022, arXiv 2209.15189).

The teacher reads instruction, demonstrations and question; the student the question alone. The student is drawn to what
the teacher would say, whatever the gold answer: rows need none. Divergences are from the teacher's distribution to the
student's, both at a temperature, times its square, so that gradients keep their size (Hinton et al. 2015, arXiv
1503.02531).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from adaptlab.training.batches import Batch


class LabelDistillation:
    """Over a row's answers, by the (normalised) likelihoods of their words."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[rows]`` divergences in nats: logits ``[places, vocabulary]``, ``batch.teacher`` ``[rows, options]``."""
        assert batch.wanted is not None
        assert batch.teacher is not None
        scores = batch.wanted.scores(logits)
        student = scores / batch.wanted.divisors.to(scores.dtype)
        return _divergence(batch.teacher.to(scores.dtype), student, self._temperature)


class VocabularyDistillation:
    """Over every word that could be said where a token of an answer is asked for; the mean over a row's places."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[rows]`` divergences in nats, from logits and ``batch.teacher``, both ``[places, vocabulary]``."""
        import torch

        assert batch.wanted is not None
        assert batch.teacher is not None
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        found = _divergence(batch.teacher.to(logits.dtype), logits, self._temperature)
        row = batch.wanted.places[:, 0] // (batch.sequences // len(batch.labels))
        sums = found.new_zeros(len(batch.labels)).index_add(0, row, found)
        return sums / torch.bincount(row, minlength=len(batch.labels))


def _divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Over the last dimension, from scores of both; what neither can say (-inf) adds nothing."""
    teacher, student = ((scores / temperature).log_softmax(-1) for scores in (teacher, student))
    difference = (teacher - student).masked_fill(teacher.isneginf(), 0.0)
    return (teacher.exp() * difference).sum(-1) * temperature**2
