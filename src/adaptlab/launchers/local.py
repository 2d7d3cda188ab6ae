"""Worker processes on this machine: one for each GPU, or ``--workers`` of them on a CPU with its threads divided."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptlab.config import ExecutionConfig
from adaptlab.errors import ConfigError, InterruptedRunError
from adaptlab.launchers._base import Launcher, LaunchOptions, answers, command, keep_log
from adaptlab.runs.store import RunFolder
from adaptlab.signals import StopRequest
from adaptlab.study.schedule import Ended

_WAIT_SECONDS = 1.0
#: A worker that was asked to stop writes its checkpoint first.
_STOP_SECONDS = 60.0
#: What a worker started itself may outlive it and hold its stderr.
_LAST_WORDS_SECONDS = 2.0


class Local(Launcher):
    """Persistent workers, each of which keeps its base and data in memory from run to run."""

    name = "local"
    summary = "worker processes on this machine: one a GPU, or --workers on a CPU"

    def open(self, study: Path, execution: ExecutionConfig, options: LaunchOptions, stop: StopRequest) -> LocalPool:
        """Make ready; a worker starts when there is a run for it."""
        gpus = [] if execution.device == "cpu" else visible_gpus()
        cores, devices = len(os.sched_getaffinity(0)), execution.devices_per_run
        sets = [",".join(gpus[first : first + devices]) for first in range(0, len(gpus) - devices + 1, devices)]
        if gpus and not sets:
            raise ConfigError(f"--devices-per-run {devices} was given, and there are {len(gpus)} GPUs here.")
        workers = execution.workers or len(sets) or max(1, cores // (devices * (execution.threads or 2)))
        threads = execution.threads or max(1, cores // (workers * devices))
        places = [{"OMP_NUM_THREADS": str(threads)} for _ in range(workers)]
        for number, place in enumerate(places):
            if sets:
                place["CUDA_VISIBLE_DEVICES"] = sets[number % len(sets)]
        return LocalPool(study / "workers", places, stop)


class LocalPool:
    """``places`` holds the environment variables of each worker, which writes what it has to say to ``logs``."""

    remote: bool = True

    def __init__(self, logs: Path, places: Sequence[dict[str, str]], stop: StopRequest) -> None:
        self.capacity: int | None = len(places)
        self.runs_per_job: int | None = None
        self._logs = logs
        self._free = [_Worker(logs / f"{number}.log", place) for number, place in enumerate(places)]
        self._at_work: list[_Worker] = []
        self._stop = stop

    def submit(self, job: Sequence[tuple[Any, RunFolder]]) -> None:
        """Give a job to a worker that has none."""
        worker = self._free.pop()
        worker.take([folder for _, folder in job])
        self._at_work.append(worker)

    def wait(self) -> Sequence[Ended]:
        """What workers have answered, or that one has died."""
        ended: list[Ended] = []
        with selectors.DefaultSelector() as selector:
            for each in self._at_work:
                selector.register(each.output, selectors.EVENT_READ, each)
            for key, _ in selector.select(_WAIT_SECONDS):
                worker: _Worker = key.data
                ended += worker.answers()
                if not worker.runs:
                    self._at_work.remove(worker)
                    self._free.append(worker)
        if self._stop():
            raise InterruptedRunError(
                "Stopped, as asked: workers write their checkpoints, and the same command goes on."
            )
        return ended

    def give_up(self, name: str) -> None:
        """Kill the worker that hangs; another starts in its place."""
        for worker in self._at_work:
            worker.kill_if(name)

    def close(self) -> None:
        """Let idle workers go and ask those at work to stop."""
        for worker in (*self._free, *self._at_work):
            worker.dismiss()
        for worker in (*self._free, *self._at_work):
            worker.wait()


class _Worker:
    """A process of ``adaptlab run-one -``: a line of folders goes in, a line of JSON for each comes out.

    It starts again if it died. ``runs`` are those it has not answered for yet.
    """

    def __init__(self, log: Path, variables: dict[str, str]) -> None:
        self._log = log
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""
        self.runs: list[str] = []

    @property
    def output(self) -> int:
        """The descriptor to wait for."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def take(self, folders: Sequence[RunFolder]) -> None:
        """Begin a job."""
        self.runs = [folder.name for folder in folders]
        line = json.dumps([str(folder.path.absolute()) for folder in folders])
        with contextlib.suppress(BrokenPipeError):
            self._started().stdin.write(f"{line}\n".encode())  # type: ignore[union-attr]

    def answers(self) -> list[Ended]:
        """What became of runs, as the worker has said; of all of them once it has died."""
        assert self._process is not None
        piece = os.read(self.output, 65536)
        *lines, self._read = (self._read + piece).split(b"\n")
        ended = [
            Ended(told["run"], told["status"] == "busy", told["error"])
            for told in answers(lines)
            if told["run"] in self.runs
        ]
        for each in ended:
            self.runs.remove(each.name)
        return ended if piece else [*ended, *self._died()]

    def _died(self) -> list[Ended]:
        assert self._process is not None
        code = self._process.wait()
        self._let_go()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        left, self.runs = self.runs, []
        return [Ended(name, reason=f"{how}; see {self._log.parent.name}/{self._log.name}") for name in left]

    def kill_if(self, name: str) -> None:
        """End the process if it does this run."""
        if name in self.runs and self._process is not None:
            self._process.kill()

    def dismiss(self) -> None:
        """Nothing more comes; a run that is under way is asked to stop at its next step."""
        if self._process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.terminate()

    def wait(self) -> None:
        """Wait until it has gone, and end it if it does not go."""
        if self._process is None:
            return
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._let_go()

    def _let_go(self) -> None:
        """Of a process that has ended; its last words are in its log then."""
        assert self._process is not None
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        self._logging.join(_LAST_WORDS_SECONDS)
        self._process, self._read = None, b""

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._log.parent.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            command(["-"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **self._variables},
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
        self._logging = keep_log(self._process.stderr, self._log.open("ab"))  # type: ignore[arg-type]
        return self._process


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` may name, one string a GPU; empty where there is none. Asks no torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=20).stdout
        return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
    return []


plugin = Local()
