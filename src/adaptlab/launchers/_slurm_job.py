"""What submitit executes in a job: the same command as everywhere, stopped and requeued when Slurm gives warning."""

from __future__ import annotations

import os
import subprocess
import sys

from adaptlab.launchers._base import command, keep_log

#: What a run started itself may outlive it and hold its output.
_LAST_WORDS_SECONDS = 2.0


class RunOne:
    """The runs in ``folders``, as a child process whose checkpoint is written before the job is requeued."""

    def __init__(self, folders: list[str]) -> None:
        self.folders = folders

    def __call__(self) -> int:
        """Do them; returns the exit code, which the records explain."""
        self._child = subprocess.Popen(command(self.folders), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._logging = keep_log(self._child.stdout, sys.stderr.buffer)  # type: ignore[arg-type]
        self._wait()
        return self._child.wait()

    def checkpoint(self) -> object:
        """Called by submitit when the limit or a preemption is near: what is to be requeued."""
        from submitit.helpers import DelayedSubmission

        self._child.terminate()
        self._wait()
        return DelayedSubmission(RunOne(self.folders))

    def _wait(self) -> None:
        """Wait without reaping: a signal's handler comes while the same thread waits, and Popen.wait holds a lock."""
        os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        self._logging.join(_LAST_WORDS_SECONDS)
