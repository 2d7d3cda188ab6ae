"""`make check-deps`: an audit that could not be made is never called one, and the list is what is installed."""

from __future__ import annotations

import json
import runpy
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from tests.source_tree import REPOSITORY

TOOL = SimpleNamespace(**runpy.run_path(str(REPOSITORY / ".ci" / "dependencies.py")))

FOUND = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
CLEAN = {"name": "b", "version": "1", "vulns": []}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (1)"}


def audited(monkeypatch: pytest.MonkeyPatch, said: str) -> Any:
    done = subprocess.CompletedProcess([], 0, said, "no route to host\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    return TOOL.audit()


def test_what_no_index_knew_was_not_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip-audit itself ends well there, with "No known vulnerabilities found"."""
    bad, known, why = audited(monkeypatch, json.dumps({"dependencies": [SKIPPED, SKIPPED]}))
    assert (bad, known) == ([], 0)
    assert "could not be audited" in why
    assert audited(monkeypatch, "") == ([], 0, "no route to host")


def test_a_vulnerability_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    bad, known, _ = audited(monkeypatch, json.dumps({"dependencies": [FOUND, CLEAN, SKIPPED]}))
    assert known == 2
    assert bad == ["a 1: CVE-1, mended in 2"]


def test_the_list_names_every_package_and_version() -> None:
    assert TOOL.different(TOOL.LIST.read_text(encoding="utf-8"), TOOL.listed()) == []


def test_a_version_that_has_moved_is_seen() -> None:
    assert TOOL.different("| torch | 1 | x |", "| torch | 2 | y |") == ["torch 1", "torch 2"]
