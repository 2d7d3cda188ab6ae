"""Ctrl-C and SIGTERM ask the running study to stop at the next step; a second Ctrl-C stops at once.

Clusters send their warnings more than once and as several signals: only Ctrl-C is ever impatient.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """Asked between steps: has somebody asked this process to stop?"""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> bool:
        return self._asked

    def ask(self, number: int = signal.SIGINT, *_: Any) -> None:
        """Ask for a stop; a second Ctrl-C interrupts at once."""
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True


@contextmanager
def stop_on_signals(*more: signal.Signals) -> Iterator[StopRequest]:
    """A :class:`StopRequest` that SIGINT, SIGTERM and ``more`` raise while the block runs (in the main thread only)."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.ask) for number in (signal.SIGINT, signal.SIGTERM, *more)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
