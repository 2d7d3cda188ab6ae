"""The project's own source as data: files, modules, imports and functions, read with ``ast`` and never executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "src"
PACKAGE = "adaptlab"

When = Literal["module", "function", "typing"]


@dataclass(frozen=True)
class Import:
    """``importer`` imports ``target`` while it is imported itself, later inside a function, or for types alone."""

    importer: str
    target: str
    line: int
    when: When

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def python_files(*folders: str) -> list[Path]:
    """Every Python file below these folders of the repository."""
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def modules(source: Path = SOURCE) -> dict[str, Path]:
    """``{"adaptlab.runs.record": path}``; a package is named without ``__init__``."""
    found = {}
    for path in sorted((source / PACKAGE).rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, known: dict[str, Path]) -> list[Import]:
    """Every import statement of ``module``; ``from package import submodule`` names the submodule."""
    found = []
    for node, when in _statements(known[module]):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, known)
            targets = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        else:
            continue
        found += [Import(module, target, node.lineno, when) for target in dict.fromkeys(targets)]
    return found


def runtime_closure(module: str, known: dict[str, Path]) -> dict[str, list[str]]:
    """Everything that importing ``module`` imports, each with the chain of the project's modules that leads to it."""
    chains: dict[str, list[str]] = {module: [module]}
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in known:
            continue
        direct = [found.target for found in imports_of(current, known) if found.when == "module"]
        for target in [*direct, *_parents(current)]:
            if target not in chains:
                chains[target] = [*chains[current], target]
                waiting.append(target)
    return chains


def functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, first line (decorators included) and number of lines of every function and method, nested ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            assert node.end_lineno is not None
            yield node.name, first, node.end_lineno - first + 1


@cache
def _statements(path: Path) -> list[tuple[ast.AST, When]]:
    return list(_walk(ast.parse(path.read_text(encoding="utf-8")), "module"))


def _walk(node: ast.AST, when: When) -> Iterator[tuple[ast.AST, When]]:
    for child in ast.iter_child_nodes(node):
        yield child, when
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _walk(child, "typing" if when == "typing" else "function")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield statement, "typing"
                yield from _walk(statement, "typing")
            for statement in child.orelse:
                yield statement, when
                yield from _walk(statement, when)
        else:
            yield from _walk(child, when)


def _absolute(node: ast.ImportFrom, module: str, known: dict[str, Path]) -> str:
    if node.level == 0:
        return node.module or ""
    package = module.split(".") if known[module].name == "__init__.py" else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]
