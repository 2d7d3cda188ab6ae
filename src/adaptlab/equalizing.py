"""Comparing methods at equal FLOPs or equal time: one budget for all of them, as much as the dearest takes.

The budget of a task is what its dearest method and model (most often full fine-tuning) would take for the epochs or
steps that the study gives, by the same forecast as ``adaptlab plan``. The dearest then trains as long as it was asked
to, and no method less: what a cheap method saves it spends on more passes over the data. How well the forecast meets
that length moves the level of the budget, never its equality: each run counts what it executes.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from adaptlab.config import StudyConfig
from adaptlab.errors import ConfigError
from adaptlab.planning import plan
from adaptlab.runs.store import StudyFolder

#: Of which a study must have a single value, for the budget is one for all the runs of a task.
_SINGLE = ("train_examples", "data_seed", "max_length", "epochs", "steps")


def equalized(study: StudyConfig, out: Path) -> StudyConfig:
    """``study`` with the budgets of its tasks: those that the study in ``out`` had from its start, or new ones.

    Raises:
        ConfigError: the study has several lengths or amounts of data, or no method's cost can be forecast.
    """
    if study.equalize is None or study.equal_budgets:
        return study
    if several := [key.replace("_", "-") for key in _SINGLE if len(getattr(study, key) or ()) > 1]:
        raise ConfigError(
            f"--equalize gives all runs of a task one budget, and there are several values of --{several[0]}: give one."
        )
    if (out / "study.yaml").exists():
        former = StudyFolder(out).read_study()
        if former.equalize == study.equalize and former.equal_budgets:
            return study.model_copy(update={"equal_budgets": former.equal_budgets})
    dearest: dict[str, float] = defaultdict(float)
    for planned in plan(study.model_copy(update={"seeds": study.seeds[:1]})):
        ahead = planned.forecast
        if ahead is not None and planned.task is not None:
            amount = ahead.train_flops if study.equalize == "flops" else ahead.train_seconds
            dearest[planned.task] = max(dearest[planned.task], amount or 0.0)
    if not dearest or min(dearest.values()) <= 0:
        raise ConfigError(
            f"--equalize {study.equalize}: what these methods take cannot be forecast (see `adaptlab plan`): give them "
            f"all a budget with --max-{study.equalize}."
        )
    budgets = {task: float(f"{amount:.3g}") for task, amount in dearest.items()}
    return study.model_copy(update={"equal_budgets": budgets})
