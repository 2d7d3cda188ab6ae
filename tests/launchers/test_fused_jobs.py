"""Runs that train together share a launcher's job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.errors import ConfigError

Build = Callable[..., StudyConfig]


def fused(build: Build, launcher: str, **settings: Any) -> StudyConfig:
    execution = {"device": "cpu", "threads": 1, "engine": "fused", "launcher": launcher, **settings}
    return build(methods=["head", "lora"], seeds=4, execution=execution)


def test_local_workers_train_their_shares_of_a_group(tiny_study: Build, tmp_path: Path) -> None:
    result = adaptlab.compare(fused(tiny_study, "local", workers=2), out=tmp_path / "local")
    lora = [record for record in result.records if record.config.resolved.method.name == "lora"]
    assert [(record.engine, record.training["group_size"]) for record in lora] == [("fused", 2)] * 4
    assert {record.engine for record in result.records if record not in lora} == {"solo"}
    assert not result.failed


@pytest.mark.parametrize("launcher", ["slurm", "ray"])
def test_a_job_of_one_run_has_nothing_to_fuse(tiny_study: Build, launcher: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runs_per_job=N"):
        adaptlab.compare(fused(tiny_study, launcher), out=tmp_path / "study")
    assert not (tmp_path / "study").exists()
