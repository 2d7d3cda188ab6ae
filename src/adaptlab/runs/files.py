"""Files that survive what happens to a process: atomic writes, locks that die with their holder, scrubbed text."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from adaptlab.errors import StorageError, StudyError

_TEMPORARY = ".tmp"
_TOKEN = re.compile(r"\b(?:hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,})")
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)")
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
_SECRET_VARIABLE = re.compile(r"(?:TOKEN|KEY|SECRET|PASSWORD)$", re.IGNORECASE)


class BusyError(StudyError):
    """Another process holds the lock."""


def write_atomically(
    path: Path,
    content: bytes,
    *,
    private: bool = False,
    synced: bool = True,
    may_replace: Callable[[], None] = lambda: None,
) -> None:
    """Replace ``path`` by ``content``: afterwards the file holds all of the old content or all of the new.

    Args:
        private: nobody but its owner may read it.
        synced: return once it is on the disk, where a power cut leaves it; a killed process never takes it.
        may_replace: called before the new file takes its place; what it raises leaves the old one.

    Raises:
        StorageError: the disk is full, the folder read-only, ...; the old file is untouched, no temporary one is left.
    """
    temporary = temporary_for(path)
    try:
        try:
            _write(temporary, content, 0o600 if private else 0o644, synced=synced)
            may_replace()
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if synced:
            _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def append_line(path: Path, line: bytes, *, may_add: Callable[[], None] = lambda: None) -> None:
    """Add ``line`` (without its newline) to the end of ``path``, after dropping a torn last line.

    ``may_add`` is called when the file is open; what it raises leaves it as it is.

    Raises:
        StorageError: it could not be written; the lines that were there still are.
    """
    try:
        with open(path, "ab+") as file:
            may_add()
            whole = _length_of_whole_lines(file.fileno())
            file.truncate(whole)
            try:
                _write_all(file.fileno(), line + b"\n")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(whole)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left half-written in ``folder``. The caller holds the folder's lock."""
    for leftover in folder.glob(f".*{_TEMPORARY}"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def temporary_for(path: Path) -> Path:
    """Where this process prepares what is to be ``path``; :func:`remove_leftovers` knows it."""
    return path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")


@contextlib.contextmanager
def locked(path: Path, *, wait: bool, busy: str) -> Iterator[None]:
    """Hold the exclusive lock on the file ``path``. The kernel releases it when the process ends, however it ends.

    Args:
        wait: block until the lock is free, instead of raising.
        busy: the sentence of :class:`BusyError`.

    Raises:
        BusyError: someone else holds it and ``wait`` is false.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise BusyError(busy) from error
        yield
    finally:
        os.close(descriptor)


def without_secrets(text: str) -> str:
    """``text`` with ``***`` in place of each secret.

    Secrets are tokens by their look (``hf_...``), name and password in an address (``https://name:word@host``) and the
    values of environment variables whose names end in TOKEN, KEY, SECRET or PASSWORD.
    """
    return _without(text, _secret_values())


def scrub(text: str, *, working_folder: bool = True) -> str:
    """``text`` without what a record must not tell: :func:`without_secrets`, and the home folder becomes ``~``.

    The working folder becomes ``.`` unless ``working_folder`` is false.
    """
    text = without_secrets(text)
    if working_folder:
        text = _without_folder(text, os.getcwd(), ".")
    return _without_folder(text, os.path.expanduser("~"), "~")


def scrub_document(value: Any) -> Any:
    """``value``, made of dicts, lists and scalars, with every text in it scrubbed but for the working folder."""
    secrets, home = _secret_values(), os.path.expanduser("~")

    def scrubbed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: scrubbed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [scrubbed(item) for item in value]
        return _without_folder(_without(value, secrets), home, "~") if isinstance(value, str) else value

    return scrubbed(value)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of a block that writes ``path`` by other means, a library's among them, as :func:`cannot_write` says them.

    Raises:
        StorageError: the system refused to write.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
    except Exception as error:  # libraries in Rust have errors of their own, which quote the system's
        number = _SYSTEM_ERROR.search(str(error))
        if number is None:
            raise
        raise cannot_write(path, OSError(int(number[1]), os.strerror(int(number[1])))) from error


def cannot_write(path: Path, error: OSError) -> StorageError:
    """The error for a file that cannot be written; what was there before is still there."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(
            f"No space left to write {path}: free some and repeat the command; nothing written before is lost."
        )
    return StorageError(f"Cannot write {path} ({error.strerror or error}): check the folder and its permissions.")


def _secret_values() -> list[str]:
    """Values of the environment that are secrets by their names."""
    found = (os.environ.get(name, "") for name in os.environ if _names_a_secret(name))
    return [value for value in found if len(value) >= 8]


@functools.lru_cache(maxsize=4096)
def _names_a_secret(variable: str) -> bool:
    return _SECRET_VARIABLE.search(variable) is not None


def _without(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return _CREDENTIALS.sub("***", _TOKEN.sub("***", text))


def _without_folder(text: str, folder: str, name: str) -> str:
    if len(folder) < 2 or not os.path.isabs(folder):  # "/" or nothing: there is nothing to hide
        return text
    return re.sub(rf"{re.escape(folder)}(?![\w.-])", name, text)


def _write(path: Path, content: bytes, mode: int, *, synced: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        _write_all(descriptor, content)
        if synced:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _length_of_whole_lines(descriptor: int) -> int:
    """Bytes up to and including the last newline."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
