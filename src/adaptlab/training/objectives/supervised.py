"""Cross-entropy for classes, squared error for numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from adaptlab.training.batches import Batch


class Supervised:
    """The loss of a head readout against gold labels."""

    def __init__(self, *, regression: bool) -> None:
        self._regression = regression

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """``[rows]`` losses of ``logits`` ``[rows, classes]`` (``[rows, 1]`` for regression)."""
        import torch
        import torch.nn.functional as F

        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        if self._regression:
            return (logits.squeeze(-1) - batch.labels.to(logits.dtype)).square()
        return F.cross_entropy(logits, batch.labels, reduction="none")
