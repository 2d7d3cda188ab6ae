"""The fused engine on a CUDA device: the solo runs' numbers, and more runs than memory holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptlab
from adaptlab.runs.record import Record
from adaptlab.runs.store import RunFolder
from adaptlab.training.batches import on_device
from tests.integration.conftest import write_table

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def compare(folder: Path, model: Path, engine: str, **settings: Any) -> list[Record]:
    study = adaptlab.study_of(
        model=str(model),
        task=str(write_table(folder / "weather.csv")),
        methods=["lora", "ia3", "loha", "dora", "prompt-tuning", "p-tuning", "prefix-tuning"],
        seeds=2,
        steps=20,
        batch_size=16,
        learning_rate=1e-3,
        execution={"device": "cuda", "keep_weights": "none", "engine": engine, "measure": "run"},
        **settings,
    )
    return adaptlab.compare(study, out=folder / engine).records


@pytest.mark.parametrize("family", ["bert", "opt", "t5"])
def test_fused_runs_have_the_numbers_of_solo_runs(
    tmp_path: Path, tiny_model_folder: Callable[[str], Path], family: str
) -> None:
    model = tiny_model_folder(family)
    alone = compare(tmp_path, model, "solo", dtype="float32")
    together = compare(tmp_path, model, "fused", dtype="float32")
    assert {record.engine for record in together} == {"fused"}
    for one, other in zip(together, alone, strict=True):
        assert one.status == "finished", one.error
        assert not one.warnings or one.warnings == other.warnings
        curves = [RunFolder(tmp_path / r.engine / "runs" / r.name).read_curve() for r in (one, other)]
        for a, b in zip(*curves, strict=True):
            assert a.train_loss == pytest.approx(b.train_loss, abs=1e-3)


def test_auto_is_fused_here(tmp_path: Path, tiny_model_folder: Callable[[str], Path]) -> None:
    assert {record.engine for record in compare(tmp_path, tiny_model_folder("bert"), "auto")} == {"fused"}


def test_copies_to_the_device_come_from_pinned_memory_and_arrive_whole() -> None:
    values = np.arange(1_000_000)
    assert torch.equal(on_device(values, "cuda").cpu(), torch.from_numpy(values))
