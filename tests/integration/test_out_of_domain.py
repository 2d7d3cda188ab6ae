"""A run is looked at where its training data does not reach, and its record tells those sets apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab import api
from tests.tasks.tables import pairs, write_parquet
from tests.tasks.test_elsewhere import THREE, write_set

HEURISTICS = ("lexical_overlap", "subsequence", "constituent")


def test_sets_of_other_tasks_are_scored_in_their_own_classes(
    tmp_path: Path, tiny_model_folder: Callable[[str], Path]
) -> None:
    root = tmp_path / "data"
    for split, count in (("train", 30), ("validation_matched", 12)):
        rows = pairs(count, split, classes=3)
        columns = {"premise": rows["sentence1"], "hypothesis": rows["sentence2"], "label": rows["label"]}
        write_parquet(root / "nyu-mll/glue/mnli" / f"{split}.parquet", columns, {"label": THREE})
    for split in ("train", "validation"):
        write_set(root, "jhu-cogsys/hans", split, "hans", times=8)
    write_set(root, "med", "test", "med")
    study = api.study_of(
        task={"name": "mnli", "also_evaluate": ["hans"]},
        model=str(tiny_model_folder("bert")),
        methods=["head"],
        seeds=1,
        steps=2,
        execution={"data_root": str(root)},
    )
    record = api.train(study, out=tmp_path / "study")
    assert record.status == "finished"
    assert list(record.metrics) == ["validation_matched", "hans"]
    assert record.primary is not None
    assert record.primary.evaluation_set == "validation_matched"
    assert record.data is not None
    assert list(record.data.out_of_domain) == ["hans"]
    assert record.data.out_of_domain["hans"].mapping["contradiction"] == "non-entailment"
    parts = [record.metrics["hans"][f"accuracy[{name}]"] for name in HEURISTICS]
    assert sum(parts) / 3 == pytest.approx(record.metrics["hans"]["accuracy"])

    run = tmp_path / "study" / "runs" / record.name
    again = api.evaluate(run, "hans", data_root=str(root))
    assert set(again.metrics) == {"validation"}
    found = api.evaluate(run, "med", data_root=str(root))
    assert found.notes[0].startswith("The classes are not the run's own: entailment as entailment, neutral as not_ent")
    assert found.path is not None
    assert json.loads(found.path.read_text())["mapping"]["contradiction"] == "not_entailment"
    assert set(found.metrics["test"]) > {"accuracy", "accuracy[upward_monotone]", "n"}
