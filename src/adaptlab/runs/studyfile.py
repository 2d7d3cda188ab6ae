"""study.yaml of a study's folder: a ``StudyConfig`` with nothing left to a default, and what may join it."""

from __future__ import annotations

import io
import os
from typing import Any

from pydantic import BaseModel, ValidationError

from adaptlab.config import MethodEntry, ModelConfig, StudyConfig, TaskEntry, TrainingConfig
from adaptlab.errors import StudyError
from adaptlab.runs.files import scrub_document

HEADER = "# Written by adaptlab: the study of this folder. More methods, seeds and models may join it.\n"

#: Keys that a later call may extend; every other one but ``execution`` is the study's protocol.
GROWING = ("model", "methods", "seeds")
_ALWAYS_LISTS = ("methods", "seeds")


def dump(study: StudyConfig) -> str:
    """``study`` as YAML, home folder written ``~``; :func:`parse` gives it back."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(_document(study), text)
    return HEADER + text.getvalue()


def parse(text: str) -> StudyConfig:
    """The study that :func:`dump` wrote.

    Raises:
        ValueError: it is not YAML, or not a study.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="safe", pure=True).load(text)
        return StudyConfig.model_validate(document)
    except (YAMLError, ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error


def merge(present: StudyConfig, added: StudyConfig, folder: str) -> StudyConfig:
    """``present`` with the methods, seeds and models of ``added``; execution is ``added``'s.

    Raises:
        StudyError: the two differ in task or protocol; names every key that differs.
    """
    ours, theirs = _protocol(present), _protocol(added)
    differing = [key for key in ours if ours[key] != theirs[key]]
    if differing:
        shown = "; ".join(f"{key} {_shown(ours[key])} there, {_shown(theirs[key])} here" for key in differing)
        raise StudyError(
            f"{folder} holds another study ({shown}): give another --out, or the same task and protocol "
            f"(methods, seeds and models may be added)."
        )
    grown: dict[str, Any] = {"execution": added.execution}
    for key in GROWING:
        old, new = getattr(present, key), getattr(added, key)
        grown[key] = (*old, *(item for item in new if item not in old))
    return present.model_copy(update=grown)


def _protocol(study: StudyConfig) -> dict[str, Any]:
    document = _document(study)
    keys = [key for key in StudyConfig.model_fields if key not in (*GROWING, "execution")]
    return {key: document.get(key) for key in keys}


def _document(study: StudyConfig) -> dict[str, Any]:
    """Plain values for YAML: short forms where there are any, keys that say nothing left out."""
    document: dict[str, Any] = {}
    for key, value in study.model_dump(mode="json").items():
        if key in _ENTRY_DEFAULTS:
            value = [_entry(key, entry) for entry in value]
        if isinstance(value, list) and len(value) == 1 and key not in _ALWAYS_LISTS:
            value = value[0]
        if key == "epochs" and value is None and study.steps is None and study.has_end:
            value = TrainingConfig().epochs
        if value is not None or StudyConfig.model_fields[key].default is not None:
            document[key] = value
    document["execution"] = study.execution.model_dump(mode="json", exclude_none=True)
    scrubbed: dict[str, Any] = scrub_document(document)
    return scrubbed


def _entry(key: str, entry: dict[str, Any]) -> Any:
    """An entry of ``task``, ``model`` or ``methods`` without what is at its default; its name alone if that is all."""
    name_key, defaults = _ENTRY_DEFAULTS[key]
    kept = {k: v for k, v in entry.items() if k not in defaults or v != defaults[k]}
    path = os.path.expanduser(kept[name_key])
    if key != "methods" and ("/" in path or "." in path) and os.path.exists(path):
        kept[name_key] = os.path.abspath(path)  # so that the file is valid from any folder
    return kept[name_key] if len(kept) == 1 else kept


def _defaults(entry: type[BaseModel], name_key: str) -> tuple[str, dict[str, Any]]:
    empty = entry.model_validate({name_key: ""}).model_dump(mode="json")
    return name_key, {key: value for key, value in empty.items() if key != name_key}


_ENTRY_DEFAULTS = {
    "model": _defaults(ModelConfig, "id"),
    "task": _defaults(TaskEntry, "name"),
    "methods": _defaults(MethodEntry, "name"),
}


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)
