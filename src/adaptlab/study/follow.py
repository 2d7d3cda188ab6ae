"""What other processes' runs are doing, read from their folders and told as events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

from adaptlab.errors import RecordError
from adaptlab.runs.store import RunFolder
from adaptlab.study.events import Listener, RunStarted, StepDone

_SECONDS = 1.0


class Follower:
    """Tells ``listener`` of runs that began and of the steps that their curves tell, at most once a second."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._looked = float("-inf")
        self._total: dict[str, int] = {}
        self._size: dict[str, int] = {}

    def look(self, folders: Iterable[RunFolder]) -> None:
        """Look at these runs; a file in the middle of being written is looked at again next time."""
        if time.monotonic() - self._looked < _SECONDS:
            return
        self._looked = time.monotonic()
        for folder in folders:
            with contextlib.suppress(RecordError, OSError):
                self._look_at(folder)

    def _look_at(self, folder: RunFolder) -> None:
        if folder.name not in self._total:
            record = folder.read_record()
            if record is None or record.status != "running":
                return
            self._total[folder.name] = record.config.resolved.training.steps or 0
            self._listener(RunStarted(folder.name, self._total[folder.name]))
        if not folder.curve_path.exists():
            return
        size = folder.curve_path.stat().st_size
        if size != self._size.get(folder.name):
            self._size[folder.name] = size
            points = folder.read_curve()
            if points:
                last = points[-1]
                self._listener(StepDone(folder.name, last.step, self._total[folder.name], last.train_loss))
