"""What a fresh machine meets: the Makefile, the tested versions, the package's own facts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import adaptlab
from tests.source_tree import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CONSTRAINTS = [
    Requirement(line)
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]

#: Stands in for python3: refuses, or makes an environment whose own python writes down what it is asked to do.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
  "-c "*) exit {too_old} ;;
  "-m venv "*) [ {no_venv} = 1 ] && exit 1
     mkdir -p .venv/bin
     printf '#!/bin/sh\\necho "$@" >> calls\\n' > .venv/bin/python
     chmod +x .venv/bin/python ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def make(checkout: Path, *, too_old: bool = False, no_venv: bool = False) -> subprocess.CompletedProcess[str]:
    """``make venv`` with a python that behaves as told."""
    python = checkout / "fake-python"
    python.write_text(FAKE_PYTHON.format(too_old=int(too_old), no_venv=int(no_venv)))
    python.chmod(0o755)
    command = ["make", "venv", f"PYTHON={python}"]
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")}
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=environment)


def installs(checkout: Path) -> int:
    return (checkout / "calls").read_text().count("pip install")


def test_the_environment_is_made_once_and_again_when_versions_change(checkout: Path) -> None:
    assert make(checkout).returncode == 0
    assert "-c constraints.txt" in (checkout / "calls").read_text()
    assert make(checkout).returncode == 0
    assert installs(checkout) == 1
    later = (checkout / ".venv/.installed").stat().st_mtime + 10
    os.utime(checkout / "constraints.txt", (later, later))
    assert make(checkout).returncode == 0
    assert installs(checkout) == 2


def test_an_old_python_is_refused_in_a_sentence(checkout: Path) -> None:
    done = make(checkout, too_old=True)
    assert done.returncode != 0
    assert "adaptlab needs Python 3.11 or newer" in done.stdout
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_says_what_to_install(checkout: Path) -> None:
    done = make(checkout, no_venv=True)
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stdout
    assert not (checkout / ".venv").exists()


def test_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True)
    phony = re.search(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(re.findall(r"make (\S+)", done.stdout)) >= set(phony.group(1).split())


def test_every_dependency_is_pinned_within_its_range() -> None:
    pinned = {constraint.name.lower().replace("_", "-"): constraint.specifier for constraint in CONSTRAINTS}
    extras = PROJECT["optional-dependencies"].values()
    for requirement in map(Requirement, [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]):
        (pin,) = pinned[requirement.name.lower().replace("_", "-")]
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{requirement} does not allow the tested {pin}"


def test_no_pin_names_a_build_that_only_one_index_has() -> None:
    assert not [str(constraint) for constraint in CONSTRAINTS if "+" in str(constraint.specifier) or constraint.url]
    assert "torch==2.13.0" in map(str, CONSTRAINTS)


def test_the_version_is_told_once_each_and_the_same() -> None:
    assert adaptlab.__version__ == PROJECT["version"]
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text()


def test_the_ci_script_is_sound_and_runs_checks_tests_and_wheel() -> None:
    script = REPOSITORY / ".ci/run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    text = script.read_text()
    assert all(step in text for step in ("set -euo pipefail", "make check test", "make wheel", 'adaptlab" demo'))
