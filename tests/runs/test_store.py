"""A study's folder: who may use it, what is in it, and what happens to what is damaged."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from adaptlab.config import StudyConfig
from adaptlab.errors import RecordError, StudyError
from adaptlab.runs.files import BusyError
from adaptlab.runs.record import CurvePoint, Record
from adaptlab.runs.store import Predictions, RunFolder, StudyFolder, safe_name

from .conftest import RUN_NAME


@dataclass(frozen=True)
class Row:
    id: str
    texts: tuple[str, ...]
    label: int | float | str


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / RUN_NAME)
    folder.path.mkdir()
    return folder


def point(step: int) -> CurvePoint:
    return CurvePoint(step=step, examples=32 * step, tokens=640 * step, seconds=0.5 * step, select_loss=math.nan)


def changed(study: StudyConfig, **keys: object) -> StudyConfig:
    return StudyConfig.model_validate({**study.model_dump(), **keys})


# --- a run's record -------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(run: RunFolder, record: Record) -> None:
    assert run.read_record() is None
    record.metrics["validation"]["f1"] = math.nan
    run.write_record(record)
    back = run.read_record()
    assert back is not None
    assert math.isnan(back.metrics["validation"].pop("f1"))
    record.metrics["validation"].pop("f1")
    assert back == record
    assert json.loads(run.record_path.read_text())["schema"] == 1


def test_a_record_tells_no_secret_and_no_home(
    run: RunFolder, record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("HF_TOKEN", "planted-secret-value")
    record.warnings.append('read /home/ada/data with "planted-secret-value" and hf_abcDEF123456')
    run.write_record(record)
    assert json.loads(run.record_path.read_text())["warnings"] == ['read ~/data with "***" and ***']


def test_a_full_disk_keeps_the_old_record(run: RunFolder, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write_record(record)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StudyError, match="No space left"):
            run.write_record(record.model_copy(update={"status": "failed"}))
    assert run.read_record() == record
    assert os.listdir(run.path) == ["record.json"]


DAMAGES = {
    "empty": (lambda good: "", "not JSON"),
    "cut off": (lambda good: good[: len(good) // 2], "not JSON"),
    "binary": (lambda good: b"\xff\xfe\x00", "not JSON"),
    "deep": (lambda good: "[" * 100_000, "not JSON"),
    "not a mapping": (lambda good: "[]", "schema None"),
    "newer schema": (lambda good: good.replace('"schema": 1', '"schema": 999'), "schema 999"),
    "missing key": (lambda good: good.replace('"status"', '"stat"'), "status"),
    "wrong type": (lambda good: good.replace('"finished"', "5"), "status"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named_set_aside_and_harms_no_other(
    tmp_path: Path, study: StudyConfig, record: Record, damage: str
) -> None:
    folder = StudyFolder.open_or_create(tmp_path / "study", study)
    run, other = folder.run(RUN_NAME), folder.run("sst2-full-s0-89abcdef")
    run.write_record(record)
    other.write_record(record.model_copy(update={"name": other.name}))
    spoil, words = DAMAGES[damage]
    spoilt = spoil(run.record_path.read_text())
    run.record_path.write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())

    with pytest.raises(RecordError, match=words):
        run.read_record()
    assert [found.name for found in folder.records()] == [other.name]
    assert run.record_path.exists(), "reading changes nothing"
    with run.lock():
        assert folder.settled_record(run) is None
    assert not run.record_path.exists()
    assert (run.path / "record.json.damaged-1").exists()
    assert str(run.record_path) in folder.damaged[0]
    assert "record.json.damaged-1; the run starts again" in folder.damaged[1]
    assert len(folder.damaged) == 2
    with run.lock():
        assert folder.settled_record(run) is None, "nothing is left to set aside"
    assert len(folder.damaged) == 2


def test_damaged_records_do_not_replace_each_other(run: RunFolder) -> None:
    for _ in range(3):
        run.record_path.write_text("{")
        run.set_aside_record()
    assert sorted(os.listdir(run.path)) == [f"record.json.damaged-{n}" for n in (1, 2, 3)]


def test_a_run_has_one_runner(run: RunFolder) -> None:
    program = f"""
from adaptlab.runs.store import RunFolder
from adaptlab.runs.files import BusyError
try:
    with RunFolder({str(run.path)!r}).lock():
        print("ran")
except BusyError as error:
    print(error)
"""

    def rival() -> str:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    with run.lock():
        assert rival() == f"Another process is running {run.name}.\n"
        with pytest.raises(BusyError), run.lock():
            pass
    assert rival() == "ran\n"


def test_whoever_locks_a_run_clears_what_a_killed_writer_left(run: RunFolder) -> None:
    (run.path / ".record.json.123.tmp").write_text("half")
    with run.lock():
        assert os.listdir(run.path) == [".lock"]


# --- the curve ------------------------------------------------------------------------------------------------------


def test_a_curve_grows_loses_a_torn_line_and_is_cut_at_a_checkpoint(run: RunFolder) -> None:
    assert run.read_curve() == []
    for step in (0, 10, 20):
        run.append_curve(point(step))
    with open(run.curve_path, "a") as file:
        file.write('{"step": 30, "exam')
    assert [p.step for p in run.read_curve()] == [0, 10, 20]
    run.truncate_curve(10)
    assert [p.step for p in run.read_curve()] == [0, 10]
    run.append_curve(point(20))
    assert [p.step for p in run.read_curve()] == [0, 10, 20]
    assert math.isnan(run.read_curve()[0].select_loss or 0)


def test_cutting_a_curve_drops_a_torn_line_too(run: RunFolder) -> None:
    run.append_curve(point(0))
    with open(run.curve_path, "a") as file:
        file.write('{"step": 30, "exam')
    run.truncate_curve(5)
    run.append_curve(point(5))
    assert [p.step for p in run.read_curve()] == [0, 5]


def test_a_damaged_line_inside_a_curve_is_named(run: RunFolder) -> None:
    run.append_curve(point(0))
    with open(run.curve_path, "a") as file:
        file.write("damaged\n")
    run.append_curve(point(1))
    with pytest.raises(RecordError, match=r"curve\.jsonl:2 is damaged"):
        run.read_curve()


# --- predictions and items ------------------------------------------------------------------------------------------


def test_predictions_of_all_sets_are_read_as_they_were_written(run: RunFolder) -> None:
    assert run.read_predictions() == {}
    matched = Predictions("matched", ["a", "b"], [0, 1], [0, -1], [[0.75, 0.25], [0.5, 0.5]])
    mismatched = Predictions("mismatched", ["a"], [1], [1], [[0.25, 0.75]])
    run.write_predictions([matched, mismatched])
    assert run.read_predictions() == {"matched": matched, "mismatched": mismatched}


def test_predictions_take_arrays_and_numbers(run: RunFolder) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    classes = Predictions("test", ["a", "b"], np.array([0, 1]), np.array([1, 1]), np.array([[0.5, 0.5], [0.0, 1.0]]))
    run.write_predictions([classes])
    table = pq.read_table(run.predictions_path)
    assert [str(field.type) for field in table.schema] == ["string", "string", "int64", "int64", "list<element: float>"]
    run.write_predictions([Predictions("test", ["a"], np.array([2.5]), np.array([2.0]), None)])
    assert run.read_predictions() == {"test": Predictions("test", ["a"], [2.5], [2.0], None)}


def test_a_damaged_predictions_file_is_named(run: RunFolder) -> None:
    run.predictions_path.write_bytes(b"PAR1 no more")
    with pytest.raises(RecordError, match=r"predictions\.parquet is damaged"):
        run.read_predictions()


def test_items_are_kept_once_per_set_and_never_lost(tmp_path: Path, study: StudyConfig) -> None:
    import pyarrow.parquet as pq

    folder = StudyFolder.open_or_create(tmp_path / "study", study)
    rows = [Row("0", ("good",), 1), Row("1", ("bad", "pair"), 0)]
    folder.write_items("sst2", "validation", rows)
    path = folder.items_path("sst2", "validation")
    written = path.stat().st_mtime_ns
    folder.write_items("sst2", "validation", rows[:1])
    assert path.stat().st_mtime_ns == written
    folder.write_items("sst2", "validation", [rows[0], Row("2", ("new",), 1)])
    assert pq.read_table(path).to_pylist() == [
        {"id": "0", "text": "good", "gold": 1},
        {"id": "1", "text": "bad\tpair", "gold": 0},
        {"id": "2", "text": "new", "gold": 1},
    ]


# --- the study's folder ---------------------------------------------------------------------------------------------


def test_a_new_folder_gets_the_study_and_grows_with_it(tmp_path: Path, study: StudyConfig) -> None:
    path = tmp_path / "deep" / "study"
    assert StudyFolder.open_or_create(path, study).read_study() == changed(study, epochs=3.0)
    more = changed(study, methods=["bitfit", "lora"], seeds=[5], model="some/other")
    grown = StudyFolder.open_or_create(path, more).read_study()
    assert [entry.name for entry in grown.methods] == ["lora", "full", "bitfit"]
    assert grown.seeds == (0, 1, 5)
    assert [model.id for model in grown.model] == ["minilm", "some/other"]
    before = (path / "study.yaml").stat().st_mtime_ns
    StudyFolder.open_or_create(path, study)
    assert (path / "study.yaml").stat().st_mtime_ns == before


def test_every_value_survives_study_yaml(tmp_path: Path) -> None:
    study = StudyConfig.model_validate(
        {
            "model": {"id": "a/b", "revision": "main", "allow_pickle": True},
            "task": ["sst2", {"name": "x.csv", "text_columns": ["a", "b"], "delimiter": "\t"}],
            "methods": [
                "full",
                {"name": "lora", "r": [4, 8], "alpha": None, "label": "x", "learning_rate": [1e-4, "auto"]},
            ],
            "seeds": [5],
            "targets": [["query"], ["query", "value"]],
            "max_grad_norm": None,
            "steps": [10, 20],
            "learning_rate": 3e-5,
            "execution": {"threads": 2, "data_root": "~/data"},
        }
    )
    assert StudyFolder.open_or_create(tmp_path / "s", study).read_study() == study


def test_study_yaml_has_no_home_and_paths_that_hold_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: StudyConfig
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.csv").write_text("text,label\n")
    StudyFolder.open_or_create(tmp_path / "s", changed(study, task="my.csv"))
    text = (tmp_path / "s" / "study.yaml").read_text()
    assert "task: ~/my.csv\n" in text
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    StudyFolder.open_or_create(tmp_path / "s", changed(study, task="../my.csv"))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"task": "mrpc"}, "task sst2 there, mrpc here"),
        ({"epochs": 5}, r"epochs 3.0 there, 5.0 here"),
        ({"steps": 5}, r"steps unset there, 5 here"),
        ({"train_examples": 100}, "train_examples all there, 100 here"),
        ({"batch_size": [8, 16]}, r"batch_size 32 there, \[8, 16\] here"),
    ],
)
def test_another_task_or_protocol_is_refused(
    tmp_path: Path, study: StudyConfig, keys: dict[str, object], words: str
) -> None:
    folder = StudyFolder.open_or_create(tmp_path / "s", study)
    before = folder.study_path.read_text()
    with pytest.raises(StudyError, match=f"holds another study .*{words}.*: give another --out"):
        StudyFolder.open_or_create(tmp_path / "s", changed(study, **keys))
    assert folder.study_path.read_text() == before


def test_where_it_runs_is_no_part_of_the_protocol(tmp_path: Path, study: StudyConfig) -> None:
    StudyFolder.open_or_create(tmp_path / "s", study)
    folder = StudyFolder.open_or_create(tmp_path / "s", changed(study, execution={"device": "cpu", "threads": 2}))
    assert folder.read_study().execution.threads == 2


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path, study: StudyConfig) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StudyError, match=r"is not empty and has no study\.yaml of adaptlab"):
        StudyFolder.open_or_create(tmp_path, study)
    assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize("content", ["services: {web: {image: nginx}}", "{", "", "- a", "\x00", "[" * 5000])
def test_a_study_yaml_that_is_not_ours_is_left_alone(tmp_path: Path, study: StudyConfig, content: str) -> None:
    (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(StudyError, match="is not a study of adaptlab"):
        StudyFolder.open_or_create(tmp_path, study)
    assert (tmp_path / "study.yaml").read_text() == content


def test_a_file_as_folder_is_refused(tmp_path: Path, study: StudyConfig) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StudyError, match="is a file: give a folder"):
        StudyFolder.open_or_create(tmp_path / "out", study)


def test_a_folder_without_study_is_named_when_read(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"is not a study's folder \(no study.yaml\)"):
        StudyFolder(tmp_path).read_study()


def test_processes_that_create_one_study_lose_none_of_its_seeds(tmp_path: Path) -> None:
    program = """
import sys
from adaptlab.config import StudyConfig
from adaptlab.runs.store import StudyFolder
for seed in range(int(sys.argv[2]), 40, 4):
    study = StudyConfig.model_validate({"task": "sst2", "methods": ["lora"], "seeds": [seed]})
    StudyFolder.open_or_create(sys.argv[1], study)
"""
    path = str(tmp_path / "study")
    creators = [subprocess.Popen([sys.executable, "-c", program, path, str(first)]) for first in range(4)]
    assert [creator.wait(120) for creator in creators] == [0, 0, 0, 0]
    assert sorted(StudyFolder(path).read_study().seeds) == list(range(40))


# --- run folders of a study -----------------------------------------------------------------------------------------


def test_a_run_keeps_its_folder_when_its_label_changes(tmp_path: Path, study: StudyConfig) -> None:
    folder = StudyFolder.open_or_create(tmp_path / "s", study)
    assert folder.runs() == []
    first = folder.run("sst2-lora-s0-01234567")
    assert folder.run("sst2-lora-r8-s0-01234567").path == first.path
    other = folder.run("sst2-lora-r8-s0-0123456a")
    assert [run.name for run in folder.runs()] == sorted([first.name, other.name])


@pytest.mark.parametrize(
    "name", ["../x-01234567", "a/b-01234567", "/x-01234567", "..", "", ".x-01234567", "x", "x-0123"]
)
def test_a_run_cannot_leave_the_study(tmp_path: Path, study: StudyConfig, name: str) -> None:
    folder = StudyFolder.open_or_create(tmp_path / "s", study)
    with pytest.raises(StudyError, match="cannot name a run"):
        folder.run(name)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("sst2", "sst2"),
        ("../../etc", "etc"),
        ("a b/c", "a-b-c"),
        ("...", "unnamed"),
        ("", "unnamed"),
        ("ü\x00", "unnamed"),
    ],
)
def test_safe_names_are_one_folder_name(text: str, safe: str) -> None:
    assert safe_name(text) == safe
