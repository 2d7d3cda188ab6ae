"""What every method exports is loaded by others in a fresh process, and answers as the run does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import adaptlab
from adaptlab.methods import registry
from tests.contracts.method_checks import example_options
from tests.integration.conftest import write_table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # the first of a family trains all its methods

FAMILIES = ("bert", "opt", "t5")
USABLE = [method for method in registry.all() if method.trains and not method.unusable and not method.generic]


@pytest.fixture(scope="module")
def study_of(tmp_path_factory: pytest.TempPathFactory, blocks_of_64: Callable[[str], Path]) -> Callable[[str], Path]:
    built: dict[str, Path] = {}

    def build(family: str) -> Path:
        if family not in built:
            folder = tmp_path_factory.mktemp(family)
            write_table(folder / "weather.csv")
            entries = [{"name": method.name, **_grid(example_options(method))} for method in USABLE]
            refused = {"bitfit"} if family == "t5" else set()
            study = adaptlab.study_of(
                model=str(blocks_of_64(family)),
                task=str(folder / "weather.csv"),
                methods=[entry for entry in entries if entry["name"] not in refused],
                seeds=1,
                steps=3,
                batch_size=8,
                dtype="float32",
                execution={"device": "cpu", "threads": 1, "keep_weights": "all", "measure": "run"},
            )
            assert not adaptlab.compare(study, out=folder / "study").failed
            built[family] = folder / "study"
        return built[family]

    return build


def _grid(options: dict[str, object]) -> dict[str, object]:
    return {name: [value] for name, value in options.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [method.name for method in USABLE])
def test_an_export_answers_as_its_run_does(
    method: str, family: str, study_of: Callable[[str], Path], tmp_path: Path
) -> None:
    if (method, family) == ("bitfit", "t5"):
        pytest.skip("T5 has no biases")
    (run,) = (study_of(family) / "runs").glob(f"weather-{method}-s0-*")
    texts = ["snow and ice", "the sun in summer is hot"]
    done = adaptlab.export(run, tmp_path / "out", texts=texts, device="cpu")
    check = done.document["check"]
    assert check["agreement"] == 1.0
    assert check["largest_logit_difference"] < 1e-4
    assert ("adaptlab" in check["imports"]) == (done.document["form"] == "adaptlab")
