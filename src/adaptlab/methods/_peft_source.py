"""What the installed PEFT offers, read off its source: types, and the options of each, without importing it.

Importing PEFT takes seconds and loads torch; names and options are asked for by ``--help`` and ``validate`` too.
"""

from __future__ import annotations

import ast
import typing
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

#: Fields of PEFT's configurations that are none of a user's options: a run says these otherwise.
_SETTLED = frozenset(
    {"auto_mapping", "base_model_name_or_path", "inference_mode", "modules_to_save", "peft_type", "peft_version"}
    | {"progressbar", "revision", "target_modules", "task_type"}
)
_ROOTS = ("PeftConfig", "PeftConfigMixin")


@dataclass(frozen=True, slots=True)
class Option:
    """A field of a configuration: type, default (``None`` where only PEFT knows it), and PEFT's words for it."""

    annotation: Any
    default: Any
    description: str


def peft_types() -> tuple[str, ...]:
    """The members of ``peft.PeftType``."""
    enum = next(node for node in _tree(_root() / "utils" / "peft_types.py").body if _is_class(node, "PeftType"))
    assert isinstance(enum, ast.ClassDef)
    return tuple(str(ast.literal_eval(node.value)) for node in enum.body if isinstance(node, ast.Assign))


def takes_targets(peft_type: str) -> bool:
    """Whether it sits at modules that one chooses."""
    return "target_modules" in _fields(peft_type)


def options(peft_type: str) -> dict[str, Option]:
    """The fields of its configuration that are a user's options."""
    return {name: option for name, option in _fields(peft_type).items() if name not in _SETTLED}


def silent(peft_type: str) -> dict[str, Any]:
    """Settings that keep it from drawing a bar of its own."""
    return {"progressbar": False} if "progressbar" in _fields(peft_type) else {}


@cache
def _fields(peft_type: str) -> dict[str, Option]:
    folder = _root() / "tuners" / peft_type.lower()
    (name,) = {
        word.value.id
        for node in ast.walk(_tree(folder / "__init__.py"))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "register_peft_method"
        for word in node.keywords
        if word.arg == "config_cls" and isinstance(word.value, ast.Name)
    }
    return _fields_of(name, folder / "config.py")


def _fields_of(name: str, file: Path) -> dict[str, Option]:
    """The fields of a dataclass and of those that it derives from."""
    found = next((node for node in _tree(file).body if _is_class(node, name)), None)
    if found is None:
        file = _file_of(name)
        found = next(node for node in _tree(file).body if _is_class(node, name))
    assert isinstance(found, ast.ClassDef)
    fields: dict[str, Option] = {}
    for base in found.bases:
        if isinstance(base, ast.Name) and base.id not in _ROOTS:
            fields.update(_fields_of(base.id, file))
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            fields[node.target.id] = _option(node)
    return fields


def _file_of(name: str) -> Path:
    root = _root()
    files = (
        root / "config.py",
        *sorted((root / "tuners").glob("*.py")),
        *sorted((root / "tuners").glob("*/config.py")),
    )
    return next(file for file in files if any(_is_class(node, name) for node in _tree(file).body))


def _option(node: ast.AnnAssign) -> Option:
    words: dict[str, ast.expr] = {}
    if isinstance(node.value, ast.Call):
        words = {word.arg: word.value for word in node.value.keywords if word.arg}
    elif node.value is not None:
        words = {"default": node.value}
    metadata = _literal(words.get("metadata")) or {}
    description = " ".join(str(metadata.get("help", "")).split()) or "PEFT says nothing about it"
    return Option(_annotation(node.annotation), _literal(words.get("default")), description)


def _annotation(node: ast.expr) -> Any:
    """The type that an annotation means, or ``None``; anything where it is a class of PEFT's."""
    names = {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")}
    try:
        return eval(ast.unparse(node), {**names, "__builtins__": _TYPES}) | None  # names of types alone
    except (NameError, TypeError, AttributeError):
        return Any


_TYPES = {kind.__name__: kind for kind in (bool, int, float, str, list, dict, tuple, set)}


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _is_class(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _root() -> Path:
    return Path(str(distribution("peft").locate_file("peft")))
