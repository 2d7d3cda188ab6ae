"""A group of runs from configurations to records: the only place where data, model, method, loop and measures meet.

data -> base -> head and method by each run's seed -> train -> answers on the report sets -> weights, records
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from adaptlab.costing import training_flops
from adaptlab.devices import execute_on_devices
from adaptlab.errors import AdaptlabError, ConfigError, InterruptedRunError, RecordError, StorageError
from adaptlab.evaluation.demonstrations import Fixed
from adaptlab.group import Group
from adaptlab.measure.environment import environment, processor_name
from adaptlab.measure.flops import NotPolynomialError
from adaptlab.measure.memory import MemoryMeter
from adaptlab.measure.parameters import count_parameters
from adaptlab.measure.profile import StepProfiler
from adaptlab.metrics import registry as metrics
from adaptlab.metrics import score, score_set, standard_error
from adaptlab.metrics._report import classification_report, report_text
from adaptlab.models.load import Base
from adaptlab.probing import add_probe
from adaptlab.resolve import ResolvedRun, prompt_in_use
from adaptlab.runs.files import scrub, temporary_for, write_atomically, writing
from adaptlab.runs.record import (
    ConfigPart,
    Cost,
    CurvePoint,
    DataPart,
    ErrorPart,
    OutOfDomainPart,
    Primary,
    Record,
    Status,
)
from adaptlab.runs.store import Predictions, RunFolder, StudyFolder
from adaptlab.study.events import RunStarted, StepDone
from adaptlab.study.expand import task_label
from adaptlab.tracking import Tracking
from adaptlab.training import checkpoint
from adaptlab.training.loop import Hooks, train
from adaptlab.training.member import Member
from adaptlab.training.ranks import here
from adaptlab.training.shards import gather
from adaptlab.workshop import Stage, Workshop, set_up, splits

#: What torch says of it on a CPU, and cuBLAS and cuDNN on a GPU.
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED")


def execute(run: ResolvedRun, folder: RunFolder, study: StudyFolder, workshop: Workshop) -> Record:
    """Run ``run`` alone, or go on with it, and leave its record; as :func:`execute_group`."""
    (record,) = execute_group([(run, folder)], study, workshop)
    return record


def execute_group(
    jobs: Sequence[tuple[ResolvedRun, RunFolder]], study: StudyFolder, workshop: Workshop
) -> list[Record]:
    """Train runs together, or go on with them, and leave a record of each; the caller holds the folders' locks.

    A failure ends in the record, not in an exception. Runs that cannot go on together go on alone, and say so.

    Raises:
        InterruptedRunError: the workshop's stop signal; the records say ``interrupted``, the checkpoints are written.
        StorageError: a folder cannot be written; where they still can be, the records say ``interrupted``.
    """
    if workshop.spreads(jobs[0][0]):
        execution, stop, listener = workshop.execution, workshop.stop, workshop.listener
        return [execute_on_devices(run, folder, execution, stop, listener) for run, folder in jobs]
    workshop.let_go()
    trials = [_Trial(run, folder, _fresh_record(run, folder, workshop)) for run, folder in jobs]
    for trial in trials:
        trial.folder.write_record(trial.record)
    meter = MemoryMeter("cuda") if workshop.device == "cuda" and len(trials) == 1 else None
    try:
        with here().noticing():
            group = _train_in_memory(trials, workshop)
    except (InterruptedRunError, StorageError) as interruption:
        for trial in trials:
            trial.interrupt(interruption)
        raise
    except Exception as error:
        if len(trials) > 1:
            return _alone(trials, error, study, workshop)
        return [trials[0].end(_ended(trials[0].record, _status(error), error))]
    return [_finish(trial, group, study, workshop, meter) for trial in trials]


@dataclass
class _Trial:
    """One run of a group, and what there is of its record."""

    run: ResolvedRun
    folder: RunFolder
    record: Record
    stage: Stage | None = None
    tracking: Tracking | None = None

    @property
    def ready(self) -> Stage:
        """The run set up."""
        assert self.stage is not None
        return self.stage

    @property
    def member(self) -> Member:
        return self.ready.member

    def point(self, point: CurvePoint) -> None:
        """Write a line of the curve."""
        self.folder.append_curve(point)
        if self.tracking is not None:
            self.tracking.point(point)

    def save(self) -> None:
        """Write a checkpoint, if this is the process that does; the others give their shards for it."""
        if not here().first:
            self.member.state()
            return
        with writing(self.folder.checkpoint):
            checkpoint.save(self.member, self.folder.checkpoint, may_replace=self.folder.check_mine)

    def start_again(self, record: Record) -> None:
        """Begin anew, from the last checkpoint if there is one, with nothing left of what was set up."""
        if self.tracking is not None:
            self.tracking.end(self.record)
        self.tracking = self.stage = None
        self.record = record

    def interrupt(self, interruption: AdaptlabError) -> None:
        """Say in the record that the run goes on when its study is asked for again, if that can be written."""
        with contextlib.suppress(StorageError):
            self.end(_ended(self.record, "interrupted", interruption))

    def end(self, record: Record) -> Record:
        """Write the record that the run ends with."""
        if self.tracking is not None:
            self.tracking.end(record)
            self.tracking = None
        self.record = record
        self.folder.write_record(record)
        if record.status in ("finished", "diverged") and here().first:
            checkpoint.remove(self.folder.checkpoint)
        return record


def _alone(trials: Sequence[_Trial], error: Exception, study: StudyFolder, workshop: Workshop) -> list[Record]:
    """Every run of a group that could not go on by itself, from its last checkpoint."""
    first_line = str(error).splitlines()[0] if str(error) else ""
    note = f"It began in a group that could not go on together ({type(error).__name__}: {scrub(first_line)})."
    records = []
    for trial in trials:
        trial.stage = None  # what it holds of the device's memory is for the run that goes on
    for trial in trials:
        record = execute(trial.run, trial.folder, study, workshop)
        records.append(trial.end(record.model_copy(update={"warnings": [*record.warnings, note]})))
    return records


class _DivergedError(Exception):
    def __init__(self, member: Member) -> None:
        loss, step = member.progress.last_loss, member.progress.step
        super().__init__(f"The loss was {loss} after {step} steps: try a lower learning rate.")


def _train_in_memory(trials: Sequence[_Trial], workshop: Workshop) -> Group:
    """As :func:`_train`; a run alone that runs out of memory goes on in micro-batches of half the rows.

    The batch of a step stays what it is, and so does what is learned from it, but for rounding.
    """
    notes: list[str] = []
    while True:
        try:
            return _train(trials, workshop)
        except Exception as error:
            alone = len(trials) == 1 and here().count == 1
            if not alone or trials[0].stage is None or not _out_of_memory(error):
                raise
            (trial,) = trials
            batch_size = trial.run.resolved.training.batch_size
            smaller = min(trial.ready.backward.micro_batch_size or batch_size, batch_size) // 2
            if smaller == 0:
                raise
            step = trial.member.progress.step
        # Here and not above: until the error is gone, so is nothing that it holds.
        workshop.micro_batch_sizes[trial.run.id] = smaller
        notes.append(
            f"Memory ran out at step {step + 1}: it went on in micro-batches of {smaller} rows, {batch_size} to a step "
            "as before."
        )
        trial.start_again(_fresh_record(trial.run, trial.folder, workshop))
        trial.record.warnings += notes
        trial.record.training["micro_batch_size"] = smaller
        workshop.let_go()
        torch.cuda.empty_cache()


def _train(trials: Sequence[_Trial], workshop: Workshop) -> Group:
    """Set every run up, from its checkpoint if there is one, and train the group to its end."""
    alone, by_member = len(trials) == 1, {}
    for trial in trials:
        started = time.perf_counter()
        base = workshop.base(trial.run)
        trial.stage, resumed = _set_up(trial, base, workshop)
        if alone:
            trial.record.cost.load_seconds = time.perf_counter() - started
        trial.folder.truncate_curve(trial.member.progress.step if resumed else -1)
        by_member[trial.member] = trial
        execution = workshop.execution
        if execution.track:
            folder = trial.folder.path
            trial.tracking = Tracking(trial.run, folder, trial.record, execution, beside=len(trials))
        workshop.listener(RunStarted(trial.folder.name, trial.member.expected_steps, trial.member.progress.step))
    group = Group([(trial.run, trial.ready) for trial in trials], base, workshop)
    for trial in trials:
        trial.record.engine = group.engine
        if not alone:
            trial.record.training["group_size"] = len(trials)
    data = trials[0].run.data

    def evaluate(members: Sequence[Member]) -> list[Mapping[str, float]]:
        found = group.answer([(by_member[m].run, by_member[m].ready) for m in members], "select")
        return [score(each.answers, data.kind, data.metrics) for each in found]

    first, profiler = trials[0], None
    if workshop.execution.profile:
        profiler = StepProfiler(first.folder.path / "profile", workshop.device, first.member.expected_steps)
        first.record.warnings.append("A few steps were profiled: the run's clock has what that took.")

    def on_step(m: Member) -> None:
        if profiler is not None and m is first.member:
            profiler.step()
        progress = m.progress
        workshop.listener(StepDone(by_member[m].folder.name, progress.step, m.expected_steps, progress.last_loss))

    hooks = Hooks(
        evaluate=evaluate,
        select_by=data.metrics[0],
        on_point=lambda m, point: by_member[m].point(point),
        on_step=on_step,
        save=lambda m: by_member[m].save(),
        stop=workshop.stop,
        checkpoint_seconds=workshop.execution.checkpoint_seconds,
        own_clock=group.own_clock,
        owed=group.owed,
    )
    train(list(by_member), group.backward, hooks)
    if profiler is not None:
        profiler.close()
    return group


def _set_up(trial: _Trial, base: Base, workshop: Workshop) -> tuple[Stage, bool]:
    """The run's stage, and whether it goes on from a checkpoint."""
    record = trial.record
    stage = set_up(trial.run, base, workshop)
    record.parameters = count_parameters(stage.member.attached)
    record.warnings += [*base.warnings, *stage.member.attached.warnings]
    if record.data is not None and isinstance(shots := stage.readout.setting.shots, Fixed):
        record.data.demonstrations = [asdict(row) for row in shots.rows]
    record.warnings += stage.readout.warnings(workshop.rows(trial.run, stage.readout, "select"))
    if workshop.shards:
        record.training["sharded"] = True
    if workshop.execution.gradient_checkpointing:
        record.training["gradient_checkpointing"] = True
    record.training["attention_dropout"] = base.attention_dropout
    if stage.teacher is not None:
        record.training["teacher_lost_shots"] = stage.teacher.lessons.lost_shots
    resumed = damaged = False
    try:
        with here().one_after_the_other():
            resumed = checkpoint.load(stage.member, trial.folder.checkpoint)
    except RecordError as error:
        record.warnings.append(str(error))
        damaged = True
    if here().total([damaged])[0]:
        stage, resumed = set_up(trial.run, workshop.base(trial.run), workshop), False
    try:
        if stage.member.total_steps != 0:
            stage.member.flops = training_flops(trial.run, stage, workshop.execution_of(trial.run))
    except NotPolynomialError as error:
        record.warnings.append(str(error))
    if workshop.execution.gradient_checkpointing and trial.run.resolved.training.max_flops is not None:
        raise ConfigError(
            "--gradient-checkpointing computes blocks anew, and --max-flops would count that: give --max-examples or "
            "--max-tokens, whose end does not depend on it."
        )
    stage.member.limit()
    return stage, resumed


def _finish(trial: _Trial, group: Group, study: StudyFolder, workshop: Workshop, meter: MemoryMeter | None) -> Record:
    """The record of a run that has trained to its end: answers on the report sets, costs, weights."""
    record, run = trial.record, trial.run
    try:
        record.training["select_metric"] = run.data.metrics[0]
        _fill_costs(record, trial.member, meter, own_clock=group.own_clock)
        if trial.member.progress.diverged:
            raise _DivergedError(trial.member)
        if run.resolved.report:
            with here().noticing():
                _answer_report_sets(trial, group, workshop, meter)
        if group.own_clock:
            record.cost.eval_seconds = group.answer_seconds
            if group.inherited_seconds:
                record.training["inherited_seconds"] = group.inherited_seconds
        if workshop.shards:
            with here().noticing():
                gather(trial.member.attached)
        if run.resolved.report and workshop.execution.keep_weights != "none":
            record.cost.adapter_bytes = _save_weights(trial)
        if run.resolved.report:
            for name, examples in run.data.report.items():
                study.write_items(task_label(run.resolved.task.name), name, examples)
        if here().count == 1:
            add_probe(record, run, workshop)
    except (InterruptedRunError, StorageError) as interruption:
        trial.interrupt(interruption)
        raise
    except Exception as error:
        return trial.end(_ended(record, _status(error), error))
    return trial.end(_ended(record, "finished", None))


def _status(error: Exception) -> Status:
    if isinstance(error, _DivergedError):
        return "diverged"
    return "out-of-memory" if _out_of_memory(error) else "failed"


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def _answer_report_sets(trial: _Trial, group: Group, workshop: Workshop, meter: MemoryMeter | None) -> None:
    run, record = trial.run, trial.record
    wanted = run.data.metrics
    predictions = []
    reports: dict[str, dict[str, Any]] = {}
    assert record.data is not None
    for name in run.data.report:
        rows = workshop.rows(run, trial.ready.readout, name)
        before = group.answer_seconds
        if meter is not None:
            meter.reset()
        answered = group.final_answer(trial.ready, name)
        if group.own_clock:
            record.cost.set_seconds[name] = group.answer_seconds - before
        if meter is not None:
            record.cost.set_memory_bytes[name] = meter.peak().allocated
        answers, record.metrics[name] = score_set(answered.answers, run.data, name)
        record.data.truncated[name] = rows.truncated
        if answered.notes:
            record.answering[name] = dict(answered.notes)
        record.warnings += [f"On {name}, {sentence}" for sentence in answered.warnings]
        if run.data.kind == "classification":
            out = run.data.out_of_domain.get(name)
            reports[name] = classification_report(answers, run.data.labels if out is None else out.labels)
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
    readout = trial.ready.readout
    if trial.member.total_steps:
        record.data.truncated["train"] = workshop.rows(run, readout, "train", training=True).truncated
    record.data.truncated["select"] = workshop.rows(run, readout, "select").truncated
    trial.folder.write_predictions(predictions)
    if reports:
        texts = {"json": json.dumps(reports, indent=1) + "\n", "txt": report_text(reports)}
        for kind, text in texts.items():
            path = trial.folder.path / f"classification.{kind}"
            write_atomically(path, text.encode(), may_replace=trial.folder.check_mine)


def _save_weights(trial: _Trial) -> int:
    """Write the adapter, whole or not at all; returns its bytes."""
    folder, attached = trial.folder.adapter, trial.member.attached
    new = temporary_for(folder)
    try:
        with writing(folder):
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            attached.method.save(attached, new)
            trial.folder.check_mine()
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _fill_costs(record: Record, member: Member, meter: MemoryMeter | None, *, own_clock: bool) -> None:
    """What the run used; no seconds where others shared the clock."""
    progress = member.progress
    if own_clock:
        record.cost.train_seconds = progress.seconds
        record.cost.step_seconds, record.cost.step_seconds_std = member.step_spread()
        record.cost.clock_source = "run"
    if meter is not None:
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
    if progress.step:
        given = record.config.given.training
        record.training["ended_by"] = member.end or ("epochs" if given.steps is None else "steps")
    if member.row_bytes is not None:
        record.training["bytes"] = progress.bytes


def _fresh_record(run: ResolvedRun, folder: RunFolder, workshop: Workshop) -> Record:
    device_name = processor_name() if workshop.device == "cpu" else torch.cuda.get_device_name()
    training: dict[str, Any] = {"dropout": "keyed"}
    if (devices := here().count) > 1:
        device_name, training["devices"] = f"{devices} x {device_name}", devices
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
            out_of_domain={
                name: OutOfDomainPart(
                    task=out.task,
                    source=out.source,
                    revision=out.revision,
                    labels=list(out.labels),
                    mapping=dict(out.mapping),
                )
                for name, out in data.out_of_domain.items()
            },
            columns=list(data.columns),
            prompt=prompt_in_use(run.resolved.readout, run.resolved.task, data),
        ),
        environment=environment(device=workshop.device, device_name=device_name, threads=torch.get_num_threads()),
        cost=Cost(),
        training=training,
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
