from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adaptlab.cli.main import main
from tests.integration.conftest import write_table


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def adaptlab(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """``adaptlab("compare", "--task", "sst2")`` runs the command line in this process."""
    before = signal.getsignal(signal.SIGTERM)
    loggers = [logging.getLogger(), logging.getLogger("adaptlab")]
    levels = [logger.level for logger in loggers]

    def run(*words: Any) -> Done:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    yield run
    signal.signal(signal.SIGTERM, before)
    logging.captureWarnings(False)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that choose a folder for themselves choose one in here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "weather.csv")


@pytest.fixture
def tiny_flags(tiny_model_folder: Callable[[str], Path], table: Path) -> list[str]:
    """Flags of a comparison that takes seconds."""
    return [
        *("--model", str(tiny_model_folder("bert")), "--task", str(table), "--steps", "4", "--batch-size", "8"),
        *("--dtype", "float32", "--device", "cpu", "--threads", "1", "--keep-weights", "all"),
    ]
