"""A method's options as a study writes them: aliases, grids, and the check against the method's own Config."""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from adaptlab.config import MethodEntry
from adaptlab.errors import UnknownNameError
from adaptlab.methods import registry as methods
from adaptlab.methods._base import Method
from adaptlab.study.wording import Problem, keys_of, problems_of, unknown_key

_LISTS = (list, tuple, set, frozenset)


def settings(entry: MethodEntry) -> Iterator[dict[str, Any]]:
    """The options of every variant of ``entry``, under the names of the method's Config: the product of its lists."""
    method = methods.get(entry.name)
    options = {method.aliases.get(key, key): value for key, value in entry.options.items()}
    choices = {key: _choices(method, key, value) for key, value in options.items()}
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def filled(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """``options`` with every default of the method's Config."""
    return methods.get(name).Config.model_validate(options).model_dump()


def check_entry(entry: MethodEntry, index: int) -> list[Problem]:
    """What is wrong with the ``index``-th entry of a study's methods."""
    where = ("methods", index)
    try:
        method = methods.get(entry.name)
    except UnknownNameError as error:
        return [Problem((*where, "name"), str(error))]
    if method.unusable:
        return [Problem((*where, "name"), f"'{entry.name}' cannot be trained here: {method.unusable}")]
    named = f"{entry.name}."
    known = [*keys_of(method.Config), *method.aliases]
    writable = [*known, *(key for key in MethodEntry.model_fields if key != "name")]
    problems = [Problem((*where, key), unknown_key(key, writable, named)) for key in entry.options if key not in known]
    problems += [
        Problem((*where, alias), f"'{named}{alias}' is another name of '{option}': give one of the two")
        for alias, option in method.aliases.items()
        if alias in entry.options and option in entry.options
    ]
    problems += [
        Problem((*where, key), f"'{named}{key}' has no value: give at least one")
        for key, value in entry.options.items()
        if value == []
    ]
    if entry.targets is not None and not method.takes_targets:
        problems.append(Problem((*where, "targets"), f"'{entry.name}' takes no targets: leave them out"))
    return problems or _wrong_values(method, entry, where)


def _wrong_values(method: Method, entry: MethodEntry, where: tuple[str | int, ...]) -> list[Problem]:
    written = {method.aliases.get(key, key): key for key in entry.options}
    found: dict[Problem, None] = {}  # a dict for its order: one wrong value spoils many variants
    for options in settings(entry):
        try:
            method.Config.model_validate(options)
        except ValidationError as error:
            for problem in problems_of(error, options, named=f"{entry.name}."):
                option = str(problem.where[0]) if problem.where else "name"
                key = written.get(option, option)
                message = problem.message.replace(f"'{entry.name}.{option}'", f"'{entry.name}.{key}'", 1)
                found[Problem((*where, key, *problem.where[1:]), message)] = None
    return list(found)


def _choices(method: Method, key: str, value: Any) -> list[Any]:
    """The values of a grid. Where the option itself may be a list, only a list of lists is one."""
    if not isinstance(value, (list, tuple)):
        return [value]
    field = method.Config.model_fields.get(key)
    if (
        field is not None
        and _takes_a_list(field.annotation)
        and not any(isinstance(item, (list, tuple)) for item in value)
    ):
        return [value]
    return list(value)


def _takes_a_list(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(_takes_a_list(part) for part in get_args(annotation))
    if hasattr(annotation, "__metadata__"):  # Annotated
        return _takes_a_list(get_args(annotation)[0])
    return (origin or annotation) in _LISTS
