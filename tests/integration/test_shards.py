"""One run whose weights are cut over two devices: two processes with gloo, the numbers and files of one."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.errors import ConfigError, InterruptedRunError
from adaptlab.runs.store import RunFolder
from adaptlab.study.events import Event, StepDone
from tests.integration.test_devices import check_same, kill_second_process, study

Build = Callable[..., StudyConfig]


def sharded(tiny_study: Build, **settings: Any) -> StudyConfig:
    return study(tiny_study, 2, execution={"shard": True, **settings.pop("execution", {})}, **settings)


def check_files(ours: Path, theirs: Path) -> None:
    """What is kept of a run is the same, tensor by tensor, and is read as the other is."""
    for run in sorted((theirs / "runs").iterdir()):
        files = sorted((run / "adapter").iterdir())
        for path in files:
            other = ours / "runs" / run.name / "adapter" / path.name
            if path.suffix == ".safetensors":
                found, expected = load_file(other), load_file(path)
                assert found.keys() == expected.keys()
                for name, tensor in expected.items():
                    assert (found[name].double() - tensor.double()).abs().max() < 1e-8, name
            else:
                assert other.read_bytes() == path.read_bytes()


def test_shards_have_the_numbers_and_files_of_one_device(tiny_study: Build, tmp_path: Path) -> None:
    alone = adaptlab.compare(study(tiny_study, 1, methods=["lora"]), out=tmp_path / "alone")
    two = adaptlab.compare(sharded(tiny_study, methods=["lora"]), out=tmp_path / "two")
    check_same(two.folder, alone.folder)
    check_files(two.folder, alone.folder)
    (record,) = two.records
    assert record.training["sharded"]
    assert record.parameters == alone.records[0].parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "execution"),
    [
        ("full", {"micro_batch_size": 3}),
        ("full", {"gradient_checkpointing": True}),
        ("top-layers", {}),
        ("dora", {}),
    ],
    ids=["full", "full-recomputed", "top-layers", "dora"],
)
def test_what_trains_may_be_cut_or_whole(
    tiny_study: Build, tmp_path: Path, method: str, execution: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"methods": [method], "execution": execution}
    alone = adaptlab.compare(study(tiny_study, 1, **settings), out=tmp_path / "alone")
    two = adaptlab.compare(sharded(tiny_study, **settings), out=tmp_path / "two")
    check_same(two.folder, alone.folder)
    check_files(two.folder, alone.folder)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"readout": "verbalizer"}, {"readout": "generate", "max_new_tokens": 3}])
def test_language_models_answer_with_shards(
    tiny_study: Build, tmp_path: Path, tiny_model_folder: Callable[[str], Path], settings: dict[str, Any]
) -> None:
    settings = {"model": str(tiny_model_folder("opt")), "methods": ["lora"], **settings}
    alone = adaptlab.compare(study(tiny_study, 1, **settings), out=tmp_path / "alone")
    two = adaptlab.compare(sharded(tiny_study, **settings), out=tmp_path / "two")
    check_same(two.folder, alone.folder)


@pytest.mark.slow
def test_a_checkpoint_of_shards_goes_on_with_and_without_them(tiny_study: Build, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"methods": ["full"], "steps": 30}
    peaceful = adaptlab.compare(study(tiny_study, 1, **settings), out=tmp_path / "peaceful")
    killer = threading.Thread(target=kill_second_process, args=(tmp_path / "killed",))
    killer.start()
    (record,) = adaptlab.compare(sharded(tiny_study, **settings), out=tmp_path / "killed").records
    killer.join()
    assert record.error is not None
    assert "Of the run's processes 2 of 2 ended (killed by signal 9)" in record.error.message
    folder = RunFolder(tmp_path / "killed" / "runs" / record.name)
    assert folder.checkpoint.exists()
    shutil.copytree(tmp_path / "killed", tmp_path / "moved")
    adaptlab.compare(sharded(tiny_study, **settings), out=tmp_path / "killed")
    adaptlab.compare(study(tiny_study, 1, **settings), out=tmp_path / "moved")
    for finished in ("killed", "moved"):
        check_same(tmp_path / finished, peaceful.folder)
        check_files(tmp_path / finished, peaceful.folder)


@pytest.mark.slow
def test_all_begin_anew_where_the_checkpoint_is_damaged(tiny_study: Build, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"methods": ["full"], "steps": 30}
    alone = adaptlab.compare(study(tiny_study, 1, **settings), out=tmp_path / "alone")

    def stop(event: Event) -> None:
        if isinstance(event, StepDone):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        adaptlab.compare(sharded(tiny_study, **settings), out=tmp_path / "two", listener=stop)
    (path,) = (tmp_path / "two" / "runs").iterdir()
    (RunFolder(path).checkpoint / "state.json").write_text("{}", encoding="utf-8")
    (record,) = adaptlab.compare(sharded(tiny_study, **settings), out=tmp_path / "two").records
    assert record.status == "finished", record.error
    assert any("damaged" in warning for warning in record.warnings)
    check_files(tmp_path / "two", alone.folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quantize": "4bit"}, "a base in 4bit, whose packed codes cannot be cut by rows"),
        ({"methods": ["full"], "optimizer": "adafactor"}, "adafactor, which needs a weight whole: use adamw"),
        ({"methods": ["bitfit"], "optimizer": "lion"}, "lion, which needs a weight whole"),
    ],
)
def test_what_cannot_be_cut_is_refused_before_anything_is_loaded(
    tiny_study: Build, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    given = {"methods": ["lora"], "dtype": "float32", **settings}
    with pytest.raises(ConfigError, match="--shard was given with") as refused:
        adaptlab.compare(sharded(tiny_study, **given), out=tmp_path / "study")
    assert words in str(refused.value)
    assert not (tmp_path / "study").exists()


def test_shards_need_several_devices(tiny_study: Build) -> None:
    with pytest.raises(ConfigError, match="give devices-per-run of 2 or more"):
        study(tiny_study, 1, execution={"shard": True})
