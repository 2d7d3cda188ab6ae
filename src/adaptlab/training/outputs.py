"""Outputs below everything that is trained, computed once: no weight there changes and nothing is drawn.

The blocks that stay in eval mode (see :mod:`adaptlab.training.modes`) give the same numbers for a row in every epoch,
run and evaluation. The last of them in each stack of blocks hands out what it gave before; those under it are passed
by. What comes out must be the same to the last bit, whatever the batch a row stands in; where it is not, nothing is
stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adaptlab.measure.clock import synchronise

#: Of all stores that share a :class:`Room`; rows beyond are computed every time.
MOST_BYTES = 2**30

Row = tuple[Tensor, ...]
#: What a block gives: ``None`` for a tensor, or for a tuple which of its items are tensors; the others are ``None``.
Form = tuple[bool, ...] | None


@dataclass
class Room:
    """Bytes that several stores may still fill together."""

    left: int = MOST_BYTES


@dataclass
class Store:
    """Outputs of some blocks by row. Runs over one base share it.

    Attributes:
        room: what it takes its bytes from.
        rows: by the bytes of a row's inputs, padding included, the tensors of every storing block, one after the other.
        seconds: by the same, what computing the row took.
        forms: what each storing or passed-by block gives, by its name.
        sound: whether stored outputs were found to be those computed anew; ``None`` before it was tried.
    """

    room: Room = field(default_factory=Room)
    rows: dict[bytes, Row] = field(default_factory=dict)
    seconds: dict[bytes, float] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)
    size: int = 0
    sound: bool | None = None

    def add(self, key: bytes, row: Row, seconds: float) -> None:
        """Keep ``row``, which took ``seconds`` to compute, if there is room."""
        size = sum(tensor.nbytes for tensor in row)
        if key not in self.rows and size <= self.room.left:
            self.rows[key] = tuple(tensor.clone() for tensor in row)
            self.seconds[key] = seconds
            self.size += size
            self.room.left -= size

    def clear(self) -> None:
        """Forget every row."""
        self.rows.clear()
        self.seconds.clear()
        self.room.left += self.size
        self.size = 0


class StoredOutputs:
    """Has a model's still blocks compute each row once.

    Args:
        model: attached and prepared; its blocks get a ``forward`` of their own.
        blocks: names of its transformer blocks, in the order of the architecture.
        still: the modules that stay in eval mode while it trains.
        store: gives the store of the blocks whose names it is told.
    """

    def __init__(
        self, model: nn.Module, blocks: Sequence[str], still: Sequence[nn.Module], store: Callable[[str], Store]
    ) -> None:
        self._keys: list[bytes] = []
        self._mode = "off"  # off, compute, hand out
        self._given: dict[str, list[Tensor]] = {}
        stacks: dict[str, list[str]] = {}
        for name in blocks:
            if model.get_submodule(name) in still:
                stacks.setdefault(name.rpartition(".")[0], []).append(name)
        self._first = [stack[0] for stack in stacks.values()]
        self._last = [stack[-1] for stack in stacks.values()]
        self._own: set[bytes] = set()  # rows that this run has computed, or has on its clock
        self._began = self._spent = self._owed = 0.0
        self._store = store(" ".join(self._last))
        self.deep = bool(stacks)
        if self.deep:
            for name in (name for stack in stacks.values() for name in stack):
                self._wrap(name, model.get_submodule(name))
            model.register_forward_pre_hook(self._begin, with_kwargs=True)
            model.register_forward_hook(self._end, always_call=True)

    def take_owed(self) -> float:
        """Seconds that other runs took to compute what this one was handed since this was last asked, each row once."""
        owed, self._owed = self._owed, 0.0
        return owed

    def check(self, forward: Callable[..., Any], inputs: Mapping[str, Tensor]) -> None:
        """Use the store only if handing out gives what computing gives, for rows in any order and number, to the bit.

        Args:
            forward: the model's, in eval mode.
            inputs: a batch.
        """
        if not self.deep:
            return
        if self._store.sound is None:
            self._store.sound = True
            try:
                self._store.sound = self._is_sound(forward, inputs)
            except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
                self._store.sound = False  # an architecture whose blocks cannot be passed by
            self._store.clear()
            self._own.clear()
            self._owed = 0.0

    def _is_sound(self, forward: Callable[..., Any], inputs: Mapping[str, Tensor]) -> bool:
        count = len(next(iter(inputs.values())))
        with torch.no_grad():
            computed = forward(**inputs).logits
            first = dict(self._store.rows)
            handed_out = forward(**inputs).logits
            self._store.clear()
            forward(**{name: value.flip(0)[: max(1, count - 1)] for name, value in inputs.items()})
        again = self._store.rows
        same = all(torch.equal(a, b) for key in again for a, b in zip(again[key], first[key], strict=True))
        return bool(first) and same and torch.equal(computed, handed_out)

    def _begin(self, model: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        self._given.clear()
        tensors = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}
        others = [value for name, value in kwargs.items() if name not in tensors and name != "return_dict"]
        plain = not args and not any(others) and "input_ids" in tensors  # a cache, say, also says what comes out
        if not self._store.sound or not plain:
            self._mode = "off"
            return
        rows = torch.cat([t.flatten(1) for t in tensors.values()], dim=1).cpu().numpy()
        shape = str([tuple(t.shape[1:]) for t in tensors.values()]).encode()
        self._keys = [shape + row.tobytes() for row in rows]
        known = all(key in self._store.rows for key in self._keys)
        self._mode = "hand out" if known else "compute"
        self._spent = 0.0
        if known:
            self._owed += sum(self._store.seconds[key] for key in set(self._keys) - self._own)
            self._own.update(self._keys)

    def _end(self, model: nn.Module, args: Any, output: Any) -> None:
        if self._mode == "compute" and len(self._given) == len(self._last):
            columns = [tensor for name in self._last for tensor in self._given[name]]
            if all(len(tensor) == len(self._keys) for tensor in columns):
                for i, key in enumerate(self._keys):
                    self._store.add(key, tuple(tensor[i] for tensor in columns), self._spent / len(self._keys))
                self._own.update(self._keys)
        self._mode = "off"
        self._given.clear()

    def _wrap(self, name: str, block: nn.Module) -> None:
        compute: Callable[..., Any] = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._mode == "hand out":
                form = self._store.forms[name]
                if name in self._last:
                    return _filled(form, self._stored(name))
                hidden = args[0] if args else kwargs["hidden_states"]
                return hidden if form is None else (hidden, *[None] * (len(form) - 1))
            if name in self._first:
                self._began = time.perf_counter()
            output = compute(*args, **kwargs)
            if self._mode == "compute":
                items = output if isinstance(output, tuple) else (output,)
                self._store.forms[name] = tuple(isinstance(i, Tensor) for i in items) if items is output else None
                if name in self._last:
                    self._given[name] = [item for item in items if isinstance(item, Tensor)]
                    synchronise(self._given[name][0].device.type)
                    self._spent += time.perf_counter() - self._began
            return output

        block.forward = forward

    def _stored(self, name: str) -> Iterator[Tensor]:
        """A block's tensors for the rows of the present batch."""
        forms = [self._store.forms[other] for other in self._last]
        counts = [1 if form is None else sum(form) for form in forms]
        place = self._last.index(name)
        first = sum(counts[:place])
        for column in range(first, first + counts[place]):
            yield torch.stack([self._store.rows[key][column] for key in self._keys])


def _filled(form: Form, tensors: Iterator[Tensor]) -> Any:
    return next(tensors) if form is None else tuple(next(tensors) if is_tensor else None for is_tensor in form)
