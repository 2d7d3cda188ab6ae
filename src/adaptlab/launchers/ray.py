"""Ray: tasks with resource requests, on the cluster at ``--ray-address`` or one that starts here for the study."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from adaptlab.config import ExecutionConfig
from adaptlab.errors import ConfigError, InterruptedRunError
from adaptlab.launchers._base import Launcher, LaunchOptions, answers, command
from adaptlab.runs.store import RunFolder
from adaptlab.signals import StopRequest
from adaptlab.study.schedule import Ended

_WAIT_SECONDS = 1.0


class RayOptions(LaunchOptions):
    """What a task asks Ray for."""

    cpus: float | None = Field(default=None, gt=0, description="--threads by default, else 1")
    gpus: float = Field(default=0, ge=0)
    memory_gb: float | None = Field(default=None, gt=0)
    runs_per_job: int = Field(
        default=1, ge=1, description="runs of a task, which train together if the engine is fused"
    )


class Ray(Launcher):
    """Runs as tasks of a Ray cluster, whose nodes share the study's folder."""

    name = "ray"
    summary = "tasks of a Ray cluster, or of one started here (needs ray)"
    Config = RayOptions

    def device(self, execution: ExecutionConfig, options: RayOptions) -> str:
        """The tasks', not this machine's."""
        return "cuda" if options.gpus else "cpu"

    def open(self, study: Path, execution: ExecutionConfig, options: RayOptions, stop: StopRequest) -> RayPool:
        """Connect, or start a cluster of this machine."""
        try:
            import ray
        except ImportError as error:
            raise ConfigError("--launcher ray needs ray: pip install 'adaptlab[ray]'.") from error
        started = not ray.is_initialized()
        if started:
            try:
                ray.init(address=execution.ray_address, log_to_driver=False, include_dashboard=False, logging_level=40)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(f"No Ray cluster answers at {execution.ray_address} ({error}).") from error
        memory = None if options.memory_gb is None else round(options.memory_gb * 2**30)
        task = ray.remote(_run_one).options(
            num_cpus=options.cpus or execution.threads or 1, num_gpus=options.gpus, memory=memory, max_retries=0
        )
        return RayPool(task, options.runs_per_job, stop, started=started)


class RayPool:
    """Every job is a task; one that dies with its node is handed out again by the schedule, with its checkpoint."""

    capacity: int | None = None
    remote: bool = True

    def __init__(self, task: Any, runs_per_job: int, stop: StopRequest, *, started: bool) -> None:
        self.runs_per_job: int | None = runs_per_job
        self._task = task
        self._stop = stop
        self._started = started
        self._running: dict[Any, list[str]] = {}

    def submit(self, job: Sequence[tuple[Any, RunFolder]]) -> None:
        """Make a task of a job."""
        call = command([str(folder.path.absolute()) for _, folder in job])
        self._running[self._task.remote(call)] = [folder.name for _, folder in job]

    def wait(self) -> Sequence[Ended]:
        """Tasks that have ended or were lost."""
        import ray

        if self._stop():
            raise InterruptedRunError("Stopped, as asked: the same command goes on from the last checkpoints.")
        done, _ = ray.wait(list(self._running), num_returns=1, timeout=_WAIT_SECONDS)
        return [ended for reference in done for ended in self._ended(reference)]

    def give_up(self, name: str) -> None:
        """Cancel the task that hangs."""
        import ray

        for reference in [r for r, running in self._running.items() if name in running]:
            ray.cancel(reference, force=True)

    def close(self) -> None:
        """Cancel what still runs; stop the cluster if it is ours."""
        import ray

        for reference in self._running:
            with contextlib.suppress(Exception):
                ray.cancel(reference)
        if self._started:
            ray.shutdown()

    def _ended(self, reference: Any) -> list[Ended]:
        import ray

        names = self._running.pop(reference)
        try:
            code, said = ray.get(reference)
        except ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            return [Ended(name, reason=reason) for name in names]
        busy = {told["run"] for told in answers(said.encode().splitlines()) if told["status"] == "busy"}
        return [Ended(name, busy=name in busy, reason=f"exit code {code}: {said[-300:]}") for name in names]


def _run_one(call: list[str]) -> tuple[int, str]:
    """In a task: the command as a process of its own, which does not outlive the task's worker."""
    process = subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=_die_with_parent
    )
    said, _ = process.communicate()
    return process.returncode, said


def _die_with_parent() -> None:
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a lost node leaves nothing that holds a run


plugin = Ray()
