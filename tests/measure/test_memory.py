"""How much memory there is to plan with: within a container's limit, for forecasts and groups alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptlab.measure.memory import available_bytes
from adaptlab.planning import free_bytes


def test_a_control_group_s_limit_is_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptlab.measure.memory._CONTROL_GROUP", tmp_path)
    without = available_bytes("cpu")
    assert without > 100_000_000
    (tmp_path / "memory.current").write_text("40000000\n")
    (tmp_path / "memory.max").write_text("100000000\n")
    assert available_bytes("cpu") == 60_000_000
    assert free_bytes("cpu") == 30_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes("cpu") > 100_000_000
