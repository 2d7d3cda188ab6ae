"""What a study's methods would train and weigh, from config.json alone: no weights, no training, no hub's files.

One :class:`Plan` stands for one cost configuration (a model, a task, a variant of a method); whatever else can be
said before training is another field of it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptlab.config import ModelConfig, Readout, RunConfig, StudyConfig
from adaptlab.errors import ConfigError
from adaptlab.methods import registry as methods
from adaptlab.methods._base import Method, Setup
from adaptlab.models._base import Layout
from adaptlab.resolve import check_method, outputs, setup_of
from adaptlab.study.expand import expand, task_label
from adaptlab.tasks import find_task
from adaptlab.tasks._base import DataAccess

if TYPE_CHECKING:
    from torch import nn

#: Of the head where no task says it.
DEFAULT_LABELS = 2

_BYTES = 4  # trained numbers are float32
_ADDS = ("layers", "prompt")


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
        trainable: without the head.
        head: trained numbers of the head.
        total: everything the model holds with the method on it.
        base_bytes: the base's weights in memory as they are loaded: float32, or 4 or 8 bits inside the blocks.
        adapter_bytes: the saved weights file; the configuration beside it adds about a kilobyte.
        runs: how many runs of the study it stands for.
        notes: what limits a figure.
    """

    model: str
    task: str | None
    method: str
    labels: int
    trainable: int
    head: int
    total: int
    base_bytes: int
    adapter_bytes: int
    runs: int
    notes: tuple[str, ...] = ()


def plan(study: StudyConfig, *, with_task: bool = True) -> list[Plan]:
    """The plans of every model, task and variant of ``study``, in its order.

    Args:
        with_task: read the task's rows for the number of labels; without, no data is touched.

    Raises:
        ConfigError: a method does not fit a model; every misfit, a sentence each.
        AdaptlabError: a model's config.json or the data is not usable.
    """
    access = DataAccess(data_root=study.execution.data_root)
    groups: dict[str, list[RunConfig]] = {}
    for run in expand(study):
        task = run.task.model_dump_json(exclude={"max_length"}) if with_task else ""
        key = f"{run.model.model_dump_json()}|{task}|{run.method.model_dump_json()}|{run.readout == 'head'}"
        groups.setdefault(key, []).append(run)
    labels: dict[str, Labels] = {}
    models: dict[str, tuple[nn.Module, Layout]] = {}
    plans: list[Plan] = []
    problems: dict[str, None] = {}
    for runs in groups.values():
        run = runs[0]
        rows = f"{run.task.model_dump_json(exclude={'max_length'})}|{run.readout == 'head'}"
        if rows not in labels:
            labels[rows] = _labels(run, access) if with_task else Labels(DEFAULT_LABELS, readout=run.readout)
        shape = f"{run.model.model_dump_json()}|{labels[rows]}"
        if shape not in models:
            models[shape] = _skeleton(run.model, labels[rows])
        try:
            plans.append(_plan(runs, *models[shape], labels[rows], task_label(run.task.name) if with_task else None))
        except ConfigError as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        raise ConfigError(problems)
    return plans


def _plan(runs: list[RunConfig], model: nn.Module, layout: Layout, labels: Labels, task: str | None) -> Plan:
    run = runs[0]
    from adaptlab.models import quantize

    method, setup, how = methods.get(run.method.name), setup_of(run), run.model.quantize
    check_method(model, layout, run, "cuda")  # for some machine; widths that a CPU cannot have are no matter of counts
    trainable = method.trainable_count(layout, setup)
    head = layout.head_count() if setup.head == "trained" else 0
    base = sum(layout.count(name) for name in layout.parameters)
    shapes = saved_shapes(model, layout, method, setup)
    notes = () if shapes else (f"{run.method.label} cannot be set up without weights: its size is its numbers' alone",)
    return Plan(
        model=run.model.id,
        task=task,
        method=run.method.label,
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


def _labels(run: RunConfig, access: DataAccess) -> Labels:
    data = find_task(run.task.name).load(run.task, access)
    return Labels(outputs(data), data.kind == "regression", run.readout)


def _skeleton(model: ModelConfig, labels: Labels) -> tuple[nn.Module, Layout]:
    from adaptlab.models.load import skeleton

    return skeleton(model, num_labels=labels.count, regression=labels.regression, readout=labels.readout)
