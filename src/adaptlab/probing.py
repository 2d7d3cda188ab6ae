"""The solo probe: what a run's step costs in memory and time, measured alone in a fresh process.

A run that shares its process with others cannot tell what it alone holds, and one that trains beside others cannot
tell how long it alone would take. So one configuration of cost (model, method's shape, batch shapes, dtype, device,
threads) is tried once, for a few steps at the batch shapes that the run really has, the longest among them; the
result is kept on disk and serves every seed, learning rate and study.

Fresh processes are forked from a server that has loaded the libraries and computed nothing: a fork costs a few
milliseconds where a new interpreter costs seconds. ``python -m adaptlab.probing`` is that server.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import hashlib
import json
import os
import pickle
import statistics
import struct
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from adaptlab.config import ExecutionConfig
from adaptlab.costing import cost_key
from adaptlab.errors import AdaptlabError, ConfigError
from adaptlab.evaluation.demonstrations import Fixed
from adaptlab.measure.clock import timed
from adaptlab.measure.environment import environment, processor_name
from adaptlab.measure.memory import MemoryMeter
from adaptlab.merging import merged
from adaptlab.models.identity import cache_folder, write_cache
from adaptlab.models.load import Base
from adaptlab.readouts import Rows, Verbalizer
from adaptlab.resolve import ResolvedRun
from adaptlab.runs.record import Record
from adaptlab.tasks._base import Example
from adaptlab.training.batches import BatchPlan, BatchRows, evaluation_batches
from adaptlab.workshop import Lesson, Stage, Workshop, collation, lesson_of, read_out, set_up

#: Raised when the same probe would give other figures: older results are measured again.
_VERSION = 2
_WARM_STEPS = 2
#: Of a training whose end only its budget tells.
_STEPS_OF_A_TRAINING = 1000
_LEAST_STEPS, _MOST_STEPS, _STEP_SECONDS = 3, 10, 4.0
_LEAST_ANSWERS, _MOST_ANSWERS, _ANSWER_SECONDS = 5, 30, 0.5
_LEAST_PARAMETERS = 5_000_000


class ProbeError(AdaptlabError):
    """The probe ended before it had a result, for instance because memory ran out."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a configuration of cost was measured to take. Bytes are above the loaded libraries.

    Attributes:
        train_bytes: the most that training held, weights included (on CUDA what was allocated).
        train_reserved_bytes: what training took from the CUDA device; ``None`` on a CPU.
        eval_bytes: the most that answering held, before training.
        step_seconds: median of a step at the run's median batch; ``step_seconds_std`` its sample standard deviation.
        longest_step_seconds: median of a step at the longest batch.
        steps: how many were timed at the median batch.
        step_joules: energy of a step by the GPU's counter; ``None`` where there is none.
        answer_seconds: median of answering one row alone, of the median length; ``None`` if it was not asked for.
        merged_answer_seconds: the same once the method is merged into the base; ``None`` where there is nothing to
            merge, or it cannot be.
    """

    train_bytes: int
    train_reserved_bytes: int | None
    eval_bytes: int
    step_seconds: float
    step_seconds_std: float | None
    longest_step_seconds: float
    steps: int
    step_joules: float | None
    answer_seconds: float | None = None
    merged_answer_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What the fresh process is to measure: rows of the longest and of the median training batch, and of an answer.

    ``shown`` are demonstrations, as many as a prompt has, and ``lesson`` has those of a teacher. ``single`` is the row
    whose answer is timed alone, if any. ``most_steps`` bounds how often the median step is repeated.
    """

    run: ResolvedRun
    execution: ExecutionConfig
    threads: int
    longest: tuple[Example, ...]
    median: tuple[Example, ...]
    answers: tuple[Example, ...]
    shown: tuple[Example, ...] = ()
    single: tuple[Example, ...] = ()
    lesson: Lesson | None = None
    most_steps: int = _MOST_STEPS


def probe(run: ResolvedRun, workshop: Workshop) -> Probe:
    """The run's cost, from the disk or measured now.

    Raises:
        ProbeError: the measuring process ended without a result.
    """
    base = workshop.base(run)
    readout = read_out(run, base, workshop)
    training = workshop.rows(run, readout, "train", training=True)
    selection = workshop.rows(run, readout, "select")
    longest, median = training_shapes(BatchPlan(training.lengths, run.resolved.training.batch_size))
    answers = max(evaluation_batches(selection.lengths), key=lambda batch: len(batch.rows) * batch.length)
    shapes = [(len(batch.rows), batch.length) for batch in (longest, median, answers)]
    lesson = None
    if isinstance(readout, Verbalizer) and readout.setting.distils:
        lesson, shape = _lesson(run, readout, base, training, (longest, median))
        shapes += shape
    path = cache_folder() / "probes" / f"{_key(run, workshop, shapes)}.json"
    if path.is_file():
        return Probe(**json.loads(path.read_text(encoding="utf-8")))
    request = Request(
        run=run,
        execution=workshop.execution,
        threads=torch.get_num_threads(),
        longest=tuple(run.data.trained_on[i] for i in longest.rows),
        median=tuple(run.data.trained_on[i] for i in median.rows),
        answers=tuple(run.data.select[i] for i in answers.rows),
        single=(run.data.select[_median_row(selection.lengths)],),
        lesson=lesson,
        shown=() if readout.setting.shots is None else readout.setting.shots.of(run.data.select[answers.rows[0]]),
    )
    found = Server.shared().measure(request)
    write_cache(path, asdict(found))
    return found


def _lesson(
    run: ResolvedRun, readout: Verbalizer, base: Base, rows: Rows, batches: Sequence[BatchRows]
) -> tuple[Lesson, list[tuple[int, int]]]:
    """What the run's teacher is asked, and the rows and tokens of it that belong to ``batches``."""
    lesson, examples = lesson_of(run, readout, base, rows), run.data.trained_on
    if lesson.shots is not None:
        lesson = dataclasses.replace(lesson, shots=Fixed(lesson.shots.of(examples[batches[0].rows[0]])))
    asked = [readout.lessons([examples[i] for i in batch.rows], lesson.shots).lengths for batch in batches]
    return lesson, [(lesson.kept_bytes, 0), *((len(lengths), int(lengths.sum())) for lengths in asked)]


def add_probe(record: Record, run: ResolvedRun, workshop: Workshop) -> None:
    """Write to ``record`` what the run could not measure itself, by the rule of ``--measure``.

    ``auto``: a run that had its process to itself keeps its own clock, and on CUDA its own memory; the rest is probed.
    Models of fewer than five million numbers weigh less than a CPU process's resident memory varies: no probe for them.
    A probe that fails is a warning in the record.
    """
    if run.resolved.training.steps == 0:
        return  # nothing is trained
    cost, how, alone = record.cost, workshop.execution.measure, record.cost.clock_source == "run"
    large = record.parameters is not None and record.parameters.total >= _LEAST_PARAMETERS
    knows_memory = cost.peak_memory_bytes is not None or not large
    if how == "run" or (how == "auto" and alone and knows_memory):
        return
    try:
        found = probe(run, workshop)
    except ProbeError as error:
        record.warnings.append(str(error))
        return
    cost.peak_memory_bytes, cost.reserved_memory_bytes = found.train_bytes, found.train_reserved_bytes
    cost.eval_memory_bytes = found.eval_bytes
    cost.memory_source = "probe"
    cost.answer_seconds, cost.merged_answer_seconds = found.answer_seconds, found.merged_answer_seconds
    if how == "probe" or not alone:
        cost.step_seconds, cost.step_seconds_std = found.step_seconds, found.step_seconds_std
        cost.step_joules = found.step_joules
        cost.clock_source = "probe"


def training_shapes(plan: BatchPlan) -> tuple[BatchRows, BatchRows]:
    """The batch with the most padded tokens of an epoch, and the one in the middle."""
    batches = sorted(plan.epoch(0, 0), key=lambda batch: (len(batch.rows) * batch.length, batch.length))
    return batches[-1], batches[len(batches) // 2]


def _median_row(lengths: NDArray[np.int64]) -> int:
    return int(np.argsort(lengths, kind="stable")[len(lengths) // 2])


def _key(run: ResolvedRun, workshop: Workshop, shapes: list[tuple[int, int]]) -> str:
    name = processor_name() if workshop.device == "cpu" else torch.cuda.get_device_name()
    where = environment(device=workshop.device, device_name=name, threads=torch.get_num_threads())
    parts = (
        _VERSION,
        cost_key(run, workshop.execution),
        shapes,
        where.fingerprint,
        sorted(where.packages.items()),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def measure(request: Request) -> Probe:
    """Measure ``request`` in this process, which should be a fresh one."""
    torch.set_num_threads(request.threads)
    rows = dataclasses.replace(
        request.run.data, train=request.longest, unlabelled=(), select=request.answers, report={}
    )
    run = dataclasses.replace(request.run, data=rows)
    alone = request.execution.model_copy(update={"threads": None})
    workshop = Workshop(alone, lambda _: None, shown=request.shown, lesson=request.lesson)
    _touch_kernels(workshop.device)
    meter = MemoryMeter(workshop.device)
    base = workshop.base(run)
    stage = set_up(run, base, workshop)
    member = stage.member

    member.modes.eval()
    meter.reset()
    stage.answer(workshop.rows(run, stage.readout, "select"), request.answers)
    answering = meter.peak()

    meter.reset()
    member.attached.method.before_training(member.attached, member.total_steps or _STEPS_OF_A_TRAINING)
    member.modes.train()
    for _ in range(_WARM_STEPS):
        _step(stage)
        member.consider(0.0)  # as an evaluation does: a copy of the best weights belongs to training
    most = min(_LEAST_STEPS, request.most_steps)
    longest = timed(lambda: _step(stage), workshop.device, least=1, most=most, seconds=_STEP_SECONDS / 2)
    training = meter.peak()

    other = dataclasses.replace(
        run,
        data=dataclasses.replace(rows, train=request.median),
        identity=run.identity.model_copy(update={"data": "the median batch"}),
    )
    member.data = workshop.rows(other, stage.readout, "train", training=True)
    member.collate, _ = collation(member.data, other, stage.readout, base, member.attached, stage.precision, workshop)
    member.plan = BatchPlan(member.data.lengths, len(request.median))
    _step(stage)
    least, most = min(_LEAST_STEPS, request.most_steps), request.most_steps
    step = timed(lambda: _step(stage), workshop.device, least=least, most=most, seconds=_STEP_SECONDS)
    answer, merged_answer = _latency(request, run, base, stage, workshop)
    # On a CPU the targets of a frozen teacher lie beside the rest: those of all rows, of which a few are here.
    kept = request.lesson.kept_bytes if request.lesson is not None and workshop.device == "cpu" else 0
    return Probe(
        train_bytes=training.allocated + kept,
        train_reserved_bytes=training.reserved,
        eval_bytes=answering.allocated,
        step_seconds=step.median,
        step_seconds_std=step.std,
        longest_step_seconds=longest.median,
        steps=step.n,
        step_joules=step.joules,
        answer_seconds=answer,
        merged_answer_seconds=merged_answer,
    )


def _latency(
    request: Request, run: ResolvedRun, base: Base, stage: Stage, workshop: Workshop
) -> tuple[float | None, float | None]:
    """Seconds to answer one row alone: by the model as it was trained, and with the method merged into the base.

    A quantised base has no second figure: merged, it would be another model, in more bits.
    """
    if not request.single:
        return None, None
    attached, readout = stage.member.attached, stage.readout
    one = dataclasses.replace(
        run,
        data=dataclasses.replace(run.data, select=request.single),
        identity=run.identity.model_copy(update={"data": "the single row"}),
    )
    rows = workshop.rows(one, readout, "select")

    def seconds(model: torch.nn.Module) -> float:
        model.eval()
        readout.answer(model, rows, stage.precision)
        return timed(
            lambda: readout.answer(model, rows, stage.precision),
            workshop.device,
            least=_LEAST_ANSWERS,
            most=_MOST_ANSWERS,
            seconds=_ANSWER_SECONDS,
        ).median

    stage.member.modes.eval()
    attached_seconds = seconds(attached.model)
    if attached.method.placement in ("base", "nothing") or base.config.quantize != "none":
        return attached_seconds, None
    try:
        return attached_seconds, seconds(merged(attached, base))
    except ConfigError:
        return attached_seconds, None


def _touch_kernels(device: str) -> None:
    """Compute a little of everything: the code of a kernel is loaded with its first use, and is no run's memory."""
    for dtype in (torch.float32, torch.bfloat16):
        block = torch.nn.TransformerEncoderLayer(64, 4, 128, activation="gelu", batch_first=True, device=device)
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            block(torch.ones(2, 16, 64, device=device)).sum().backward()
        torch.optim.AdamW(block.parameters(), fused=True).step()


def _step(stage: Stage) -> None:
    stage.member.update(statistics.fmean(stage.backward([stage.member])))


# --- the server -------------------------------------------------------------------------------------------------------

_LENGTH = struct.Struct("<Q")


class Server:
    """The process that forks a fresh one for every request; it lives as long as this process."""

    _one: Server | None = None

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "adaptlab.probing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the study's: the server ends with its input
        )
        atexit.register(self._process.kill)

    @classmethod
    def shared(cls) -> Server:
        """The server of this process, started when it is first asked for."""
        if cls._one is None or cls._one._process.poll() is not None:
            cls._one = cls()
        return cls._one

    def measure(self, request: Request) -> Probe:
        """What :func:`measure` gives for ``request`` in a fresh process."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        document = pickle.dumps(request)
        try:
            stdin.write(_LENGTH.pack(len(document)) + document)
            stdin.flush()
            answer = json.loads(stdout.readline() or b'{"error": "its process ended"}')
        except BrokenPipeError:
            answer = {"error": "its process ended"}
        if "error" in answer:
            raise ProbeError(f"Memory and time could not be measured alone: {answer['error']}.")
        return Probe(**answer)


def serve(requests: BinaryIO, answers: int) -> None:
    """Fork a process for each request until there are no more; answers are lines of JSON on the descriptor."""
    while header := requests.read(_LENGTH.size):
        document = requests.read(_LENGTH.unpack(header)[0])
        child = os.fork()
        if child == 0:
            _answer(document, answers)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            _write(
                answers, {"error": f"its process was killed by signal {os.WTERMSIG(status)}, as when memory runs out"}
            )


def _answer(document: bytes, answers: int) -> None:
    """In the fresh process: measure, answer, end."""
    try:
        _write(answers, asdict(measure(pickle.loads(document))))
    except BaseException as error:  # whatever it is, the study that asked goes on and says so
        _write(answers, {"error": f"{type(error).__name__}: {error}".rstrip(".")})
    finally:
        os._exit(0)


def _write(answers: int, document: dict[str, object]) -> None:
    os.write(answers, json.dumps(document).encode() + b"\n")


def _main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # libraries that print do not disturb the answers
    warnings.simplefilter("ignore")  # what a run warns of it says itself, in its record
    import peft
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    _ = peft, transformers, AutoModelForSequenceClassification, AutoTokenizer
    with contextlib.suppress(ImportError):  # PEFT loads it with the first adapter, where it is installed
        import bitsandbytes

        _ = bitsandbytes
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    # As a module of its own name, so that what is pickled and what is read are the same classes.
    from adaptlab.probing import _main as main

    main()
