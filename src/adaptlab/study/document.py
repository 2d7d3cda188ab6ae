"""study.yaml as people write it: read safely, checked whole, every problem named with its line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from adaptlab.config import SPELLINGS, ExecutionConfig, MethodEntry, ModelConfig, Prompt, StudyConfig, TaskEntry
from adaptlab.errors import AdaptlabError, ConfigError
from adaptlab.methods import registry
from adaptlab.models.identity import locate
from adaptlab.runs import studyfile
from adaptlab.runs.files import write_atomically
from adaptlab.study.options import check_entry
from adaptlab.study.wording import Problem, Where, keys_of, problems_of
from adaptlab.tasks import find_task

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

_MOST_BYTES = 1_000_000
_MOST_VALUES = 100_000  # aliases of aliases make billions out of a few lines

_ALLOWED = {
    "": [*(key for key in keys_of(StudyConfig) if key != "execution"), *keys_of(ExecutionConfig)],
    "execution": keys_of(ExecutionConfig),
    "model": keys_of(ModelConfig),
    "task": keys_of(TaskEntry),
    "task.prompts": keys_of(Prompt),
    "methods": keys_of(MethodEntry),
}


@dataclass(frozen=True)
class Flags:
    """What the command line puts over a file. Keys are those of the configs, in snake case.

    Attributes:
        study: keys of ``StudyConfig`` and of ``ExecutionConfig``; each replaces the file's.
        task, model: keys that every entry of ``task`` or ``model`` gets.
        methods: options that every entry of a method gets, by the method's name.
        spelt: flags that are not spelt like their key, by key.
    """

    study: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    spelt: Mapping[str, str] = field(default_factory=dict)


def read_study(path: Path | str | None, flags: Flags | None = None) -> StudyConfig:
    """The study of a YAML file with ``flags`` put over it.

    The keys of ``execution`` may stand beside the others. ``~`` in a path is the home folder.

    Args:
        path: ``None`` for a study that is made of flags alone.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong: every problem, a sentence each, as
            ``study.yaml:12: unknown key 'sedes': did you mean 'seeds'?``.
    """
    flags = flags or Flags()
    document, lines = ({}, {}) if path is None else _load(Path(path))
    spelt: dict[Where, str] = {(key,): flags.spelt.get(key, _flag(key)) for key in flags.study}
    places = _Places("" if path is None else str(path), lines, spelt, flags.spelt.get("methods", "--methods"))
    _drop_rival_length(document, flags.study)
    document = _with_execution({**document, **flags.study}, flags.study)
    problems = _add_to_entries(document, flags, places)
    study, found = check_study(document)
    problems += found
    if problems or study is None:
        raise ConfigError(sentence for _, sentence in sorted(map(places.located, problems), key=itemgetter(0)))
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
        problems = [_misplaced_method(problem, document) for problem in problems_of(error, document, _ALLOWED)]
    for index, entry in _entries(MethodEntry, "name", document.get("methods")):
        problems += check_entry(entry, index)
    for index, task in _entries(TaskEntry, "name", document.get("task")):
        problems += _refusal(find_task, task.name, ("task", index, "name"))
        for place, other in enumerate(task.also_evaluate):
            problems += _refusal(find_task, other, ("task", index, "also_evaluate", place))
    for index, model in _entries(ModelConfig, "id", document.get("model")):
        problems += _refusal(lambda name: locate(ModelConfig(id=name)), model.id, ("model", index, "id"))
    return study if not problems else None, problems


def _misplaced_method(problem: Problem, document: Mapping[str, Any]) -> Problem:
    """``problem`` in better words, where a method's name stands as a key instead of as the name of an entry."""
    known = {*registry.names(), *SPELLINGS}
    match problem.where:
        case (str(key),) if key in known:
            told = f"unknown key '{key}': it is a method, so write it under 'methods', as '- name: {key}'"
            return Problem(problem.where, told)
        case ("methods", int(index), "name") if problem.message == "'name' is missing":
            entry = _as_entries(document.get("methods"), "name")[index]
            if named := [key for key in entry if key in known]:
                told = f"'name' is missing: write '- name: {named[0]}' and its options below it, beside the name"
                return Problem(problem.where, told)
    return problem


def _entries(kind: type[Any], name: str, value: Any) -> list[tuple[int, Any]]:
    """The entries of ``methods``, ``task`` or ``model`` that can be read, with their index, however bad the others."""
    found = []
    for index, item in enumerate(_as_entries(value, name)):
        try:
            found.append((index, kind.model_validate(item)))
        except ValidationError:
            continue  # StudyConfig's own validation names it
    return found


def _refusal(find: Callable[[str], object], wanted: str, where: Where) -> list[Problem]:
    try:
        find(wanted)
    except AdaptlabError as error:
        return [Problem(where, str(error))]
    except (OSError, ValueError, RuntimeError) as error:  # too long for a path, a null byte, ~nobody, ...
        return [
            Problem(where, f"'{_shortened(wanted)}' cannot be a name or a path ({getattr(error, 'strerror', error)})")
        ]
    return []


def _load(path: Path) -> tuple[dict[str, Any], dict[Where, int]]:
    """The file's mapping, and the line (from 1) of every key and item in it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    text = _read_text(path)
    lines: dict[Where, int] = {}
    try:
        with warnings.catch_warnings(action="ignore"):  # an anchor's name may be used again
            node = YAML(typ="safe", pure=True).compose(text)
            if node is not None:
                _collect_lines(node, (), lines, str(path))
            document = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {_first_line(error.problem)}.") from error
    except (YAMLError, ValueError, TypeError, RecursionError) as error:  # a list within a key is a TypeError
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


@dataclass
class _Places:
    """Where a person finds what a problem is about: a flag, or a line of the file."""

    path: str
    lines: Mapping[Where, int]
    flags: dict[Where, str]
    methods_flag: str = "--methods"

    def located(self, problem: Problem) -> tuple[int, str]:
        """The line (0: none) and the whole sentence."""
        where, message = problem
        if where and where[0] == "execution" and where not in self.lines:
            where = where[1:]  # written beside the others
        flag = next((self.flags[where[:n]] for n in range(len(where), 0, -1) if where[:n] in self.flags), None)
        if flag is not None:
            quoted = f"'{next(part for part in reversed(where) if isinstance(part, str))}'"
            return 0, flag + (message.removeprefix(quoted) if message.startswith(quoted) else f": {message}")
        # A single entry may stand without its list, and a missing key has only its parent's line.
        while where and where not in self.lines:
            without_index = tuple(part for part in where if not isinstance(part, int))
            where = without_index if without_index in self.lines else where[:-1]
        if where:
            return self.lines[where], f"{self.path}:{self.lines[where]}: {message}"
        if not self.path and message == "'task' is missing":
            return 0, "No task was given: say it with --task, or name a study file."
        if not self.path and message == "'methods' is missing":
            return 0, f"No method was given: say it with {self.methods_flag}, or name a study file."
        return 0, f"{self.path}: {message}" if self.path else message


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _add_to_entries(document: dict[str, Any], flags: Flags, places: _Places) -> list[Problem]:
    """Put the flags about single tasks, models and methods into the entries that they are about."""
    for key, name, added in (("task", "name", flags.task), ("model", "id", flags.model)):
        if not added:
            continue
        default = [entry.model_dump() for entry in StudyConfig.model_fields[key].default] if key == "model" else []
        entries = _as_entries(document.get(key, default), name)
        document[key] = [{**_normal(entry), **added} if isinstance(entry, dict) else entry for entry in entries]
        places.flags |= {(key, index, part): _flag(part) for index in range(len(entries)) for part in added}
    problems = []
    entries = _as_entries(document.get("methods"), "name")
    for method, options in flags.methods.items():
        mine = [n for n, entry in enumerate(entries) if isinstance(entry, dict) and entry.get("name") == method]
        if not mine:
            names = ", ".join(str(entry.get("name")) for entry in entries if isinstance(entry, dict)) or "none"
            places.flags["--set", method] = f"--set {method}.{next(iter(options))}"
            problems.append(Problem(("--set", method), f"the study's methods are {names}"))
        for index in mine:
            entries[index] = {**_normal(entries[index]), **options}
            places.flags |= {("methods", index, option): "--set" for option in options}
    if flags.methods:
        document["methods"] = entries
    return problems


def _as_entries(value: Any, name: str) -> list[Any]:
    """A list of mappings, where it can be made one."""
    items = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return [{name: item} if isinstance(item, str) else item for item in items]


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


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."


def _first_line(text: str | None) -> str:
    return (text or "unreadable").strip().splitlines()[0].rstrip(".")
