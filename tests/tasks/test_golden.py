"""Three rows of every task as each of its prompts puts them, held letter by letter.

``pytest tests/tasks/test_golden.py --write-golden`` writes them anew: read the difference before you keep it, because
a changed text changes what runs mean.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from adaptlab.config import TaskConfig
from adaptlab.tasks import DataAccess, Example, Task, registry
from adaptlab.tasks._hub import HubTask
from adaptlab.tasks._prompts import fit_prompt, render
from tests.tasks.golden_rows import table_of
from tests.tasks.tables import write_parquet

FILE = Path(__file__).parent / "golden" / "rendered.json"
TASKS = [task for task in registry.all() if isinstance(task, HubTask)]


def named(task: Task) -> str:
    return task.name


def rendered(task: HubTask) -> dict[str, Any]:
    rows = task.examples("train", table_of(task.name))
    prompts = [fit_prompt(prompt, task.kind, task.text_columns, task.labels) for prompt in task.prompts]
    found = {"rows": [_told(row) for row in rows]}
    return found | {
        f"prompt {prompt.name}": [asdict(render(prompt, task.text_columns, row)) for row in rows] for prompt in prompts
    }


def document(golden: dict[str, Any]) -> str:
    """As JSON, a row a line."""
    tasks = []
    for task, parts in sorted(golden.items()):
        lists = [
            f"  {json.dumps(part)}: [\n   "
            + ",\n   ".join(json.dumps(row, ensure_ascii=False) for row in rows)
            + "\n  ]"
            for part, rows in parts.items()
        ]
        tasks.append(f" {json.dumps(task)}: {{\n" + ",\n".join(lists) + "\n }")
    return "{\n" + ",\n".join(tasks) + "\n}\n"


def _told(row: Example) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if value not in ((), "")}


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_rows_are_put_as_they_always_were(task: HubTask, request: pytest.FixtureRequest) -> None:
    golden = json.loads(FILE.read_text(encoding="utf-8"))
    found = json.loads(json.dumps(rendered(task)))
    if request.config.getoption("--write-golden"):
        golden[task.name] = found
        FILE.write_text(document(golden), encoding="utf-8")
    assert found == golden[task.name]
    assert len(found["rows"]) == 3


def test_nothing_is_golden_that_is_no_task() -> None:
    assert set(json.loads(FILE.read_text(encoding="utf-8"))) == {task.name for task in TASKS}


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_every_task_has_a_default_prompt_that_leaves_no_class_out(task: HubTask) -> None:
    default = fit_prompt(task.prompts[0], task.kind, task.text_columns, task.labels)
    assert not isinstance(default.answers, tuple) or None not in default.answers


@pytest.mark.parametrize("task", [task for task in TASKS if task.trainable], ids=named)
def test_it_loads_rows_laid_out_like_the_hub_s(task: HubTask, tmp_path: Path) -> None:
    """Also where the real rows are not on this machine: the three rows, many times over."""
    table = table_of(task.name)
    folder = tmp_path.joinpath(*task.hub_id.split("/"), *filter(None, [task.hub_config]))
    splits = [task.train_split, task.validation_split, task.test_split, *task.more_splits]
    for split in filter(None, splits):
        rows = {name: list(values) * 12 for name, values in table.columns.items()}
        for name in {*task.text_columns} & {*rows} - {task.label_column}:
            rows[name] = [f"{split} {place}: {value}" for place, value in enumerate(rows[name])]
        write_parquet(folder / f"{split}.parquet", rows, dict(table.class_names))
    data = task.load(TaskConfig(name=task.name), DataAccess(data_root=str(tmp_path)))
    assert data.columns == task.text_columns
    assert data.prompts[0].name == task.prompts[0].name
    assert data.train
    assert data.select
    assert all(data.report.values())
