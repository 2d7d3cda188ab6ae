"""study.yaml as people write it: read safely, checked whole, every problem named with its line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from adaptlab.config import ExecutionConfig, MethodEntry, ModelConfig, StudyConfig, TaskEntry
from adaptlab.errors import AdaptlabError, ConfigError
from adaptlab.models.identity import locate
from adaptlab.runs import studyfile
from adaptlab.runs.files import write_atomically
from adaptlab.study.options import check_entry
from adaptlab.study.wording import Problem, Where, keys_of, problems_of
from adaptlab.tasks import find_task

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

T = TypeVar("T")

_MOST_BYTES = 1_000_000
_MOST_VALUES = 100_000  # aliases of aliases make billions out of a few lines

_ALLOWED = {
    "": [*(key for key in keys_of(StudyConfig) if key != "execution"), *keys_of(ExecutionConfig)],
    "execution": keys_of(ExecutionConfig),
    "model": keys_of(ModelConfig),
    "task": keys_of(TaskEntry),
    "methods": keys_of(MethodEntry),
}


def read_study(path: Path | str | None, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """The study of a YAML file, with ``overrides`` (flags, under the names of ``StudyConfig``) put over it.

    The keys of ``execution`` may stand beside the others. ``~`` in a path is the home folder.

    Args:
        path: ``None`` for a study that is made of ``overrides`` alone.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong: every problem, a sentence each, as
            ``study.yaml:12: unknown key 'sedes': did you mean 'seeds'?``.
    """
    document, lines = ({}, {}) if path is None else _load(Path(path))
    given = _normal(overrides or {})
    _drop_rival_length(document, given)
    merged = _with_execution({**document, **given}, given)
    study, problems = check_study(merged)
    if problems:
        name = "" if path is None else str(path)
        raise ConfigError(sentence for _, sentence in sorted(_located(one, name, lines, given) for one in problems))
    assert study is not None
    return study


def write_study(path: Path | str, study: StudyConfig) -> None:
    """Write ``study``, complete, to a file that :func:`read_study` reads."""
    write_atomically(Path(path), studyfile.dump(study).encode())


def check_study(document: Mapping[str, Any]) -> tuple[StudyConfig | None, list[Problem]]:
    """The study that ``document`` describes, or every problem with it. Loads no model, no data and no torch."""
    document = _expanded_paths(document)
    study, problems = None, []
    try:
        study = StudyConfig.model_validate(document)
    except ValidationError as error:
        problems = problems_of(error, document, _ALLOWED)
    for index, entry in _entries(MethodEntry, "name", document.get("methods")):
        problems += check_entry(entry, index)
    for index, task in _entries(TaskEntry, "name", document.get("task")):
        problems += _refusal(find_task, task.name, ("task", index, "name"))
    for index, model in _entries(ModelConfig, "id", document.get("model")):
        problems += _refusal(locate, model, ("model", index, "id"))
    return study if not problems else None, problems


def _entries(kind: type[Any], name: str, value: Any) -> list[tuple[int, Any]]:
    """The entries of ``methods``, ``task`` or ``model`` that can be read, with their index, however bad the others."""
    found = []
    for index, item in enumerate(value if isinstance(value, (list, tuple)) else [] if value is None else [value]):
        try:
            found.append((index, kind.model_validate({name: item} if isinstance(item, str) else item)))
        except ValidationError:
            continue  # StudyConfig's own validation names it
    return found


def _refusal(find: Callable[[T], object], wanted: T, where: Where) -> list[Problem]:
    try:
        find(wanted)
    except AdaptlabError as error:
        return [Problem(where, str(error))]
    return []


def _load(path: Path) -> tuple[dict[str, Any], dict[Where, int]]:
    """The file's mapping, and the line (from 1) of every key and item in it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    text = _read_text(path)
    try:
        yaml = YAML(typ="safe", pure=True)
        node = yaml.compose(text)
        lines: dict[Where, int] = {}
        if node is not None:
            _collect_lines(node, (), lines, str(path))
        document = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {_first_line(error.problem)}.") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {_first_line(str(error))}.") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a study is a mapping of keys such as model, task and methods.")
    return _normal(document), lines


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {path}: give the path of a study in YAML.") from error
    except OSError as error:
        raise ConfigError(f"Cannot read {path} ({error.strerror}).") from error
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{path} has {len(content):,} bytes: a study is a short file; is it the right one?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8: save the file in UTF-8.") from error


def _collect_lines(node: Node, where: Where, lines: dict[Where, int], path: str) -> None:
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    if len(lines) >= _MOST_VALUES or len(where) > 20:
        raise ConfigError(f"{path}: too many values, or values nested too deep, for a study.")
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, MappingNode):
        for key, value in node.value:
            place = (*where, str(key.value).replace("-", "_"))
            lines[place] = key.start_mark.line + 1
            _collect_lines(value, place, lines, path)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _collect_lines(item, (*where, index), lines, path)


def _located(problem: Problem, path: str, lines: Mapping[Where, int], given: Mapping[str, Any]) -> tuple[int, str]:
    """The line, and the sentence behind the place where a person finds its cause: a flag, or a line of the file."""
    where = problem.where
    if where and where[0] == "execution" and where not in lines:
        where = where[1:]  # written beside the others
    if where and where[0] in given:
        return 0, f"--{str(where[0]).replace('_', '-')}: {problem.message}"
    if not path:
        return 0, problem.message
    # A single entry may stand without its list, and a missing key has only its parent's line.
    while where and where not in lines:
        without_index = tuple(part for part in where if not isinstance(part, int))
        where = without_index if without_index in lines else where[:-1]
    return (lines[where], f"{path}:{lines[where]}: {problem.message}") if where else (0, f"{path}: {problem.message}")


def _normal(document: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key).replace("-", "_"): value for key, value in document.items()}


def _with_execution(document: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of ``execution`` that stand beside the others, moved into it; flags win."""
    beside = {key: document.pop(key) for key in keys_of(ExecutionConfig) if key in document}
    execution = document.get("execution", {})
    if beside and isinstance(execution, dict):
        flags = {key: value for key, value in beside.items() if key in given}
        document["execution"] = {**beside, **_normal(execution), **flags}
    return document


def _drop_rival_length(document: dict[str, Any], given: Mapping[str, Any]) -> None:
    """A flag for one of epochs and steps replaces whichever of the two the file has."""
    if "epochs" in given or "steps" in given:
        document.pop("epochs", None)
        document.pop("steps", None)


def _expanded_paths(document: Mapping[str, Any]) -> dict[str, Any]:
    """``~`` becomes the home folder wherever a path can stand."""

    def expanded(value: Any, key: str) -> Any:
        if isinstance(value, str) and value.startswith("~"):
            return os.path.expanduser(value)
        if isinstance(value, (list, tuple)):
            return [expanded(item, key) for item in value]
        if isinstance(value, dict) and isinstance(value.get(key), str):
            return {**value, key: os.path.expanduser(value[key])}
        return value

    changed = dict(document)
    for name, key in (("model", "id"), ("task", "name"), ("execution", "data_root")):
        if name in changed:
            changed[name] = expanded(changed[name], key)
    return changed


def _first_line(text: str | None) -> str:
    return (text or "unreadable").strip().splitlines()[0].rstrip(".")
