"""Which flags a command that makes a study takes, in the order in which --help shows them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from typer.models import OptionInfo

from adaptlab.cli import flags as f

_MANY = (f.Methods, f.Seeds, f.Tune, f.Pruner, f.Equalize)
_ONE = (f.Method, f.Seed)
_LAUNCHING = (f.Launcher, f.Workers, f.Wait, f.RayAddress, f.Launch)
_ALL: tuple[Any, ...] = (
    f.Model, f.Task, f.Methods, f.Method, f.Seeds, f.Seed, f.Set, f.Targets, f.Tune, f.Pruner, f.Equalize,
    f.Quantize, f.AlsoEvaluate, f.Readout, f.Prompt, f.Shots, f.ShotSampling, f.ShotsPerQuery, f.VerbalizerLoss,
    f.LengthNormalization, f.Calibration, f.MaxNewTokens, f.Beams, f.Stop, f.Objective, f.Teacher, f.TeacherShots,
    f.Temperature, f.TrainExamples, f.UnlabelledExamples, f.Balanced, f.SelectExamples, f.EvalExamples, f.MaxLength,
    f.DataSeed, f.DataRoot, f.TextColumns, f.LabelColumn, f.ExplanationColumn, f.Delimiter, f.Epochs, f.Steps,
    f.MaxExamples, f.MaxTokens, f.MaxFlops, f.MaxSeconds, f.MaxBytes, f.BatchSize, f.LearningRate,
    f.HeadLearningRate, f.Optimizer, f.Schedule, f.WarmupRatio, f.WeightDecay, f.MaxGradNorm, f.EvalEvery, f.Select,
    f.DType, f.KeepWeights, f.Device, f.Threads, f.DevicesPerRun, f.Shard, f.MicroBatchSize,
    f.GradientCheckpointing, f.Measure, f.Track, f.TrackProject, f.TrackEntity, f.TrackGroup, f.TrackName,
    f.TrackMode, f.Profile, f.Engine, f.Launcher, f.Workers, f.Wait, f.RayAddress, f.Launch, f.AllowPickle,
    f.TrustRemoteCode, f.Out,
)  # fmt: skip


def _but(*others: Any) -> tuple[Any, ...]:
    return tuple(flag for flag in _ALL if not any(flag is other for other in others))


COMPARE = _but(*_ONE)
TRAIN = _but(*_MANY, *_LAUNCHING)
PLAN = _but(*_ONE, f.Tune, f.Pruner, f.Equalize, *_LAUNCHING)


def takes(flags: tuple[Any, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command ``flags`` besides its own parameters; it gets their values, by name, as ``**flags``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        first, *rest = inspect.signature(command, eval_str=True).parameters.values()
        own = [parameter for parameter in rest if parameter.kind is not parameter.VAR_KEYWORD]
        taken = [first, *map(_parameter, flags), *own]

        @functools.wraps(command)
        def call(**given: Any) -> None:
            command(**given)

        call.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
        return call

    return decorate


def _parameter(flag: Any) -> inspect.Parameter:
    option: OptionInfo = flag.__metadata__[0]
    name = str(option.default).split("/")[0].removeprefix("--").replace("-", "_")
    default = False if flag.__origin__ is bool else None
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=flag)
