"""Result files of the ``method_comparison`` suite in huggingface/peft: one JSON a run, no answers to single rows.

Layout (its ``utils.py``): ``run_info`` (train_config, peft_config, experiment_name), ``train_info`` (status, memory,
parameters, ``metrics``: one entry per evaluation, the last one on the test rows), ``meta_info`` (shas, packages,
system).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptlab.runs.importers._base import (
    Foreign,
    ForeignProblem,
    ForeignRun,
    ReadJson,
    content_id,
    mapping,
    number,
    text,
    whole,
)
from adaptlab.runs.record import Cost, CurvePoint, Environment, ErrorPart, Parameters, Primary, Status

TOOL = "peft's method comparison"
NOTE = (
    f"Results of {TOOL} are one run each, with learning rates of their authors' choice; training s are the sums of "
    "their training intervals, peak MB is what the accelerator had reserved at most, evaluation included. How many "
    "test rows there were and how each was answered is not in them."
)
_PARTS = ("run_info", "train_info", "meta_info")
_STATUSES: dict[str, Status] = {"success": "finished", "failed": "failed", "canceled": "interrupted"}
_PREFERRED = ("accuracy", "f1")


def read(file: Path, root: Path, read_json: ReadJson, found: Foreign) -> None:
    """Add the run in ``file`` to ``found``, if it is one."""
    place = f"{root.resolve().name}/{file.relative_to(root).as_posix()}"
    try:
        document = read_json(file)
    except ValueError as error:
        if _looks_like_one(file):
            found.problems.append(ForeignProblem(place, f"it is damaged ({error})"))
        return
    if not isinstance(document, dict) or not {"run_info", "train_info"} <= set(document):
        return
    missing = [part for part in _PARTS if not isinstance(document.get(part), dict)]
    if missing:
        found.problems.append(ForeignProblem(place, f"it has no {' and no '.join(missing)}"))
        return
    found.runs.append(_run(document, file.stem))
    found.note(NOTE)


def _looks_like_one(file: Path) -> bool:
    """Whether a file that is no JSON began as a result."""
    try:
        with file.open("rb") as opened:
            start = opened.read(4096)
    except OSError:
        return False
    return b'"run_info"' in start


def _run(document: Mapping[str, Any], stem: str) -> ForeignRun:
    run, train, meta = (mapping(document[part]) for part in _PARTS)
    settings, peft = mapping(run.get("train_config")), mapping(run.get("peft_config"))
    model = text(settings.get("model_id")) or "an unknown model"
    experiment = text(run.get("experiment_name")) or stem
    entries = [entry for entry in train.get("metrics") or [] if isinstance(entry, dict)]
    test = next((entry for entry in reversed(entries) if any(key.startswith("test ") for key in entry)), {})
    status = _STATUSES.get(str(train.get("status")), "failed")
    message = text(run.get("error_msg"))
    error = ErrorPart(type="error", message=message or f"the tool says '{train.get('status')}'")
    primary = _primary(test) if status == "finished" else None
    warnings = [] if test or status != "finished" else ["No score on test rows is in the file."]
    return ForeignRun(
        name=f"{experiment}-s{whole(settings.get('seed')) or 0}".replace("/", "-"),
        id=content_id(document),
        tool=TOOL,
        task="/".join(mapping(meta.get("dataset_info"))) or "an unknown task",
        model=model,
        method=_label(experiment, model),
        method_name=_method(peft, experiment),
        seed=whole(settings.get("seed")) or 0,
        status=status,
        primary=primary,
        metrics={"test": _metrics(test, "test ")} if test else {},
        parameters=_parameters(train),
        cost=_cost(train, entries),
        config=_config(settings, peft, model, _method(peft, experiment)),
        training={
            key: train[key] for key in ("train_time", "accelerator_memory_reserved_avg") if number(train.get(key))
        },
        environment=_environment(meta),
        curve=_curve(entries),
        warnings=tuple(warnings),
        error=None if status == "finished" else error,
        started=text(run.get("created_at")),
    )


def _label(experiment: str, model: str) -> str:
    """``lora/llama-3.2-3B-rank64`` is ``lora-rank64``: the model has a column of its own."""
    method, _, variant = experiment.partition("/")
    variant = re.sub(re.escape(model.rpartition("/")[2]), "", variant, flags=re.IGNORECASE).strip("-_ ")
    return method if variant in ("", "default") else f"{method}-{variant}"


def _method(peft: Mapping[str, Any], experiment: str) -> str:
    kind = text(peft.get("peft_type"))
    if kind is None:
        return "full" if experiment.startswith("full") else experiment.partition("/")[0]
    return kind.lower().replace("_", "-")


def _metrics(entry: Mapping[str, Any], prefix: str) -> dict[str, float]:
    values = {key.removeprefix(prefix): number(value) for key, value in entry.items() if key.startswith(prefix)}
    values["forgetting"] = number(entry.get("forgetting"))
    return {key: value for key, value in values.items() if value is not None}


def _primary(test: Mapping[str, Any]) -> Primary | None:
    scores = _metrics(test, "test ")
    scores.pop("forgetting", None)
    name = next((name for name in (*_PREFERRED, *scores) if name in scores), None)
    return None if name is None else Primary(name=name, value=scores[name], n=None, evaluation_set="test")


def _parameters(train: Mapping[str, Any]) -> Parameters | None:
    trainable, total = whole(train.get("num_trainable_params")), whole(train.get("num_total_params"))
    return None if trainable is None or total is None else Parameters(trainable=trainable, head=0, total=total)


def _cost(train: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> Cost:
    steps = [number(entry.get("train time")) for entry in entries]
    evaluations = [number(entry.get("eval time")) for entry in entries]
    tokens = [whole(entry.get("train total tokens")) for entry in entries]
    return Cost(
        train_seconds=math.fsum(s for s in steps if s is not None) if any(steps) else None,
        eval_seconds=math.fsum(s for s in evaluations if s is not None) if any(evaluations) else None,
        train_tokens=next((count for count in reversed(tokens) if count is not None), None),
        peak_memory_bytes=whole(train.get("accelerator_memory_max")),
        adapter_bytes=whole(train.get("file_size")),
    )


def _curve(entries: Sequence[Mapping[str, Any]]) -> tuple[CurvePoint, ...]:
    """The evaluations on the validation rows; an entry without its clock ends the curve."""
    points, seconds, tokens = [], 0.0, 0.0
    for entry in entries:
        step, examples = whole(entry.get("step")), whole(entry.get("train samples"))
        took, rate = number(entry.get("train time")), number(entry.get("tokens / sec"))
        if step is None or examples is None or took is None or rate is None:
            break
        seconds, tokens = seconds + took, tokens + took * rate
        points.append(
            CurvePoint(
                step=step,
                examples=examples,
                tokens=round(tokens),
                seconds=seconds,
                train_loss=number(entry.get("train loss")),
                metrics={
                    key.removeprefix("valid "): value
                    for key, raw in entry.items()
                    if key.startswith("valid ") and (value := number(raw)) is not None
                },
            )
        )
    return tuple(points)


def _config(settings: Mapping[str, Any], peft: Mapping[str, Any], model: str, method: str) -> dict[str, Any]:
    optimizer = mapping(settings.get("optimizer_kwargs"))
    training = {
        "steps": settings.get("max_steps"),
        "batch_size": settings.get("batch_size"),
        "learning_rate": optimizer.get("lr"),
        "weight_decay": optimizer.get("weight_decay"),
        "optimizer": settings.get("optimizer_type"),
        "schedule": settings.get("lr_scheduler"),
        "max_grad_norm": settings.get("grad_norm_clip"),
        "dtype": settings.get("dtype"),
    }
    return {
        "model": {"id": model},
        "method": {"name": method, "options": {key: value for key, value in peft.items() if value is not None}},
        "training": {key: value for key, value in training.items() if value is not None},
        "seed": settings.get("seed"),
    }


def _environment(meta: Mapping[str, Any]) -> Environment:
    packages = {
        key.removesuffix("-version"): str(value)
        for key, value in mapping(meta.get("package_info")).items()
        if key.endswith("-version") and value
    }
    accelerator = text(mapping(meta.get("system_info")).get("accelerator"))
    return Environment(
        packages=packages,
        device=f"cuda: {accelerator}" if accelerator else "",
        fingerprint=content_id(TOOL, accelerator, packages.get("torch"))[:16],
    )
