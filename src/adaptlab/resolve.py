"""From a run as it was given to one with nothing left to decide, and its id.

Reads the task's rows, the model's config.json and the digest of its weights; imports no torch unless the device or
dtype is ``auto``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptlab.config import (
    ExecutionConfig,
    MethodConfig,
    ModelConfig,
    Optimizer,
    Prompt,
    Readout,
    RunConfig,
    RunIdentity,
    TaskConfig,
    TrainingConfig,
    run_id,
)
from adaptlab.errors import ConfigError
from adaptlab.evaluation.demonstrations import check as check_shots
from adaptlab.methods import registry as methods
from adaptlab.methods._base import Setup
from adaptlab.methods._capabilities import quantised_refusal
from adaptlab.metrics import registry as metrics
from adaptlab.models._base import Layout
from adaptlab.models.identity import read_config, weights_identity
from adaptlab.study.expand import run_name
from adaptlab.tasks import OwnRows, find_task, load_task
from adaptlab.tasks._base import DataAccess, Kind, TaskData
from adaptlab.tasks._prompts import prompt_digest

if TYPE_CHECKING:
    from torch import nn

#: ``--max-length auto``: the model's positions, but no more than this.
_AUTO_MAX_LENGTH = 512

#: Which kinds of task each readout answers.
ANSWERS: dict[Readout, tuple[Kind, ...]] = {
    "head": ("classification", "regression"),
    "verbalizer": ("classification", "multiple-choice"),
    "generate": ("classification", "regression", "multiple-choice", "generation"),
}

#: Optimisers that update each number by itself, whichever others are beside it.
_BY_ELEMENT: tuple[Optimizer, ...] = ("adamw", "adam", "sgd", "sgd-momentum", "sgd-nesterov")

_RELATIVE = ("t5", "mt5", "umt5", "longt5")
#: These count positions from behind the padding token's index.
_FROM_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text")


@dataclass(frozen=True, slots=True)
class ResolvedRun:
    """A run that can start: its configuration, the contents it names, and its data."""

    given: RunConfig
    resolved: RunConfig
    identity: RunIdentity
    id: str
    name: str
    data: TaskData

    @property
    def label(self) -> str:
        """What tables call this variant of the method."""
        return self.resolved.method.label


class Resolver:
    """Resolves the runs of a study; each task and each model is read once, and each run is resolved once.

    Args:
        on: what the runs will compute on, ``cpu`` or ``cuda``, where that is not this machine's.

    Attributes:
        device: what they will compute on.
    """

    def __init__(self, execution: ExecutionConfig, *, on: str | None = None) -> None:
        self._access = DataAccess(data_root=execution.data_root)
        self.device = on or device(execution.device)
        self._shard = execution.shard
        self._data: dict[str, TaskData] = {}
        self._weights: dict[str, str] = {}
        self._model_configs: dict[str, dict[str, Any]] = {}
        self._resolved: dict[str, ResolvedRun] = {}

    def resolve(self, run: RunConfig) -> ResolvedRun:
        """Decide everything that ``run`` leaves open.

        Raises:
            AdaptlabError: the model, the data or an option is not usable.
        """
        key = run.model_dump_json()
        if key not in self._resolved:
            self._resolved[key] = self._decided(run)
        return self._resolved[key]

    def _decided(self, run: RunConfig) -> ResolvedRun:
        model_config = self._model_config(run.model)
        data = self._task_data(run.task)
        prompt = prompt_in_use(run.readout, run.task, data)
        _check_readout(run, data)
        for name in data.metrics:
            metrics.get(name).require()
        method = methods.get(run.method.name)
        settings = method.Config(**run.method.options)
        max_length = max_length_of(run, model_config, method.virtual_tokens(settings))
        used = run.without_idle(trains=method.trains)
        resolved = used.model_copy(
            update={
                "task": run.task.model_copy(
                    update={"max_length": max_length, "prompt": None if prompt is None else prompt.name}
                ),
                "method": MethodConfig(**{**used.method.model_dump(), "options": settings.resolved()}),
                "training": self._training(used, len(data.trained_on)),
                "seed": run.seed if method.trains or run.shots else 0,  # nothing is drawn
            }
        )
        task = find_task(run.task.name)
        identity = RunIdentity(
            weights=self._identity(run.model),
            data=data.fingerprint,
            task=task.name,
            task_version=task.version,
            prompt=None if prompt is None else prompt_digest(prompt),
        )
        id_ = run_id(resolved, identity)
        name = run_name(run.task.name, run.method.label or run.method.name, resolved.seed, id_)
        return ResolvedRun(run, resolved, identity, id_, name, data)

    def _training(self, run: RunConfig, rows: int) -> TrainingConfig:
        """The run's optimisation with nothing left to decide; none at all where nothing is trained."""
        given, method = run.training, methods.get(run.method.name)
        decided = dtype(given.dtype, self.device)
        if not method.trains:
            rate = method.learning_rates.default
            return TrainingConfig(dtype=decided, steps=0, epochs=0, eval_every=1, learning_rate=rate)
        per_epoch = math.ceil(rows / given.batch_size)
        steps = given.steps
        if steps is None and given.epochs is not None:
            steps = math.ceil(given.epochs * per_epoch)
        return given.model_copy(
            update={
                "steps": steps,
                "epochs": None if steps is None else steps / per_epoch,
                "eval_every": given.eval_every or per_epoch,
                "learning_rate": method.learning_rates.default
                if given.learning_rate == "auto"
                else given.learning_rate,
                "dtype": decided,
            }
        )

    def check_methods(self, runs: Iterable[ResolvedRun]) -> None:
        """Try every method on its model's layout, without weights, before anything is written.

        Raises:
            ConfigError: targets match nothing, options do not fit, or the method cannot have its base quantised or
                sharded; every misfit, a sentence each.
            ModelError: the model cannot answer in this way.
        """
        from adaptlab.models import quantize
        from adaptlab.models.load import skeleton

        models: dict[str, tuple[nn.Module, Layout]] = {}
        tried: set[str] = set()
        problems: dict[str, None] = {}
        for run in runs:
            model, method = run.resolved.model, run.resolved.method
            name = f"{model.model_dump_json()}|{run.resolved.readout == 'head'}"
            if name not in models:
                quantize.check_available(model)
                models[name] = skeleton(
                    model,
                    num_labels=outputs(run.data),
                    regression=_is_regression(run.data),
                    readout=run.resolved.readout,
                )
            key = f"{name}|{method.model_dump_json(exclude={'label'})}"
            if self._shard:
                key += f"|{run.resolved.objective}|{run.resolved.training.optimizer}|{run.resolved.training.dtype}"
            if key in tried:
                continue
            tried.add(key)
            try:
                check_method(*models[name], run.resolved, self.device, shard=self._shard)
            except ConfigError as error:
                problems.update(dict.fromkeys(error.problems))
        if problems:
            raise ConfigError(problems)

    def _task_data(self, config: TaskConfig) -> TaskData:
        key = config.model_dump_json(exclude={"max_length"})
        if key not in self._data:
            self._data[key] = load_task(config, self._access)
        return self._data[key]

    def _identity(self, model: ModelConfig) -> str:
        key = model.model_dump_json()
        if key not in self._weights:
            self._weights[key] = weights_identity(model)
        return self._weights[key]

    def _model_config(self, model: ModelConfig) -> dict[str, Any]:
        key = model.model_dump_json()
        if key not in self._model_configs:
            self._model_configs[key] = read_config(model)
        return self._model_configs[key]


def prompt_in_use(readout: Readout, task: TaskConfig, data: TaskData) -> Prompt | None:
    """The prompt that the task's rows are put in: none for a head that nobody gave one.

    Raises:
        ConfigError: the readout needs a prompt and the task has none.
    """
    if readout == "head" and task.prompt is None:
        return None
    if not data.prompts:
        raise ConfigError(
            f"The task '{task.name}' has no prompt, and --readout {readout} needs one: write one under "
            "'prompts' in the study's YAML."
        )
    return data.prompts[0]


def check_answers(readout: Readout, task: TaskConfig, data: TaskData) -> None:
    """Raise :class:`ConfigError` where ``readout`` cannot answer the task."""
    kinds: tuple[Kind, ...] = ANSWERS[readout]
    if data.kind not in kinds:
        fitting = [name for name, able in ANSWERS.items() if data.kind in able]
        own = data.kind == "generation" and isinstance(find_task(task.name), OwnRows)
        raise ConfigError(
            f"The task '{task.name}' is {data.kind}{' (its answers are free texts)' if own else ''}, which "
            f"--readout {readout} cannot answer: use --readout {' or '.join(fitting)}"
            f"{', or say with --label-column which column has classes' if own else ''}."
        )


def _check_readout(run: RunConfig, data: TaskData) -> None:
    """Raise :class:`ConfigError` where the run's readout cannot answer the task, or its prompt cannot be made."""
    check_answers(run.readout, run.task, data)
    if run.readout == "head" and not methods.get(run.method.name).trains:
        raise ConfigError(
            f"The method {run.method.name} trains nothing, and a new head is random: use --readout verbalizer or "
            "generate."
        )
    if run.readout == "head" and run.shots:
        raise ConfigError(
            f"--shots {run.shots} puts demonstrations into a prompt, and a head reads none: use --readout verbalizer "
            "or generate, or leave --shots out."
        )
    check_shots(run.shots, run.answering, data)
    if run.objective == "context-distillation":
        if run.readout != "verbalizer" or not methods.get(run.method.name).trains:
            raise ConfigError(
                "Context distillation trains label words towards a prompted teacher's: use --readout verbalizer and a "
                "method that trains something."
            )
        check_shots(run.answering.teacher_shots, run.answering, data)


def outputs(data: TaskData) -> int:
    """How many numbers a head gives for ``data``: one for regression, else one a label."""
    return 1 if _is_regression(data) else len(data.labels)


def _is_regression(data: TaskData) -> bool:
    return data.kind == "regression"


def setup_of(config: RunConfig) -> Setup:
    """How the run's method is to be attached.

    Raises:
        pydantic.ValidationError: the options are not the method's.
    """
    return Setup(
        options=methods.get(config.method.name).Config(**config.method.options),
        targets=config.method.targets,
        head=config.method.head,
        total_steps=config.training.steps,
    )


def check_method(model: nn.Module, layout: Layout, config: RunConfig, device: str, *, shard: bool = False) -> None:
    """Try the run's method on its model's layout; ``model`` has no weights.

    Raises:
        ConfigError: the targets or options do not fit, or the method cannot have the base quantised, or sharded.
    """
    from adaptlab.models import quantize

    method, setup, how = methods.get(config.method.name), setup_of(config), config.model.quantize
    method.trainable_count(layout, setup)
    if shard and (reason := _no_shards(config, cuts_trained=bool(method.trains_of_base(layout, setup)))):
        raise ConfigError(f"--shard was given {reason}.")
    if how == "none":
        return
    quantize.check_widths(model, layout, config.model, device)
    if config.training.dtype == "float64":
        raise ConfigError(f"A base in {how} computes in 32 bits at most: give --dtype float32, or leave quantize out.")
    why = quantize.refusal(model, layout, how, method.trains_of_base(layout, setup), method.name)
    why = why or quantised_refusal(method.name, layout.kind, how)
    if why is not None:
        raise ConfigError(why)


def _no_shards(config: RunConfig, *, cuts_trained: bool) -> str | None:
    """Why the run's weights cannot be cut into shards, and what to do, as the end of a sentence; ``None`` if they can.

    Args:
        cuts_trained: what trains are weights of the base, which are cut with it.
    """
    training, how = config.training, config.model.quantize
    if how != "none":
        return f"with a base in {how}, whose packed codes cannot be cut by rows: leave --quantize out, or --shard"
    if config.objective == "context-distillation":
        return (
            "with context distillation, whose teacher is asked by each device for rows of its own, which devices that "
            "lend each other weights cannot do: leave --shard out"
        )
    if cuts_trained and training.optimizer not in _BY_ELEMENT:
        return (
            f"with {config.method.name}, whose trained weights are cut too, and {training.optimizer}, which needs a "
            f"weight whole: use {', '.join(_BY_ELEMENT[:-1])} or {_BY_ELEMENT[-1]}, or a method such as lora"
        )
    if cuts_trained and training.dtype == "float16":
        return (
            f"with {config.method.name}, whose trained weights are cut too, and float16, whose loss scaling needs all "
            "gradients in one place: use --dtype bfloat16 or float32, or a method such as lora"
        )
    return None


def max_positions(model_config: dict[str, Any]) -> int | None:
    """How many positions a model has by its config.json, special tokens included; ``None`` where they are relative."""
    family = model_config.get("model_type")
    found = model_config.get("max_position_embeddings") or model_config.get("n_positions")
    if found is None or family in _RELATIVE:
        return None
    return int(found) - (int(model_config.get("pad_token_id", 1)) + 1 if family in _FROM_PADDING else 0)


def max_length_of(run: RunConfig, model_config: dict[str, Any], virtual_tokens: int) -> int:
    """Tokens of a text, whose positions the method's virtual tokens share. Demonstrations may fill all there are."""
    given, positions = run.task.max_length, max_positions(model_config)
    left = None if positions is None else positions - virtual_tokens
    taken = f", of which {run.method.name} takes {virtual_tokens}" if virtual_tokens else ""
    if left is not None and left < 1:
        raise ConfigError(f"{run.model.id} has {positions} positions{taken}: that leaves no room for a text.")
    if given == "auto":
        most = left if left is not None and run.shots else _AUTO_MAX_LENGTH
        return min(left or most, most)
    if left is not None and given > left:
        raise ConfigError(
            f"max-length is {given}, but {run.model.id} has {positions} positions{taken}: give at most {left}."
        )
    return given


def device(wanted: str) -> str:
    """``cpu`` or ``cuda``.

    Raises:
        ConfigError: ``cuda`` was asked for and there is none.
    """
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise ConfigError("--device cuda was given, but torch sees no CUDA device here: use --device cpu or auto.")
    return "cpu"


def dtype(wanted: str, on: str) -> str:
    """A dtype that is no longer ``auto``: bfloat16 where ``on`` is fast at it, else float32.

    Raises:
        ConfigError: float16 on a CPU.
    """
    if wanted not in ("auto", "float16"):
        return wanted
    from adaptlab.training.precision import Precision, native_bfloat16

    if wanted == "float16":
        return Precision("float16", on).name
    return "bfloat16" if native_bfloat16(on) else "float32"
