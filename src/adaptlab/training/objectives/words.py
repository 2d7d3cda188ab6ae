"""Losses of answers in words: against the other labels, or against everything that could be said."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from adaptlab.training.batches import Batch


class Labels:
    """Cross-entropy over the labels of a row, by the (normalised) likelihoods of their words."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[rows]`` losses of ``logits`` ``[places, vocabulary]``."""
        import torch.nn.functional as F

        assert batch.wanted is not None
        scores = batch.wanted.scores(logits)
        return F.cross_entropy(scores / batch.wanted.divisors.to(scores.dtype), batch.labels, reduction="none")


class Vocabulary:
    """Mean negative log-likelihood, over the whole vocabulary, of the tokens of a row's answer."""

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[rows]`` losses of ``logits`` ``[places, vocabulary]``."""
        assert batch.wanted is not None
        counts = batch.wanted.counts.gather(1, batch.labels[:, None])
        return (-batch.wanted.scores(logits).gather(1, batch.labels[:, None]) / counts).squeeze(1)
