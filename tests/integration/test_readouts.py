"""Every readout with methods of every placement on the small trained models, alone and in a group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptlab import api
from adaptlab.runs.record import Record


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = [f"row {i} is {'fine' if i % 2 else 'poor'},{'good' if i % 2 else 'bad'}" for i in range(60)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def compare(rows: Path, model: Path, out: Path, *, engine: str = "solo", **settings: Any) -> list[Record]:
    how = {"steps": 4, "batch_size": 8, "train_examples": 24, "dtype": "float32", "seeds": [0], **settings}
    execution = {"device": "cpu", "measure": "run", "engine": engine, "keep_weights": "none"}
    study = api.study_of(task=str(rows), model={"id": str(model)}, execution=execution, **how)
    result = api.compare(study, out=out)
    assert not result.failed, [record.error for record in result.records]
    return result.records


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_group_of_language_models_trains_as_each_would_alone(
    family: str, rows: Path, tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    methods = ["lora", "ia3", "p-tuning", "prefix-tuning"]
    how: dict[str, Any] = {"readout": "verbalizer", "methods": methods, "seeds": [0, 1]}
    alone = compare(rows, tiny_model_folder(family), tmp_path / "alone", **how)
    together = compare(rows, tiny_model_folder(family), tmp_path / "together", engine="fused", **how)
    assert {record.engine for record in together} == {"fused"}
    for one, other in zip(alone, together, strict=True):
        assert one.id == other.id
        assert other.metrics["test"]["loss"] == pytest.approx(one.metrics["test"]["loss"], rel=1e-3)


@pytest.mark.parametrize("calibration", ["none", "content-free"])
@pytest.mark.parametrize("per_query", [False, True])
def test_calibration_and_demonstrations_for_each_question(
    calibration: str, per_query: bool, rows: Path, tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    (record,) = compare(
        rows,
        tiny_model_folder("llama"),
        tmp_path,
        readout="verbalizer",
        methods="none",
        shots=2,
        shots_per_query=per_query,
        calibration=calibration,
        length_normalization="tokens",
    )
    assert record.data is not None
    assert (record.data.demonstrations is None) == per_query
    assert 0 < record.metrics["test"]["loss"] < 20


@pytest.mark.slow
@pytest.mark.parametrize("readout", ["head", "verbalizer", "generate"])
@pytest.mark.parametrize("model", ["opt-mini", "stories260k", "t5-mini"])
def test_the_small_trained_models_run_every_readout(
    model: str, readout: str, rows: Path, small_models: Path, tmp_path: Path
) -> None:
    methods = ["full", "layer-norm", "lora", "ia3", "prompt-tuning", "prefix-tuning"]
    short = {"max_new_tokens": 4} if readout == "generate" else {}
    records = compare(rows, small_models / model, tmp_path, readout=readout, methods=methods, **short)
    assert len(records) == len(methods)
