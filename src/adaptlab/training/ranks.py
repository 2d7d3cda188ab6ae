"""The processes that train one run together, a device each: what they share out, add up and agree on.

Every process holds the whole model, or its shard of the weights (:mod:`adaptlab.training.shards`), and goes through
the same code, and through the model as often as the others. Of a batch each takes some rows, numbered as in the
whole batch, so that dropout is that of one device; losses are divided by the whole batch's rows, and gradients are
added up, once a step. The sums come out the same everywhere, and so does every weight. Data parallelism as torch's
DistributedDataParallel does it, less its wrapper: a step may have several micro-batches, some rows fewer than
processes, and parameters that nothing has touched.

What is alone (a process without others) needs none of it, and :data:`ALONE` does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor

from adaptlab.errors import InterruptedRunError

#: How gloo says that a neighbour has gone; NCCL's errors have a class.
_LOST = re.compile(r"gloo.*(Connection|timeout|error)", re.IGNORECASE | re.DOTALL)
#: Numbers that are added up in one message.
_MESSAGE_NUMBERS = 2**23


class LostProcessError(InterruptedRunError):
    """Another of the run's processes has ended: nothing can be added up any more."""


class Ranks:
    """A process that trains alone.

    Attributes:
        index: which of ``count`` processes this is; the first one writes what the run leaves behind.
        device: where processes that train together keep what they exchange.
    """

    index, count = 0, 1
    device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def part(self, rows: int) -> tuple[int, int]:
        """The first of this process's rows of a batch, and the one behind its last; parts differ by a row at most."""
        return rows * self.index // self.count, rows * (self.index + 1) // self.count

    def passes(self, rows: int, most: int) -> Iterator[tuple[int, int, bool]]:
        """This process's part of a batch of ``rows``, at most ``most`` at once: the first row of a pass, the one behind
        its last, and whether it counts. All processes have equally many: one with fewer rows goes over row 0 instead,
        which does not count."""
        begin, end = self.part(rows)
        for start in range(begin, begin - (-rows // self.count), most):
            yield (start, min(start + most, end), True) if start < end else (0, 1, False)

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Every parameter's gradient becomes the sum over the processes; one that no process has stays ``None``.

        Those of sharded parameters are sums already.
        """

    def total(self, numbers: Sequence[float]) -> list[float]:
        """The sums over the processes."""
        return list(numbers)

    def merged(self, part: NDArray[Any]) -> NDArray[Any]:
        """The sum of arrays of one shape, of which each process has filled in its own rows, the others being 0."""
        return part

    def of_first(self, number: float) -> float:
        """The first process's number."""
        return number

    def await_turn(self) -> None:
        """Go on when every process before this one has called :meth:`end_turn`; nothing is exchanged until then."""
        for _ in range(self.index):
            self.total([0.0])

    def end_turn(self) -> None:
        """Let the next process go on, and go on when all have had their turn."""
        for _ in range(self.index, self.count):
            self.total([0.0])

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """Within the block a message that fails inside torch (sharded weights are sent there) is a lost process.

        Raises:
            LostProcessError: another process has ended.
        """
        yield

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
        self.device = device

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        parameters = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
        if not parameters:
            return
        present = self._sum(torch.tensor([float(p.grad is not None) for p in parameters], device=self.device))
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
        found: list[float] = self._sum(torch.tensor(numbers, dtype=torch.float64, device=self.device)).tolist()
        return found

    def merged(self, part: NDArray[Any]) -> NDArray[Any]:
        return self._sum(torch.from_numpy(part).to(self.device)).cpu().numpy()

    def of_first(self, number: float) -> float:
        return self.total([number if self.first else 0.0])[0]

    @contextmanager
    def noticing(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, torch.distributed.DistError) and not _LOST.search(str(error)):
                raise
            raise self._lost(error) from error

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
            raise self._lost(error) from error
        return tensor

    def _lost(self, error: RuntimeError) -> LostProcessError:
        return LostProcessError(f"Another of the run's {self.count} processes has ended ({error}).")


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
