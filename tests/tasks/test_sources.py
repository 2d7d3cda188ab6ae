"""Rows come from the data root, else from the hub, asked by the real clients; out of reach, one sentence says so."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from adaptlab.config import TaskConfig
from adaptlab.errors import DataError, HubError
from adaptlab.tasks import DataAccess, TaskData, find_task
from tests.hub_server import HubServer
from tests.tasks.tables import ENTAILMENT, pairs, write_parquet, write_rte

MNLI = ("entailment", "neutral", "contradiction")

#: Loads the task named on the command line in a process of its own, as HF_ENDPOINT is read on import.
LOAD = """
import json, sys
from adaptlab.config import TaskConfig
from adaptlab.errors import AdaptlabError
from adaptlab.tasks import DataAccess, find_task
try:
    data = find_task(sys.argv[1]).load(TaskConfig(name=sys.argv[1]), DataAccess())
    found = {"fingerprint": data.fingerprint, "revision": data.revision, "train": len(data.train)}
except AdaptlabError as error:
    found = {"error": type(error).__name__, "message": str(error)}
print(json.dumps({**found, "torch": "torch" in sys.modules}))
"""


def load(name: str, root: Path | None) -> TaskData:
    return find_task(name).load(TaskConfig(name=name), DataAccess(data_root=None if root is None else str(root)))


def load_elsewhere(name: str, environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, name], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def hub_root(tmp_path: Path) -> Path:
    """A hub that has rte in small, with the card that says which files are which split."""
    root = write_rte(tmp_path / "hub" / "datasets").parent
    card = "---\nconfigs:\n- config_name: rte\n  data_files:\n"
    for split in ("train", "validation"):
        card += f"  - split: {split}\n    path: rte/{split}*\n"
    (root / "datasets" / "nyu-mll" / "glue" / "README.md").write_text(card + "---\n")
    return root


def test_the_data_root_is_read_as_it_lies(tmp_path: Path) -> None:
    data = load("rte", write_rte(tmp_path))
    assert (len(data.train), len(data.select), len(data.report["validation"])) == (40, 10, 10)
    assert data.train[3].id == "train/3"
    assert data.train[3].texts == ("train premise number 3", "train hypothesis number 3")
    assert (data.source, data.revision) == ("nyu-mll/glue/rte", None)


def test_the_environment_names_the_data_root_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTLAB_DATA_ROOT", str(write_rte(tmp_path)))
    assert len(load("rte", None).train) == 40


def test_a_split_in_several_files_is_joined(tmp_path: Path) -> None:
    whole = load("rte", write_rte(tmp_path / "whole"))
    folder = write_rte(tmp_path / "parts") / "nyu-mll" / "glue" / "rte"
    (folder / "train.parquet").unlink()
    for part, rows in enumerate((slice(0, 15), slice(15, None))):
        columns = {name: values[rows] for name, values in pairs(40, "train").items()}
        write_parquet(folder / f"train-0000{part}-of-00002.parquet", columns, {"label": ENTAILMENT})
    assert load("rte", tmp_path / "parts").fingerprint == whole.fingerprint


def test_mismatched_is_reported_where_the_source_has_it_and_missed_aloud_where_not(tmp_path: Path) -> None:
    folder = tmp_path / "nyu-mll" / "glue" / "mnli"
    for split, count in (("train", 40), ("validation_matched", 20)):
        table = pairs(count, split, classes=3)
        table = {"premise": table["sentence1"], "hypothesis": table["sentence2"], "label": table["label"]}
        write_parquet(folder / f"{split}.parquet", table, {"label": MNLI})
    without = load("mnli", tmp_path)
    assert list(without.report) == ["validation_matched"]
    assert without.warnings == ("The source has no validation_mismatched: nothing is reported on it.",)
    table = pairs(9, "mismatched", classes=3)
    table = {"premise": table["sentence1"], "hypothesis": table["sentence2"], "label": table["label"]}
    write_parquet(folder / "validation_mismatched.parquet", table, {"label": MNLI})
    data = load("mnli", tmp_path)
    assert {name: len(rows) for name, rows in data.report.items()} == {
        "validation_matched": 10,
        "validation_mismatched": 9,
    }
    assert not data.warnings


def test_classes_are_known_by_name_whatever_order_the_source_has_them_in(tmp_path: Path) -> None:
    folder = write_rte(tmp_path) / "nyu-mll" / "glue" / "rte"
    table = pairs(40, "train")
    table["label"] = [1 - label for label in table["label"]]
    write_parquet(folder / "train.parquet", table, {"label": ENTAILMENT[::-1]})
    assert [row.label for row in load("rte", tmp_path).train] == [row % 2 for row in range(40)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": [-1] * 40}, r"^rte: row 1 of train has the label -1, which is none of entailment, not_entailment"),
        ({"label": [None] * 40}, r"^rte: row 1 of train has the label None"),
        ({"sentence2": ["x"] * 39 + [None]}, r"^rte: row 40 of train has no sentence2"),
        ({"sentence2": None}, r"^rte: train has no column 'sentence2': it has sentence1, label, idx"),
    ],
)
def test_rows_that_are_not_as_published_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write_rte(tmp_path) / "nyu-mll" / "glue" / "rte"
    table = {name: values for name, values in {**pairs(40, "train"), **change}.items() if values is not None}
    write_parquet(folder / "train.parquet", table)
    with pytest.raises(DataError, match=message):
        load("rte", tmp_path)


def test_other_classes_than_the_tasks_are_refused(tmp_path: Path) -> None:
    folder = write_rte(tmp_path) / "nyu-mll" / "glue" / "rte"
    write_parquet(folder / "train.parquet", pairs(40, "train"), {"label": ("yes", "no")})
    with pytest.raises(DataError, match=r"^rte: the classes of train are yes, no, not entailment, not_entailment"):
        load("rte", tmp_path)


def test_a_data_root_that_lacks_a_split_says_which(tmp_path: Path) -> None:
    (write_rte(tmp_path) / "nyu-mll" / "glue" / "rte" / "validation.parquet").unlink()
    with pytest.raises(DataError, match=r"data root's nyu-mll/glue/rte lacks validation.parquet; it has train.parquet"):
        load("rte", tmp_path)


def test_a_data_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^--data-root is '.*nowhere', which is no folder"):
        load("rte", tmp_path / "nowhere")


def test_offline_without_the_rows_says_how_to_have_them(tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"nyu-mll/glue/sst2 is in no data root.*--data-root DIR.*HF_HUB_OFFLINE=1"):
        load("sst2", write_rte(tmp_path))


@pytest.mark.slow
def test_the_hub_gives_what_the_data_root_gives_and_the_cache_gives_it_again(hub_root: Path, tmp_path: Path) -> None:
    expected = load("rte", hub_root / "datasets").fingerprint
    with HubServer(hub_root) as server:
        found = load_elsewhere("rte", server.environment(tmp_path / "cache"))
        assert found == {
            "fingerprint": expected,
            "revision": server.commit("datasets", "nyu-mll/glue"),
            "train": 40,
            "torch": False,
        }
        assert any(request.endswith("rte/train.parquet") for request in server.requests)
        asked = len(server.requests)
        again = load_elsewhere("rte", server.environment(tmp_path / "cache", HF_HUB_OFFLINE="1"))
        assert again == found
        assert len(server.requests) == asked
        missing = load_elsewhere("sst2", server.environment(tmp_path / "cache"))
    assert missing["error"] == "HubError"
    assert "The hub could not give nyu-mll/glue/sst2" in missing["message"]


@pytest.mark.slow
def test_a_hub_out_of_reach_is_known_within_seconds(hub_root: Path, tmp_path: Path) -> None:
    server = HubServer(hub_root)
    with server:
        pass  # from here on nobody listens at its address
    start = time.perf_counter()
    found = load_elsewhere("rte", server.environment(tmp_path / "cache"))
    assert time.perf_counter() - start < 15  # datasets alone retries for 23 s
    assert found["error"] == "HubError"
    assert f"the hub at {server.url} cannot be reached" in found["message"]
    assert "--data-root DIR" in found["message"]
    assert "HF_HUB_OFFLINE=1" in found["message"]


@pytest.mark.slow
def test_a_data_set_that_the_hub_does_not_have_is_named(hub_root: Path, tmp_path: Path) -> None:
    (hub_root / "datasets" / "nyu-mll").rename(hub_root / "datasets" / "else")
    with HubServer(hub_root) as server:
        found = load_elsewhere("rte", server.environment(tmp_path / "cache"))
    assert found["message"].startswith("The hub has no data set 'nyu-mll/glue' that you may read")
