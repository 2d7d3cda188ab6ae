"""What the tests of launchers share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def numbers(study: Path) -> dict[str, Any]:
    """Everything in a study's folders that must not depend on where its runs were executed."""
    found = {}
    for folder in sorted((study / "runs").iterdir()):
        record = json.loads((folder / "record.json").read_text())
        kept = ("id", "status", "config", "metrics", "primary", "parameters", "training", "data")
        found[folder.name] = {key: record[key] for key in kept}
        found[folder.name]["training"].pop("inherited_seconds", None)  # a clock's, and another process inherits nothing
        found[folder.name]["predictions"] = (folder / "predictions.parquet").read_bytes()
        found[folder.name]["weights"] = [p.read_bytes() for p in sorted(folder.glob("adapter/*.safetensors"))]
    return found


def worker_of(run: Path) -> int:
    """The process that holds a run's lock."""
    inode = (run / ".lock").stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if int(words[5].rpartition(":")[2]) == inode:
            return int(words[4])
    raise AssertionError(f"nobody holds {run.name}")
