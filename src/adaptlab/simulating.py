"""A training step of a model that is not there: shapes without numbers, so that its memory and work can be counted.

Model, method, dropout, precision and loss are the real ones, on fake tensors. What they would allocate and free is
kept in a ledger, storage by storage; what each operation would compute and move goes into a time by the machine's
calibration. Nothing here needs weights, and a step of a large model takes under a second.
"""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import MethodType
from typing import Any, TypeVar
from unittest import mock

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers.modeling_outputs import SequenceClassifierOutput

from adaptlab.config import RunConfig, TrainingConfig
from adaptlab.measure.flops import ASKS_DEVICE, PassFlops, TrainingFlops, fit, formulas, optimizer_flops
from adaptlab.measure.machine import Machine
from adaptlab.models._base import Layout
from adaptlab.models.load import Base
from adaptlab.readouts import Readout
from adaptlab.rehearsing import Rehearsal, answers
from adaptlab.tokens_ahead import Portion
from adaptlab.training.precision import Precision
from adaptlab.workshop import attach

T = TypeVar("T")

#: Bytes of an optimiser's state per trained number, and what its step holds beside that.
_STATE: dict[str, tuple[float, float]] = {
    "adamw": (8, 0), "adam": (8, 0), "adafactor": (0.1, 8), "sgd": (0, 0), "sgd-momentum": (4, 0),
    "sgd-nesterov": (4, 4), "lion": (4, 0), "adamw-8bit": (2.1, 0),
}  # fmt: skip
#: What a CPU process's heap takes for what forward and backward hold: freed blocks between live ones stay its own.
#: Read off the measurements in docs/benchmarks/plan-versus-measured.md; CUDA's allocator does better.
_HEAP = {"cpu": 1.3, "cuda": 1.0}
#: Bytes that updating a trained number moves: weight, gradient and moments, read and written, and clipping.
_UPDATE_BYTES = 40

_NO_FLOPS = TrainingFlops(PassFlops(0.0, (0.0, 0.0, 0.0)), PassFlops(0.0, (0.0, 0.0, 0.0)), 0.0)

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a run while it trains, by what holds them; ``total`` is the most at one time.

    Attributes:
        base: the pretrained weights in float32 (or quantised), shared by all runs of a process.
        copies: what the run holds beside the base: its own copy or the 16-bit casts of frozen weights.
        trained: adapters and head.
        gradients, optimizer: of what is trained.
        best: a copy of the best weights so far, and another while it is replaced.
        activations: the most that forward and backward hold besides, at the longest batch.
        logits: of these, the answers themselves.
        answering: the most while answering without training.
    """

    base: int
    copies: int
    trained: int
    gradients: int
    optimizer: int
    best: int
    activations: int
    logits: int
    answering: int

    @property
    def total(self) -> int:
        """The most at one time while training."""
        held = self.base + self.copies + self.trained + self.optimizer
        return held + max(self.best + self.gradients + self.activations, 2 * self.best)


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a configuration would take.

    Attributes:
        step_seconds: by padded shape, those that were asked for.
        answer_seconds: of one answering batch.
    """

    memory: Memory
    flops: TrainingFlops
    step_seconds: dict[Shape, float]
    answer_seconds: float

    def shared_by(self, devices: int, micro_batch_size: int | None) -> Simulated:
        """The same where ``devices`` do a part of every batch each, and nothing is lost by talking.

        Operations are those of the whole batch, counted in passes of ``micro_batch_size`` rows as a record counts them.
        """
        if devices == 1:
            return self
        return replace(
            self,
            flops=replace(self.flops, micro_batch_size=micro_batch_size),
            step_seconds={shape: seconds / devices for shape, seconds in self.step_seconds.items()},
            answer_seconds=self.answer_seconds / devices,
        )

    def under(self, training: TrainingConfig) -> Simulated:
        """The same with another optimiser, on whose state and update no pass depends."""
        trained = self.memory.gradients // 4
        state, scratch = _STATE[training.optimizer]
        update = optimizer_flops(training.optimizer, trained, clips=training.max_grad_norm is not None)
        return replace(
            self,
            memory=replace(self.memory, optimizer=int((state + scratch) * trained)),
            flops=replace(self.flops, per_step=update),
        )


def simulate(
    config: RunConfig,
    skeleton: nn.Module,
    layout: Layout,
    *,
    readout: Readout,
    device: str,
    machine: Machine | None,
    train: Sequence[Portion],
    answer: Portion,
    micro_batch_size: int | None = None,
    gradient_checkpointing: bool = False,
) -> Simulated:
    """Simulate training steps over ``train``, of which the first is the largest, and an answer.

    Args:
        config: with ``training.dtype`` and ``steps`` decided.
        skeleton: the model on the meta device, as :func:`adaptlab.models.load.skeleton` gives it.
        machine: for the seconds; they are 0 without.
        train: none where nothing is trained.
    """
    training, model = config.training, copy.deepcopy(skeleton)
    with _weightless(machine) as ledger:
        _materialise(model, device)
        base_bytes = ledger.live
        base = Base(model, None, layout, config.model, None, 0.0)
        attached = attach(base, config)
        precision = Precision(training.dtype, device)
        precision.prepare(attached, {})
        trained = sum(p.numel() for p in attached.trained.values())
        run = None
        if train:
            run = Rehearsal(attached, layout, readout, train[0], training, precision, micro_batch_size)
            if gradient_checkpointing:
                run.recompute(layout)
        held = answering = ledger.live
        answer_seconds = 0.0
        for times, call in answers(attached.model, readout, answer, precision):
            before = ledger.live  # what was read before is held for it
            peak, _, each = ledger.of(call)
            answering, answer_seconds = max(answering, before + peak), answer_seconds + times * each
        seconds: dict[Shape, float] = {}
        activations = logits_most = 0
        for portion in train:
            assert run is not None
            peak, logits, each = ledger.of(partial(run.step, portion))
            run.forget()
            moved = machine.seconds(0, _UPDATE_BYTES * trained, 1, "float32") if machine else 0.0
            seconds[portion.shape] = run.times(portion) * each + moved
            activations, logits_most = max(activations, peak), max(logits_most, logits)
    flops = _NO_FLOPS
    if train:
        flops = _flops(config, skeleton, layout, readout, train[0], micro_batch_size, gradient_checkpointing)
    memory = Memory(
        base=base_bytes,
        copies=max(0, held - base_bytes - 4 * trained),
        trained=4 * trained if attached.method.placement != "base" else min(4 * trained, held - base_bytes),
        gradients=4 * trained,
        optimizer=0,
        best=4 * trained,
        activations=int(_HEAP[device] * max(0, activations - 4 * trained)),
        logits=logits_most,
        answering=answering,
    )
    return Simulated(memory, flops, seconds, answer_seconds).under(training)


def _flops(
    config: RunConfig,
    skeleton: nn.Module,
    layout: Layout,
    readout: Readout,
    portion: Portion,
    micro_batch_size: int | None,
    gradient_checkpointing: bool,
) -> TrainingFlops:
    """Operations of passes on the meta device, where they take a fifth of what they take with fake tensors.

    Products are the same in every dtype, and with or without an attention mask.
    """
    model = copy.deepcopy(skeleton)
    _materialise(model, "meta")
    with torch.device("meta"):
        attached = attach(Base(model, None, layout, config.model, None, 0.0), config)
        run = Rehearsal(attached, layout, readout, portion, config.training, Precision("float32", "meta"), None)
    if gradient_checkpointing:
        run.recompute(layout)
    forward, both = fit(run.count)
    return TrainingFlops(forward, both, 0.0, micro_batch_size)


@contextmanager
def _weightless(machine: Machine | None) -> Iterator[_Ledger]:
    """While active, tensors have shapes and no numbers, and the ledger tells what they would hold and take."""
    real, drawn, ledger = torch.from_numpy, torch.rand, _Ledger(machine)

    def from_numpy(array: NDArray[Any]) -> Tensor:
        return torch.zeros(array.shape, dtype=real(array).dtype)

    def rand(*size: Any, **how: Any) -> Tensor:
        """One number decides whether a layer takes part in a step (LoHa, LoKr): it does."""
        return torch.tensor([1.0]) if size == (1,) and not how else drawn(*size, **how)

    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")  # by torch's own deepcopy
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(mock.patch.object(nn.Module, "to", lambda module, *_, **__: module))  # all is where it is
        stack.enter_context(mock.patch.object(torch, "from_numpy", from_numpy))
        stack.enter_context(
            mock.patch.object(Tensor, "pin_memory", lambda tensor, *_: tensor)
        )  # fake ones have no such
        stack.enter_context(mock.patch.object(torch, "rand", rand))
        # It draws until all numbers are within the bounds, and there are no numbers.
        stack.enter_context(mock.patch.object(nn.init, "trunc_normal_", lambda tensor, *_, **__: tensor))
        yield stack.enter_context(ledger)


def _materialise(model: nn.Module, device: str) -> None:
    """Bring the model from the meta device to fake tensors of ``device``."""
    made: dict[int, Any] = {}  # weights that are tied stay so, unlike with ``to_empty``
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty_like(parameter, device=device)
                module._parameters[name] = made.setdefault(id(parameter), nn.Parameter(empty, requires_grad=False))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device=device)
    config: Any = model.config
    if config.pad_token_id is None:
        config.pad_token_id = 0
    if hasattr(model, "classification_head"):
        model.forward = MethodType(_answer_at_the_end, model)  # a method, so that a copy's is the copy's
    model.requires_grad_(False).eval()


def _answer_at_the_end(
    model: Any, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
) -> SequenceClassifierOutput:
    """The forward pass of an encoder-decoder's classifier, with the last token as the end of the text: which one it is
    is a question of numbers, and there are none."""
    body = getattr(model, model.base_model_prefix)
    hidden = body(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=input_ids)[0]
    return SequenceClassifierOutput(logits=model.classification_head(hidden[:, -1]))


# --- the ledger -------------------------------------------------------------------------------------------------------

_ATTENTION = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward")


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes alive, the most of them, and the seconds of what is executed."""

    def __init__(self, machine: Machine | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self._most = 0
        self._seconds = 0.0
        self._held: set[int] = set()
        self._machine = machine

    def of(self, work: Callable[[], T]) -> tuple[int, T, float]:
        """What ``work`` holds at most besides what is alive, what it returns, and its seconds."""
        before, self._most, self._seconds = self.live, self.live, 0.0
        result = work()
        return self._most - before, result, self._seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is ASKS_DEVICE:
            return args[0].device
        result = func(*args, **(kwargs or {}))
        new = [self._enter(t) for t in tree_iter(result) if isinstance(t, Tensor)]
        if self._machine is not None and (any(new) or func._schema.is_mutable):
            self._seconds += self._cost(func, args, kwargs or {}, result)
        return result

    def _enter(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._held:
            return False
        size = storage.nbytes()
        self._held.add(key)
        self.live += size
        self._most = max(self._most, self.live)
        weakref.finalize(storage, self._leave, key, size)
        return True

    def _leave(self, key: int, size: int) -> None:
        self._held.discard(key)
        self.live -= size

    def _cost(self, func: Any, args: Any, kwargs: Any, result: Any) -> float:
        assert self._machine is not None
        tensors = [t for t in tree_iter((args, kwargs, result)) if isinstance(t, Tensor)]
        moved = sum(t.nbytes for t in tensors)
        formula = formulas().get(func._overloadpacket)
        width = 1.0
        if func._overloadpacket.__name__ in _ATTENTION:
            query = tensors[1 if func._overloadpacket.__name__.endswith("backward") else 0]
            rows, heads, length, features = query.shape
            flops = rows * heads * length * length * features * (10.0 if len(tensors) > 6 else 4.0)
            width = float(length * length * features) ** (1 / 3)
        elif formula is None:
            return self._machine.seconds(0.0, moved, width, "float32")
        else:
            flops = float(formula(*args, **kwargs, out_val=result))
            width = (flops / 2) ** (1 / 3)
        dtype = str(tensors[-1].dtype).removeprefix("torch.")
        return self._machine.seconds(flops, moved, width, dtype)
