"""Who runs a run: a lock whose holder shows signs of life, and who loses it by showing none.

The kernel releases the lock of a process that ends, however it ends. One that hangs keeps it: a stopped process, a
device or file system that does not answer, a machine that is gone while a file server keeps its locks. So the holder
counts up a number in the lock's file while it gets on, and whoever waits takes the lock away when that number has not
moved for ``LEASE_SECONDS`` of its own monotonic clock: clocks that differ or are set back fool nobody.

One that wakes up after that finds another file in the place of its lock's, and writes nothing more: it looks after it
has written a temporary file (or opened a file to add to) and before that takes its place; and who takes over removes
temporary files and replaces files that are added to. Whenever it was stopped, one of both stops it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from adaptlab.errors import StorageError
from adaptlab.runs.files import BusyError, cannot_write, locked

#: Without a sign of life. What takes longer without using any processor is not expected of a run.
LEASE_SECONDS = 900.0
_BEATS = 10  # in that time


class LostLeaseError(StorageError):
    """Another process has taken the run over."""


class Watch:
    """Looks at a lock that another process holds, from time to time: does that process still get on?"""

    def __init__(self) -> None:
        self._seen = b""
        self._since = 0.0

    def hung(self, path: Path) -> bool:
        """True once the number in the file ``path`` has not moved for as long as the file says."""
        try:
            content = path.read_bytes()
            seconds = float(content.split()[1])
        except (OSError, ValueError, IndexError):  # nobody has held it, or one is only just beginning to
            self._seen = b""
            return False
        now = time.monotonic()
        if content != self._seen:
            self._seen, self._since = content, now
        return now - self._since > seconds


class Lease:
    """A lock that is held. Use :func:`held`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._count, self._name = 0, os.urandom(8).hex()  # a holder is not taken for another that hung
        self._gets_on = _gets_on()
        self._over = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._beat_on, daemon=True, name="lease")
        self._thread.start()

    def check(self) -> None:
        """Raises LostLeaseError if another process has taken over."""
        if not _same_file(self._path, self._descriptor):
            raise LostLeaseError(
                f"Another process has taken over {self._path.parent.name}, of which this one gave no sign of life "
                f"for {LEASE_SECONDS:g} s: give the command again if that was not what you want."
            )

    def end(self) -> None:
        """Let others have it."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def _beat_on(self) -> None:
        while not self._over.wait(LEASE_SECONDS / _BEATS):
            if self._gets_on():
                with contextlib.suppress(OSError):  # a full disk: the number stands in place of one as long
                    self._beat()

    def _beat(self) -> None:
        self._count += 1
        os.pwrite(self._descriptor, f"{self._count:012d} {LEASE_SECONDS:g} {self._name}\n".encode(), 0)


@contextlib.contextmanager
def held(path: Path, watch: Watch, *, busy: str) -> Iterator[Lease]:
    """Hold the lock on the file ``path``, taking it away from a process that hangs.

    Args:
        watch: what was seen of another holder before.
        busy: the sentence of BusyError.

    Raises:
        BusyError: another process holds it and gets on, as far as ``watch`` has seen.
    """
    lease = Lease(path, _lock(path, watch, busy))
    try:
        yield lease
    finally:
        lease.end()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on the file ``path``: one that was killed left its number there."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(path: Path, watch: Watch, busy: str) -> int:
    """The descriptor of ``path``, locked."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hung = watch.hung(path)
            if hung:
                _take_away(path, descriptor)
            os.close(descriptor)
            if not hung:
                raise BusyError(busy) from error
            continue
        if _same_file(path, descriptor):
            return descriptor
        os.close(descriptor)  # taken away between opening and locking


def _take_away(path: Path, descriptor: int) -> None:
    """Remove the file of a lock that a hung process holds; two that do so at once do not remove each other's."""
    with locked(path.parent.parent / ".lock", wait=True, busy=""):
        if _same_file(path, descriptor):
            path.unlink()


def _same_file(path: Path, descriptor: int) -> bool:
    """Whether ``path`` still is the file behind ``descriptor``. It is opened: a network file system's cache may lag."""
    try:
        other = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return os.path.sameopenfile(descriptor, other)
    finally:
        os.close(other)


def _gets_on() -> Callable[[], bool]:
    """Tells whether the thread that calls this has used its processor since it was last asked.

    A thread that waits for what does not come uses none. Where a thread's clock cannot be read, it is taken to get on.
    """
    try:
        clock = time.pthread_getcpuclockid(threading.get_ident())
    except (AttributeError, OSError):
        return lambda: True
    used = -1.0

    def gets_on() -> bool:
        nonlocal used
        before, used = used, time.clock_gettime(clock)
        return used > before

    return gets_on
