"""The stand-in hub gives models to the real client, file for file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import HubServer

DOWNLOAD = """
import huggingface_hub, json, sys
from pathlib import Path
try:
    folder = Path(huggingface_hub.snapshot_download(sys.argv[1], revision=sys.argv[2]))
    print(json.dumps({p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}))
except huggingface_hub.errors.HfHubHTTPError as error:
    print(json.dumps(type(error).__name__))
"""

FILES = {"config.json": '{"model_type": "bert"}', "model.safetensors": "not really", "1_Pooling/config.json": "{}"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [
        ("org/tiny", "main", FILES),
        ("org/none", "main", "RepositoryNotFoundError"),
        ("org/tiny", "v2", "RevisionNotFoundError"),
    ],
)
def test_the_real_client_downloads_a_model(name: str, revision: str, expected: object, tmp_path: Path) -> None:
    for path, content in FILES.items():
        file = tmp_path / "hub" / "models" / "org" / "tiny" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    with HubServer(tmp_path / "hub") as server:
        done = subprocess.run(
            [sys.executable, "-c", DOWNLOAD, name, revision],
            env=server.environment(tmp_path / "cache"),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    assert json.loads(done.stdout) == expected
