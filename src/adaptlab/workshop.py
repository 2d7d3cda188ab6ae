"""What the runs of one process share, and how a single run is set up from it: base, head, method, data, engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adaptlab import readouts
from adaptlab.config import ExecutionConfig, RunConfig
from adaptlab.engines.fused import bare
from adaptlab.engines.solo import Solo
from adaptlab.errors import ConfigError
from adaptlab.evaluation.demonstrations import Demonstrations, Fixed, choose
from adaptlab.measure.memory import give_back
from adaptlab.methods import registry as methods
from adaptlab.methods._base import Attached, Setup
from adaptlab.metrics import registry as metrics
from adaptlab.models._base import Layout
from adaptlab.models.identity import cache_folder
from adaptlab.models.load import Base, fresh_model, initialise_head, load_base
from adaptlab.readouts import Answered, Readout, Rows, Setting, Teacher, Verbalizer, kept_bytes
from adaptlab.resolve import ResolvedRun, device, outputs, prompt_in_use
from adaptlab.study.events import Listener
from adaptlab.tasks._base import Example, TaskData
from adaptlab.training import token_file
from adaptlab.training.batches import Batch, BatchPlan
from adaptlab.training.budget import text_bytes
from adaptlab.training.dropout import DropoutClock, calls_functional_dropout, find_shared, key_dropout
from adaptlab.training.encode import Encoded
from adaptlab.training.first_tokens import FirstTokens
from adaptlab.training.member import Member
from adaptlab.training.modes import Modes
from adaptlab.training.outputs import Room, Store
from adaptlab.training.precision import CastCache, Precision
from adaptlab.training.ranks import here
from adaptlab.training.recompute import recompute_blocks
from adaptlab.training.shards import shard

#: Fewer are tokenised sooner than a file is found.
_FEWEST_ROWS_ON_DISK = 500


Collate = Callable[[Any, NDArray[np.int64], int], Batch]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher of context distillation reads besides a question, and whether it is asked once or in every step.

    ``kept_bytes`` are those of its targets for all rows; 0 if they are not kept.
    """

    shots: Demonstrations | None
    kept_bytes: int


@dataclass
class Workshop:
    """What runs of one process share: the base in memory, its 16-bit casts, the tokenised data, the stop signal.

    ``shown`` are demonstrations in place of those that a run would draw, and ``lesson`` is what its teacher reads, for
    a probe that has a few rows only.
    ``micro_batch_sizes`` has, by their ids, runs that need smaller ones than were asked for.
    """

    execution: ExecutionConfig
    listener: Listener
    stop: Callable[[], bool] = lambda: False
    _bases: dict[str, Base] = field(default_factory=dict)
    casts: CastCache = field(default_factory=dict)
    _stores: dict[str, Store] = field(default_factory=dict)
    _room: Room = field(default_factory=Room)
    shown: tuple[Example, ...] = ()
    lesson: Lesson | None = None
    _rows: dict[tuple[str, ...], Rows] = field(default_factory=dict)
    _data: str = ""
    micro_batch_sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = device(self.execution.device)
        if self.execution.threads is not None:
            torch.set_num_threads(self.execution.threads)

    def spreads(self, run: ResolvedRun) -> bool:
        """Whether ``run`` is for several devices, and this process is not one of those that do it.

        Raises:
            ConfigError: there are fewer devices.
        """
        wanted = self.execution.devices_per_run
        if wanted == 1 or here().count > 1 or run.resolved.training.steps == 0:
            return False
        if self.device == "cuda" and (there := torch.cuda.device_count()) < wanted:
            raise ConfigError(
                f"--devices-per-run {wanted} was given, and torch sees {there} here: give at most {there}."
            )
        return True

    @property
    def shards(self) -> bool:
        """Whether this process is one of several that hold a shard of a run's weights each."""
        return self.execution.shard and here().count > 1

    def base(self, run: ResolvedRun) -> Base:
        """The pretrained base of ``run``; the last one stays in memory, and what was made of the last data."""
        if run.identity.data != self._data:
            self._data = run.identity.data
            self._forget_rows()
        regression = run.data.kind == "regression"
        count, readout = outputs(run.data), run.resolved.readout
        head = f"{count}|{regression}" if readout == "head" else "words"
        key = f"{run.identity.weights}|{run.resolved.model.model_dump_json()}|{head}"
        if key not in self._bases:
            self._bases.clear()
            self.casts.clear()
            self._forget_rows()
            device = self.device
            if self.shards:
                device = "cpu"  # the other may have no room for all of it
                here().await_turn()  # nor this one for as many bases as there are processes
            base = load_base(
                run.resolved.model, num_labels=count, regression=regression, device=device, readout=readout
            )
            if self.shards:
                for name in base.layout.head_modules:  # drawn where a run on one device draws it
                    base.model.get_submodule(name).to(here().device)
            self._bases[key] = base
        return self._bases[key]

    def shard(self, attached: Attached, base: Base) -> None:
        """Leave this process its shard of what ``attached`` holds; the whole ``base`` is given up."""
        shard(attached, bare(attached.model), here().device)
        base.model.to("meta")
        self._bases.clear()
        self.casts.clear()
        self.let_go()
        here().end_turn()

    def execution_of(self, run: ResolvedRun) -> ExecutionConfig:
        """How the run executes: as was asked for, but for a smaller micro-batch where memory ran out."""
        smaller = self.micro_batch_sizes.get(run.id)
        return self.execution if smaller is None else self.execution.model_copy(update={"micro_batch_size": smaller})

    def let_go(self) -> None:
        """Give back what the runs before have left: casts of weights that were theirs alone, and memory they freed."""
        kept = {p.untyped_storage()._cdata for base in self._bases.values() for p in base.model.parameters()}
        for key in [key for key in self.casts if key[0] not in kept]:
            del self.casts[key]
        give_back()

    def _forget_rows(self) -> None:
        self._stores.clear()
        self._room = Room()
        self._rows.clear()

    def store(self, what: str) -> Store:
        """Where outputs of the base in memory are kept that are the same in every run; ``what`` says which."""
        return self._stores.setdefault(what, Store(self._room))

    def rows(self, run: ResolvedRun, readout: Readout, split: str, *, training: bool = False) -> Rows:
        """The tokenised rows of ``train``, ``select`` or a report set, as ``readout`` reads them.

        Of the training rows of a run that trains nothing the first alone, to see how a batch of them looks.
        """
        config = run.resolved
        shown = "" if training or not config.shots else f"{config.shots}|{config.seed}"
        idle = training and config.training.steps == 0
        asked = f"{config.readout}|{config.answering.model_dump_json()}|{run.identity.prompt}|{config.task.max_length}"
        key = (run.identity.weights, run.identity.data, asked, shown, split, f"{training}|{idle}")
        if key not in self._rows:
            examples = run.data.trained_on if training else splits(run.data)[split]
            examples = examples[:1] if idle else examples
            self._rows[key] = _encoded(readout, examples, key, training=training)
        return self._rows[key]


def _encoded(readout: Readout, examples: Sequence[Example], key: Sequence[str], *, training: bool) -> Rows:
    """Rows as tokens, from the disk if an earlier process has left them there; ``key`` says which rows they are."""
    name = token_file.fingerprint(readout.setting.tokenizer, *key) if len(examples) >= _FEWEST_ROWS_ON_DISK else None
    path = cache_folder() / "tokens" / f"{name}.npz"
    found: Rows | None = None if name is None else token_file.load(path)
    if found is None:
        found = readout.encode(examples, training=training)
        if name is not None and isinstance(found, Encoded):
            with contextlib.suppress(OSError):  # a full disk, or a cache that is read only, costs seconds and no more
                token_file.save(found, path)
    return found


def splits(data: TaskData) -> dict[str, Any]:
    """Every split of a task by its name in records: train, select, and the report sets by theirs."""
    unlabelled = {"unlabelled": data.unlabelled} if data.unlabelled else {}
    return {"train": data.train, **unlabelled, "select": data.select, **data.report}


@dataclass
class Stage:
    """A run set up to train and to answer. ``clock`` is what the dropouts of the run's own model look at; ``teacher``
    is whom it is distilled from, if anyone."""

    member: Member
    backward: Solo
    precision: Precision
    clock: DropoutClock
    readout: Readout
    teacher: Teacher | None = None

    def answer(self, rows: Rows, examples: Sequence[Example]) -> Answered:
        """The answers of the run's own model, which is in eval mode."""
        return self.readout.answer(self.member.attached.model, rows, self.precision).about(examples)


def set_up(run: ResolvedRun, base: Base, workshop: Workshop) -> Stage:
    """The run at its first step: method attached, weights in their dtype, dropout keyed, batches planned."""
    config, training = run.resolved, run.resolved.training
    readout = read_out(run, base, workshop)
    data = workshop.rows(run, readout, "train", training=True)
    precision = Precision(training.dtype, workshop.device)
    attached = attach(base, config)
    # A run with weights of its own would leave its casts behind; those of the shared base serve every run.
    precision.prepare(attached, {} if attached.method.placement == "base" else workshop.casts)
    clock = DropoutClock()
    key_dropout(attached.model, base.layout.blocks, clock)
    FirstTokens(bare(attached.model), base.layout, [clock])
    if workshop.execution.gradient_checkpointing:
        _recompute(attached, base, clock)
    if workshop.shards:
        workshop.shard(attached, base)
    plan = BatchPlan(data.lengths, training.batch_size)
    collate, teacher = collation(data, run, readout, base, attached, precision, workshop)
    first = plan.batch(0, config.seed)
    with precision.autocast():
        sample = collate(data, first.rows[:1], first.length)
        modes = Modes(attached.model, sample.inputs)
        with torch.no_grad():
            find_shared(
                attached.model,
                clock,
                sample.sequences,
                lambda: attached.model(**collate(data, first.rows[[0, 0]], first.length).inputs),
            )
    member = Member(
        name=run.name,
        seed=config.seed,
        attached=attached,
        modes=modes,
        data=data,
        collate=collate,
        plan=plan,
        training=training,
        objective=readout.objective(),
        scaler=precision.scaler(),
        higher_is_better=metrics.get(run.data.metrics[0]).higher_is_better,
        row_bytes=text_bytes(run.data.trained_on) if training.max_bytes is not None else None,
    )
    limits = [limit for limit in (workshop.execution_of(run).micro_batch_size, readout.at_once(data)) if limit]
    backward = Solo(
        precision,
        clock,
        micro_batch_size=min(limits, default=None),
        functional=calls_functional_dropout(attached.model),
    )

    return Stage(member, backward, precision, clock, readout, teacher)


def _recompute(attached: Attached, base: Base, clock: DropoutClock) -> None:
    """Gradient checkpointing for a run's model."""
    if attached.method.placement == "prompt":
        raise ConfigError(
            f"--gradient-checkpointing was given with {attached.method.name}, whose prefixes pass through what blocks "
            f"keep between passes: leave it out, or save memory with --micro-batch-size."
        )
    recompute_blocks(bare(attached.model), base.layout.blocks, clock)


def collation(
    rows: Any,
    run: ResolvedRun,
    readout: Readout,
    base: Base,
    attached: Attached,
    precision: Precision,
    workshop: Workshop,
) -> tuple[Collate, Teacher | None]:
    """What makes batches of the training ``rows``, and the model that the run is distilled from, if any."""
    collate: Collate = partial(readout.collate, device=workshop.device)
    if not isinstance(readout, Verbalizer) or not readout.setting.distils:
        return collate, None
    lesson = workshop.lesson or lesson_of(run, readout, base, rows)
    model = base.model if run.resolved.answering.teacher == "frozen" else attached.model
    keeps = lesson.kept_bytes > 0
    teacher = Teacher(readout, model, rows, run.data.trained_on, lesson.shots, precision, keeps=keeps)
    return _taught(collate, teacher), teacher


def lesson_of(run: ResolvedRun, readout: Verbalizer, base: Base, rows: Any) -> Lesson:
    """What the teacher of ``run`` reads; ``rows`` are all that its student is trained on."""
    how = run.resolved.answering
    shots = choose(run.data.train, how.teacher_shots, seed=run.resolved.seed, how=how)
    return Lesson(shots, kept_bytes(readout, base.model, rows) if how.teacher == "frozen" else 0)


def _taught(collate: Collate, teacher: Teacher) -> Collate:
    """``collate`` with what ``teacher`` says to each row."""

    def teach(data: Any, rows: NDArray[np.int64], length: int) -> Batch:
        batch = collate(data, rows, length)
        batch.teacher = teacher.targets([data.ids[row] for row in rows]).to(batch.labels.device)
        return batch

    return teach


def read_out(run: ResolvedRun, base: Base, workshop: Workshop) -> Readout:
    """How the run's model answers: the run's rows before its base."""
    setting = setting_of(run.resolved, run.data, base.tokenizer, base.layout, base.start, shown=workshop.shown)
    return readouts.build(run.resolved.readout, setting)


def setting_of(
    config: RunConfig,
    data: TaskData,
    tokenizer: Any,
    layout: Layout,
    start: int | None,
    *,
    shown: Sequence[Example] = (),
) -> Setting:
    """A run's rows before its model. ``shown`` are demonstrations in place of those that the run would draw.

    Raises:
        ConfigError: the readout needs a prompt and the task has none.
    """
    if shown:
        shots: Demonstrations | None = Fixed(tuple(shown))
    else:
        shots = choose(data.train, config.shots, seed=config.seed, how=config.answering)
    return Setting(
        tokenizer=tokenizer,
        layout=layout,
        kind=data.kind,
        labels=data.labels,
        columns=data.columns,
        prompt=prompt_in_use(config.readout, config.task, data),
        max_length=int(config.task.max_length),
        start=start,
        caches=methods.get(config.method.name).placement != "prompt",
        shots=shots,
        distils=config.objective == "context-distillation",
        how=config.answering,
    )


def attach(base: Base, config: RunConfig) -> Attached:
    """A fresh model with the run's method on it; head and adapter are drawn from the run's seed."""
    method = methods.get(config.method.name)
    setup = Setup(
        options=method.Config(**config.method.options),
        targets=config.method.targets,
        head=config.method.head,
        total_steps=config.training.steps,
    )
    model = fresh_model(base, share=method.placement != "base")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        initialise_head(model, base.layout)
        torch.manual_seed(config.seed)  # so that the adapter's draw does not depend on the head's
        return method.attach(model, base.layout, setup)
