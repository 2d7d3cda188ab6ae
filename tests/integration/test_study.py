"""Whole studies from Python: what a run leaves behind, what a second call does, and what comes back from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.errors import ConfigError, ModelError, RecordError
from adaptlab.runs.store import RunFolder
from adaptlab.study.events import Event, RunStarted, StudyStarted

from .conftest import write_table

Build = Callable[..., StudyConfig]


def results(records: list[Any]) -> list[tuple[Any, ...]]:
    return [(r.name, r.status, r.metrics, r.primary, r.training) for r in records]


def test_every_run_leaves_a_complete_folder(tiny_study: Build, tmp_path: Path) -> None:
    result = adaptlab.compare(tiny_study(), out=tmp_path / "study")
    assert [record.status for record in result.records] == ["finished"] * 2
    assert result.page is not None
    assert result.page.is_file()
    for record in result.records:
        folder = RunFolder(result.folder / "runs" / record.name)
        assert folder.read_record() == record
        assert [point.step for point in folder.read_curve()] == [0, 4, 8]
        assert record.primary is not None
        assert record.primary.n == len(folder.read_predictions()[record.primary.evaluation_set].ids)
        assert record.parameters is not None
        assert record.parameters.head == 2 * 32 + 2
        assert record.cost.train_seconds is not None
        assert (folder.adapter / "adapter_model.safetensors").is_file()
        assert not folder.checkpoint.exists()
    assert list((result.folder / "items").iterdir())


def test_a_second_call_runs_nothing_and_another_seed_runs_alone(tiny_study: Build, tmp_path: Path) -> None:
    out = tmp_path / "study"
    first = adaptlab.compare(tiny_study(), out=out)
    events: list[Event] = []
    second = adaptlab.compare(tiny_study(), out=out, listener=events.append)
    assert not [event for event in events if isinstance(event, RunStarted)]
    assert len(second.skipped) == 2
    assert results(second.records) == results(first.records)

    events.clear()
    third = adaptlab.compare(tiny_study(seeds=2, methods=["head", "lora", "bitfit"]), out=out, listener=events.append)
    started = next(event for event in events if isinstance(event, StudyStarted))
    assert len(started.names) == 4
    assert len(third.records) == 6


def test_another_protocol_in_the_same_folder_is_refused(tiny_study: Build, tmp_path: Path) -> None:
    adaptlab.compare(tiny_study(methods=["head"]), out=tmp_path / "study")
    with pytest.raises(adaptlab.AdaptlabError, match="batch_size"):
        adaptlab.compare(tiny_study(methods=["head"], batch_size=16), out=tmp_path / "study")


def test_the_same_study_elsewhere_gives_the_same_numbers_under_the_same_ids(tiny_study: Build, tmp_path: Path) -> None:
    study = tiny_study(methods=["lora", "full"])
    first = adaptlab.compare(study, out=tmp_path / "one")
    moved = tmp_path / "moved"
    shutil.copytree(study.model[0].id, moved / "bert")
    shutil.copy(study.task[0].name, moved / "weather.csv")
    again = tiny_study(methods=["lora", "full"], model=str(moved / "bert"), task=str(moved / "weather.csv"))
    second = adaptlab.compare(again, out=tmp_path / "two")
    assert results(first.records) == results(second.records)
    assert [r.id for r in first.records] == [r.id for r in second.records]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["head", "lora", "ia3", "bitfit", "full", "top-layers", "p-tuning", "prefix-tuning"])
def test_a_loaded_run_repeats_its_predictions(tiny_study: Build, tmp_path: Path, method: str, dtype: str) -> None:
    study = tiny_study(methods=[method], dtype=dtype)
    record = adaptlab.train(study, out=tmp_path / "study")
    run = tmp_path / "study" / "runs" / record.name
    (saved,) = RunFolder(run).read_predictions().values()
    lines = dict(enumerate(Path(study.task[0].name).read_text().splitlines()))
    texts = {}
    import pyarrow.parquet as pq

    for path in (tmp_path / "study" / "items").glob("*.parquet"):
        texts |= {row["id"]: row["text"] for row in pq.read_table(path).to_pylist()}
    assert lines
    predictions = adaptlab.load(run).predict([texts[id_] for id_ in saved.ids])
    assert saved.scores is not None
    for prediction, scores in zip(predictions, saved.scores, strict=True):
        assert list(prediction.scores.values()) == pytest.approx(scores, abs=1e-6)


def test_regression_trains_and_predicts_numbers(tiny_study: Build, tmp_path: Path) -> None:
    table = write_table(tmp_path / "degrees.csv", numbers=True)
    study = tiny_study(task=str(table), methods=["full"], steps=60, eval_every=60, learning_rate=3e-3)
    record = adaptlab.train(study, out=tmp_path / "study")
    assert record.primary is not None
    assert record.primary.name == "pearson"
    assert record.primary.value > 0.5
    (answer,) = adaptlab.load(tmp_path / "study" / "runs" / record.name).predict(["snow and ice"])
    assert isinstance(answer.label, float)


def test_evaluate_leaves_the_record_alone(tiny_study: Build, tmp_path: Path) -> None:
    study = tiny_study(methods=["lora"])
    record = adaptlab.train(study, out=tmp_path / "study")
    run = tmp_path / "study" / "runs" / record.name
    before = (run / "record.json").read_bytes()
    other = write_table(tmp_path / "other.csv", seed=5)
    evaluation = adaptlab.evaluate(run, str(other))
    assert (run / "record.json").read_bytes() == before
    assert evaluation.path.parent == run / "evaluations"
    assert json.loads(evaluation.path.read_text())["metrics"] == evaluation.metrics
    same = adaptlab.evaluate(run, study.task[0].name)
    assert same.metrics == record.metrics


def test_evaluate_refuses_a_task_with_other_labels(tiny_study: Build, tmp_path: Path) -> None:
    record = adaptlab.train(tiny_study(methods=["head"]), out=tmp_path / "study")
    other = tmp_path / "other.csv"
    other.write_text((tmp_path / "weather.csv").read_text().replace(",warm", ",hot"))
    with pytest.raises(ConfigError, match="cold, warm"):
        adaptlab.evaluate(tmp_path / "study" / "runs" / record.name, str(other))


def test_evaluate_maps_labels_that_stand_in_another_order(tiny_study: Build, tmp_path: Path) -> None:
    study = tiny_study(methods=["full"], steps=40, eval_every=40)
    record = adaptlab.train(study, out=tmp_path / "study")
    predictor = adaptlab.load(tmp_path / "study" / "runs" / record.name)
    from dataclasses import replace

    from adaptlab.tasks import find_task
    from adaptlab.tasks._base import DataAccess

    data = find_task(study.task[0].name).load(record.config.resolved.task, DataAccess())
    turned = {name: [replace(row, label=1 - int(row.label)) for row in rows] for name, rows in data.report.items()}
    other = replace(data, labels=data.labels[::-1], report=turned)
    assert predictor.score(other, data.metrics) == predictor.score(data, data.metrics) == record.metrics


def test_a_run_needs_the_base_it_was_trained_on(tiny_study: Build, tmp_path: Path, tiny_model_folder: Any) -> None:
    record = adaptlab.train(tiny_study(methods=["head"]), out=tmp_path / "study")
    with pytest.raises(ModelError, match="trained on other weights"):
        adaptlab.load(tmp_path / "study" / "runs" / record.name, model=str(tiny_model_folder("electra")))


def test_weights_are_kept_as_asked(tiny_study: Build, tmp_path: Path) -> None:
    for keep, expected in (("all", 3), ("best", 1), ("none", 0)):
        execution = {"device": "cpu", "threads": 1, "keep_weights": keep}
        result = adaptlab.compare(tiny_study(methods=["lora"], seeds=3, execution=execution), out=tmp_path / keep)
        kept = [r for r in result.records if (result.folder / "runs" / r.name / "adapter").is_dir()]
        assert len(kept) == expected
        if keep == "best":
            assert kept[0].training["select_score"] == max(r.training["select_score"] for r in result.records)
    with pytest.raises(RecordError, match="not kept"):
        adaptlab.load(tmp_path / "none" / "runs" / result.records[0].name)


def test_a_run_that_diverges_stays_in_the_record_and_harms_no_other(tiny_study: Build, tmp_path: Path) -> None:
    methods = [{"name": "full", "learning_rate": 1e30}, "head"]
    study = tiny_study(methods=methods, max_grad_norm=None, steps=20)
    result = adaptlab.compare(study, out=tmp_path / "study")
    diverged, healthy = result.records
    assert diverged.status == "diverged"
    assert diverged.error is not None
    assert "learning rate" in diverged.error.message
    assert diverged.primary is None
    assert healthy.status == "finished"
    assert result.failed == (diverged.name,)


def test_a_run_that_fails_keeps_its_traceback_and_is_tried_again(
    tiny_study: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptlab.training.member import Member

    original = Member.update

    def broken(member: Member, loss: float) -> None:
        if member.progress.step == 3:
            raise ZeroDivisionError("planted")
        original(member, loss)

    study = tiny_study(methods=["head"])
    with monkeypatch.context() as patch:
        patch.setattr(Member, "update", broken)
        (failed,) = adaptlab.compare(study, out=tmp_path / "study").records
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.type == "ZeroDivisionError"
    assert "planted" in failed.error.traceback
    assert adaptlab.compare(study, out=tmp_path / "study").records[0].status == "finished"


def test_a_damaged_record_is_set_aside_and_only_it_runs_again(tiny_study: Build, tmp_path: Path) -> None:
    first = adaptlab.compare(tiny_study(), out=tmp_path / "study")
    victim = first.folder / "runs" / first.records[0].name / "record.json"
    victim.write_text(victim.read_text()[:200])
    events: list[Event] = []
    second = adaptlab.compare(tiny_study(), out=tmp_path / "study", listener=events.append)
    assert [e.name for e in events if isinstance(e, RunStarted)] == [first.records[0].name]
    assert results(second.records) == results(first.records)
    assert any("record.json.damaged-1" in warning for warning in second.warnings)


def test_train_refuses_a_grid(tiny_study: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train does one run"):
        adaptlab.train(tiny_study(), out=tmp_path / "study")


def test_max_length_beyond_the_models_positions(tiny_study: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="128 positions"):
        adaptlab.compare(tiny_study(max_length=129), out=tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_virtual_tokens_take_positions_from_the_texts(tiny_study: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"128 positions, of which prompt-tuning takes 20: give at most 108"):
        adaptlab.compare(tiny_study(methods=["prompt-tuning"], max_length=109), out=tmp_path / "study")
    record = adaptlab.train(tiny_study(methods=["prompt-tuning"]), out=tmp_path / "study")
    assert record.config.resolved.task.max_length == 108


def test_settings_are_all_checked_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        adaptlab.study_of(task="sst2", methods=["lora"], epochs="many", batchsize=3)
    assert len(error.value.problems) == 2


def test_a_grid_that_grows_tells_its_old_runs_apart_too(tiny_study: Build, tmp_path: Path) -> None:
    out = tmp_path / "study"
    adaptlab.compare(tiny_study(methods=["lora"]), out=out)
    result = adaptlab.compare(tiny_study(methods=[{"name": "lora", "r": [4, 8]}]), out=out)
    assert [record.config.resolved.method.label for record in result.records] == ["lora-r4", "lora-r8"]
    assert len(result.skipped) == 1
    again = adaptlab.compare(tiny_study(methods=[{"name": "lora", "r": [4, 8]}]), out=out)
    assert len(again.skipped) == 2


@pytest.mark.parametrize("name", ["~nobody-here/x", "a" * 300])
def test_names_that_no_file_can_have_are_unknown(tiny_study: Build, tmp_path: Path, name: str) -> None:
    for setting in ("task", "model"):
        with pytest.raises(adaptlab.AdaptlabError):
            adaptlab.compare(tiny_study(**{setting: name}), out=tmp_path / "study")


def test_a_damaged_checkpoint_is_said_and_the_run_starts_anew(
    tiny_study: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptlab.errors import InterruptedRunError
    from adaptlab.signals import StopRequest
    from adaptlab.study.events import StepDone

    study = tiny_study(methods=["lora"])
    whole = adaptlab.compare(study, out=tmp_path / "whole").records
    asked: list[StopRequest] = []
    original = StopRequest.__init__

    def remember(request: StopRequest) -> None:
        original(request)
        asked.append(request)

    def stop_at_five(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 5:
            asked[-1].ask()

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__init__", remember)
        with pytest.raises(InterruptedRunError):
            adaptlab.compare(study, out=tmp_path / "study", listener=stop_at_five)
    (run,) = (tmp_path / "study" / "runs").iterdir()
    assert json.loads((run / "record.json").read_text())["status"] == "interrupted"
    tensors = run / "checkpoint" / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    (record,) = adaptlab.compare(study, out=tmp_path / "study").records
    assert any("checkpoint.damaged-1" in warning for warning in record.warnings)
    assert results([record]) == results(whole)
