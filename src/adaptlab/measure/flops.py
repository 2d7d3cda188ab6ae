"""Floating-point operations of training, counted from what is executed: forward, backward and optimiser.

The operations of one pass over ``rows`` rows padded to ``length`` tokens are ``per_pass + rows * p(length)`` with ``p``
of degree two: layers are linear in the tokens, attention is quadratic, and what a method does to a weight before it is
used (a product of factors, a rotation, an inverse) happens once a pass. So a pass is counted at three short lengths and
with two rows, fitted, and held against a fourth length; a run's operations are then sums over its batches.

Counted are matrix products, convolutions, attention, Fourier transforms and linear solves, not elementwise work, with
one multiply-accumulate as two operations. Attention is counted as its plain products (two forward, four backward),
whatever kernel runs: a fused kernel's recomputation is the kernel's choice, not the method's cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from adaptlab.errors import AdaptlabError

#: The longest of the short passes that are counted.
LONGEST_COUNTED = 32
#: How far the fit may be from a pass that it was not fitted to.
_TOLERANCE = 1e-3

#: Elementwise operations of an optimiser step per trained number, from its update rule.
_OPTIMIZER: dict[str, float] = {
    "adamw": 14,  # decay 1, first moment 3, second moment 4, denominator 3, update 3
    "adam": 13,
    "adafactor": 12,  # square, two means, their quotient, root, product, root mean square and its clipping, update
    "sgd": 2,
    "sgd-momentum": 4,
    "sgd-nesterov": 6,
    "lion": 10,  # interpolation 3, sign 1, decay 1, update 2, momentum 3
    "adamw-8bit": 14,  # without packing and unpacking of the moments
}
_CLIPPING = 3  # square and add for the norm, and a product


class NotPolynomialError(AdaptlabError):
    """A pass's operations do not follow its shape as the fit says: no figure is better than a wrong one."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Operations of one pass."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward


@dataclass(frozen=True, slots=True)
class PassFlops:
    """Operations of a pass: ``per_pass + rows * (row[0] + row[1] * length + row[2] * length**2)``."""

    per_pass: float
    row: tuple[float, float, float]

    def with_row(self, constant: float, linear: float) -> PassFlops:
        """The same with ``constant + linear * length`` more operations for each row."""
        return PassFlops(self.per_pass, (self.row[0] + constant, self.row[1] + linear, self.row[2]))

    def of(self, rows: float, length: float) -> float:
        """Of ``rows`` rows, each of ``length`` tokens."""
        constant, linear, quadratic = self.row
        return self.per_pass + rows * (constant + linear * length + quadratic * length * length)

    def of_lengths(self, lengths: NDArray[np.int64]) -> float:
        """Of one pass over rows of these lengths, if nothing were padded."""
        constant, linear, quadratic = self.row
        wide = lengths.astype(np.float64)
        return float(self.per_pass + constant * len(wide) + linear * wide.sum() + quadratic * (wide * wide).sum())


@dataclass(frozen=True, slots=True)
class TrainingFlops:
    """Operations of training at any batch shape.

    Attributes:
        forward: of a forward pass alone.
        training: of forward and backward together.
        per_step: of what a step does once: the optimiser, clipping, a loss that depends on weights alone.
        micro_batch_size: rows of a pass; ``None`` for the whole batch.
    """

    forward: PassFlops
    training: PassFlops
    per_step: float
    micro_batch_size: int | None = None

    def of_step(self, lengths: NDArray[np.int64], padded_to: int) -> tuple[float, float]:
        """Operations of an optimiser step over rows of ``lengths``: as executed with padding, and without it."""
        rows = len(lengths)
        passes = -(-rows // min(self.micro_batch_size or rows, rows))
        more = self.per_step + (passes - 1) * self.training.per_pass
        return self.training.of(rows, padded_to) + more, self.training.of_lengths(lengths) + more


def count(run: Callable[[], object]) -> Counted:
    """Operations of what ``run`` executes; works on any device, the meta device and fake tensors included."""
    counter = _Counter()
    with sdpa_kernel([SDPBackend.MATH]), counter:
        run()
    return Counted(counter.forward, counter.backward)


def fit(
    counted: Callable[[int, int], Counted], *, longest: int = LONGEST_COUNTED, once: float = 0.0
) -> tuple[PassFlops, PassFlops]:
    """The operations of forward, and of forward and backward, from five counted passes.

    Args:
        counted: counts a pass over (rows, length).
        longest: tokens of the longest pass, at least 4.
        once: backward operations of each counted pass that belong to a step and not to a pass.

    Raises:
        NotPolynomialError: the pass at the longest length is not what the others say it is.
    """
    lengths = [longest * quarter // 4 for quarter in (1, 2, 3)]
    single = [counted(1, length) for length in lengths]
    double, check = counted(2, lengths[0]), counted(2, longest)
    fits = []
    for name in ("forward", "total"):
        less = once if name == "total" else 0.0
        values = [getattr(one, name) - less for one in single]
        one_row = getattr(double, name) - less - values[0]
        per_pass = values[0] - one_row
        found = PassFlops(per_pass, _parabola(lengths, [value - per_pass for value in values]))
        expected, seen = found.of(2, longest), getattr(check, name) - less
        if abs(expected - seen) > _TOLERANCE * max(seen, 1.0):
            raise NotPolynomialError(
                f"The {name} operations of 2 rows of {longest} tokens are {seen:.4g}, and the fit over shorter rows"
                f" says {expected:.4g}: this model's operations are no polynomial of the length."
            )
        fits.append(found)
    return fits[0], fits[1]


def _parabola(at: Sequence[int], values: Sequence[float]) -> tuple[float, float, float]:
    """Coefficients (constant, linear, quadratic) of the parabola through three points, by divided differences."""
    (x0, x1, x2), (y0, y1, y2) = at, values
    first, second = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    quadratic = (second - first) / (x2 - x0)
    linear = first - quadratic * (x0 + x1)
    return y0 - linear * x0 - quadratic * x0 * x0, linear, quadratic


def optimizer_flops(optimizer: str, trained: int, *, clips: bool) -> float:
    """Operations of one update of ``trained`` numbers, gradient clipping included."""
    return trained * (_OPTIMIZER[optimizer] + (_CLIPPING if clips else 0))


# --- the counter ------------------------------------------------------------------------------------------------------

#: What a fake tensor is asked for most often, and answers without passing through any mode.
ASKS_DEVICE = torch.ops.prim.device.default


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the operations of everything executed inside, forward and backward apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.forward = self.backward = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is ASKS_DEVICE:
            return args[0].device
        formula = formulas().get(func._overloadpacket) or _QUANTISED.get(str(func._overloadpacket))
        if formula is None:  # in inference mode whole layers come here, and not the products that they are made of
            with self:
                parts = func.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
        result = func(*args, **(kwargs or {}))
        if formula is not None:
            flops = formula(*args, **(kwargs or {}), out_val=result)
            if torch._C._current_graph_task_id() == -1:
                self.forward += flops
            else:
                self.backward += flops
        return result


Formula = Callable[..., float]


@cache
def formulas() -> dict[Any, Formula]:
    """Operations by what is called: torch's own formulas, and those of what it counts as nothing.

    Golub and Van Loan, Matrix Computations, 4th ed.
    """
    aten = torch.ops.aten
    return {
        **flop_registry,
        aten.mv: lambda a, x, **_: 2.0 * a.numel(),
        aten.addmv: lambda y, a, x, **_: 2.0 * a.numel(),
        aten.dot: lambda a, b, **_: 2.0 * a.numel(),
        aten._fft_c2c: lambda x, dim, *_, **__: _fourier(x, dim),
        aten._fft_r2c: lambda x, dim, *_, **__: _fourier(x, dim) / 2,
        aten._fft_c2r: lambda x, dim, *_, out_val, **__: _fourier(out_val, dim) / 2,
        aten._linalg_solve_ex: lambda a, b, **_: _factorise(a) + 2.0 * a.shape[-1] * b.numel(),
        aten.linalg_lu_factor_ex: lambda a, **_: _factorise(a),
        aten.linalg_lu_solve: lambda lu, pivots, b, **_: 2.0 * lu.shape[-1] * b.numel(),
        aten.linalg_solve_triangular: lambda a, b, **_: 1.0 * a.shape[-1] * b.numel(),
        aten.linalg_inv_ex: lambda a, **_: 2.0 * a.shape[-1] * a.numel(),
        aten.linalg_cholesky_ex: lambda a, **_: _factorise(a) / 2,
        aten.linalg_qr: lambda a, *_, **__: _orthogonalise(a),
        # Scaling and squaring with a Taylor polynomial of degree 8, about eight products (torch's own algorithm).
        aten.linalg_matrix_exp: lambda a, **_: 16.0 * a.shape[-1] * a.numel(),
    }  # fmt: skip


def _product(rows: Any, *_: Any, out_val: Any, out: Any = None, **__: Any) -> float:
    """Of ``rows`` by a matrix that is packed: its outputs say how wide it is."""
    found = out if out_val is None else out_val[0] if isinstance(out_val, tuple) else out_val
    return 2.0 * float(found.numel()) * float(rows.shape[-1])


#: Products with weights in 4 and 8 bits. By name: bitsandbytes defines them when it is first imported. Taking weights
#: back to 16 bits, which comes before a product elsewhere, is elementwise.
_QUANTISED: dict[str, Formula] = dict.fromkeys(
    (
        "bitsandbytes.gemm_4bit",
        "bitsandbytes.gemv_4bit",
        "bitsandbytes.int8_linear_matmul",
        "bitsandbytes.int8_scaled_mm",
        "bitsandbytes.int8_mixed_scaled_mm",
    ),
    _product,
)


def _fourier(tensor: Any, dims: Sequence[int]) -> float:
    """5 n log2 n a complex transform of n points (Cooley and Tukey); real ones take half."""
    points: int = math.prod(tensor.shape[dim] for dim in dims)
    return 5.0 * float(tensor.numel()) * math.log2(max(points, 2))


def _factorise(matrix: Any) -> float:
    """2/3 n^3 a matrix of n rows."""
    return 2.0 / 3.0 * float(matrix.shape[-1]) * float(matrix.numel())


def _orthogonalise(matrix: Any) -> float:
    """Householder's QR of m x n with Q formed: 2mn^2 - 2n^3/3 for the factors, and as much again for Q."""
    short, long = sorted(map(float, matrix.shape[-2:]))
    return 4.0 * float(matrix.numel()) / long * (long * short - short * short / 3)
