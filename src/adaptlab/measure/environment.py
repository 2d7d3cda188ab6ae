"""Where a run happened: packages, processor, threads, the state of the source. Torch is not imported."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path

from adaptlab.runs.record import Environment

_PACKAGES = (
    "adaptlab",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "datasets",
    "safetensors",
    "accelerate",
    "bitsandbytes",
    "numpy",
)


def environment(*, device: str, device_name: str, threads: int) -> Environment:
    """The environment of this process; ``device_name`` as :func:`processor_name` or the GPU's own."""
    packages = _packages()
    clock = "|".join((device, device_name, str(threads), packages.get("torch", "")))
    commit, dirty = _commit()
    return Environment(
        packages=dict(packages),
        python=platform.python_version(),
        device=f"{device}: {device_name}",
        threads=threads,
        commit=commit,
        dirty=dirty,
        fingerprint=hashlib.sha256(clock.encode()).hexdigest()[:12],
    )


@cache
def processor_name() -> str:
    """The processor's model name, as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def _commit() -> tuple[str | None, bool | None]:
    """The commit of a source checkout and whether it has changes; ``(None, None)`` for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None, None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
