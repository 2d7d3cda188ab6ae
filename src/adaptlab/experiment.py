"""One run from its configuration to its record: the only place where data, model, method, loop and measures meet.

data -> base -> head and method by the run's seed -> train -> answers on the report sets -> weights, record
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch

from adaptlab.costing import training_flops
from adaptlab.errors import AdaptlabError, InterruptedRunError, RecordError
from adaptlab.measure.environment import environment, processor_name
from adaptlab.measure.flops import NotPolynomialError
from adaptlab.measure.memory import MemoryMeter
from adaptlab.measure.parameters import count_parameters
from adaptlab.methods._base import Attached
from adaptlab.metrics import registry as metrics
from adaptlab.metrics import score, standard_error
from adaptlab.probing import add_probe
from adaptlab.resolve import ResolvedRun
from adaptlab.runs.files import scrub
from adaptlab.runs.record import ConfigPart, Cost, DataPart, ErrorPart, Primary, Record, Status
from adaptlab.runs.store import Predictions, RunFolder, StudyFolder
from adaptlab.study.events import RunStarted, StepDone
from adaptlab.study.expand import task_label
from adaptlab.training import checkpoint
from adaptlab.training.loop import Hooks, train
from adaptlab.training.member import Member
from adaptlab.workshop import Stage, Workshop, set_up, splits


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
        add_probe(result, run, workshop)
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
    meter = MemoryMeter("cuda") if workshop.device == "cuda" else None
    base = workshop.base(run)
    stage = set_up(run, base, workshop)
    record.cost.load_seconds = time.perf_counter() - started
    record.parameters = count_parameters(stage.member.attached)
    record.warnings += [*base.warnings, *stage.member.attached.warnings]
    record.training["attention_dropout"] = base.attention_dropout
    try:
        resumed = checkpoint.load(stage.member, folder.checkpoint)
    except RecordError as error:
        record.warnings.append(str(error))
        stage, resumed = set_up(run, base, workshop), False
    member = stage.member
    try:
        member.flops = training_flops(run, stage, micro_batch_size=workshop.execution.micro_batch_size)
    except NotPolynomialError as error:
        record.warnings.append(str(error))
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
    _fill_costs(record, member, meter)
    if member.progress.diverged:
        raise _DivergedError(record, member.progress.step, member.progress.last_loss)
    with evaluations:
        _answer_report_sets(run, folder, workshop, stage, record)
    record.cost.eval_seconds = evaluations.seconds
    if workshop.execution.keep_weights != "none":
        record.cost.adapter_bytes = _save_weights(member.attached, folder.adapter)
    return _ended(record, "finished", None)


def _answer_report_sets(run: ResolvedRun, folder: RunFolder, workshop: Workshop, stage: Stage, record: Record) -> None:
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


def _fill_costs(record: Record, member: Member, meter: MemoryMeter | None) -> None:
    progress = member.progress
    record.cost.train_seconds = progress.seconds
    record.cost.step_seconds, record.cost.step_seconds_std = member.step_spread()
    record.cost.clock_source = "run"
    if meter is not None and record.engine == "solo":
        peak = meter.peak()
        record.cost.peak_memory_bytes, record.cost.reserved_memory_bytes = peak.allocated, peak.reserved
        record.cost.memory_source = "run"
    record.cost.train_tokens = progress.tokens
    record.cost.padded_tokens = progress.padded_tokens
    if member.flops is not None:
        record.cost.train_flops, record.cost.useful_flops = progress.flops, progress.useful_flops
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
            sizes={name: len(rows) for name, rows in splits(data).items()},
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
