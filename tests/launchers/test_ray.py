"""A real Ray: a cluster of this machine, and one of two nodes that loses the one that works."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adaptlab
from adaptlab.config import StudyConfig
from tests.launchers.studies import numbers, worker_of

Build = Callable[..., StudyConfig]
ray = pytest.importorskip("ray", reason="needs ray: pip install 'adaptlab[ray]'")
pytestmark = pytest.mark.ray


def under(build: Build, launcher: str, **settings: Any) -> StudyConfig:
    execution = {"device": "cpu", "threads": 1, "keep_weights": "all", "checkpoint_seconds": 0, "launcher": launcher}
    return build(**{"execution": {**execution, **settings.pop("execution", {})}, **settings})


def test_tasks_leave_the_records_that_one_process_leaves(tiny_study: Build, tmp_path: Path) -> None:
    alone = adaptlab.compare(under(tiny_study, "inline"), out=tmp_path / "inline")
    tasks = adaptlab.compare(under(tiny_study, "ray"), out=tmp_path / "ray")
    assert tasks.failed == ()
    assert numbers(alone.folder) == numbers(tasks.folder)


def test_a_lost_node_costs_no_run(tiny_study: Build, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    long = {"methods": ["lora"], "steps": 400, "eval_every": 100}
    alone = adaptlab.compare(under(tiny_study, "inline", **long), out=tmp_path / "inline")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        lost: list[int] = []

        def lose() -> None:
            while not (found := list((tmp_path / "ray").glob("runs/*/checkpoint"))):
                time.sleep(0.05)
            task = parent_of(worker_of(found[0].parent))
            lost.append(parent_of(task))
            os.kill(lost[0], signal.SIGKILL)

        loser = threading.Thread(target=lose)
        loser.start()
        study = under(tiny_study, "ray", execution={"ray_address": cluster.address}, **long)
        result = adaptlab.compare(study, out=tmp_path / "ray")
        loser.join()
    finally:
        cluster.shutdown()
    assert result.failed == ()
    assert lost
    assert numbers(result.folder) == numbers(alone.folder)


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
