"""Models from a hub: the real huggingface_hub client, in fresh processes, against a small server on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.hub_server import HubServer

PROBE = """
import json, sys
from adaptlab.config import ModelConfig
from adaptlab.errors import AdaptlabError
from adaptlab.models.identity import read_config, weights_identity
result = {}
try:
    config = ModelConfig(**json.loads(sys.argv[1]))
    result["family"] = read_config(config)["model_type"]
    if "identity" in sys.argv[2]:
        result["identity"] = weights_identity(config)
    if "load" in sys.argv[2]:
        from adaptlab.models.load import load_base
        base = load_base(config, num_labels=3, regression=False, device="cpu")
        result["head"] = base.layout.head_modules
        result["name"] = base.model.name_or_path
except AdaptlabError as error:
    result["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(result))
"""


@pytest.fixture
def hub(tiny_model_folder: Callable[[str], Path], tmp_path: Path) -> Iterator[HubServer]:
    root = tmp_path / "hub"
    folder = Path(shutil.copytree(tiny_model_folder("roberta"), root / "models" / "acme" / "tiny-roberta"))
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"of another runtime")
    pickled = Path(shutil.copytree(folder, root / "models" / "acme" / "pickled"))
    (pickled / "model.safetensors").unlink()
    with HubServer(root) as server:
        yield server


def probe(environment: dict[str, str], do: str = "identity load", **config: Any) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", PROBE, json.dumps(config), do]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_hub_model_loads_by_id_and_again_without_the_hub(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.commit("models", "acme/tiny-roberta")
    expected = {
        "family": "roberta",
        "identity": f"revision:{commit}",
        "head": ["classifier"],
        "name": "acme/tiny-roberta",
    }
    assert probe(hub.environment(tmp_path / "cache"), id="acme/tiny-roberta") == expected
    fetched = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
    assert not any(name.endswith(".bin") for name in fetched)
    assert not any("onnx" in request for request in hub.requests)
    offline = hub.environment(tmp_path / "cache", HF_HUB_OFFLINE="1")
    assert probe(offline, id="acme/tiny-roberta") == expected
    gone = hub.environment(tmp_path / "cache", HF_ENDPOINT="http://127.0.0.1:9")
    assert probe(gone, "identity", id="acme/tiny-roberta")["identity"] == expected["identity"]


def test_counting_fetches_no_weights(hub: HubServer, tmp_path: Path) -> None:
    assert probe(hub.environment(tmp_path / "cache"), "identity", id="acme/tiny-roberta")["family"] == "roberta"
    assert {r.rpartition("/")[2] for r in hub.requests if "/resolve/" in r} == {"config.json"}


def test_a_model_that_is_only_pickled_needs_the_flag(hub: HubServer, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path / "cache")
    refused = probe(environment, "load", id="acme/pickled")["error"]
    assert "ModelError: The model 'acme/pickled' is published only as a pickle (pytorch_model.bin)" in refused
    assert "--allow-pickle" in refused
    assert not any(request.endswith("pytorch_model.bin") for request in hub.requests)
    assert probe(environment, "load", id="acme/pickled", allow_pickle=True)["head"] == ["classifier"]


def test_what_the_hub_does_not_have_is_said(hub: HubServer, tmp_path: Path) -> None:
    environment = hub.environment(tmp_path / "cache")
    unknown = probe(environment, "identity", id="acme/tiny-bart")["error"]
    assert unknown.startswith("ModelError: No model is called 'acme/tiny-bart': it is no folder here and the hub has")
    revision = probe(environment, "identity", id="acme/tiny-roberta", revision="v9")["error"]
    assert "has no revision 'v9'" in revision


def test_a_hub_that_cannot_be_reached_is_said_with_what_to_do(hub: HubServer, tmp_path: Path) -> None:
    for more in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        environment = hub.environment(tmp_path / "empty", **more)
        error = probe(environment, "identity", id="acme/tiny-roberta")["error"]
        assert error.startswith("HubError: The model 'acme/tiny-roberta' is no folder here and not in the hub's cache")
        assert "hf download acme/tiny-roberta" in error
        assert error.count("\n") == 0
