"""What a study's methods would train, weigh and take, from config.json alone: no weights, no training, no hub's files.

One :class:`Plan` stands for one cost configuration (a model, a task, a variant of a method); whatever else can be
said before training is another field of it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from adaptlab.config import (
    Engine,
    ExecutionConfig,
    ModelConfig,
    Readout,
    RunConfig,
    RunIdentity,
    StudyConfig,
)
from adaptlab.engines.packing import CHECKPOINTING, activation_bytes, chosen_engine, pack
from adaptlab.errors import ConfigError
from adaptlab.methods import registry as methods
from adaptlab.methods._base import Method, Setup
from adaptlab.models._base import Layout
from adaptlab.models.identity import read_config
from adaptlab.resolve import check_method, max_length_of, outputs, setup_of
from adaptlab.resolve import device as resolve_device
from adaptlab.resolve import dtype as resolve_dtype
from adaptlab.study.expand import expand, task_label
from adaptlab.tasks import find_task
from adaptlab.tasks._base import DataAccess, TaskData

if TYPE_CHECKING:
    from torch import nn

    from adaptlab.forecast import Forecast, Forecaster

#: Of the head where no task says it.
DEFAULT_LABELS = 2

_BYTES = 4  # trained numbers are float32
#: What of a training its costs depend on.
_COST_KEYS = {"batch_size", "epochs", "steps", "eval_every", "dtype", "optimizer"}
_ADDS = ("layers", "prompt")
_CHARACTERS_PER_TOKEN, _SPECIAL_TOKENS = 3, 4  # at the least


@dataclass(frozen=True, slots=True)
class Labels:
    """What the model answers with: a head of ``count`` numbers, or words."""

    count: int
    regression: bool = False
    readout: Readout = "head"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one variant of a method comes to. Counts are of numbers, as in a record's ``parameters``.

    Attributes:
        task: ``None`` where no task was given; then ``labels`` is :data:`DEFAULT_LABELS`.
        method: the variant's label.
        readout, shots: how its runs answer.
        trainable: without the head.
        head: trained numbers of the head.
        total: everything the model holds with the method on it.
        base_bytes: the base's weights in memory as they are loaded: float32, or 4 or 8 bits inside the blocks.
        adapter_bytes: the saved weights file; the configuration beside it adds about a kilobyte.
        runs: how many runs of the study it stands for.
        notes: what limits a figure.
        batch_size: rows of a step.
        forecast: what one of the runs takes; ``None`` where it was not asked for, or cannot be told (see ``notes``).
        disk_bytes: of the weights that all these runs keep, and the checkpoint of one that is running.
        engine: what ``--engine`` comes to here.
        groups: numbers of the groups, counted from 1, in which the fused engine would train these runs with others.
        alone: why it would train them alone; empty if it would not.
    """

    model: str
    task: str | None
    method: str
    readout: Readout
    shots: int
    labels: int
    trainable: int
    head: int
    total: int
    base_bytes: int
    adapter_bytes: int
    runs: int
    notes: tuple[str, ...] = ()
    batch_size: int = 0
    forecast: Forecast | None = None
    disk_bytes: int = 0
    engine: Engine = "solo"
    groups: tuple[int, ...] = ()
    alone: str = ""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A run as packing looks at it: whatever it is decided to be, equal content has equal words."""

    name: str
    resolved: RunConfig
    identity: RunIdentity
    plan: int
    bytes: int


def plan(
    study: StudyConfig,
    *,
    with_task: bool = True,
    costs: bool = True,
    progress: Callable[[str, int, int], None] = lambda method, done, of: None,
) -> list[Plan]:
    """The plans of every model, task, variant of a method and batch shape of ``study``, in its order.

    Args:
        with_task: read the task's rows; without, no data is touched, and costs are those of a step.
        costs: also forecast memory, operations and seconds; without, parameters and bytes are counted only.
        progress: told, before each plan, the method's label, how many plans are made and how many there will be.

    Raises:
        ConfigError: a method does not fit a model; every misfit, a sentence each.
        AdaptlabError: a model's config.json or the data is not usable.
    """
    access = DataAccess(data_root=study.execution.data_root)
    groups: dict[str, list[RunConfig]] = {}
    for run in expand(study):
        task = run.task.model_dump_json(exclude={"max_length"}) if with_task else ""
        training = run.training.model_dump_json(include=_COST_KEYS)
        asked = f"{run.readout}|{run.objective}|{run.shots}|{run.answering.model_dump_json()}"
        shape = f"{training}|{run.task.max_length}|{asked}"
        key = f"{run.model.model_dump_json()}|{task}|{run.method.model_dump_json()}|{shape}"
        groups.setdefault(key, []).append(run)
    ahead = _forecaster(study.execution) if costs else None
    labels: dict[str, Labels] = {}
    tasks: dict[str, TaskData | None] = {}
    models: dict[str, tuple[nn.Module, Layout]] = {}
    files: dict[str, dict[str, tuple[int, ...]]] = {}
    plans: list[Plan] = []
    problems: dict[str, None] = {}
    for number, runs in enumerate(groups.values()):
        run = runs[0]
        progress(run.method.label, number, len(groups))
        rows = _rows_key(run)
        if rows not in labels:
            tasks[rows] = find_task(run.task.name).load(run.task, access) if with_task else None
            labels[rows] = _labels(run, tasks[rows])
        shape = f"{run.model.model_dump_json()}|{labels[rows]}"
        if shape not in models:
            models[shape] = _skeleton(run.model, labels[rows])
        try:
            name = task_label(run.task.name) if with_task else None
            one = _plan(runs, *models[shape], labels[rows], name, files, shard=study.execution.shard)
            plans.append(one if ahead is None else _with_forecast(one, runs, *models[shape], tasks[rows], ahead))
        except ConfigError as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        raise ConfigError(problems)
    data = [tasks[_rows_key(runs[0])] for runs in groups.values()]
    return _grouped(plans, list(groups.values()), data, study.execution)


def _grouped(
    plans: list[Plan], runs: list[list[RunConfig]], data: list[TaskData | None], execution: ExecutionConfig
) -> list[Plan]:
    """``plans`` with the groups that the fused engine would make of their runs on this machine."""
    on = resolve_device(execution.device)
    engine = chosen_engine(execution.engine, on)
    candidates: list[_Candidate] = []
    for number, (some, rows) in enumerate(zip(runs, data, strict=True)):
        if not methods.get(some[0].method.name).trains:
            continue
        for run in (_decided(run, on) for run in some):
            same = RunIdentity(
                weights=run.model.id, data=run.task.model_dump_json(), task=run.task.name, task_version=0
            )
            candidates.append(_Candidate(str(len(candidates)), run, same, number, run_bytes(run, rows)))
    packing = pack(
        candidates,
        lambda run: methods.get(run.resolved.method.name),
        run_bytes=lambda run: run.bytes,
        budget_bytes=free_bytes(on),
        all_alone=CHECKPOINTING if execution.gradient_checkpointing else None,
    )
    together = [group for group in packing.groups if len(group) > 1]
    numbers: dict[int, set[int]] = {}
    for number, group in enumerate(together, start=1):
        for member in group:
            numbers.setdefault(member.plan, set()).add(number)
    reasons = {one.plan: packing.alone[one.name] for one in candidates if one.name in packing.alone}
    return [
        replace(one, engine=engine, groups=tuple(sorted(numbers.get(i, ()))), alone=reasons.get(i, ""))
        for i, one in enumerate(plans)
    ]


def run_bytes(run: RunConfig, data: TaskData | None) -> int:
    """What ``run`` adds to its group's memory; its weights, gradients and moments are small beside its activations.

    Before anything is tokenised: of the longest row, at the least, without ``data`` of the maximal length.
    """
    method = methods.get(run.method.name)
    length = int(run.task.max_length)
    if data is not None:
        characters = max(sum(map(len, example.texts)) for example in data.trained_on)
        length = min(length, characters // _CHARACTERS_PER_TOKEN + _SPECIAL_TOKENS)
    return activation_bytes(
        read_config(run.model),
        rows=run.training.batch_size,
        length=length + method.virtual_tokens(method.Config(**run.method.options)),
        bytes_per_number=2 if run.training.dtype in ("bfloat16", "float16") else 4,
    )


def free_bytes(device: str) -> int:
    """What a group may add to the base's memory. Half of what is free: the rest is the base's, and the allocator's."""
    from adaptlab.measure.memory import available_bytes

    return available_bytes(device) // 2


def _rows_key(run: RunConfig) -> str:
    return f"{run.task.model_dump_json(exclude={'max_length'})}|{run.readout == 'head'}"


def _plan(
    runs: list[RunConfig],
    model: nn.Module,
    layout: Layout,
    labels: Labels,
    task: str | None,
    files: dict[str, dict[str, tuple[int, ...]]],
    *,
    shard: bool,
) -> Plan:
    """``files`` has what methods save, filled here: by what they attach, whatever they are called."""
    run = runs[0]
    from adaptlab.costing import pass_key
    from adaptlab.models import quantize

    method, setup, how = methods.get(run.method.name), setup_of(run), run.model.quantize
    # For some machine: widths that a CPU cannot have are no matter of counts.
    check_method(model, layout, run, "cuda", shard=shard)
    trainable = method.trainable_count(layout, setup)
    head = layout.head_count() if setup.head == "trained" else 0
    base = sum(layout.count(name) for name in layout.parameters)
    key = f"{pass_key(run)}|{labels}"
    if key not in files:
        files[key] = saved_shapes(model, layout, method, setup)
    shapes = files[key]
    notes = () if shapes else (f"{run.method.label} cannot be set up without weights: its size is its numbers' alone",)
    return Plan(
        model=run.model.id,
        task=task,
        method=run.method.label,
        readout=run.readout,
        shots=run.shots,
        labels=labels.count,
        trainable=trainable,
        head=head,
        total=base + (trainable if method.placement in _ADDS or method.takes_targets else 0),
        base_bytes=quantize.base_bytes(layout, quantize.quantised_layers(model, layout), how),
        adapter_bytes=safetensors_bytes(shapes) if shapes else _BYTES * (trainable + head),
        runs=len(runs),
        notes=notes,
    )


def saved_shapes(model: nn.Module, layout: Layout, method: Method, setup: Setup) -> dict[str, tuple[int, ...]]:
    """The tensors that ``method`` saves, by name, from attaching it to a copy of ``model`` on the meta device.

    Empty where the method looks at weights while it is attached, which a model without them cannot give.
    """
    import torch

    try:
        with torch.device("meta"):
            tensors = method.saved(method.attach(copy.deepcopy(model), layout, setup))
    except (NotImplementedError, RuntimeError):  # a copy or a question of a tensor that has no numbers
        return {}
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def safetensors_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of a safetensors file of float32 tensors: 8 for a length, a JSON header padded to 8, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(shapes):
        size = _BYTES
        for length in shapes[name]:
            size *= length
        header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [offset, offset + size]}
        offset += size
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + offset


def _labels(run: RunConfig, data: TaskData | None) -> Labels:
    if data is None:
        return Labels(DEFAULT_LABELS, readout=run.readout)
    return Labels(outputs(data), data.kind == "regression", run.readout)


def _forecaster(execution: ExecutionConfig) -> Forecaster:
    """Of the machine, which is calibrated once."""
    from adaptlab.forecast import Forecaster, this_machine

    on = resolve_device(execution.device)
    return Forecaster(device=on, machine=this_machine(on), execution=execution)


def _decided(run: RunConfig, on: str) -> RunConfig:
    """``run`` with the dtype and the maximal length that it would have on this machine."""
    method = methods.get(run.method.name)
    virtual = method.virtual_tokens(method.Config(**run.method.options))
    length = max_length_of(run, read_config(run.model), virtual)
    training = run.training.model_copy(update={"dtype": resolve_dtype(run.training.dtype, on)})
    return run.model_copy(update={"task": run.task.model_copy(update={"max_length": length}), "training": training})


def _with_forecast(
    one: Plan, runs: list[RunConfig], model: nn.Module, layout: Layout, data: TaskData | None, ahead: Forecaster
) -> Plan:
    """``one`` with what a run takes on this machine; a note instead where the method asks for weights."""
    from torch._subclasses.fake_tensor import UnsupportedFakeTensorException

    decided = _decided(runs[0], ahead.device)
    one = replace(one, batch_size=decided.training.batch_size)
    if decided.objective != "supervised":
        return replace(one, notes=(*one.notes, f"the costs of {decided.objective} are not forecast"))
    if decided.readout != "head" and data is None:
        return replace(one, notes=(*one.notes, f"the costs of the readout {decided.readout} depend on a task's prompt"))
    kept = {"all": len(runs), "best": 1, "none": 0}[ahead.execution.keep_weights]
    try:
        found = ahead.forecast(decided, model, layout, data)
    except (NotImplementedError, RuntimeError, ValueError, UnsupportedFakeTensorException) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        note = f"the costs of {one.method} cannot be forecast without weights ({reason})"
        return replace(one, notes=(*one.notes, note))
    disk = kept * one.adapter_bytes + found.checkpoint_bytes
    return replace(one, forecast=found, disk_bytes=disk)


def _skeleton(model: ModelConfig, labels: Labels) -> tuple[nn.Module, Layout]:
    from adaptlab.models.load import skeleton

    return skeleton(model, num_labels=labels.count, regression=labels.regression, readout=labels.readout)
