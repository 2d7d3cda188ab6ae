"""What pydantic found wrong, in plain words: what was given, what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from adaptlab.errors import near_matches

Where = tuple[str | int, ...]


class Problem(NamedTuple):
    """Something wrong with a study: the path of keys and indices to it, and a sentence."""

    where: Where
    message: str


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "model": "a name or a mapping",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}


#: More names than a person reads in a sentence.
_MOST_LISTED = 30


def problems_of(
    error: ValidationError,
    document: Any,
    allowed: Mapping[str, Iterable[str]] | None = None,
    *,
    prefix: Where = (),
    named: str = "",
) -> list[Problem]:
    """A problem per wrong value in ``document``; the branches of a union are joined into one sentence.

    Args:
        allowed: the names that may stand in a mapping, by the keys of its path (``""``: in the document itself).
        prefix: where ``document`` stands in the whole.
        named: put before keys in the sentence, e.g. ``"lora."``.
    """
    grouped: dict[Where, list[Mapping[str, Any]]] = {}
    for detail in error.errors():
        grouped.setdefault(_place(detail["loc"], document), []).append(dict(detail))
    return [
        Problem(prefix + where, _sentence(where, details, document, allowed or {}, named))
        for where, details in grouped.items()
    ]


def shown_key(where: Where) -> str:
    """The innermost key of a path: what a person looks for in the file."""
    keys = [part for part in where if isinstance(part, str)]
    return keys[-1] if keys else ""


def unknown_key(key: str, allowed: Iterable[str], named: str = "") -> str:
    """The sentence for a key that nothing reads."""
    names = sorted(allowed)
    close = near_matches(key.replace("-", "_"), names, most=1)
    if close:
        hint = f"did you mean '{close[0]}'?"
    elif not names:
        hint = f"{named.rstrip('.') or 'this'} takes none"
    elif len(names) > _MOST_LISTED:
        hint = "`adaptlab compare --help` has those that there are"
    else:
        hint = f"allowed are {', '.join(names)}"
    return f"unknown key '{named}{key}': {hint}"


def keys_of(model: type[BaseModel]) -> list[str]:
    """The names a mapping of ``model`` may have."""
    return list(model.model_fields)


def _place(loc: Sequence[str | int], document: Any) -> Where:
    """The part of ``loc`` that walks through ``document``; a missing or unknown last key still counts."""
    where: list[str | int] = []
    here = document
    for part in loc:
        if isinstance(here, Mapping) and isinstance(part, str):
            where.append(part)
            written = next((key for key in here if str(key).replace("-", "_") == part.replace("-", "_")), None)
            if written is None:
                break
            here = here[written]
        elif isinstance(here, (list, tuple)) and isinstance(part, int) and part < len(here):
            where.append(part)
            here = here[part]
    return tuple(where)


def _value_at(where: Where, document: Any) -> Any:
    here = document
    for part in where:
        if isinstance(here, Mapping):
            here = next((here[key] for key in here if str(key).replace("-", "_") == str(part).replace("-", "_")), None)
        else:
            here = here[part]
    return here


def _sentence(
    where: Where,
    details: Sequence[Mapping[str, Any]],
    document: Any,
    allowed: Mapping[str, Iterable[str]],
    named: str,
) -> str:
    first = details[0]
    key = named + shown_key(where)
    if first["type"] == "extra_forbidden":
        parent = ".".join(part for part in where[:-1] if isinstance(part, str))
        return unknown_key(shown_key(where), allowed.get(parent, ()), named)
    if first["type"] == "missing":
        return f"'{key}' is missing"
    if first["type"] in ("value_error", "assertion_error"):
        return str(first["ctx"]["error"])
    expected = list(dict.fromkeys(_expected(detail) for detail in details))
    value = _value_at(where, document)
    given = "nothing" if value is None else repr(value)
    if key:
        return f"'{key}' must be {' or '.join(expected)}, not {given}"
    return f"expected {' or '.join(expected)}, not {given}"


def _expected(detail: Mapping[str, Any]) -> str:
    kind: str = detail["type"]
    context = detail.get("ctx", {})
    if kind == "literal_error":
        return str(context["expected"])
    if kind in _BOUNDS:
        word, bound = _BOUNDS[kind]
        return f"{word} {context[bound]:g}"
    if kind == "too_short":
        return "a list with at least one value"
    return _EXPECTED.get(kind.split("_")[0], str(detail["msg"]))
