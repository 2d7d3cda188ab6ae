"""What a run will take before it runs: memory, operations, seconds, disk, from config.json and the lengths of texts.

The step itself is simulated (:mod:`adaptlab.simulating`); here are the batches that the run will have, their sums over
a training, and what to change where memory is short.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import nn

from adaptlab.config import ExecutionConfig, ModelConfig, RunConfig
from adaptlab.costing import pass_key
from adaptlab.measure.environment import environment, processor_name
from adaptlab.measure.machine import Machine, calibrated
from adaptlab.measure.memory import available_bytes
from adaptlab.methods import registry as methods
from adaptlab.models import quantize
from adaptlab.models._base import Layout
from adaptlab.models.identity import cache_folder
from adaptlab.readouts import Readout
from adaptlab.resolve import setup_of
from adaptlab.simulating import Memory, Simulated, simulate
from adaptlab.tasks._base import TaskData
from adaptlab.tokens_ahead import Portion, RowsAhead, rows_ahead
from adaptlab.training.batches import BatchPlan, BatchRows

#: Of what is free, what a run may be planned to take: the rest is for what grows while it runs.
_USABLE = 0.95


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will take.

    Attributes:
        device: ``cpu`` or ``cuda``, and ``dtype`` what it computes in there.
        devices: that share the run, and ``rows``, ``length`` of the largest training batch, which is all of theirs.
        memory: bytes by what holds them, as :class:`adaptlab.simulating.Memory`.
        memory_bytes: the most at one time, of one device; ``available_bytes`` is what this machine has free for it.
        advice: flags that would make it fit; empty where it fits, or where none would.
        steps: of the optimiser; ``None`` without a task and without ``--steps``, or where a budget alone ends the
            training, and with it the next three.
        train_flops: padding included.
        train_seconds, eval_seconds: on this machine, undisturbed; several devices as if talking took no time.
        step_seconds: of the batch in the middle.
        checkpoint_bytes: on disk while a run is not settled.
        exact_lengths: whether a tokenizer told how long the texts are.
    """

    device: str
    dtype: str
    devices: int
    rows: int
    length: int
    memory: dict[str, int]
    memory_bytes: int
    available_bytes: int
    fits: bool
    advice: tuple[str, ...]
    steps: int | None
    step_flops: float
    step_seconds: float
    train_flops: float | None
    train_seconds: float | None
    eval_seconds: float | None
    checkpoint_bytes: int
    exact_lengths: bool


def this_machine(device: str) -> Machine:
    """The machine's calibration, kept from the last time where there was one."""
    name = processor_name() if device == "cpu" else torch.cuda.get_device_name()
    where = environment(device=device, device_name=name, threads=torch.get_num_threads())
    return calibrated(device, where.fingerprint, cache_folder())


class Forecaster:
    """Forecasts the runs of a plan. What costs the same is simulated once, and a text tokenised once."""

    def __init__(self, *, device: str, machine: Machine, execution: ExecutionConfig) -> None:
        self.device, self.execution, self._machine = device, execution, machine
        self._rows: dict[str, RowsAhead] = {}
        self._simulated: dict[str, Simulated] = {}

    def forecast(self, run: RunConfig, skeleton: nn.Module, layout: Layout, data: TaskData | None) -> Forecast:
        """Forecast ``run``, whose dtype and maximal length are decided.

        Args:
            skeleton: the model on the meta device.
            data: the task's rows; ``None`` for a head on batches of 128 tokens (or the maximal length).
        """
        training, micro = run.training, self.execution.micro_batch_size
        known = _rows_key(run, data)
        if known not in self._rows:
            self._rows[known] = rows_ahead(run, skeleton, layout, data)
        rows = self._rows[known]
        batch_plan = BatchPlan(rows.lengths, training.batch_size)
        batches = sorted(batch_plan.epoch(0, 0), key=lambda batch: (len(batch.rows) * batch.length, batch.length))
        longest, middle = rows.portion(batches[-1]), rows.portion(batches[len(batches) // 2])
        steps = 0 if not methods.get(run.method.name).trains else training.steps
        if steps is None and training.epochs is not None and data is not None:
            steps = int(np.ceil(training.epochs * len(batches)))
        decided = run.model_copy(update={"training": training.model_copy(update={"steps": steps or len(batches)})})
        devices = self.execution.devices_per_run
        share = -(-longest.shape[0] // devices)
        portions = () if steps == 0 else (longest,) if middle.shape == longest.shape else (longest, middle)
        answer, tokens = _answers(rows, skeleton, longest)
        part = min(micro or share, share) if devices > 1 else micro
        found = self._simulate(decided, skeleton, layout, rows.readout, portions, answer, part, known)
        found = found.shared_by(devices, micro)
        memory = _quantised(found.memory, run, skeleton, layout, training.dtype)
        if self.execution.shard:
            memory = sharded(memory, run, layout, devices)
        times = {} if steps is None else _times(batch_plan, steps)
        flops = sum(n * found.flops.of_step(np.full(size, length), length)[0] for (size, length), n in times.items())
        seconds = sum(n * _between(found, longest, middle, size * length) for (size, length), n in times.items())
        available = available_bytes(self.device) // (devices if self.device == "cpu" else 1)
        needed = max(memory.total, memory.answering)
        fits = needed <= _USABLE * available
        evaluations = 1 + -(-(steps or 0) // (training.eval_every or len(batches)))
        of_middle = np.full(middle.shape[0], middle.shape[1])
        return Forecast(
            device=self.device,
            dtype=training.dtype,
            devices=devices,
            rows=longest.shape[0],
            length=longest.shape[1],
            memory={**asdict(memory), "total": memory.total},
            memory_bytes=needed,
            available_bytes=available,
            fits=fits,
            advice=() if fits else _advice(memory, run, skeleton, layout, share, micro, int(_USABLE * available)),
            steps=steps,
            step_flops=found.flops.of_step(of_middle, middle.shape[1])[0] if portions else 0.0,
            step_seconds=found.step_seconds[middle.shape] if portions else 0.0,
            train_flops=None if steps is None else flops,
            train_seconds=None if steps is None else seconds,
            eval_seconds=None if steps is None else _answering(found, answer, tokens, evaluations),
            checkpoint_bytes=2 * memory.trained + memory.optimizer,
            exact_lengths=rows.exact,
        )

    def _simulate(
        self,
        run: RunConfig,
        skeleton: nn.Module,
        layout: Layout,
        readout: Readout,
        train: tuple[Portion, ...],
        answer: Portion,
        micro: int | None,
        rows: str,
    ) -> Simulated:
        sizes = [layout.parameters[name] for name in layout.head]
        shapes = [portion.shape for portion in (*train, answer)]
        key = f"{pass_key(run)}|{rows}|{sizes}|{run.training.dtype}|{shapes}|{micro}"
        if key not in self._simulated:
            self._simulated[key] = simulate(
                run, skeleton, layout, readout=readout, device=self.device, machine=self._machine, train=train,
                answer=answer, micro_batch_size=micro, gradient_checkpointing=self.execution.gradient_checkpointing,
            )  # fmt: skip
        return self._simulated[key].under(run.training)


def _rows_key(run: RunConfig, data: TaskData | None) -> str:
    """Equal for runs that read the same tokens."""
    rows = f"batches of {run.training.batch_size}" if data is None else data.fingerprint
    drawn = run.seed if run.shots else ""
    virtual = methods.get(run.method.name).placement == "prompt"
    said = f"{run.readout}|{run.objective}|{run.shots}|{run.answering.model_dump_json()}|{drawn}|{virtual}"
    return f"{run.model.model_dump_json()}|{rows}|{run.task.prompt}|{run.task.max_length}|{said}"


def _answers(rows: RowsAhead, skeleton: nn.Module, otherwise: Portion) -> tuple[Portion, dict[str, float]]:
    """The largest batch of all that are answered, and the padded tokens of every split; without rows, ``otherwise``."""
    largest, tokens = otherwise, dict[str, float]()
    sizes = []
    for name, (some, count) in rows.answered.items():
        batches = rows.readout.answer_batches(skeleton, some)
        tokens[name] = count / len(some) * sum(len(batch.rows) * batch.length for batch in batches)
        sizes += [Portion(some, batch) for batch in batches]
    if sizes:
        largest = max(sizes, key=lambda portion: portion.shape[0] * portion.shape[1])
    return largest, tokens


def _shapes(batches: Sequence[BatchRows]) -> list[tuple[int, int]]:
    return [(len(batch.rows), batch.length) for batch in batches]


def _times(plan: BatchPlan, steps: int) -> Counter[tuple[int, int]]:
    """How often ``steps`` steps have a batch of each (rows, length), which no seed changes."""
    epochs, rest = divmod(steps, plan.steps_per_epoch)
    times = Counter({shape: epochs * n for shape, n in Counter(_shapes(plan.epoch(0, 0))).items() if epochs})
    times.update(_shapes(plan.epoch(epochs, 0)[:rest]))
    return times


def _between(found: Simulated, longest: Portion, middle: Portion, tokens: int) -> float:
    """Seconds of a step of so many padded tokens, on the line through the two that were simulated."""
    first, second = found.step_seconds[middle.shape], found.step_seconds[longest.shape]
    at_first, at_second = (portion.shape[0] * portion.shape[1] for portion in (middle, longest))
    if at_first == at_second:
        return second * tokens / at_second
    return max(0.0, first + (second - first) * (tokens - at_first) / (at_second - at_first))


def _answering(found: Simulated, answer: Portion, tokens: Mapping[str, float], evaluations: int) -> float:
    """Seconds of all evaluations: selection rows at the start, as often as asked and at the end; report sets once."""
    a_token = found.answer_seconds / (answer.shape[0] * answer.shape[1])
    return a_token * sum(count * (evaluations if name == "select" else 1) for name, count in tokens.items())


def _quantised(memory: Memory, run: RunConfig, skeleton: nn.Module, layout: Layout, dtype: str) -> Memory:
    """The memory with the base stored as the run says: no second copy in 16 bits of what is stored in codes."""
    how = run.model.quantize
    if how == "none":
        return memory
    layers = quantize.quantised_layers(skeleton, layout)
    stored = quantize.base_bytes(layout, layers, how)
    numbers = sum(layout.count(f"{name}.weight") for name in layers)
    casts = 2 * numbers if dtype in ("bfloat16", "float16") else 0
    saved = memory.base - stored
    return replace(
        memory, base=stored, copies=max(0, memory.copies - casts), answering=memory.answering - saved - casts
    )


def sharded(memory: Memory, run: RunConfig, layout: Layout, devices: int) -> Memory:
    """The memory of one of ``devices`` that hold a shard each, and two blocks whole: the present one and the next.

    As :mod:`adaptlab.training.shards` cuts: the frozen blocks, or all of the weights where the base's own train. The
    float32 base is given up once it is cut.
    """
    method, setup = methods.get(run.method.name), setup_of(run)
    trained = set(method.trains_of_base(layout, setup))
    if trained and setup.head == "trained":
        trained |= set(layout.head)
    width = {"float64": 8, "float32": 4}.get(run.training.dtype, 2)
    sizes = {name: layout.count(name) * (4 if name in trained else width) for name in layout.parameters}
    blocks = [sum(size for name, size in sizes.items() if name.startswith(f"{block}.")) for block in layout.blocks]
    lent, inside, everything = 2 * max(blocks), sum(blocks), sum(sizes.values())
    outside = everything - inside
    before = memory.base + memory.copies + (memory.trained if trained else 0)
    if trained:
        held = {part: getattr(memory, part) // devices for part in ("trained", "optimizer", "best")}
        # Of what is whole while it computes, so are the gradients until they are added up.
        held |= {"gradients": memory.gradients // devices + max(blocks) + outside}
        frozen = sum(size for name, size in sizes.items() if name not in trained)
        memory = replace(memory, **held, base=frozen // devices, copies=lent + outside)
    else:
        memory = replace(memory, base=inside // devices + outside, copies=lent)
    after = memory.base + memory.copies + (memory.trained if trained else 0)
    return replace(memory, answering=max(after, memory.answering - before + after))


def _advice(
    memory: Memory,
    run: RunConfig,
    skeleton: nn.Module,
    layout: Layout,
    rows: int,
    micro: int | None,
    available: int,
) -> tuple[str, ...]:
    """Flags that make the run fit, the least intrusive first; all that would do on their own, or else two together."""
    rows = min(micro or rows, rows)
    ways: list[tuple[str, Memory]] = []
    stores: list[tuple[str, Memory]] = [("", memory)]
    if run.model.quantize == "none" and methods.get(run.method.name).placement != "base":
        for how in ("8bit", "4bit"):
            config = run.model_copy(update={"model": ModelConfig(**{**run.model.model_dump(), "quantize": how})})
            stores.append((f"--quantize {how}", _quantised(memory, config, skeleton, layout, run.training.dtype)))
    for flag, stored in stores:
        part = rows
        while part >= 1:
            flags = [word for word in (flag, f"--micro-batch-size {part}" if part < rows else "") if word]
            if flags:
                ways.append((" ".join(flags), replace(stored, activations=stored.activations * part // rows)))
            part //= 2
    fitting = [flags for flags, held in ways if max(held.total, held.answering) <= available]
    alone = [flags for flags in fitting if flags.count("--") == 1]
    best: dict[str, str] = {}
    for one in alone or fitting:
        best.setdefault(one.split()[0] if alone else one, one)
    return tuple(best.values())[:3]
