"""What was trained on a quantised base leaves it unchanged in what it answers, as an adapter and merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

import adaptlab
from adaptlab.errors import ConfigError
from tests.integration.conftest import write_table

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, blocks_of_64: Callable[[str], Path]) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    write_table(folder / "weather.csv")
    study = adaptlab.study_of(
        model=str(blocks_of_64("bert")),
        task=str(folder / "weather.csv"),
        methods=[{"name": "lora", "quantize": ["4bit", "8bit"]}, {"name": "layer-norm", "quantize": ["4bit"]}],
        seeds=1,
        steps=8,
        batch_size=8,
        learning_rate=1e-2,
        dtype="float32",
        execution={"device": "cpu", "threads": 1, "keep_weights": "all"},
    )
    assert not adaptlab.compare(study, out=folder / "study").failed
    return folder


def run_of(folder: Path, label: str) -> Path:
    (found,) = (folder / "study" / "runs").glob(f"weather-{label}-*")
    return found


#: The largest logit difference. A plain process on a processor with AVX-512 computes 4-bit products in bfloat16.
CLOSE = 0.1


@pytest.mark.parametrize("how", ["4bit", pytest.param("8bit", marks=pytest.mark.slow)])
def test_an_adapter_is_checked_on_the_base_in_as_many_bits(folder: Path, tmp_path: Path, how: str) -> None:
    done = adaptlab.export(run_of(folder, f"lora-{how}"), tmp_path / "out", device="cpu")
    check = done.document["check"]
    assert check["imports"] == ["transformers", "peft"]
    assert check["largest_logit_difference"] < CLOSE
    assert done.document["base"]["quantize"] == how
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"bits = BitsAndBytesConfig(load_in_{how}=True" in card
    assert "quantization_config=bits" in card
    assert f"in {how} while it was trained" in card
    recorded = json.loads((run_of(folder, f"lora-{how}") / "record.json").read_text())
    model, task = recorded["config"]["given"]["model"]["id"], str(folder / "weather.csv")
    scored = adaptlab.evaluate_adapter(tmp_path / "out", model, task, device="cpu")
    for name, metrics in scored.metrics.items():
        assert metrics == pytest.approx(recorded["metrics"][name], abs=1e-5)


@pytest.mark.parametrize(
    "label", ["lora-4bit", *(pytest.param(label, marks=pytest.mark.slow) for label in ("lora-8bit", "layer-norm"))]
)
def test_a_merge_is_plain_and_answers_as_the_quantised_run_does(folder: Path, tmp_path: Path, label: str) -> None:
    done = adaptlab.export(run_of(folder, label), tmp_path / "out", merge=True, device="cpu")
    assert done.document["check"]["imports"] == ["transformers"]
    # 8-bit products round what comes in too, which the merged model does not.
    assert done.document["merge_difference"] < (CLOSE if "8bit" in label else 1e-4)
    assert done.document["check"]["largest_logit_difference"] < CLOSE
    assert any("the numbers that its codes stand for" in note for note in done.notes)
    names = load_file(tmp_path / "out" / "model.safetensors")
    assert not [name for name in names if "absmax" in name or "SCB" in name or "lora" in name]
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_a_run_is_predicted_with_in_its_own_bits(folder: Path) -> None:
    predictor = adaptlab.load(run_of(folder, "lora-4bit"), device="cpu")
    answers = predictor.predict(["snow and ice", "the sun in summer"])
    assert {answer.label for answer in answers} <= {"cold", "warm"}


def test_what_trains_the_base_is_refused_before_a_folder_is_made(
    folder: Path, tmp_path: Path, blocks_of_64: Callable[[str], Path]
) -> None:
    study = adaptlab.study_of(
        model=str(blocks_of_64("bert")),
        task=str(folder / "weather.csv"),
        methods=["full", "qlora", "top-layers"],
        quantize="8bit",
    )
    with pytest.raises(ConfigError) as caught:
        adaptlab.compare(study, out=tmp_path / "study")
    assert [problem.split()[2] for problem in caught.value.problems] == ["full", "top-layers"]
    assert not (tmp_path / "study").exists()
