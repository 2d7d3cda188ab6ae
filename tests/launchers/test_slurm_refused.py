"""A cluster that takes no jobs says so in a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adaptlab.config import ExecutionConfig
from adaptlab.errors import ConfigError
from adaptlab.launchers.slurm import SlurmOptions, plugin
from adaptlab.runs.store import RunFolder
from adaptlab.signals import StopRequest


@pytest.mark.parametrize(
    ("complaint", "said"),
    [
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
            r"\(Batch job submission failed: Invalid account or account/partition combination specified\)",
        ),
        (
            "sbatch: error: fetch_config: DNS SRV lookup failed\n"
            "sbatch: fatal: Could not establish a configuration source",
            r"\(Could not establish a configuration source\)",
        ),
        ("out of order", r"\(.*out of order.*\)"),
    ],
)
def test_what_sbatch_complains_of_is_said(
    complaint: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="needs submitit: pip install 'adaptlab[slurm]'")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("sbatch", "srun"):
        (commands / name).write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{complaint}\nEND\nexit 1\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    pool = plugin.open(tmp_path / "study", ExecutionConfig(launcher="slurm"), SlurmOptions(), StopRequest())
    pool.submit([(None, RunFolder(tmp_path / "study" / "runs" / "one"))])
    with pytest.raises(ConfigError, match=rf"Slurm did not take the jobs {said}: `sinfo` shows"):
        pool.wait()
