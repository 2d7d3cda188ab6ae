"""The synthetic study, written once: the report's tests only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptlab.report.select import Selection, read_studies
from tests.report.build import build_study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five methods, three seeds, two tasks; one run failed, one diverged."""
    return build_study(tmp_path_factory.mktemp("studies") / "demo-study")


@pytest.fixture(scope="session")
def selection(study: Path) -> Selection:
    return read_studies([study])
