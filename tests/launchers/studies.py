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
        found[folder.name]["predictions"] = (folder / "predictions.parquet").read_bytes()
        found[folder.name]["weights"] = [p.read_bytes() for p in sorted(folder.glob("adapter/*.safetensors"))]
    return found
