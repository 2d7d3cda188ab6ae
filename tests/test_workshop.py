"""What a process keeps from run to run, and what it lets go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adaptlab import api
from adaptlab.config import RunConfig, StudyConfig
from adaptlab.measure.memory import give_back
from adaptlab.resolve import ResolvedRun, Resolver
from adaptlab.study.expand import expand
from adaptlab.workshop import Workshop, set_up
from benchmarks.soak import resident_bytes
from tests.integration.conftest import write_table

Build = Callable[..., StudyConfig]


@pytest.fixture
def study(tmp_path: Path, tiny_model_folder: Callable[[str], Path]) -> Build:
    def build(methods: list[str], dtype: str, tables: int = 1) -> StudyConfig:
        paths = [str(write_table(tmp_path / f"weather{number}.csv", seed=number)) for number in range(tables)]
        model = str(tiny_model_folder("bert"))
        return StudyConfig(model=model, task=paths, methods=methods, seeds=1, steps=2, dtype=dtype)

    return build


def test_casts_of_a_run_go_with_it_and_those_of_the_base_stay(study: Build) -> None:
    config = study(["vera"], "bfloat16")
    workshop, resolver = Workshop(config.execution, lambda _: None), Resolver(config.execution)
    (run,) = map(resolver.resolve, expand(config))
    base = workshop.base(run)
    kept = []
    for _ in range(3):
        set_up(run, base, workshop)
        assert len(workshop.casts) > len(kept) or not kept
        workshop.let_go()
        kept.append(len(workshop.casts))
    assert kept[0] == kept[1] == kept[2] > 0


def test_tokenised_rows_and_stores_go_with_their_data(study: Build) -> None:
    config = study(["head"], "float32", tables=2)
    workshop, resolver = Workshop(config.execution, lambda _: None), Resolver(config.execution)
    first, second = map(resolver.resolve, expand(config))
    base = workshop.base(first)
    stage = set_up(first, base, workshop)
    store = workshop.store("blocks")
    assert workshop.rows(first, stage.readout, "train", training=True) is stage.member.data
    assert workshop.base(first) is base
    assert workshop.store("blocks") is store
    assert workshop.base(second) is base
    assert workshop.store("blocks") is not store
    assert workshop.rows(first, stage.readout, "train", training=True) is not stage.member.data


def test_freed_memory_goes_back_to_the_system() -> None:
    give_back()
    before = resident_bytes()
    pieces = [torch.ones(20_000) for _ in range(2_000)]  # small enough for the heap
    last = torch.ones(20_000)  # holds the heap's end
    del pieces
    give_back()
    assert resident_bytes() - before < 80_000_000
    assert last.sum() == 20_000


def test_a_study_resolves_each_of_its_runs_once(
    tiny_model_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = api.study_of(
        model=str(tiny_model_folder("bert")), task="stdlib-docs", methods=["head", "lora"], seeds=2, steps=1,
        train_examples=16, select_examples=8, eval_examples=8, max_length=16, batch_size=8,
    )  # fmt: skip
    decided: list[str] = []
    real = Resolver._decided

    def counted(self: Resolver, run: RunConfig) -> ResolvedRun:
        decided.append(run.model_dump_json())
        return real(self, run)

    monkeypatch.setattr(Resolver, "_decided", counted)
    result = api.compare(config, out=tmp_path / "study")
    assert len(result.records) == len(decided) == len(set(decided)) == 4


def test_runs_that_train_nothing_read_one_training_row(
    tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    config = StudyConfig(
        model=str(tiny_model_folder("opt")),
        task={"name": str(write_table(tmp_path / "weather.csv", seed=0)), "prompt": "plain"},
        readout="verbalizer",
        methods=["none", "lora"],
        seeds=1,
        steps=2,
    )
    workshop, resolver = Workshop(config.execution, lambda _: None), Resolver(config.execution)
    runs = [resolver.resolve(run) for run in expand(config)]
    read = [len(set_up(run, workshop.base(run), workshop).member.data) for run in runs]
    assert read == [1, len(runs[1].data.train)]
    assert read[1] > 1
    untrained, trained = api.compare(config, out=tmp_path / "study").records
    assert "train" not in untrained.data.truncated
    assert trained.data.truncated["train"] == 0
