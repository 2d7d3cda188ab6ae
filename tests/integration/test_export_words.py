"""Exports of runs that answer in words: loaded by transformers and peft alone as the language models they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptlab import api
from adaptlab.errors import ConfigError
from adaptlab.study.document import read_study
from adaptlab.study.expand import expand
from tests.tasks.golden_rows import table_of
from tests.tasks.tables import write_parquet

PROMPT = {"name": "mine", "template": "{text} All in all", "answers": {"good": "it is good", "bad": "it is bad"}}


def trained(model: Path, out: Path, task: Any = None, **settings: Any) -> Path:
    """The folder of a run of a few steps."""
    rows = out / "films.csv"
    rows.write_text("text,label\n" + "".join(f"film {i} {'fine,good' if i % 2 else 'poor,bad'}\n" for i in range(60)))
    how = {"methods": "lora", "readout": "verbalizer", "steps": 3, "batch_size": 8, "seeds": [0], **settings}
    study = api.study_of(
        task={"name": str(rows), "prompts": [PROMPT]} if task is None else task,
        model={"id": str(model)},
        learning_rate=1e-2,
        dtype="float32",
        execution={"device": "cpu", "measure": "run", "keep_weights": "all", "data_root": how.pop("data_root", None)},
        **how,
    )
    record = api.train(study, out=out / "study")
    assert record.status == "finished", record.error
    return out / "study" / "runs" / record.name


@pytest.mark.parametrize(
    ("family", "merge", "settings"),
    [
        ("gpt2", False, {"shots": 2, "calibration": "content-free"}),
        ("t5", True, {"readout": "generate", "max_new_tokens": 6}),
        pytest.param("llama", True, {"methods": "lora"}, marks=pytest.mark.slow),
        pytest.param("opt", False, {"methods": "full", "readout": "generate", "beams": 2}, marks=pytest.mark.slow),
        pytest.param("gpt2", False, {"methods": "prefix-tuning"}, marks=pytest.mark.slow),
    ],
)
def test_a_language_model_is_loaded_by_others_alone(
    family: str,
    merge: bool,
    settings: dict[str, Any],
    tiny_model_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model_folder(family)
    run = trained(model, tmp_path, **settings)
    done = api.export(run, tmp_path / "out", merge=merge, device="cpu")
    document, check = done.document, done.document["check"]
    whole = merge or settings.get("methods") == "full"
    expected = ["transformers"] if whole else ["transformers", "peft"]
    assert check["imports"] == expected
    assert document["class"] == ("AutoModelForSeq2SeqLM" if family == "t5" else "AutoModelForCausalLM")
    assert check["rows"] == 6
    assert check["largest_logit_difference"] < 1e-3
    assert check["agreement"] == 1.0
    assert check["same_tokens"]
    assert done.notes == ()
    card = (done.path / "README.md").read_text()
    assert "pipeline_tag: text" in card
    assert document["class"] in card
    assert "{text} All in all" in card
    assert "good: `it is good`" in card
    (tmp_path / family).symlink_to(model)
    monkeypatch.chdir(tmp_path)  # beside the base and the table
    again, given = expand(read_study(done.path / "run.yaml"))[0], json.loads((run / "record.json").read_text())
    for key in ("readout", "shots", "answering", "training", "method"):
        assert again.model_dump(mode="json")[key] == given["config"]["given"][key]
    assert again.task.prompts[0].name == "mine"
    if not whole and not settings.get("shots"):
        scored = api.evaluate_adapter(done.path, str(model), str(tmp_path / "films.csv"), device="cpu")
        assert scored.metrics["test"]["accuracy"] == given["metrics"]["test"]["accuracy"]


def test_options_to_choose_from_are_read_again(tiny_model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    table = table_of("commonsense_qa")
    for split in ("train", "validation"):
        rows = {name: list(values) * 8 for name, values in table.columns.items()}
        write_parquet(tmp_path / "data" / "tau" / "commonsense_qa" / f"{split}.parquet", rows, dict(table.class_names))
    where = str(tmp_path / "data")
    run = trained(tiny_model_folder("llama"), tmp_path, "commonsense_qa", data_root=where)
    with pytest.raises(ConfigError, match="Texts alone have no options to choose from"):
        api.export(run, tmp_path / "out", texts=["a question"], device="cpu")
    check = api.export(run, tmp_path / "out", data_root=where, device="cpu").document["check"]
    assert (check["source"], check["agreement"]) == ("commonsense_qa (validation)", 1.0)
