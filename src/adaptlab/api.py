"""The package from Python: compare, train, load, evaluate. The command line calls the same functions."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptlab.config import (
    CountOrAll,
    ExecutionConfig,
    ModelConfig,
    Quantize,
    Readout,
    RunConfig,
    StudyConfig,
    TaskConfig,
)
from adaptlab.errors import ConfigError, RecordError
from adaptlab.runs.files import write_atomically
from adaptlab.runs.record import Record
from adaptlab.runs.store import RunFolder, StudyFolder, safe_name
from adaptlab.study.events import Event, Listener

if TYPE_CHECKING:
    from adaptlab.choosing import Chosen
    from adaptlab.exporting import Export
    from adaptlab.planning import Plan
    from adaptlab.predictor import Predictor
    from adaptlab.resolve import ResolvedRun
    from adaptlab.signals import StopRequest
    from adaptlab.study.schedule import Outcome, Pool
    from adaptlab.study.tuning import Do
    from adaptlab.submission import SplitAnswers

log = logging.getLogger("adaptlab")

#: Tokens of a row that an adapter from elsewhere reads, at most: what it was trained with is not known.
_LONGEST = 512


@dataclass(frozen=True)
class StudyResult:
    """What :func:`compare` leaves behind.

    Attributes:
        records: one per run of the study's grid, in its order, those of earlier calls included.
        skipped: names of runs that were settled before.
        failed: names of runs that did not finish.
        page: the report, or ``None`` if no run could be shown.
        warnings: damaged records that were set aside.
    """

    folder: Path
    records: list[Record]
    skipped: tuple[str, ...]
    failed: tuple[str, ...]
    page: Path | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Scores on a task. ``metrics`` is ``{evaluation set: {metric: value, "n": rows}}``.

    Attributes:
        path: where a run's are kept; ``None`` for an adapter from elsewhere, whose folder is left alone.
        notes: what limits the scores, e.g. that a head is random.
    """

    path: Path | None
    metrics: dict[str, dict[str, float]]
    notes: tuple[str, ...] = ()


def _silent(_: Event) -> None:
    return None


def compare(study: StudyConfig, *, out: str | Path, listener: Listener | None = None) -> StudyResult:
    """Run what ``study`` still lacks in folder ``out``, and draw the report.

    Raises:
        AdaptlabError: the configuration, data, model or folder is not usable; nothing has been trained.
        InterruptedRunError: Ctrl-C or SIGTERM; the same call goes on from there.
    """
    result = _run(study, Path(out), listener or _silent)
    from adaptlab.report import write_report

    page = write_report([result.folder]).page if result.records else None
    return StudyResult(result.folder, result.records, result.skipped, result.failed, page, result.warnings)


def train(study: StudyConfig, *, out: str | Path, listener: Listener | None = None) -> Record:
    """Do the one run that ``study`` stands for; no report is drawn.

    Raises:
        ConfigError: the study stands for several runs.
        AdaptlabError: as :func:`compare`.
    """
    result = _run(study, Path(out), listener or _silent, single=True)
    return result.records[0]


def choose(
    study: StudyConfig,
    *,
    budget_seconds: float,
    out: str | Path,
    max_parameters: float | None = None,
    max_memory_bytes: float | None = None,
    listener: Listener | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Chosen:
    """Race the methods of ``study`` within a budget, and export the best adapted model, tested on the report rows.

    Args:
        study: one model and one task; a rate of ``auto`` is searched for, and ``epochs`` or ``steps`` say how long a
            whole run would be if there were time for it.
        max_parameters: trained numbers, head included: a share of the base's below 1, else a count.
        max_memory_bytes: of a run, as the plan predicts it.
        clock: tells the budget's seconds; ``time.process_time`` leaves out what else the machine does, where all runs
            are in this process.

    Raises:
        ConfigError: the study has several models or tasks, or no method keeps to the limits or could be tried.
        AdaptlabError: as :func:`compare`.
    """
    from adaptlab.choosing import choose as race
    from adaptlab.study.expand import expand

    return race(
        study,
        lambda: _opened(study, Path(out), listener or _silent, expand(study)),
        budget_seconds=budget_seconds,
        max_parameters=max_parameters,
        max_memory_bytes=max_memory_bytes,
        clock=clock,
    )


def _run(study: StudyConfig, out: Path, listener: Listener, *, single: bool = False) -> StudyResult:
    from adaptlab.study.expand import expand
    from adaptlab.study.tuning import cells, tune

    if study.equalize is not None:
        from adaptlab.equalizing import equalized

        study = equalized(study, out)
    runs = expand(study)
    if study.tune is not None:
        cells(study)  # what cannot be tuned is said before anything is read
    if single and len(runs) != 1:
        raise ConfigError(f"train does one run, and this makes {len(runs)}: give single values, or use compare.")
    with _opened(study, out, listener, runs) as (folder, do):
        outcome = do(runs)[0] if study.tune is None else tune(study, folder, do)
    return StudyResult(
        folder.path, outcome.records, tuple(outcome.skipped), tuple(outcome.failed), None, tuple(folder.damaged)
    )


@contextmanager
def _opened(
    study: StudyConfig, out: Path, listener: Listener, runs: Sequence[RunConfig]
) -> Iterator[tuple[StudyFolder, Do]]:
    """The study's folder, and what has runs done in it, once each of ``runs`` is known to fit."""
    from adaptlab.launchers import options_of
    from adaptlab.resolve import Resolver
    from adaptlab.signals import stop_on_signals
    from adaptlab.study.schedule import run_study
    from adaptlab.tracking import require

    execution = study.execution
    require(execution)
    launcher, options = options_of(execution)
    resolver = Resolver(execution, on=None if launcher is None else launcher.device(execution, options))
    resolver.check_methods([resolver.resolve(run) for run in runs])
    folder = StudyFolder.open_or_create(out, study)
    with stop_on_signals() as stop, ExitStack() as stack:
        if launcher is None:
            pool: Pool = _inline(folder, execution, listener, stop)
        else:
            pool = launcher.open(folder.path, execution, options, stop)
        stack.callback(pool.close)
        groups = _groups(execution, pool, resolver.device)

        def do(wanted: Sequence[RunConfig]) -> tuple[Outcome, list[Record]]:
            found = list(map(resolver.resolve, wanted))
            unique = list({run.id: run for run in reversed(found)}.values())[::-1]  # the first of twins counts
            outcome = run_study(folder, unique, pool, execution=execution, listener=listener, groups=groups)
            by_id = {record.id: record for record in outcome.records}
            return outcome, [by_id[run.id] for run in found]

        yield folder, do


def _groups(
    execution: ExecutionConfig, pool: Pool, device: str
) -> Callable[[Sequence[ResolvedRun]], list[list[ResolvedRun]]] | None:
    """What sorts runs into those that train together in a launcher's job; ``None`` where each goes its own way."""
    from adaptlab.engines.packing import chosen_engine, pack
    from adaptlab.methods import registry as methods

    if not pool.remote or pool.runs_per_job == 1 or execution.devices_per_run > 1:
        return None
    if chosen_engine(execution.engine, device) == "solo":
        return None
    return lambda runs: pack(runs, lambda run: methods.get(run.resolved.method.name)).groups


def _inline(folder: StudyFolder, execution: ExecutionConfig, listener: Listener, stop: StopRequest) -> Pool:
    from adaptlab.experiment import execute_group
    from adaptlab.group import groups_of
    from adaptlab.launchers.inline import InlinePool
    from adaptlab.workshop import Workshop

    workshop = Workshop(execution, listener, stop)
    return InlinePool(
        folder, partial(execute_group, study=folder, workshop=workshop), partial(groups_of, workshop=workshop)
    )


def plan(
    study: StudyConfig,
    *,
    with_task: bool = True,
    costs: bool = True,
    progress: Callable[[str, int, int], None] = lambda method, done, of: None,
) -> list[Plan]:
    """What each variant of ``study`` would train, weigh and take, from the models' config.json alone.

    The first plan on a machine calibrates it, which takes ten seconds.

    Args:
        with_task: read the task's rows; without, there are 2 labels, and costs are those of a step.
        costs: also forecast memory, operations, seconds and disk.
        progress: told, before each plan, the method's label, how many plans are made and how many there will be.

    Raises:
        AdaptlabError: a method does not fit a model, or a model or the data is not usable.
    """
    from adaptlab.planning import plan as planned

    return planned(study, with_task=with_task, costs=costs, progress=progress)


def load(run_dir: str | Path, *, device: str = "auto", model: str | None = None) -> Predictor:
    """The adapted model of a finished run.

    Args:
        model: where the base lies now, if it is not where it was.

    Raises:
        RecordError: the folder holds no finished run, or its weights were not kept.
    """
    from adaptlab.predictor import Predictor

    return Predictor.of_run(read_run(run_dir), device=device, model=model)


def read_run(run_dir: str | Path) -> tuple[RunFolder, Record]:
    """A run's folder and record.

    Raises:
        RecordError: the folder holds no finished run with weights.
    """
    folder = RunFolder(Path(run_dir))
    record = folder.read_record()
    if record is None:
        one = next((run.path for run in StudyFolder(Path(run_dir)).runs()), None)
        example = f"one of this study's runs, such as {one}" if one is not None else "a run's folder, STUDY/runs/<name>"
        raise RecordError(f"{run_dir} holds no record.json: give {example}.")
    if record.status != "finished":
        raise RecordError(f"The run in {run_dir} is {record.status}, not finished: run its study again first.")
    if not folder.adapter.is_dir():
        raise RecordError(
            f"The weights of {record.name} were not kept: give a run that has an adapter folder, or run the study"
            " again elsewhere with --keep-weights all."
        )
    return folder, record


def evaluate(
    run_dir: str | Path,
    task: str | TaskConfig,
    *,
    data_root: str | None = None,
    eval_examples: CountOrAll = "all",
    device: str = "auto",
    model: str | None = None,
) -> Evaluation:
    """Score a finished run on the report sets of ``task``; written to the run's evaluations folder, not its record.

    Raises:
        ConfigError: the task's answers are not the run's.
        AdaptlabError: the data or the run is not usable.
    """
    from adaptlab.predictor import Predictor
    from adaptlab.study.expand import task_label
    from adaptlab.tasks import find_task
    from adaptlab.tasks._base import DataAccess

    predictor = Predictor.of_run(read_run(run_dir), device=device, model=model, data_root=data_root)
    config = task if isinstance(task, TaskConfig) else TaskConfig(name=task, eval_examples=eval_examples)
    plugin = find_task(config.name)
    access = DataAccess(data_root=data_root)
    data = plugin.load(config, access) if plugin.trainable else plugin.look(config, access)
    metrics = predictor.score(data, data.metrics)
    mapping = predictor.mapped(data).in_words(predictor.labels, data.labels)
    path = Path(run_dir) / "evaluations" / f"{safe_name(task_label(config.name))}.json"
    path.parent.mkdir(exist_ok=True)
    document: dict[str, Any] = {
        "task": task_label(config.name),
        "task_version": plugin.version,
        "data": data.fingerprint,
        "metrics": metrics,
        "mapping": mapping,
    }
    write_atomically(path, json.dumps(document, indent=1).encode() + b"\n")
    counted = ", ".join(f"{label} as {scored}" for label, scored in mapping.items())
    return Evaluation(path, metrics, (f"The classes are not the run's own: {counted}.",) if mapping else ())


def predict_split(
    run_dir: str | Path,
    split: str,
    *,
    out: str | Path | None = None,
    data_root: str | None = None,
    device: str = "auto",
    model: str | None = None,
) -> SplitAnswers:
    """Answer a published split of the run's own task, and write what the benchmark's server takes for it.

    Args:
        out: folder for the server's files; the run's ``submission`` folder by default.

    Raises:
        ConfigError: the task is no published data set.
        AdaptlabError: the rows or the run are not usable.
    """
    from adaptlab.submission import answer_split
    from adaptlab.tasks import find_task
    from adaptlab.tasks._base import DataAccess

    _, record = read_run(run_dir)
    task = find_task(record.config.resolved.task.name)
    folder = Path(out) if out is not None else Path(run_dir) / "submission"
    predictor = load(run_dir, device=device, model=model)
    return answer_split(predictor, task, split, DataAccess(data_root=data_root), folder)


def evaluate_adapter(
    adapter: str | Path,
    model: str | ModelConfig | None,
    task: str | TaskConfig,
    *,
    quantize: Quantize | None = None,
    readout: Readout | None = None,
    data_root: str | None = None,
    device: str = "auto",
) -> Evaluation:
    """Score an adapter's folder (PEFT's, or one that adaptlab exported) on the report sets of ``task``, in float32.

    Args:
        model: the base; ``None`` for the one that the adapter names.
        quantize: the base's bits; ``None`` for what ``model`` says, or what an adapter that was exported here says.
        readout: how it answers; ``None`` for what an adapter that was exported here says; of one from elsewhere for a
            head, or, where it is a language model's, for label words, and for free generation where the task has no
            classes. The prompt is what ``task`` asks for, else what was exported, else the task's own.

    Raises:
        AdaptlabError: the folder is no adapter's, or does not fit the base or the task.
    """
    from adaptlab.adapter import (
        load_adapter,
        read_settings,
        speaks,
        stored_bits,
        stored_labels,
        stored_prompt,
        stored_readout,
    )
    from adaptlab.predictor import Predictor
    from adaptlab.resolve import check_answers, prompt_in_use
    from adaptlab.resolve import device as resolve_device
    from adaptlab.tasks import find_task
    from adaptlab.tasks._base import DataAccess
    from adaptlab.training.precision import Precision

    folder = Path(adapter)
    named = read_settings(folder).get("base_model_name_or_path")
    if model is None and not named:
        raise ConfigError(f"The adapter in {adapter} does not name its base: give it with --model.")
    source = (
        model if isinstance(model, ModelConfig) else ModelConfig(id=model or str(named), quantize=stored_bits(folder))
    )
    if quantize is not None:
        source = source.model_copy(update={"quantize": quantize})
    config = task if isinstance(task, TaskConfig) else TaskConfig(name=task)
    prompt = stored_prompt(folder)
    if prompt is not None and config.prompt is None and readout != "head":
        config = config.model_copy(update={"prompts": (*config.prompts, prompt), "prompt": prompt.name})
    data = find_task(config.name).load(config, DataAccess(data_root=data_root))
    words: Readout = "verbalizer" if data.kind in ("classification", "multiple-choice") else "generate"
    how = readout or stored_readout(folder) or (words if speaks(folder) else "head")
    check_answers(how, config, data)
    if how == "head" and config.prompt is not None:
        raise ConfigError("A head reads the bare texts: leave --prompt out, or give --readout verbalizer or generate.")
    prompt_in_use(how, config, data)
    on, regression = resolve_device(device), data.kind == "regression"
    labels = stored_labels(folder) or data.labels
    outputs = 1 if regression else len(labels)
    loaded = load_adapter(folder, source, outputs=outputs, regression=regression, device=on, readout=how)
    longest = min(loaded.base.max_length or _LONGEST, _LONGEST)
    precision = Precision("float32", on)
    if how == "head":
        predictor = Predictor.with_head(
            loaded.base, loaded.model, labels=labels, regression=regression, max_length=longest, precision=precision
        )
    else:
        predictor = Predictor.in_words(loaded.base, loaded.model, how, data, max_length=longest, precision=precision)
    return Evaluation(None, predictor.score(data, data.metrics), loaded.notes)


def export(
    run_dir: str | Path,
    to: str | Path,
    *,
    merge: bool = False,
    push: str | None = None,
    texts: Sequence[str | tuple[str, str]] | None = None,
    model: str | None = None,
    device: str = "auto",
    data_root: str | None = None,
) -> Export:
    """Write a finished run's model to a new folder, checked in a fresh process.

    Arguments and errors as for :func:`adaptlab.exporting.export`.
    """
    from adaptlab.exporting import export as write

    how: dict[str, Any] = {"push": push, "texts": texts, "model": model, "device": device, "data_root": data_root}
    return write(read_run(run_dir), Path(to), merge=merge, **how)


def study_of(*, execution: dict[str, Any] | None = None, **settings: Any) -> StudyConfig:
    """A study from keyword arguments named like the flags, e.g. ``study_of(task="sst2", methods=["lora"], seeds=3)``.

    Raises:
        ConfigError: every wrong setting, at once.
    """
    from pydantic import ValidationError

    try:
        return StudyConfig(**settings, execution=ExecutionConfig(**(execution or {})))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}." for e in error.errors()]
        raise ConfigError(problems) from error


__all__: Sequence[str] = (
    "Evaluation",
    "StudyResult",
    "choose",
    "compare",
    "evaluate",
    "evaluate_adapter",
    "export",
    "load",
    "plan",
    "predict_split",
    "read_run",
    "study_of",
    "train",
)
