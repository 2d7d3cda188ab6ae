"""Any data set of the hub, by its id, with the columns found or given as those of a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab.config import TaskConfig
from adaptlab.errors import ConfigError, DataError
from adaptlab.tasks import DataAccess, TaskData, find_task, load_task
from tests.hub_server import HubServer
from tests.tasks.tables import ENTAILMENT, pairs, write_parquet, write_rte


def load(root: Path, name: str, **more: object) -> TaskData:
    return load_task(TaskConfig.model_validate({"name": name, **more}), DataAccess(data_root=str(root)))


def test_columns_and_classes_are_found(tmp_path: Path) -> None:
    data = load(write_rte(tmp_path), "hub:nyu-mll/glue/rte")
    assert (data.columns, data.labels, data.source) == (("sentence1", "sentence2"), ENTAILMENT, "nyu-mll/glue/rte")
    assert (len(data.train), len(data.select), len(data.report["validation"])) == (40, 10, 10)


def test_columns_are_given(tmp_path: Path) -> None:
    rows = pairs(30, "x")
    write_parquet(
        tmp_path / "me/data/train.parquet", {"a": rows["sentence1"], "b": rows["sentence2"], "y": rows["label"]}
    )
    data = load(tmp_path, "hub:me/data", text_columns=["b"], label_column="y")
    assert data.train[0].texts[0].startswith("x hypothesis")
    assert [prompt.template for prompt in data.prompts] == ["b: {b}\nlabel:"]
    with pytest.raises(DataError, match=r"me/data/train has no column 'c': its columns are a, b, y"):
        load(tmp_path, "hub:me/data", text_columns=["c"], label_column="y")


def test_the_same_rows_from_a_file_are_the_same_run(tmp_path: Path) -> None:
    rows = pairs(30, "x")
    path = write_parquet(tmp_path / "me/data/train.parquet", {"text": rows["sentence1"], "label": rows["label"]})
    assert load(tmp_path, "hub:me/data").fingerprint == load(tmp_path, str(path)).fingerprint
    assert find_task("hub:me/data").name == find_task(str(path)).name


def test_a_revision_is_asked_for(tmp_path: Path) -> None:
    task = find_task("hub:org/name/config@abc")
    assert (task.address.hub_id, task.address.config, task.address.revision) == ("org/name", "config", "abc")


@pytest.mark.parametrize("name", ["hub:", "hub:name", "hub:a/b/c/d", "hub:a//c"])
def test_what_names_no_data_set_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="names no data set: give hub:org/name, or hub:org/name/config"):
        find_task(name)


@pytest.mark.slow
def test_the_command_line_trains_on_what_a_hub_has_by_its_columns(
    tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = pairs(40, "x")
    columns = {"a": rows["sentence1"], "b": rows["sentence2"], "y": rows["label"]}
    write_parquet(tmp_path / "hub/datasets/me/data/data/train-00000-of-00001.parquet", columns)
    words = ["train", "--task", "hub:me/data", "--text-columns", "a,b", "--label-column", "y", "--method", "head"]
    words += ["--model", str(tiny_model_folder("bert")), "--steps", "1", "--dtype", "float32", "--device", "cpu"]
    with HubServer(tmp_path / "hub") as server:
        done = subprocess.run(
            [sys.executable, "-m", "adaptlab", *words, "--json", "--out", str(tmp_path / "study")],
            env=server.environment(tmp_path / "cache"),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        assert record["data"]["revision"] == server.commit("datasets", "me/data")
    assert (record["data"]["id"], record["data"]["columns"], record["status"]) == ("me/data", ["a", "b"], "finished")
