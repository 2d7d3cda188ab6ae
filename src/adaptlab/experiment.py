"""One run from its configuration to its record: the only place where data, model, method, loop and measures meet.

data -> base -> head and method by the run's seed -> train -> answers on the report sets -> weights, record
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptlab.config import ExecutionConfig, RunConfig
from adaptlab.engines.solo import Solo, calls_functional_dropout
from adaptlab.errors import AdaptlabError, InterruptedRunError, RecordError
from adaptlab.evaluation import classify
from adaptlab.measure.environment import environment, processor_name
from adaptlab.methods import registry as methods
from adaptlab.methods._base import Attached, Setup
from adaptlab.metrics import registry as metrics
from adaptlab.metrics import score, standard_error
from adaptlab.metrics._base import Answers
from adaptlab.models.load import Base, fresh_model, initialise_head, load_base
from adaptlab.resolve import ResolvedRun, device
from adaptlab.runs.files import scrub
from adaptlab.runs.record import ConfigPart, Cost, CurvePoint, DataPart, ErrorPart, Parameters, Primary, Record, Status
from adaptlab.runs.store import Predictions, RunFolder, StudyFolder
from adaptlab.study.events import Listener, RunStarted, StepDone
from adaptlab.study.expand import task_label
from adaptlab.tasks._base import TaskData
from adaptlab.training import checkpoint
from adaptlab.training.batches import BatchPlan, collate
from adaptlab.training.dropout import DropoutClock, key_dropout
from adaptlab.training.encode import Encoded, encode
from adaptlab.training.loop import Hooks, train
from adaptlab.training.member import Member
from adaptlab.training.modes import Modes
from adaptlab.training.objectives import build as build_objective
from adaptlab.training.precision import CastCache, Precision


@dataclass
class Workshop:
    """What runs of one process share: the base in memory, its 16-bit casts, the tokenised data, the stop signal."""

    execution: ExecutionConfig
    listener: Listener
    stop: Callable[[], bool] = lambda: False
    _bases: dict[str, Base] = field(default_factory=dict)
    _casts: CastCache = field(default_factory=dict)
    _encoded: dict[tuple[str, ...], Encoded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = device(self.execution.device)
        if self.execution.threads is not None:
            torch.set_num_threads(self.execution.threads)

    def base(self, run: ResolvedRun) -> Base:
        """The pretrained base of ``run``; the last one stays in memory."""
        regression = run.data.kind == "regression"
        outputs = 1 if regression else len(run.data.labels)
        key = f"{run.identity.weights}|{run.resolved.model.model_dump_json()}|{outputs}|{regression}"
        if key not in self._bases:
            self._bases.clear()
            self._casts.clear()
            model = run.resolved.model
            self._bases[key] = load_base(model, num_labels=outputs, regression=regression, device=self.device)
        return self._bases[key]

    def encoded(self, run: ResolvedRun, base: Base, split: str) -> Encoded:
        """The tokenised rows of ``train``, ``select`` or a report set."""
        length = int(run.resolved.task.max_length)
        key = (run.identity.weights, run.identity.data, str(length), split)
        if key not in self._encoded:
            rows = _splits(run.data)[split]
            regression = run.data.kind == "regression"
            self._encoded[key] = encode(base.tokenizer, rows, max_length=length, regression=regression)
        return self._encoded[key]


def _splits(data: TaskData) -> dict[str, Any]:
    return {"train": data.train, "select": data.select, **data.report}


def execute(run: ResolvedRun, folder: RunFolder, study: StudyFolder, workshop: Workshop) -> Record:
    """Run ``run``, or go on with it, and leave its record; the caller holds the folder's lock.

    A failure ends in the record, not in an exception.

    Raises:
        InterruptedRunError: the workshop's stop signal; the record says ``interrupted``, the checkpoint is written.
        StudyError: the folder cannot be written.
    """
    record = _fresh_record(run, folder, workshop)
    folder.write_record(record)
    try:
        result = _train_and_answer(run, folder, workshop, record)
        for name, examples in run.data.report.items():
            study.write_items(task_label(run.resolved.task.name), name, examples)
        record = result
    except InterruptedRunError as interruption:
        folder.write_record(_ended(record, "interrupted", interruption))
        raise
    except torch.OutOfMemoryError as error:
        record = _ended(record, "out-of-memory", error)
    except _DivergedError as error:
        record = _ended(error.record, "diverged", error)
    except Exception as error:
        status: Status = "out-of-memory" if "can't allocate memory" in str(error) else "failed"
        record = _ended(record, status, error)
    folder.write_record(record)
    if record.status in ("finished", "diverged"):
        checkpoint.remove(folder.checkpoint)
    return record


class _DivergedError(Exception):
    def __init__(self, record: Record, step: int, loss: float | None) -> None:
        self.record = record
        super().__init__(f"The loss was {loss} after {step} steps: try a lower learning rate.")


def _train_and_answer(run: ResolvedRun, folder: RunFolder, workshop: Workshop, record: Record) -> Record:
    started = time.perf_counter()
    base = workshop.base(run)
    stage = _stage(run, base, workshop)
    record.cost.load_seconds = time.perf_counter() - started
    record.parameters = count_parameters(stage.member.attached)
    record.warnings += [*base.warnings, *stage.member.attached.warnings]
    record.training["attention_dropout"] = base.attention_dropout
    try:
        resumed = checkpoint.load(stage.member, folder.checkpoint)
    except RecordError as error:
        record.warnings.append(str(error))
        stage, resumed = _stage(run, base, workshop), False
    member = stage.member
    folder.truncate_curve(member.progress.step if resumed else -1)
    workshop.listener(RunStarted(folder.name, member.total_steps, member.progress.step))

    selection = workshop.encoded(run, base, "select")
    evaluations = _Clock()
    wanted = run.data.metrics

    def evaluate(_: Member) -> Mapping[str, float]:
        with evaluations:
            answers = stage.answer(selection)
            return score(answers, run.data.kind, wanted)

    hooks = Hooks(
        evaluate=evaluate,
        select_by=wanted[0],
        on_point=lambda _, point: folder.append_curve(point),
        on_step=lambda m: workshop.listener(
            StepDone(folder.name, m.progress.step, m.total_steps, m.progress.last_loss)
        ),
        save=lambda m: checkpoint.save(m, folder.checkpoint),
        stop=workshop.stop,
        checkpoint_seconds=workshop.execution.checkpoint_seconds,
    )
    train([member], stage.backward, hooks)
    _fill_costs(record, member)
    if member.progress.diverged:
        raise _DivergedError(record, member.progress.step, member.progress.last_loss)
    with evaluations:
        _answer_report_sets(run, folder, workshop, stage, record)
    record.cost.eval_seconds = evaluations.seconds
    if workshop.execution.keep_weights != "none":
        record.cost.adapter_bytes = _save_weights(member.attached, folder.adapter)
    return _ended(record, "finished", None)


@dataclass
class _Stage:
    """A run set up to train and to answer."""

    member: Member
    backward: Solo
    answer: Callable[[Encoded], Answers]


def _stage(run: ResolvedRun, base: Base, workshop: Workshop) -> _Stage:
    config, training = run.resolved, run.resolved.training
    data = workshop.encoded(run, base, "train")
    precision = Precision(training.dtype, workshop.device)
    attached = attach(base, config)
    # A run with weights of its own would leave its casts behind; those of the shared base serve every run.
    precision.prepare(attached, {} if attached.method.placement == "base" else workshop._casts)
    clock = DropoutClock()
    key_dropout(attached.model, base.layout.blocks, clock)
    pad_id, side = base.tokenizer.pad_token_id, base.tokenizer.padding_side
    plan = BatchPlan(data.lengths, training.batch_size)
    first = plan.batch(0, config.seed)
    sample = collate(data, first.rows[:1], first.length, pad_id=pad_id, padding_side=side, device=workshop.device)
    regression = run.data.kind == "regression"
    with precision.autocast():
        modes = Modes(attached.model, sample.inputs)
    member = Member(
        name=run.name,
        seed=config.seed,
        attached=attached,
        modes=modes,
        data=data,
        plan=plan,
        training=training,
        objective=build_objective(config.objective, regression=regression),
        scaler=precision.scaler(),
        higher_is_better=metrics.get(run.data.metrics[0]).higher_is_better,
    )
    backward = Solo(
        precision,
        clock,
        pad_id=pad_id,
        padding_side=side,
        micro_batch_size=workshop.execution.micro_batch_size,
        functional=calls_functional_dropout(attached.model),
    )

    def answer(rows: Encoded) -> Answers:
        scores = classify.logits(attached.model, rows, precision, pad_id=pad_id, padding_side=side)
        return classify.answers(scores, rows.labels, regression=regression)

    return _Stage(member, backward, answer)


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


def count_parameters(attached: Attached) -> Parameters:
    """Trainable without the head, trainable head, and everything that the model holds (shared tensors once)."""
    held = {id(p): p for p in attached.model.parameters()}
    return Parameters(
        trainable=sum(p.numel() for p in attached.parameters.values()),
        head=sum(p.numel() for p in attached.head.values()),
        total=sum(p.numel() for p in held.values()) - _idle_copies(attached.model),
    )


def _idle_copies(model: nn.Module) -> int:
    """Numbers that PEFT keeps of a module it trains a copy of; they take no part in the model."""
    wrappers = [m for m in model.modules() if hasattr(m, "modules_to_save") and hasattr(m, "original_module")]
    originals = [m.get_submodule("original_module") for m in wrappers]
    return sum(p.numel() for module in originals for p in module.parameters())


def _answer_report_sets(run: ResolvedRun, folder: RunFolder, workshop: Workshop, stage: _Stage, record: Record) -> None:
    base = workshop.base(run)
    wanted = run.data.metrics
    predictions = []
    assert record.data is not None
    for name in run.data.report:
        rows = workshop.encoded(run, base, name)
        answers = stage.answer(rows)
        record.metrics[name] = {**score(answers, run.data.kind, wanted), "n": len(rows)}
        record.data.truncated[name] = rows.truncated
        scores = None if answers.probabilities is None else answers.probabilities.tolist()
        predictions.append(Predictions(name, rows.ids, answers.gold.tolist(), answers.predicted.tolist(), scores))
        if record.primary is None:
            record.primary = Primary(
                name=wanted[0],
                value=record.metrics[name][wanted[0]],
                stderr=standard_error(wanted[0], answers),
                n=len(rows),
                evaluation_set=name,
                higher_is_better=metrics.get(wanted[0]).higher_is_better,
            )
    for split in ("train", "select"):
        record.data.truncated[split] = workshop.encoded(run, base, split).truncated
    folder.write_predictions(predictions)


def _save_weights(attached: Attached, folder: Path) -> int:
    """Write the adapter, whole or not at all; returns its bytes."""
    new = folder.with_name("adapter.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    attached.method.save(attached, new)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _fill_costs(record: Record, member: Member) -> None:
    progress = member.progress
    record.cost.train_seconds = progress.seconds
    record.cost.step_seconds = member.median_step_seconds()
    record.cost.train_tokens = progress.tokens
    record.cost.padded_tokens = progress.padded_tokens
    record.training |= {
        "steps": progress.step,
        "examples": progress.examples,
        "best_step": progress.best_step,
        "select_score": progress.best_value,
    }


def _fresh_record(run: ResolvedRun, folder: RunFolder, workshop: Workshop) -> Record:
    device_name = processor_name() if workshop.device == "cpu" else torch.cuda.get_device_name()
    data = run.data
    return Record(
        id=run.id,
        name=folder.name,
        status="running",
        config=ConfigPart(given=run.given, resolved=run.resolved, identity=run.identity),
        data=DataPart(
            id=data.source,
            revision=data.revision,
            kind=data.kind,
            fingerprint=data.fingerprint,
            labels=list(data.labels),
            sizes={name: len(rows) for name, rows in _splits(data).items()},
            warnings=list(data.warnings),
        ),
        environment=environment(device=workshop.device, device_name=device_name, threads=torch.get_num_threads()),
        cost=Cost(),
        training={"dropout": "keyed"},
        started=_now(),
    )


def _ended(record: Record, status: Status, error: BaseException | None) -> Record:
    part = None
    if error is not None:
        lines = "" if isinstance(error, AdaptlabError | _DivergedError) else "".join(traceback.format_exception(error))
        part = ErrorPart(type=type(error).__name__.lstrip("_"), message=scrub(str(error)), traceback=scrub(lines))
    return record.model_copy(update={"status": status, "error": part, "ended": _now()})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Clock:
    """Adds up the seconds spent inside ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started


__all__ = ["CurvePoint", "Workshop", "attach", "count_parameters", "execute"]
