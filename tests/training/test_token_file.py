"""Tokenised rows on disk: the same rows come back, and nothing broken is believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.models.identity import cache_folder
from adaptlab.training import token_file
from tests.integration.conftest import tiny_study, write_table
from tests.training.conftest import tiny_data

__all__ = ["tiny_study"]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = tiny_data(20)
    token_file.save(rows, tmp_path / "rows.npz")
    found = token_file.load(tmp_path / "rows.npz")
    assert found is not None
    assert (found.ids, found.types, found.truncated) == (rows.ids, rows.types, rows.truncated)
    for name in ("tokens", "offsets", "labels"):
        assert np.array_equal(getattr(found, name), getattr(rows, name))
        assert getattr(found, name).dtype == getattr(rows, name).dtype
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npz"]


def test_a_damaged_file_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    assert token_file.load(path) is None
    token_file.save(tiny_data(20), path)
    path.write_bytes(path.read_bytes()[:200])
    assert token_file.load(path) is None


def test_a_second_process_tokenises_nothing(
    tiny_study: Callable[..., StudyConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTLAB_CACHE", str(tmp_path / "cache"))
    table = write_table(tmp_path / "many.csv", rows=800)
    study = tiny_study(methods=["head"], task=str(table), steps=2, eval_every=2)
    first = adaptlab.train(study, out=tmp_path / "one")
    (file,) = (cache_folder() / "tokens").iterdir()  # the training rows; the others are too few
    written = file.stat().st_mtime_ns
    second = adaptlab.train(study, out=tmp_path / "two")
    assert second.metrics == first.metrics
    assert file.stat().st_mtime_ns == written
