"""Runs followed while they train, in TensorBoard, Weights & Biases, MLflow or Trackio, through accelerate's trackers.

Each is an extra. What is written is what the curve has, and at the end the scores on the report sets; records stay the
source of truth. A tracker that fails is left out for the rest of the run, and the record says so: no run ends for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adaptlab.config import ExecutionConfig
from adaptlab.errors import ConfigError
from adaptlab.resolve import ResolvedRun
from adaptlab.runs.files import scrub_document, without_secrets
from adaptlab.runs.record import CurvePoint, Record

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
#: These keep one run a process in mind; runs that train in one group cannot be told apart there.
_ONE_AT_A_TIME = ("mlflow", "trackio")
_PROJECT = "adaptlab"


def require(execution: ExecutionConfig) -> None:
    """Refuse trackers that do not exist or are not installed, before anything runs.

    Raises:
        ConfigError: with what to install.
    """
    for name in execution.track:
        if name not in TRACKERS:
            raise ConfigError(f"--track {name}: there are {', '.join(TRACKERS)}.")
        if find_spec(name) is None:
            raise ConfigError(f"--track {name} needs {name}, which is not installed: pip install 'adaptlab[{name}]'.")


class Tracking:
    """The trackers of one run, from its start to its end.

    Args:
        folder: the run's; TensorBoard writes below it.
        beside: how many runs train in the same group.
    """

    def __init__(
        self, run: ResolvedRun, folder: Path, record: Record, execution: ExecutionConfig, *, beside: int = 1
    ) -> None:
        self._warnings = record.warnings
        self._trackers: dict[str, Any] = {}
        for name in execution.track:
            if beside > 1 and name in _ONE_AT_A_TIME:
                self._warnings.append(
                    f"{name} follows one run at a time: this one trained in a group and was left out."
                )
            else:
                self._try(name, lambda n=name: self._start(n, run, folder, execution))  # type: ignore[misc]

    def point(self, point: CurvePoint) -> None:
        """A line of the curve."""
        values = {
            key: value for key, value in point.model_dump(exclude={"metrics", "step"}).items() if value is not None
        }
        self._log({**values, **{f"select/{name}": value for name, value in point.metrics.items()}}, point.step)

    def end(self, record: Record) -> None:
        """The run has ended: scores on the report sets, and what it cost."""
        values: dict[str, float] = {
            f"report/{where}/{name}": value
            for where, scores in record.metrics.items()
            for name, value in scores.items()
        }
        values |= {f"cost/{name}": v for name, v in record.cost.model_dump().items() if isinstance(v, int | float)}
        self._log(values, int(record.training.get("steps") or 0))
        for name, tracker in list(self._trackers.items()):
            self._try(name, tracker.finish)
        self._trackers.clear()

    def _log(self, values: dict[str, float], step: int) -> None:
        for name, tracker in list(self._trackers.items()):
            self._try(name, lambda t=tracker: t.log(values, step=step))  # type: ignore[misc]

    def _try(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # a server that is away raises what it likes
            self._trackers.pop(name, None)
            first_line = (str(error).strip().splitlines() or [""])[0]
            self._warnings.append(f"{name} was left out after {type(error).__name__}: {first_line}")

    def _start(self, name: str, run: ResolvedRun, folder: Path, execution: ExecutionConfig) -> None:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState(cpu=not _cuda())
        tracker = LOGGER_TYPE_TO_CLASS[name](**_settings(name, run, folder, execution))
        tracker.start()
        self._trackers[name] = tracker
        if name in ("tensorboard", "mlflow"):  # the others are given it when they start
            tracker.store_init_configuration(_configuration(run))


def _settings(name: str, run: ResolvedRun, folder: Path, execution: ExecutionConfig) -> dict[str, Any]:
    """Arguments of accelerate's tracker. Flags come before the tool's own environment variables."""
    label = execution.track_name or os.environ.get("WANDB_NAME") if name == "wandb" else execution.track_name
    run_name = without_secrets(f"{label}-{folder.name}" if label else folder.name)
    group = without_secrets(execution.track_group) if execution.track_group else None
    if name == "tensorboard":
        return {"run_name": "tensorboard", "logging_dir": str(folder)}
    if name == "mlflow":
        return {
            "experiment_name": execution.track_project or _PROJECT,
            "run_name": run_name,
            "tags": {"group": group} if group else None,
        }
    if name == "trackio":
        project = execution.track_project or os.environ.get("TRACKIO_PROJECT") or _PROJECT
        return {"run_name": project, "name": run_name, "group": group, "config": _configuration(run)}
    return {
        "run_name": execution.track_project or os.environ.get("WANDB_PROJECT") or _PROJECT,
        "entity": execution.track_entity or os.environ.get("WANDB_ENTITY"),
        "name": run_name,
        "group": group or os.environ.get("WANDB_RUN_GROUP"),
        "mode": execution.track_mode or os.environ.get("WANDB_MODE") or "online",
        "dir": str(folder),
        "id": run.id[:16],  # a run that goes on after an interruption goes on there too
        "resume": "allow",
        "reinit": "create_new",  # runs of a group are open at once
        "config": _configuration(run),
    }


def _configuration(run: ResolvedRun) -> dict[str, Any]:
    """The resolved run as flat, plain values, scrubbed like a record."""
    config = run.resolved
    values: dict[str, Any] = {
        "model": config.model.id,
        "task": config.task.name,
        "method": config.method.label or config.method.name,
        "seed": config.seed,
        "id": run.id,
        **{f"method.{key}": value for key, value in config.method.options.items()},
        **config.training.model_dump(mode="json"),
    }
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values.items() if v is not None}
    scrubbed: dict[str, Any] = scrub_document(plain)
    return scrubbed


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
