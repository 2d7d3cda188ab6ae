"""Runs followed in other tools' local files, profiled, and reported class by class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import classification_report as sklearn_report

from adaptlab import api
from adaptlab.errors import ConfigError
from adaptlab.metrics import Answers
from adaptlab.metrics._report import classification_report, report_text


@pytest.fixture
def followed(tiny_model_folder: Callable[[str], Path], tmp_path: Path) -> Callable[..., Any]:
    def run(**execution: Any) -> Any:
        study = api.study_of(
            model=str(tiny_model_folder("bert")), task="stdlib-docs", methods=["lora"], seeds=1, batch_size=8, steps=6,
            train_examples=64, select_examples=16, eval_examples=16, max_length=24, eval_every=3,
            execution={"device": "cpu", **execution},
        )  # fmt: skip
        result = api.compare(study, out=tmp_path / "study")
        (record,) = result.records
        assert record.status == "finished", record.error
        return result.folder / "runs" / record.name, record

    return run


def test_tensorboard_has_the_curve(followed: Callable[..., Any]) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, record = followed(track="tensorboard")
    assert not record.warnings
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    losses = events.Scalars("select_loss")
    assert [event.step for event in losses] == [0, 3, 6]
    curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert [event.value for event in losses] == pytest.approx([point["select_loss"] for point in curve], rel=1e-6)
    (score,) = events.Scalars(f"report/{record.primary.evaluation_set}/{record.primary.name}")
    assert score.value == pytest.approx(record.primary.value)


@pytest.mark.slow
def test_wandb_offline_writes_a_local_run(followed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    folder, record = followed(track="wandb", track_mode="offline", track_project="p", track_group="g", track_name="n")
    assert not record.warnings
    (written,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    content = written.read_bytes()
    assert written.name == f"run-{record.id[:16]}.wandb"
    for word in (b"select_loss", f"n-{record.name}".encode()):
        assert word in content


@pytest.mark.slow
def test_wandb_disabled_asks_for_no_key(followed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a key was asked for"))
    folder, record = followed(track="wandb", track_mode="disabled")
    assert not record.warnings
    assert not list(folder.glob("wandb/*run-*"))


@pytest.mark.slow
def test_mlflow_has_the_curve(followed: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    _, record = followed(track="mlflow", track_project="mine", track_group="g")
    assert not record.warnings
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.run_name == record.name
    assert run.data.params["method"] == "lora"
    assert run.data.tags["group"] == "g"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "select_loss")] == [0, 3, 6]


@pytest.mark.slow
def test_trackio_has_the_curve(followed: Callable[..., Any], tmp_path: Path) -> None:
    """In a process of its own: trackio reads where to write when it is imported."""
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    import os
    import subprocess
    import sys

    script = (
        "import sys; from adaptlab import api;"
        "study = api.study_of(model=sys.argv[1], task='stdlib-docs', methods=['lora'], seeds=1, batch_size=8, steps=6,"
        " train_examples=64, select_examples=16, eval_examples=16, max_length=24, eval_every=3,"
        " execution={'device': 'cpu', 'track': ['trackio'], 'track_project': 'mine'});"
        "record = api.compare(study, out=sys.argv[2]).records[0]; print('WARNINGS', record.warnings)"
    )
    folder, _ = followed()
    model = json.loads((folder / "record.json").read_text())["config"]["given"]["model"]["id"]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run(
        [sys.executable, "-c", script, model, str(tmp_path / "again")],
        capture_output=True, text=True, env=environment, timeout=200,
    )  # fmt: skip
    assert "WARNINGS []" in done.stdout, done.stdout + done.stderr
    import sqlite3

    (database,) = (tmp_path / "trackio").glob("mine.db")
    logged = [json.loads(row[0]) for row in sqlite3.connect(database).execute("select metrics from metrics")]
    assert sum("select_loss" in one for one in logged) == 3


def test_a_tracker_that_is_none_or_fails(followed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there are tensorboard, wandb, mlflow, trackio"):
        followed(track="tensorbord")
    monkeypatch.setattr("adaptlab.tracking.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'adaptlab\[mlflow\]'"):
        followed(track="mlflow")
    monkeypatch.setattr("adaptlab.tracking.find_spec", lambda name: name)

    def away(*_: Any) -> Any:
        raise OSError("the server is away")

    monkeypatch.setattr("adaptlab.tracking._settings", away)
    _, record = followed(track="tensorboard")
    assert "tensorboard was left out after OSError: the server is away" in record.warnings


def test_a_profile_names_the_costliest_operations(followed: Callable[..., Any]) -> None:
    folder, _ = followed(profile=True)
    found = json.loads((folder / "profile" / "operations.json").read_text())
    assert found["steps"] == 3
    assert len(found["operations"]) == 10
    shares = [one["share"] for one in found["operations"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1
    assert json.loads((folder / "profile" / "trace.json").read_text())["traceEvents"]
    assert found["operations"][0]["operation"] in (folder / "profile" / "operations.txt").read_text()


def test_every_classification_run_reports_its_classes(followed: Callable[..., Any]) -> None:
    folder, record = followed()
    reports = json.loads((folder / "classification.json").read_text())
    assert set(reports) == set(record.metrics)
    report = reports[record.primary.evaluation_set]
    assert report["labels"] == record.data.labels
    assert report["accuracy"] == record.metrics[record.primary.evaluation_set]["accuracy"]
    assert sum(map(sum, report["confusion"])) == report["n"] == 16
    assert "right class (row) by answer (column)" in (folder / "classification.txt").read_text()


def test_the_report_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    gold, predicted = generator.integers(0, 3, 200), generator.integers(0, 3, 200)
    ours = classification_report(Answers(gold, predicted, None, 3), ["a", "b", "c"])
    theirs = sklearn_report(gold, predicted, target_names=["a", "b", "c"], output_dict=True)
    assert ours["accuracy"] == theirs["accuracy"]
    for label in "abc":
        for key, name in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score"), ("support", "support")):
            assert ours["classes"][label][key] == pytest.approx(theirs[label][name])


def test_an_answer_of_no_class_is_wrong_and_a_ratio_of_nothing_is_none() -> None:
    answers = Answers(np.array([0, 0, 1]), np.array([0, -1, 0]), None, 3)
    report = classification_report(answers, ["yes", "no", "never"])
    assert report["confusion"] == [[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert report["classes"]["yes"]["recall"] == 0.5
    assert report["classes"]["never"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert "(no class)" in report_text({"test": report})
