"""What a run will take before it runs: memory, operations, seconds, disk, from config.json and the lengths of texts.

The step itself is simulated (:mod:`adaptlab.simulating`); here are the batches that the run will have, their sums over
a training, and what to change where memory is short.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import nn

from adaptlab.config import ExecutionConfig, ModelConfig, RunConfig
from adaptlab.costing import pass_key
from adaptlab.measure.environment import environment, processor_name
from adaptlab.measure.machine import Machine, calibrated
from adaptlab.methods import registry as methods
from adaptlab.models import quantize
from adaptlab.models._base import Layout
from adaptlab.models.identity import cache_folder
from adaptlab.models.load import local_tokenizer
from adaptlab.resolve import setup_of
from adaptlab.simulating import Memory, Shape, Simulated, simulate
from adaptlab.tasks._base import Example, TaskData
from adaptlab.training.batches import BatchPlan, BatchRows, evaluation_batches
from adaptlab.training.encode import encode

#: Tokens to a word where the tokenizer is not here to be asked, and tokens that frame a text.
_TOKENS_A_WORD, _FRAME = 1.35, 2
#: Texts of a split that are tokenised; the others are taken to be as long as these.
_MOST_TEXTS = 2000
#: Tokens of a row where there is no task.
_LENGTH_WITHOUT_TASK = 128
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


def available_bytes(device: str) -> int:
    """Memory that a new process could take: of the GPU, or of this machine within its control group's limit."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))


class Forecaster:
    """Forecasts the runs of a plan. What costs the same is simulated once, and a text tokenised once."""

    def __init__(self, *, device: str, machine: Machine, execution: ExecutionConfig) -> None:
        self.device, self.execution, self._machine = device, execution, machine
        self._lengths: dict[str, tuple[dict[str, NDArray[np.int64]], bool]] = {}
        self._simulated: dict[str, Simulated] = {}

    def forecast(self, run: RunConfig, skeleton: nn.Module, layout: Layout, data: TaskData | None) -> Forecast:
        """Forecast ``run``, whose dtype and maximal length are decided.

        Args:
            skeleton: the model on the meta device.
            data: the task's rows; ``None`` for batches of 128 tokens (or the maximal length).
        """
        training, micro = run.training, self.execution.micro_batch_size
        lengths, exact = self._lengths_of(run, data)
        train = lengths.get("train")
        if train is None:
            length = min(int(run.task.max_length), _LENGTH_WITHOUT_TASK)
            train = np.full(training.batch_size, length, dtype=np.int64)
        batch_plan = BatchPlan(train, training.batch_size)
        batches = sorted(_shapes(batch_plan.epoch(0, 0)), key=lambda shape: (shape[0] * shape[1], shape[1]))
        longest, middle = batches[-1], batches[len(batches) // 2]
        answers = {name: evaluation_batches(found) for name, found in lengths.items() if name != "train"}
        shapes = [shape for some in answers.values() for shape in _shapes(some)] or [longest]
        answer = max(shapes, key=lambda shape: shape[0] * shape[1])
        steps = training.steps
        if steps is None and training.epochs is not None and data is not None:
            steps = int(np.ceil(training.epochs * len(batches)))
        decided = run.model_copy(update={"training": training.model_copy(update={"steps": steps or len(batches)})})
        devices = self.execution.devices_per_run
        share = -(-longest[0] // devices)
        shapes = [longest] if middle == longest else [longest, middle]
        part = min(micro or share, share) if devices > 1 else micro
        found = self._simulate(decided, skeleton, layout, tuple(shapes), answer, part).shared_by(devices, micro)
        memory = _quantised(found.memory, run, skeleton, layout, training.dtype)
        if self.execution.shard:
            memory = sharded(memory, run, layout, devices)
        times = {} if steps is None else _times(batch_plan, steps)
        flops = sum(n * found.flops.of_step(np.full(rows, length), length)[0] for (rows, length), n in times.items())
        seconds = sum(n * _between(found, longest, middle, rows * length) for (rows, length), n in times.items())
        available = available_bytes(self.device) // (devices if self.device == "cpu" else 1)
        fits = memory.total <= _USABLE * available
        return Forecast(
            device=self.device,
            dtype=training.dtype,
            devices=devices,
            rows=longest[0],
            length=longest[1],
            memory={**asdict(memory), "total": memory.total},
            memory_bytes=memory.total,
            available_bytes=available,
            fits=fits,
            advice=() if fits else _advice(memory, run, skeleton, layout, share, micro, int(_USABLE * available)),
            steps=steps,
            step_flops=found.flops.of_step(np.full(middle[0], middle[1]), middle[1])[0],
            step_seconds=found.step_seconds[middle],
            train_flops=None if steps is None else flops,
            train_seconds=None if steps is None else seconds,
            eval_seconds=None
            if steps is None
            else _answering(found, answer, answers, steps, training.eval_every, batches),
            checkpoint_bytes=2 * memory.trained + memory.optimizer,
            exact_lengths=exact,
        )

    def _lengths_of(self, run: RunConfig, data: TaskData | None) -> tuple[dict[str, NDArray[np.int64]], bool]:
        rows = "" if data is None else data.fingerprint
        key = f"{run.model.model_dump_json()}|{rows}|{run.task.max_length}"
        if key not in self._lengths:
            self._lengths[key] = _lengths(run, data)
        return self._lengths[key]

    def _simulate(
        self,
        run: RunConfig,
        skeleton: nn.Module,
        layout: Layout,
        train: tuple[Shape, ...],
        answer: Shape,
        micro: int | None,
    ) -> Simulated:
        sizes = [layout.parameters[name] for name in layout.head]
        key = f"{pass_key(run)}|{sizes}|{run.training.dtype}|{train}|{answer}|{micro}"
        if key not in self._simulated:
            self._simulated[key] = simulate(
                run, skeleton, layout, device=self.device, machine=self._machine, train=train, answer=answer,
                micro_batch_size=micro,
                gradient_checkpointing=self.execution.gradient_checkpointing,
            )  # fmt: skip
        return self._simulated[key].under(run.training)


def _shapes(batches: Sequence[BatchRows]) -> list[tuple[int, int]]:
    return [(len(batch.rows), batch.length) for batch in batches]


def _times(plan: BatchPlan, steps: int) -> Counter[tuple[int, int]]:
    """How often ``steps`` steps have a batch of each (rows, length), which no seed changes."""
    epochs, rest = divmod(steps, plan.steps_per_epoch)
    times = Counter({shape: epochs * n for shape, n in Counter(_shapes(plan.epoch(0, 0))).items() if epochs})
    times.update(_shapes(plan.epoch(epochs, 0)[:rest]))
    return times


def _lengths(run: RunConfig, data: TaskData | None) -> tuple[dict[str, NDArray[np.int64]], bool]:
    """Tokens of every row, by split; and whether a tokenizer told."""
    if data is None:
        return {}, False
    splits: Mapping[str, Sequence[Example]] = {"train": data.trained_on, "select": data.select, **data.report}
    tokenizer, most = local_tokenizer(run.model), int(run.task.max_length)
    found = {}
    for name, rows in splits.items():
        sample = [rows[i] for i in np.linspace(0, len(rows) - 1, min(len(rows), _MOST_TEXTS)).astype(int)]
        if tokenizer is not None:
            some = encode(
                tokenizer, [replace(row, label=0) for row in sample], max_length=most, regression=False
            ).lengths
        else:
            words = np.array([sum(len(text.split()) for text in row.texts) for row in sample])
            some = np.minimum(np.ceil(words * _TOKENS_A_WORD) + _FRAME, most).astype(np.int64)
        found[name] = np.resize(some, len(rows))
    return found, tokenizer is not None


def _between(found: Simulated, longest: tuple[int, int], middle: tuple[int, int], tokens: int) -> float:
    """Seconds of a step of so many padded tokens, on the line through the two that were simulated."""
    first, second = found.step_seconds[middle], found.step_seconds[longest]
    at_first, at_second = middle[0] * middle[1], longest[0] * longest[1]
    if at_first == at_second:
        return second * tokens / at_second
    return max(0.0, first + (second - first) * (tokens - at_first) / (at_second - at_first))


def _answering(
    found: Simulated,
    answer: tuple[int, int],
    answers: Mapping[str, Sequence[object]],
    steps: int,
    eval_every: int | None,
    batches: Sequence[object],
) -> float:
    """Seconds of all evaluations: selection rows at the start, as often as asked and at the end; report sets once."""
    a_token = found.answer_seconds / (answer[0] * answer[1])
    tokens = {name: sum(len(b.rows) * b.length for b in some) for name, some in answers.items()}  # type: ignore[attr-defined]
    every = eval_every or len(batches)
    times = 1 + -(-steps // every)
    return a_token * (times * tokens.pop("select", 0) + sum(tokens.values()))


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
    fitting = [flags for flags, held in ways if held.total <= available]
    alone = [flags for flags in fitting if flags.count("--") == 1]
    best: dict[str, str] = {}
    for one in alone or fitting:
        best.setdefault(one.split()[0] if alone else one, one)
    return tuple(best.values())[:3]
