"""Errors a user can mend.

Every message is one sentence that says what was given, what is allowed and what to do. The command line
prints it without a traceback and exits with ``exit_code``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class AdaptlabError(Exception):
    """Base of every error whose message alone is enough to mend the cause."""

    exit_code = 2


class ConfigError(AdaptlabError):
    """A flag, a study file or an option is wrong. ``problems`` holds every one found, a sentence each."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class UnknownNameError(ConfigError):
    """A name that no plugin answers to."""


class DataError(AdaptlabError):
    """A data file, a column or a label is not usable."""


class ModelError(AdaptlabError):
    """A base model cannot be found, read or used as asked."""


class HubError(AdaptlabError):
    """The hub cannot be reached or does not have what was asked for."""


class RecordError(AdaptlabError):
    """A run's folder holds something damaged."""


class StudyError(AdaptlabError):
    """A study's folder cannot be used for what was asked."""


class StorageError(StudyError):
    """A file cannot be written: no space is left, the folder is read-only, or it is another process's by now.

    No run's fault: it ends the command, and the run goes on where it was once that is mended.
    """


class InterruptedRunError(AdaptlabError):
    """The user or the system asked the process to stop; everything written so far is valid."""

    exit_code = 130


class HandedOverError(InterruptedRunError):
    """The runs are with a cluster, and nobody waits for them: not a failure."""

    exit_code = 0


def near_matches(given: str, allowed: Iterable[str], *, most: int = 3) -> list[str]:
    """Names in ``allowed`` that look like ``given``, best first."""
    names = sorted(allowed)
    close = difflib.get_close_matches(given.lower(), names, n=most, cutoff=0.65)
    # One or two letters stand inside almost any name.
    inside = [name for name in names if len(given) > 2 and given.lower() in name and name not in close]
    return (close + inside)[:most]


def unknown_name(kind: str, given: str, allowed: Iterable[str]) -> UnknownNameError:
    """The error for a ``kind`` ("method", "task", ...) called ``given`` that does not exist."""
    names = sorted(allowed)
    close = near_matches(given, names)
    several = re.split(r"[\s;+]+", given.strip())
    if len(several) > 1 and set(several) <= set(names):
        return UnknownNameError(f"No {kind} is called '{given}': separate several by commas, {','.join(several)}.")
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names)}."
    plural = f"{kind}s"
    return UnknownNameError(f"No {kind} is called '{given}': {hint} See `adaptlab list {plural}`.")
