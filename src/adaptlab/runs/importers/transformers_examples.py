"""Trees of ``eval_results.json`` and ``all_results.json``, as the example scripts of transformers write them.

The files name neither task nor seed nor method: those are read from the folders' names. A folder ``key=value`` says it
outright; ``seed_3``, ``seed3``, ``s3`` or a bare number is the seed; a known benchmark's name is the task. What is left
is the task if no task was found, and else the method; the method is an adapter's type where its configuration lies in
the folder, and full fine-tuning, which is what the scripts do, where nothing says another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
from adaptlab.runs.record import Cost, Environment, Primary

TOOL = "transformers' example scripts"
NOTE = (
    f"Results of {TOOL}: scores are on the validation rows, which may also have chosen the checkpoint; training s is "
    "the Trainer's train_runtime, evaluations during training included, on an unknown machine; parameters and memory "
    "are not in the files."
)
RESULTS = ("all_results.json", "train_results.json", "eval_results.json")
#: Of what they report, the number that tables of each task show; for other tasks the first of ``_PREFERRED``.
_PRIMARY = {"cola": "mcc", "stsb": "pearson", "mrpc": "accuracy", "qqp": "accuracy"}
_PREFERRED = ("accuracy", "f1", "exact_match", "mcc", "pearson", "rougeL", "bleu", "loss")
#: Names of the same numbers in records of adaptlab.
_SAME = {"matthews_correlation": "mcc", "spearmanr": "spearman"}
_NO_METRICS = ("runtime", "samples", "samples_per_second", "steps_per_second", "model_preparation_time")
_LOWER_IS_BETTER = ("loss", "mse", "mae", "rmse", "perplexity", "wer", "cer")
_TASKS = {
    "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "hans", "snli", "anli", "xnli", "boolq",
    "cb", "copa", "multirc", "record", "wic", "wsc", "squad", "swag", "race", "imdb", "trec", "conll2003", "ag_news",
}  # fmt: skip
_SEED = re.compile(r"(?:seed|run)[-_=]?(\d+)|s?(\d{1,6})", re.IGNORECASE)
_STARTED = ("trainer_state.json", "training_args.bin", "adapter_config.json")


def read(folder: Path, root: Path, read_json: ReadJson, found: Foreign) -> None:
    """Add the run in ``folder`` to ``found``, if it holds one."""
    present = [folder / name for name in RESULTS if (folder / name).is_file()]
    place = f"{root.resolve().name}/{folder.relative_to(root).as_posix()}".removesuffix("/.")
    if not present:
        if any((folder / name).is_file() for name in _STARTED):
            found.waiting.append(place)
        return
    results: dict[str, Any] = {}
    for file in present:
        try:
            results |= mapping(read_json(file))
        except ValueError as error:
            found.problems.append(ForeignProblem(f"{place}/{file.name}", f"it is damaged ({error})"))
    if results:
        found.runs.append(_run(results, folder, root, read_json))
        found.note(NOTE)


def _run(results: Mapping[str, Any], folder: Path, root: Path, read_json: ReadJson) -> ForeignRun:
    adapter, base = (_beside(folder / name, read_json) for name in ("adapter_config.json", "config.json"))
    names = _names(folder, root, text(adapter.get("peft_type")))
    metrics = _metrics(results)
    model = names.get("model") or text(adapter.get("base_model_name_or_path")) or text(base.get("_name_or_path"))
    primary = _primary(names["task"], metrics)
    weights = [folder / "adapter_model.safetensors"] if adapter else []
    return ForeignRun(
        name=folder.relative_to(root).as_posix().replace("/", "-") if folder != root else root.resolve().name,
        id=content_id(TOOL, folder.relative_to(root).as_posix(), root.resolve().name, dict(results)),
        tool=TOOL,
        task=names["task"],
        model=model or "an unknown model",
        method=names["method"],
        method_name=(text(adapter.get("peft_type")) or "full").lower().replace("_", "-"),
        seed=int(names.get("seed", "0")),
        primary=primary,
        metrics=metrics,
        cost=Cost(
            train_seconds=number(results.get("train_runtime")),
            eval_seconds=number(results.get("eval_runtime")),
            adapter_bytes=next((path.stat().st_size for path in weights if path.is_file()), None),
        ),
        config={
            "model": {"id": model or "an unknown model"},
            "method": {"name": names["method"]},
            "training": {"epochs": number(results.get("epoch"))} if number(results.get("epoch")) else {},
        },
        training={
            key: value for key in ("total_flos", "train_loss", "train_samples") if (value := number(results.get(key)))
        },
        environment=Environment(fingerprint=content_id(TOOL, str(root.resolve()))[:16]),
        warnings=() if primary else ("No score is in the files.",),
    )


def _beside(file: Path, read_json: ReadJson) -> Mapping[str, Any]:
    """A configuration that lies there; damaged or missing, nothing is known from it."""
    try:
        return mapping(read_json(file))
    except ValueError:
        return {}


def _names(folder: Path, root: Path, adapter: str | None) -> dict[str, str]:
    """Task, method and, where they are told, seed and model of a folder, from the names on its path."""
    names: dict[str, str] = {}
    rest = []
    for part in folder.relative_to(root).parts or (root.resolve().name,):
        key, equals, value = part.partition("=")
        seed = _SEED.fullmatch(part)
        if equals and key.lower() in ("task", "method", "model", "seed") and value:
            if key.lower() != "seed" or value.isdigit():
                names[key.lower()] = value
        elif seed is not None and "seed" not in names:
            names["seed"] = seed[1] or seed[2]
        elif "task" not in names and _task(part) is not None:
            names["task"] = _task(part) or part
        else:
            rest.append(part)
    if "task" not in names:
        names["task"] = rest.pop(0) if rest else root.resolve().name
    if "method" not in names:
        names["method"] = "-".join(rest) or (adapter or "full").lower().replace("_", "-")
    return names


def _task(part: str) -> str | None:
    """A known benchmark under the spellings that folders have."""
    name = part.lower()
    plain = name.replace("-", "").replace("_", "")
    return name if name in _TASKS else plain if plain in _TASKS else None


def _metrics(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By evaluation set; a suffix ``_mm`` is MNLI's mismatched set."""
    sets: dict[str, dict[str, float]] = {}
    for key, raw in results.items():
        value = number(raw)
        if not key.startswith("eval_") or value is None:
            continue
        name, which = key.removeprefix("eval_"), "validation"
        if name.endswith("_mm"):
            name, which = name.removesuffix("_mm"), "validation_mismatched"
        if name == "samples":
            sets.setdefault(which, {})["n"] = value
        elif name not in _NO_METRICS:
            sets.setdefault(which, {})[_SAME.get(name, name)] = value
    return sets


def _primary(task: str, metrics: Mapping[str, Mapping[str, float]]) -> Primary | None:
    scores = metrics.get("validation", {})
    wanted = [_PRIMARY.get(task, ""), *_PREFERRED, *scores]
    name = next((name for name in wanted if name in scores and name != "n"), None)
    if name is None:
        return None
    return Primary(
        name=name,
        value=scores[name],
        n=whole(scores.get("n")),
        evaluation_set="validation",
        higher_is_better=name not in _LOWER_IS_BETTER,
    )
