"""The processes that train one run together, a device each: what they share out, add up and agree on.

Every process holds the whole model and goes through the same code. Of a batch each takes some rows, numbered as in the
whole batch, so that dropout is that of one device; losses are divided by the whole batch's rows, and gradients are
added up, once a step. The sums come out the same everywhere, and so does every weight. Data parallelism as torch's
DistributedDataParallel does it, less its wrapper: a step may have several micro-batches, some rows fewer than
processes, and parameters that nothing has touched.

What is alone (a process without others) needs none of it, and :data:`ALONE` does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptlab.errors import InterruptedRunError

#: Numbers that are added up in one message.
_MESSAGE_NUMBERS = 2**23


class LostProcessError(InterruptedRunError):
    """Another of the run's processes has ended: nothing can be added up any more."""


class Ranks:
    """A process that trains alone.

    Attributes:
        index: which of ``count`` processes this is; the first one writes what the run leaves behind.
    """

    index, count = 0, 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def part(self, rows: int) -> tuple[int, int]:
        """The first of this process's rows of a batch, and the one behind its last; parts differ by a row at most."""
        return rows * self.index // self.count, rows * (self.index + 1) // self.count

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Every parameter's gradient becomes the sum over the processes; one that no process has stays ``None``."""

    def total(self, numbers: Sequence[float]) -> list[float]:
        """The sums over the processes."""
        return list(numbers)

    def merged(self, part: NDArray[Any]) -> NDArray[Any]:
        """The sum of arrays of one shape, of which each process has filled in its own rows, the others being 0."""
        return part

    def any(self, flag: bool) -> bool:
        """Whether it is true in some process."""
        return flag

    def of_first(self, number: float) -> float:
        """The first process's number."""
        return number

    @contextmanager
    def one_after_the_other(self) -> Iterator[None]:
        """The block is done by the first process, then by the others."""
        yield


ALONE = Ranks()


class Together(Ranks):
    """One of several processes, in torch's default process group.

    Args:
        device: what its messages are sent from: the GPU with NCCL, ``cpu`` with gloo.
    """

    def __init__(self, device: torch.device) -> None:
        self.index, self.count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._device = device

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        present = self._sum(torch.tensor([float(p.grad is not None) for p in parameters], device=self._device))
        known = [p for p, there in zip(parameters, present.tolist(), strict=True) if there]
        for parameter in known:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in known if p.grad is not None]
        for bucket in _buckets(gradients):
            flat = self._sum(torch.cat([gradient.reshape(-1) for gradient in bucket]))
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, summed in zip(bucket, parts, strict=True):
                gradient.copy_(summed.view_as(gradient))

    def total(self, numbers: Sequence[float]) -> list[float]:
        found: list[float] = self._sum(torch.tensor(numbers, dtype=torch.float64, device=self._device)).tolist()
        return found

    def merged(self, part: NDArray[Any]) -> NDArray[Any]:
        return self._sum(torch.from_numpy(part).to(self._device)).cpu().numpy()

    def any(self, flag: bool) -> bool:
        return self.total([flag])[0] > 0

    def of_first(self, number: float) -> float:
        return self.total([number if self.first else 0.0])[0]

    @contextmanager
    def one_after_the_other(self) -> Iterator[None]:
        if not self.first:
            self.total([0.0])
        try:
            yield
        finally:
            if self.first:
                self.total([0.0])

    def _sum(self, tensor: Tensor) -> Tensor:
        try:
            torch.distributed.all_reduce(tensor)
        except RuntimeError as error:
            raise LostProcessError(f"Another of the run's {self.count} processes has ended ({error}).") from error
        return tensor


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype together, as many as a message holds."""
    bucket: list[Tensor] = []
    for tensor in sorted(tensors, key=lambda t: str(t.dtype)):
        full = sum(t.numel() for t in bucket) + tensor.numel() > _MESSAGE_NUMBERS
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


_here = ALONE


def here() -> Ranks:
    """This process among those of its run."""
    return _here


@contextmanager
def among(ranks: Ranks) -> Iterator[None]:
    """This process is one of ``ranks`` while the block runs; with :data:`ALONE` it computes something by itself."""
    global _here
    before, _here = _here, ranks
    try:
        yield
    finally:
        _here = before
