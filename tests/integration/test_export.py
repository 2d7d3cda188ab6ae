"""An export keeps its promises: others load it, and it answers as the run does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import adaptlab
from adaptlab.config import TaskConfig
from adaptlab.errors import ConfigError, HubError, ModelError
from adaptlab.exporting import forms
from adaptlab.study.document import read_study
from adaptlab.study.expand import expand
from tests.hub_server import HubServer
from tests.integration.conftest import write_table

METHODS = ["lora", "bitfit", "full", "parallel-adapter"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Callable[[str], Path]) -> Path:
    """A folder with a table, a tiny base whose checkpoint is in bfloat16, and a study of both."""
    folder = tmp_path_factory.mktemp("export")
    write_table(folder / "weather.csv")
    base = folder / "base"
    base.mkdir()
    for path in tiny_model_folder("bert").iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    weights = {name: tensor.bfloat16() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    (base / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Base\n")
    study = adaptlab.study_of(
        model=str(base),
        task=str(folder / "weather.csv"),
        methods=METHODS,
        seeds=1,
        steps=8,
        batch_size=8,
        learning_rate=1e-2,
        dtype="float32",
        execution={"device": "cpu", "threads": 1, "keep_weights": "all"},
    )
    result = adaptlab.compare(study, out=folder / "study")
    assert not result.failed
    return folder


def run_of(folder: Path, method: str) -> Path:
    (found,) = (folder / "study" / "runs").glob(f"weather-{method}-*")
    return found


def texts_in(folder: Path) -> dict[str, str]:
    names = [path for path in folder.rglob("*") if path.suffix in (".json", ".md", ".yaml")]
    return {path.name: path.read_text(encoding="utf-8") for path in names}


def test_an_adapter_is_loaded_by_peft_alone(folder: Path, tmp_path: Path) -> None:
    done = adaptlab.export(run_of(folder, "lora"), tmp_path / "out", device="cpu")
    check = done.document["check"]
    assert check["imports"] == ["transformers", "peft"]
    assert 0 < check["rows"] <= 64
    assert check["source"].startswith("weather")
    assert check["largest_logit_difference"] < 1e-4
    assert check["agreement"] == 1.0
    assert done.notes == ()
    texts = texts_in(done.path)
    assert json.loads(texts["export.json"]) == done.document
    assert {"adapter_config.json", "README.md", "run.yaml", "tokenizer_config.json"} <= set(texts)
    assert [name for name, text in texts.items() if str(folder) in text or str(tmp_path) in text] == []
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_the_card_says_where_it_comes_from_and_what_it_scores(folder: Path, tmp_path: Path) -> None:
    run = run_of(folder, "lora")
    done = adaptlab.export(run, tmp_path / "out", device="cpu")
    primary = json.loads((run / "record.json").read_text())["primary"]
    card = texts_in(done.path)["README.md"]
    assert card.startswith("---\nlibrary_name: peft\nlicense: apache-2.0\n")
    assert f"{primary['name']} {primary['value']:.4f}, 95 % interval" in card
    assert "licence: apache-2.0" in card
    assert "**Answers:** cold, warm" in card
    assert "largest logit difference" in card
    assert "adaptlab train run.yaml" in card


def test_the_run_file_stands_for_the_same_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = adaptlab.export(run_of(folder, "lora"), tmp_path / "out", device="cpu")
    monkeypatch.chdir(folder)  # beside the base and the table
    (run,) = expand(read_study(done.path / "run.yaml"))
    given = json.loads((run_of(folder, "lora") / "record.json").read_text())["config"]["given"]
    again = run.model_dump(mode="json")
    for entry, name in (("model", "id"), ("task", "name")):
        assert Path(given[entry].pop(name)).name == Path(again[entry].pop(name)).name
    assert again == given


def test_a_merge_is_a_plain_transformers_folder_in_the_bases_dtype(folder: Path, tmp_path: Path) -> None:
    done = adaptlab.export(run_of(folder, "lora"), tmp_path / "out", merge=True, device="cpu")
    assert done.document["check"]["imports"] == ["transformers"]
    assert done.document["merge_difference"] < 1e-4
    assert done.document["dtype"] == "bfloat16"
    assert 0 < done.document["check"]["largest_logit_difference"] < 0.3
    weights = load_file(done.path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert not any("lora" in name for name in weights)
    config = json.loads((done.path / "config.json").read_text())
    assert config["id2label"] == {"0": "cold", "1": "warm"}
    assert config["label2id"] == {"cold": 0, "warm": 1}
    assert config["attention_probs_dropout_prob"] == 0.1
    assert not (done.path / "adapter_config.json").exists()


@pytest.mark.parametrize("method", ["bitfit", "full"])
def test_what_trains_the_bases_own_weights_merges_trivially(folder: Path, tmp_path: Path, method: str) -> None:
    done = adaptlab.export(run_of(folder, method), tmp_path / "out", merge=method == "bitfit", device="cpu")
    assert done.document["form"] == "model"
    assert done.document["merge_difference"] == 0.0
    assert done.document["check"]["agreement"] > 0.9


@pytest.mark.parametrize("method", ["bitfit", "parallel-adapter"])
def test_our_own_adapters_are_loaded_through_adaptlab(folder: Path, tmp_path: Path, method: str) -> None:
    done = adaptlab.export(run_of(folder, method), tmp_path / "out", device="cpu")
    assert done.document["form"] == "adaptlab"
    assert "adaptlab" in done.document["check"]["imports"]
    assert done.document["check"]["largest_logit_difference"] < 1e-4


def test_a_method_that_cannot_be_merged_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"parallel-adapter cannot be merged into the base.*without --merge"):
        adaptlab.export(run_of(folder, "parallel-adapter"), tmp_path / "out", merge=True, device="cpu")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
def test_virtual_tokens_on_a_decoder_are_loaded_by_peft_alone(
    folder: Path, tiny_model_folder: Callable[[str], Path], method: str, tmp_path: Path
) -> None:
    study = adaptlab.study_of(
        model=str(tiny_model_folder("opt")),
        task=str(folder / "weather.csv"),
        methods=[method],
        seeds=1,
        steps=2,
        batch_size=8,
        dtype="float32",
        execution={"device": "cpu", "threads": 1, "keep_weights": "all"},
    )
    record = adaptlab.train(study, out=tmp_path / "study")
    done = adaptlab.export(tmp_path / "study" / "runs" / record.name, tmp_path / "out", device="cpu")
    assert done.document["form"] == "peft"
    assert done.document["check"]["largest_logit_difference"] < 1e-4
    assert any("one row at a time" in note for note in done.notes) == (method == "prompt-tuning")


def test_a_folder_that_is_not_empty_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty: give a new or empty folder"):
        adaptlab.export(run_of(folder, "lora"), tmp_path, device="cpu")
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_an_export_that_does_not_load_is_not_left_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = forms.save_adapter

    def cut_off(adapter: Path, target: Path, revision: str | None) -> None:
        save(adapter, target, revision)
        weights = target / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])

    monkeypatch.setattr(forms, "save_adapter", cut_off)
    with pytest.raises(ModelError, match="does not load in a fresh process"):
        adaptlab.export(run_of(folder, "lora"), tmp_path / "out", device="cpu")
    assert os.listdir(tmp_path) == []


def test_an_export_that_answers_otherwise_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = forms.save_adapter

    def negated(adapter: Path, target: Path, revision: str | None) -> None:
        save(adapter, target, revision)
        weights = target / "adapter_model.safetensors"
        save_file({name: -tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})

    monkeypatch.setattr(forms, "save_adapter", negated)
    done = adaptlab.export(run_of(folder, "lora"), tmp_path / "out", device="cpu")
    assert done.document["check"]["agreement"] < 0.5
    (note,) = done.notes
    assert "otherwise than the run: what was loaded is not what was trained" in note


def test_rows_can_be_given(folder: Path, tmp_path: Path) -> None:
    texts = ["snow and ice", "the sun in summer"]
    done = adaptlab.export(run_of(folder, "lora"), tmp_path / "out", texts=texts, device="cpu")
    assert (done.document["check"]["source"], done.document["check"]["rows"]) == ("the given texts", 2)


_PUSH = """
import sys, adaptlab
print(adaptlab.export(sys.argv[1], sys.argv[2], push="acme/weather", device="cpu").url)
"""


def test_a_push_is_loaded_from_the_hub_by_peft_alone(folder: Path, tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub") as hub:
        environment = hub.environment(tmp_path / "cache", HF_TOKEN="hf_of_a_test", HF_HUB_DISABLE_XET="1")
        environment.pop("HF_HUB_OFFLINE", None)
        call = [sys.executable, "-W", "ignore", "-c", _PUSH, str(run_of(folder, "lora")), str(tmp_path / "out")]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{hub.url}/acme/weather"
        pushed = hub.repositories["models", "acme/weather"]
        assert set(pushed.paths) == {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").iterdir()}
        code = (
            "import sys\n"
            "from peft import PeftModel\n"
            "from transformers import AutoModelForSequenceClassification\n"
            "base = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=2)\n"
            "print(sorted(PeftModel.from_pretrained(base, 'acme/weather').peft_config))\n"
        )
        call = [sys.executable, "-W", "ignore", "-c", code, str(folder / "base")]
        loaded = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert loaded.returncode == 0, loaded.stderr
        assert loaded.stdout == "['default']\n"


def test_a_push_without_a_hub_leaves_the_folder_and_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"is written, but the upload to acme/weather failed.*hf auth login"):
        adaptlab.export(run_of(folder, "lora"), tmp_path / "out", push="acme/weather", device="cpu")
    assert (tmp_path / "out" / "export.json").is_file()


def test_a_wrong_hub_id_is_refused_before_anything_is_loaded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--push a/b/c: a hub id is"):
        adaptlab.export(run_of(folder, "lora"), tmp_path / "out", push="a/b/c", device="cpu")
    assert os.listdir(tmp_path) == []


# --- adapters from elsewhere -----------------------------------------------------------------------------------------


def plain_peft(base: Path, folder: Path, **settings: Any) -> Any:
    """An adapter as somebody makes it who has never heard of adaptlab."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, dtype=torch.float32)
    wrapped = get_peft_model(model, LoraConfig(target_modules=["query"], init_lora_weights=False, **settings))
    wrapped.save_pretrained(str(folder))
    return wrapped.eval()


def test_an_adapter_from_elsewhere_is_scored_with_its_own_head(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from adaptlab.tasks import find_task
    from adaptlab.tasks._base import DataAccess

    model = plain_peft(folder / "base", tmp_path / "theirs", task_type="SEQ_CLS")
    task = str(folder / "weather.csv")
    scored = adaptlab.evaluate_adapter(tmp_path / "theirs", str(folder / "base"), task, device="cpu")
    assert scored.notes == ()
    assert scored.path is None
    (rows,) = find_task(task).load(TaskConfig(name=task), DataAccess()).report.values()
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    batch = tokenizer([row.texts[0] for row in rows], padding=True, return_tensors="pt")
    with torch.inference_mode():
        answers = model(**batch).logits.argmax(dim=1).tolist()
    accuracy = sum(answer == row.label for answer, row in zip(answers, rows, strict=True)) / len(rows)
    (metrics,) = scored.metrics.values()
    assert metrics["accuracy"] == pytest.approx(accuracy)
    assert metrics["n"] == len(rows)


def test_an_adapter_without_a_head_is_scored_with_a_warning(folder: Path, tmp_path: Path) -> None:
    plain_peft(folder / "base", tmp_path / "theirs")
    scored = adaptlab.evaluate_adapter(
        tmp_path / "theirs", str(folder / "base"), str(folder / "weather.csv"), device="cpu"
    )
    (note,) = scored.notes
    assert "brings no head (classifier.weight, classifier.bias lack): what is missing is random" in note


def test_an_exported_adapter_scores_what_its_run_scored(folder: Path, tmp_path: Path) -> None:
    run = run_of(folder, "parallel-adapter")
    adaptlab.export(run, tmp_path / "out", device="cpu")
    scored = adaptlab.evaluate_adapter(
        tmp_path / "out", str(folder / "base"), str(folder / "weather.csv"), device="cpu"
    )
    recorded = json.loads((run / "record.json").read_text())["metrics"]
    for name, metrics in scored.metrics.items():
        assert metrics == pytest.approx(recorded[name], abs=1e-5)


def test_an_adapter_of_another_model_is_refused(
    folder: Path, tmp_path: Path, tiny_model_folder: Callable[[str], Path]
) -> None:
    plain_peft(folder / "base", tmp_path / "theirs", task_type="SEQ_CLS")
    with pytest.raises(ModelError, match=r"cannot be put on .* give the base .*and a task"):
        adaptlab.evaluate_adapter(
            tmp_path / "theirs", str(tiny_model_folder("distilbert")), str(folder / "weather.csv"), device="cpu"
        )


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "is not an adapter's folder"),
        ({"adapter_config.json": "{"}, "not valid JSON"),
        ({"adapter_config.json": '{"r": 8}'}, "names no peft_type"),
        ({"adapter_config.json": '{"peft_type": "LORA"}', "adapter_model.bin": ""}, "save the adapter again as safe"),
    ],
)
def test_what_is_no_adapter_is_told(folder: Path, tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=said):
        adaptlab.evaluate_adapter(tmp_path, str(folder / "base"), str(folder / "weather.csv"), device="cpu")
