"""A small soak, and that its judgement sees what it is there for; benchmarks/soak.py does 300 runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak import Sample, judge, open_files, resident_bytes, soak

_STEADY = [Sample(600 * 2**20, 8, 2, 0.1)] * 60


@pytest.mark.slow
def test_runs_of_one_process_leave_no_memory_and_no_file_behind(tmp_path: Path) -> None:
    verdict = judge(soak(tmp_path, runs=40), warm=20)
    assert verdict.growth < 0.05
    assert verdict.files <= 0


def test_the_judgement_sees_each_kind_of_leak() -> None:
    assert judge(_STEADY, 20).sound
    grows = [replace(sample, memory_bytes=sample.memory_bytes + n * 2**20) for n, sample in enumerate(_STEADY)]
    assert judge(grows, 20).growth == pytest.approx(40 / 619)
    opens = [replace(sample, files=sample.files + n) for n, sample in enumerate(_STEADY)]
    slows = [replace(sample, seconds=0.1 + n / 500) for n, sample in enumerate(_STEADY)]
    assert not any(judge(samples, 20).sound for samples in (grows, opens, slows))


def test_the_process_is_looked_at(tmp_path: Path) -> None:
    before = open_files()
    with (tmp_path / "file").open("w"):
        assert open_files() == before + 1
    held = resident_bytes()
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert resident_bytes() - held > 60 * 2**20
