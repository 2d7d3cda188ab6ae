"""How the processes of one run share a batch out."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from adaptlab.training.ranks import ALONE, Ranks


class Process(Ranks):
    """Process ``index`` of ``count``, which talks to nobody."""

    def __init__(self, index: int, count: int) -> None:
        self.index, self.count = index, count


class Talking(Process):
    """One of several that wait for each other wherever they exchange something."""

    def __init__(self, index: int, meeting: threading.Barrier) -> None:
        super().__init__(index, meeting.parties)
        self._meeting = meeting

    def total(self, numbers: Sequence[float]) -> list[float]:
        self._meeting.wait(timeout=30)
        return list(numbers)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 32])
@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_every_row_counts_once_and_all_pass_equally_often(count: int, rows: int, most: int) -> None:
    passes = [list(Process(index, count).passes(rows, most)) for index in range(count)]
    assert len({len(own) for own in passes}) == 1
    counted = [row for own in passes for first, end, counts in own if counts for row in range(first, end)]
    assert counted == list(range(rows))
    assert all(0 < end - first <= most for own in passes for first, end, _ in own)
    assert all(0 <= first < end <= rows for own in passes for first, end, _ in own)


def test_one_process_has_the_whole_batch() -> None:
    assert list(ALONE.passes(7, 3)) == [(0, 3, True), (3, 6, True), (6, 7, True)]


def test_processes_take_turns() -> None:
    meeting, happened = threading.Barrier(3), []

    def work(index: int) -> None:
        process = Talking(index, meeting)
        process.await_turn()
        happened.append(("begins", index))
        happened.append(("ends", index))
        process.end_turn()
        happened.append(("all", index))

    threads = [threading.Thread(target=work, args=(index,)) for index in (2, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert happened[:6] == [(what, index) for index in range(3) for what in ("begins", "ends")]
    assert sorted(happened[6:]) == [("all", index) for index in range(3)]
