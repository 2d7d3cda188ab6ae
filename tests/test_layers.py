"""Who may import whom (docs/architecture.md): imports point downward, and light modules stay light."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.source_tree import PACKAGE, SOURCE, Import, imports_of, modules, runtime_closure

GROUND = {"errors", "registry", "config"}
BASES = {"tasks._base", "tasks._prompts", "metrics._base", "models._base", "methods._base"}
REGISTRIES = {"tasks", "metrics", "methods"}  # the packages' own names: what looks a plugin up, never a plugin

#: What each part may import besides itself, at the top of a file, inside a function or for types. A part is the first
#: name below ``adaptlab``. "runs.record" allows that module alone, "runs.*" everything in runs.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "registry": {"errors"},
    "config": {"errors"},
    "signals": GROUND,
    "tasks": GROUND,
    "metrics": GROUND | BASES,
    "models": GROUND | BASES,
    "methods": GROUND | BASES,
    "measure": GROUND | BASES | {"runs.record"},
    "runs": GROUND,
    "training": GROUND | BASES | {"runs.record", "measure.*"},
    "evaluation": GROUND | BASES | {"runs.record", "measure.*", "training.*"},
    "readouts": GROUND | BASES | {"runs.record", "measure.*", "training.*", "evaluation.*"},
    "engines": GROUND | BASES | {"runs.record", "measure.*", "training.*"},
    "study": GROUND | BASES | REGISTRIES | {"runs.*", "models.identity"},
    "launchers": GROUND | {"runs.*", "study.*", "signals"},
    "report": GROUND | {"runs.*", "metrics", "metrics._base"},
}

#: These may use everything below themselves: a run is composed, predicted with, offered to Python, to the shell.
COMPOSERS = (
    "resolve", "workshop", "merging", "costing", "probing", "tokens_ahead", "rehearsing", "simulating", "forecast",
    "planning", "tracking", "group", "devices", "experiment", "rank", "worker", "adapter", "predictor", "submission",
    "exporting", "choosing", "equalizing", "notebook", "api", "cli", "__init__", "__main__",
)  # fmt: skip

#: Nothing here may load these, not even through another module of the project.
HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "sentence_transformers", "bitsandbytes"}
LIGHT_PARTS = {
    "errors", "registry", "config", "runs", "tasks", "metrics", "methods", "study", "launchers", "report", "cli",
    "signals", "resolve", "worker", "planning", "notebook", "api", "__init__", "__main__",
}  # fmt: skip

#: The modules that a method attaches: imported where it attaches, never by the file that names the method.
ATTACHED = {"adaptlab.methods._bottleneck", "adaptlab.methods._doll", "adaptlab.methods._virtual"}

KNOWN = modules()


def part_of(module: str) -> str:
    """``adaptlab.runs.record`` belongs to ``runs``; ``adaptlab`` itself to ``__init__``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def forbidden(found: Import) -> bool:
    """Whether the table does not allow this import."""
    importer, target = part_of(found.importer), part_of(found.target)
    if found.target.split(".")[0] != PACKAGE or importer == target:
        return False
    if importer in COMPOSERS:
        return target in COMPOSERS[COMPOSERS.index(importer) + 1 :] and target != "__init__"
    return not {f"{target}.*", found.target.removeprefix(f"{PACKAGE}.")} & MAY_IMPORT[importer]


def test_imports_point_downward() -> None:
    found = [str(found) for module in KNOWN for found in imports_of(module, KNOWN) if forbidden(found)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("tasks/glue.py", "from adaptlab.models.load import load_model"),
        ("training/loop.py", "def f():\n    from adaptlab.methods import lora"),
        ("report/page.py", "import adaptlab.experiment"),
        ("study/expand.py", "from adaptlab.methods.lora import plugin"),
        ("experiment.py", "def f():\n    from adaptlab import api"),
        ("runs/record.py", "from ..report import page"),
        (
            "config.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from adaptlab.study.expand import expand",
        ),
    ],
)
def test_a_wrong_import_is_seen(importer: str, statement: str, tmp_path: Path) -> None:
    path = tmp_path / PACKAGE / importer
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(statement)
    for target in ("methods/lora.py", "api.py"):
        (tmp_path / PACKAGE / target).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / PACKAGE / target).touch()
    known = modules(tmp_path)
    assert any(forbidden(found) for module in known for found in imports_of(module, known))


@pytest.mark.parametrize("module", sorted(m for m in KNOWN if part_of(m) in LIGHT_PARTS and m not in ATTACHED))
def test_light_modules_load_nothing_heavy(module: str) -> None:
    for target, chain in runtime_closure(module, KNOWN).items():
        assert target.split(".")[0] not in HEAVY, f"importing {module} loads {target}: {' -> '.join(chain)}"


@pytest.mark.parametrize("module", ["adaptlab.errors", "adaptlab.registry", "adaptlab.config", "adaptlab.runs.record"])
def test_the_ground_stands_on_pydantic_and_the_standard_library(module: str) -> None:
    allowed = {*sys.stdlib_module_names, "pydantic", "pydantic_core", PACKAGE}
    assert {found.target.split(".")[0] for found in imports_of(module, KNOWN)} <= allowed


def test_only_pydantic_and_the_standard_library_reach_the_record() -> None:
    for target, chain in runtime_closure("adaptlab.runs.record", KNOWN).items():
        top = target.split(".")[0]
        assert top in {*sys.stdlib_module_names, "pydantic", PACKAGE}, " -> ".join(chain)


def test_nobody_asks_a_method_or_task_for_its_name() -> None:
    """``if method.name == "adalora"`` is a hook that the method lacks."""
    found = []
    for module, path in KNOWN.items():
        if part_of(module) in ("training", "engines", "evaluation", "workshop", "experiment"):
            found += [f"{module}:{line}: {code}" for line, code in name_questions(path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_a_question_for_a_name_is_seen() -> None:
    assert name_questions('if run.method.name == "adalora":\n    pass')
    assert name_questions('x = config.task.name in ("cola", "sst2")')
    assert not name_questions('if run.readout == "head" and method.placement == "base":\n    pass')


def name_questions(source: str) -> list[tuple[int, str]]:
    """Comparisons of a method's, a task's or a plugin's ``name`` with string constants."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            leaves = [leaf for side in sides for leaf in ast.walk(side)]
            asks = any(re.search(r"\b(method|task|plugin)\.name$", ast.unparse(side)) for side in sides)
            fixed = any(isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) for leaf in leaves)
            if asks and fixed:
                found.append((node.lineno, ast.unparse(node)))
    return found


def test_every_module_belongs_to_a_part_the_table_knows() -> None:
    assert {part_of(module) for module in KNOWN} <= {*COMPOSERS, *MAY_IMPORT}
    assert SOURCE.is_dir()
    assert len(KNOWN) > 20
