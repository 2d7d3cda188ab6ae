"""Layers of the same shape as one: ``torch.func.vmap`` over the runs' stacked parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adaptlab.engines.layers import Lanes, OneByOne
from adaptlab.training.dropout import DropoutClock, KeyedDropout, hash_grid, row_numbers, threshold

_SIMPLE = (int, float, str, bool, type(None))


class Stacked:
    """One stacked pass for the lanes of a kind, or slice by slice where ``vmap`` cannot trace the layer.

    The first pass is done both ways. If the stacked one raises, or gives other numbers, it is not taken again.
    """

    on_shared = False

    def __init__(self, twins: Mapping[int, nn.Module], lanes: Lanes, clock: DropoutClock) -> None:
        self._one_by_one = OneByOne(twins)
        self._tensors = {lane: _tensors(twin) for lane, twin in twins.items()}
        self._lanes, self._clock = lanes, clock
        self._keys: dict[int, Tensor] = {}
        self._twins = dict(twins)
        self._template = _template(next(iter(twins.values())), self._keys, clock)
        self._tried, self._traceable = False, True

    @property
    def traceable(self) -> bool:
        """False once the layer has turned out not to be."""
        return self._traceable

    def __call__(self, x: Tensor, lanes: Sequence[int], shared: Tensor | None) -> Tensor:
        if not self._traceable or len(lanes) == 1:
            return self._one_by_one(x, lanes, shared)
        if self._tried:
            return self._stacked(x, lanes)
        self._tried = True
        expected = self._one_by_one(x, lanes, shared)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # "there is a performance drop" says that nothing is gained
                found = self._stacked(x, lanes)
            self._traceable = found.shape == expected.shape and _close(found, expected)
        except Exception:  # torch raises RuntimeError, ValueError, NotImplementedError ... for what it cannot trace
            self._traceable = False
        return expected

    def _stacked(self, x: Tensor, lanes: Sequence[int]) -> Tensor:
        names = list(self._tensors[lanes[0]])
        tensors: dict[str, Tensor] = {}
        axes: dict[str, int | None] = {}
        for name in names:
            each = [self._tensors[lane][name] for lane in lanes]
            same = all(t.data_ptr() == each[0].data_ptr() and not t.requires_grad for t in each)
            tensors[name], axes[name] = (each[0], None) if same else (torch.stack(each), 0)
        for part, own in zip(self._template.modules(), self._twins[lanes[0]].modules(), strict=True):
            part.training = own.training  # some layers ask for it before they drop anything
        sites = [m.site for m in self._template.modules() if isinstance(m, _StackedDropout)]
        keys = {site: self._clock.keys(site, self._lanes.places(lanes), x.device) for site in sites}

        def one(own: dict[str, Tensor], own_keys: dict[int, Tensor], part: Tensor) -> Any:
            self._keys.update(own_keys)
            return functional_call(self._template, own, (part,))

        parts = x.view(len(lanes), -1, *x.shape[1:])
        out: Tensor = torch.vmap(one, in_dims=(axes, 0, 0))(tensors, keys, parts)
        return out.flatten(0, 1)


def signature(module: nn.Module) -> tuple[Any, ...]:
    """What two layers must have in common to be stacked: classes, shapes, every plain setting; not their numbers."""
    parts: list[Any] = []
    for name, part in module.named_modules():
        own = tuple((n, tuple(t.shape), t.dtype) for n, t in (*part._parameters.items(), *part._buffers.items())
                    if t is not None)  # fmt: skip
        plain = tuple(sorted((key, _plain(value)) for key, value in part.__dict__.items() if not key.startswith("_")))
        parts.append((name, type(part), own, plain))
    return tuple(parts)


def _plain(value: Any) -> str:
    if isinstance(value, _SIMPLE):
        return repr(value)
    if isinstance(value, Mapping):
        return repr(sorted((repr(k), _plain(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return repr(sorted(map(_plain, value)) if isinstance(value, (set, frozenset)) else list(map(_plain, value)))
    if isinstance(value, Tensor):
        return repr((tuple(value.shape), value.tolist()))
    return type(value).__name__


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _template(twin: nn.Module, keys: dict[int, Tensor], clock: DropoutClock) -> nn.Module:
    """A copy that shares the twin's tensors, whose dropouts draw by the keys of the stacked pass."""
    memo: dict[int, Any] = {id(t): t for t in _tensors(twin).values()}
    memo[id(clock)] = clock
    dropouts = {name: part for name, part in twin.named_modules() if isinstance(part, KeyedDropout)}
    memo |= {id(d.clock): d.clock for d in dropouts.values()}
    template = copy.deepcopy(twin, memo)
    for name, dropout in dropouts.items():
        parent, _, child = name.rpartition(".")
        setattr(template.get_submodule(parent), child, _StackedDropout(dropout, keys, clock))
    return template


class _StackedDropout(nn.Module):
    """A keyed dropout inside ``vmap``: its rows' key is an argument of the traced function."""

    def __init__(self, twin: KeyedDropout, keys: dict[int, Tensor], clock: DropoutClock) -> None:
        super().__init__()
        self._twin = (twin,)  # in a tuple, so no child: the run's own module says whether it is training
        self.site = twin.site
        self._keys, self._clock = keys, clock

    def forward(self, x: Tensor) -> Tensor:
        p = float(self._twin[0].p)
        if not self._twin[0].training or p == 0.0:
            return x
        columns = x.shape[-1] if x.ndim > 1 else 1
        count = x.numel() // columns
        first = self._clock.first_of(count)
        rows = row_numbers(first, first + count, x.device, self._clock.spread) + self._keys[self.site]
        keep = hash_grid(rows, columns, self._clock.column_key(self.site)) >= threshold(p)
        return torch.where(keep.view(x.shape), x * (1.0 / (1.0 - p)), 0.0)


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-4}.get(a.dtype, 3e-2)
    return bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance * (1.0 + float(b.detach().abs().max()))))
