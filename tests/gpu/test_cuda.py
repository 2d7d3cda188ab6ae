"""Training on a CUDA device: every dtype learns, float16 with loss scaling, and bfloat16 repeats itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import adaptlab
from tests.integration.conftest import write_table

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_dtype_learns(tmp_path: Path, tiny_model_folder: Callable[[str], Path], method: str, dtype: str) -> None:
    study = adaptlab.study_of(
        model=str(tiny_model_folder("bert")),
        task=str(write_table(tmp_path / "weather.csv")),
        methods=[method],
        seeds=1,
        steps=60,
        batch_size=16,
        learning_rate=3e-3,
        dtype=dtype,
        execution={"device": "cuda", "keep_weights": "all"},
    )
    record = adaptlab.train(study, out=tmp_path / "study")
    assert record.status == "finished", record.error
    assert record.environment.device.startswith("cuda")
    assert record.primary is not None
    assert record.primary.value > 0.7
    predictor = adaptlab.load(tmp_path / "study" / "runs" / record.name, device="cuda")
    assert predictor.predict(["snow and ice in winter"])[0].label == "cold"
