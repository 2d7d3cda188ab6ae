"""``--where method=lora,task=sst2``: the runs of a selection that fit.

A condition is ``key=value`` or ``key!=value``; all of several must hold. A value without a key is another value of the
key before it (``method=lora,full,task=sst2``), and ``*`` stands for any text. Keys are ``task``, ``model``, ``method``
(the label in tables, or the method's own name), ``seed``, ``status``, ``study``, ``device``, ``engine``, and every
configured value by its path in record.json or the path's end (``training.learning_rate`` or ``learning_rate``).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from adaptlab.errors import ConfigError
from adaptlab.report.select import RunRow, Selection

_CONDITION = re.compile(r"\s*(?P<key>[\w.-]+)\s*(?P<sign>!?=)\s*(?P<value>.*?)\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """``key`` is (or, ``negated``, is not) one of ``values``."""

    key: str
    values: tuple[str, ...]
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.key}{'!=' if self.negated else '='}{','.join(self.values)}"

    def holds(self, facts: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether it holds for a run; a run that does not have the key is none of the values."""
        found = any(_fits(fact, value) for fact in facts.get(self.key, ()) for value in self.values)
        return found != self.negated


def parse(texts: Iterable[str]) -> tuple[Condition, ...]:
    """The conditions of ``--where``, given once or several times.

    Raises:
        ConfigError: a text is no condition; every one is named.
    """
    found: list[Condition] = []
    problems = []
    for text in texts:
        started = len(found)
        for part in text.split(","):
            match = _CONDITION.fullmatch(part)
            if match is not None and match["value"]:
                found.append(Condition(match["key"].replace("-", "_"), (match["value"],), match["sign"] == "!="))
            elif match is None and part.strip() and len(found) > started:
                found[-1] = replace(found[-1], values=(*found[-1].values, part.strip()))
            else:
                problems.append(
                    f"--where {text}: '{part}' is no condition; give key=value, as in method=lora,task=sst2."
                )
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def select(selection: Selection, conditions: Sequence[Condition]) -> Selection:
    """The runs of ``selection`` that meet every condition; without conditions ``selection`` itself.

    Raises:
        ConfigError: no run has a key, or no run is left.
    """
    if not conditions:
        return selection
    facts = [_facts(row) for row in selection.rows]
    known = sorted({key for of_row in facts for key in of_row})
    problems = [_unknown(condition.key, known) for condition in conditions if condition.key not in known]
    if problems and known:
        raise ConfigError(problems)
    rows = tuple(
        row for row, of_row in zip(selection.rows, facts, strict=True) if all(c.holds(of_row) for c in conditions)
    )
    said = ",".join(map(str, conditions))
    if selection.rows and not rows:
        values = "; ".join(_values(condition.key, facts) for condition in conditions)
        raise ConfigError(f"No run fits --where {said}: {values}.")
    return replace(selection, rows=rows, where=said, left_aside=len(selection.rows) - len(rows))


def _facts(row: RunRow) -> dict[str, tuple[str, ...]]:
    """What conditions may ask of a run; the short name of a path is there where no other path ends like it."""
    facts: dict[str, tuple[str, ...]] = {}
    paths = dict(_paths(row.resolved or row.given))
    ends = [path.rpartition(".")[2] for path in paths]
    for path, value in paths.items():
        facts[path] = (value,)
        if ends.count(path.rpartition(".")[2]) == 1:
            facts[path.rpartition(".")[2]] = (value,)
    return facts | {
        "task": (row.task,),
        "model": (row.model,),
        "method": (row.method, row.method_name),
        "seed": (str(row.seed),),
        "data_seed": (str(row.data_seed),),
        "status": (row.status,),
        "study": (row.study,),
        "device": (row.environment.device,),
        "engine": (row.engine,),
    }


def _paths(nested: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")
        elif isinstance(value, (str, int, float)):
            yield f"{prefix}{key}", str(value).lower() if isinstance(value, bool) else str(value)


def _fits(fact: str, value: str) -> bool:
    if fnmatchcase(fact, value.replace("[", "[[]")):
        return True
    try:
        return math.isclose(float(fact), float(value), rel_tol=1e-9)
    except ValueError:
        return False


def _unknown(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3)
    usual = "task, model, method, seed, status, study, or a configured value such as learning_rate"
    return f"--where: no run has '{key}'; give {' or '.join(near) if near else usual}."


def _values(key: str, facts: Sequence[Mapping[str, tuple[str, ...]]]) -> str:
    found = sorted({of_row[key][0] for of_row in facts if key in of_row})
    more = f" and {len(found) - 12} more" if len(found) > 12 else ""
    return f"{key} is {', '.join(found[:12])}{more}"
