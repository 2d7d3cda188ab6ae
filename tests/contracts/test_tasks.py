"""What every task promises, whatever file it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path

import pytest

from adaptlab.config import TaskConfig
from adaptlab.errors import DataError, HubError
from adaptlab.metrics import registry as metrics
from adaptlab.tasks import DataAccess, Task, TaskData, _hub, registry
from adaptlab.tasks._base import Example
from adaptlab.tasks._hub import HubTask
from adaptlab.tasks._prompts import render
from adaptlab.tasks._sources import Address, Found, find_rows

TASKS = registry.all()
Load = Callable[..., TaskData]


def named(task: Task) -> str:
    return task.name


@pytest.fixture(autouse=True, scope="module")
def _read_once() -> Iterator[None]:
    """The files of the task at hand are parsed once; what is made of them is made each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_hub, "find_rows", _found)
        yield


@lru_cache(maxsize=1)
def _read(address: Address, needed: tuple[str, ...], wanted: tuple[str, ...], root: str | None) -> Found:
    return find_rows(address, needed, wanted, DataAccess(data_root=root))


def _found(address: Address, needed: Sequence[str], wanted: Sequence[str], access: DataAccess) -> Found:
    return _read(address, tuple(needed), tuple(wanted), access.data_root)


@cache
def loaded(task: Task, root: str, **config: object) -> TaskData:
    return task.load(TaskConfig.model_validate({"name": task.name, **config}), DataAccess(data_root=root))


@pytest.fixture(params=TASKS, ids=named, scope="module")
def task(request: pytest.FixtureRequest) -> Task:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def load(task: Task, request: pytest.FixtureRequest) -> Load:
    """Loads the task, or skips the test where its rows are not on this machine."""
    if not task.trainable:
        pytest.skip(f"{task.name} is only for looking at: tests/tasks/test_elsewhere.py loads it")
    root: Path | None = None if task.hub_id is None else request.getfixturevalue("data_root")

    def loader(**config: object) -> TaskData:
        try:
            return loaded(task, "" if root is None else str(root), **config)
        except (DataError, HubError) as error:
            if root is not None and not _has(root, task):
                pytest.skip(f"{task.name}: its rows are not here ({error})")
            raise

    return loader


def _has(root: Path, task: Task) -> bool:
    """Whether the real data has all splits that the task needs."""
    assert isinstance(task, HubTask)
    folder = root.joinpath(*task.hub_id.split("/"), *filter(None, [task.hub_config]))
    needed = filter(None, (task.train_split, task.validation_split, task.test_split))
    return all((folder / f"{split}.parquet").is_file() for split in needed)


def sets(data: TaskData) -> dict[str, list[Example]]:
    return {"train": list(data.train), "select": list(data.select), **{k: list(v) for k, v in data.report.items()}}


def test_it_says_what_it_is(task: Task) -> None:
    assert task.name == task.name.lower()
    assert task.summary
    assert task.version >= 1


def test_its_metrics_exist_and_are_for_its_kind(task: Task) -> None:
    assert task.metrics
    for name in task.metrics:
        assert task.kind in metrics.get(name).kinds


def test_its_rows_are_of_its_kind(task: Task, load: Load) -> None:
    data = load()
    assert data.kind == task.kind
    assert data.metrics == task.metrics
    widths = set()
    for rows in sets(data).values():
        assert rows
        for row in rows:
            widths.add(len(row.texts))
            assert all(isinstance(text, str) for text in row.texts)
            if task.kind == "classification":
                assert type(row.label) is int
                assert 0 <= row.label < len(data.labels)
            elif task.kind == "regression":
                assert type(row.label) is float
            elif task.kind == "multiple-choice":
                assert type(row.label) is int
                assert 0 <= row.label < len(row.choices)
            else:
                assert row.label
                assert row.label in (row.references or (row.label,))
    assert widths == {len(data.columns)}
    assert bool(data.labels) is (task.kind == "classification")
    assert len(set(data.labels)) == len(data.labels)


def test_every_row_can_be_put_by_every_prompt(load: Load) -> None:
    data = load()
    assert data.prompts
    for prompt in data.prompts:
        for rows in sets(data).values():
            for row in (row for row in rows[:50] if data.kind != "classification" or prompt.answers[row.label]):
                found = render(prompt, data.columns, row)
                assert found.query == found.query.rstrip()
                assert found.target[:1].isspace()
                assert found.target.strip()
                assert not found.answers or found.target == found.answers[int(row.label)]


def test_no_row_has_two_uses(load: Load) -> None:
    ids = [row.id for rows in sets(load()).values() for row in rows]
    assert len(set(ids)) == len(ids)


def test_training_shows_every_class(task: Task, load: Load) -> None:
    data = load()
    if task.kind == "classification":
        assert {row.label for row in data.train} == set(range(len(data.labels)))


def test_it_gives_the_same_rows_again(task: Task, load: Load) -> None:
    data = load(train_examples=300, eval_examples=100)
    loaded.cache_clear()  # what is left of the other tasks goes too
    again = load(train_examples=300, eval_examples=100)
    assert again is not data
    assert again.fingerprint == data.fingerprint
    assert sets(again) == sets(data)


def test_fewer_examples_are_among_more(load: Load) -> None:
    everything, some, few = (sets(load(train_examples=n, select_examples=n, eval_examples=n)) for n in ("all", 30, 10))
    for name, rows in few.items():
        assert len(rows) == 10
        assert {row.id for row in rows} < {row.id for row in some[name]} <= {row.id for row in everything[name]}


def test_another_data_seed_draws_other_training_examples_and_the_same_questions(load: Load) -> None:
    first, second = (load(train_examples=50, eval_examples=20, data_seed=seed) for seed in (0, 1))
    assert {row.id for row in first.train} != {row.id for row in second.train}
    assert first.report == second.report
    assert first.fingerprint != second.fingerprint
