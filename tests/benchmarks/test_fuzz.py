"""A few hundred damaged files; benchmarks/fuzz.py reads as many as are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptlab.adapter import read_settings, stored_bits, stored_labels
from adaptlab.config import ModelConfig
from adaptlab.errors import ModelError, StudyError
from adaptlab.models.identity import read_config
from benchmarks.fuzz import Target, fuzz, targets


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    kinds = targets(tmp_path / "made")
    tally = fuzz(kinds, tmp_path / "damaged", count=400, seed=1)
    assert tally.failures == []
    assert sum(tally.results.values()) + sum(tally.errors.values()) == 400
    assert sum(tally.errors.values()) > 100  # else the mutations damage nothing


def test_undamaged_files_are_read(tmp_path: Path) -> None:
    for kind in targets(tmp_path / "made"):
        path = tmp_path / kind.name
        path.parent.mkdir(exist_ok=True)
        for name in (kind.name, *(f"{path.parent.name}/{name}" for name in kind.beside)):
            (tmp_path / name).write_bytes(kind.good)
        kind.read(path)


@pytest.mark.parametrize("depth", [3_000, 100_000])
def test_settings_nested_without_end_are_refused(depth: int, tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").touch()
    for name in ("adapter_config.json", "export.json", "config.json"):
        (tmp_path / name).write_text("[" * depth)
    with pytest.raises(ModelError, match="is not valid JSON"):
        read_settings(tmp_path)
    with pytest.raises(ModelError):
        read_config(ModelConfig(id=str(tmp_path)))
    assert stored_labels(tmp_path) == ()
    assert stored_bits(tmp_path) == "none"


def _careless(path: Path) -> None:
    path.with_name("more").touch()
    raise ValueError("unexpected")


def test_what_must_not_happen_is_counted(tmp_path: Path) -> None:
    def wordless(path: Path) -> None:
        raise StudyError("")

    bad = fuzz([Target("a/x", b"good", _careless), Target("b/x", b"good", wordless)], tmp_path, count=2, seed=0)
    assert [words.split(": ")[1] for words in bad.failures] == [
        "ValueError",
        "reading it changed files",
        "an error without a word",
    ]
