"""Slurm, through submitit: job arrays that are requeued, with their checkpoint, before their time is up."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adaptlab.config import ExecutionConfig
from adaptlab.errors import ConfigError, HandedOverError, InterruptedRunError
from adaptlab.launchers._base import Launcher, LaunchOptions
from adaptlab.runs.store import RunFolder
from adaptlab.signals import StopRequest
from adaptlab.study.schedule import Ended

if TYPE_CHECKING:
    import submitit

_WAIT_SECONDS = 2.0
#: Between the last sign of a job in the queue and calling it lost: shared file systems show results late.
_GRACE_SECONDS = 30.0


class SlurmOptions(LaunchOptions):
    """What a job asks Slurm for. Names are sbatch's, units in the names."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time_minutes: int = Field(default=60, ge=1, description="limit of a job; a run goes on in the next one")
    memory_gb: float | None = Field(default=None, gt=0)
    gpus: int = Field(default=0, ge=0)
    cpus: int | None = Field(default=None, ge=1, description="--threads by default")
    at_once: int = Field(default=256, ge=1, description="jobs of an array that run at the same time")
    runs_per_job: int = Field(default=1, ge=1, description="short runs may share a job, its base and its data")
    warning_seconds: int = Field(default=90, ge=5, description="time to write the checkpoint before the limit")
    requeues: int = Field(default=100, ge=0, description="how often a job may go on after its limit")


class Slurm(Launcher):
    """Runs as elements of job arrays."""

    name = "slurm"
    summary = "jobs of a Slurm cluster, requeued before their time limit and on preemption (needs submitit)"
    Config = SlurmOptions

    def device(self, execution: ExecutionConfig, options: SlurmOptions) -> str:
        """The jobs', not the login node's."""
        return "cuda" if options.gpus else "cpu"

    def open(self, study: Path, execution: ExecutionConfig, options: SlurmOptions, stop: StopRequest) -> SlurmPool:
        """Find submitit and sbatch."""
        try:
            import submitit
        except ImportError as error:
            raise ConfigError("--launcher slurm needs submitit: pip install 'adaptlab[slurm]'.") from error
        if shutil.which("sbatch") is None:
            raise ConfigError("--launcher slurm finds no sbatch here: give the command on a node that submits jobs.")
        executor = submitit.SlurmExecutor(folder=study.absolute() / "slurm" / "%j", max_num_timeout=options.requeues)
        asked = {
            "job_name": "adaptlab",
            "partition": options.partition,
            "account": options.account,
            "qos": options.qos,
            "constraint": options.constraint,
            "time": options.time_minutes,
            "mem": None if options.memory_gb is None else f"{round(options.memory_gb * 1024)}MB",
            "gpus_per_node": options.gpus or None,
            "cpus_per_task": options.cpus or execution.threads,
            "array_parallelism": options.at_once,
            "signal_delay_s": options.warning_seconds,
        }
        executor.update_parameters(**{name: value for name, value in asked.items() if value is not None})
        return SlurmPool(executor, options.runs_per_job, stop, wait=execution.wait)


class SlurmPool:
    """Collects runs until it is waited for, and submits them as one array."""

    capacity: int | None = None
    remote: bool = True

    def __init__(self, executor: Any, runs_per_job: int, stop: StopRequest, *, wait: bool) -> None:
        self._executor = executor
        self.runs_per_job: int | None = runs_per_job
        self._stop = stop
        self._wait = wait
        self._collected: list[list[RunFolder]] = []
        self._jobs: dict[submitit.Job[Any], list[str]] = {}
        self._gone_since: dict[str, float] = {}

    def submit(self, job: Sequence[tuple[Any, RunFolder]]) -> None:
        """Take a job for the next array."""
        self._collected.append([folder for _, folder in job])

    def wait(self) -> Sequence[Ended]:
        """Submit what was collected; then the jobs that have left the queue."""
        if self._collected:
            self._submit_array()
        if not self._wait:
            raise HandedOverError(f"{len(self._jobs)} jobs are with Slurm. {self._cancelling()}")
        for _ in range(2):
            if self._stop():
                raise InterruptedRunError(f"Stopped waiting; the jobs go on. {self._cancelling()}")
            time.sleep(_WAIT_SECONDS / 2)
        queued = self._queued()
        ended = []
        for job, names in list(self._jobs.items()):
            if self._is_over(job, queued):
                del self._jobs[job]
                ended += [Ended(name, reason=f"Slurm job {job.job_id}; see slurm/{job.job_id}") for name in names]
        return ended

    def give_up(self, name: str) -> None:
        """Cancel the job that hangs; the runs that shared it are handed out again."""
        for job in [job for job, names in self._jobs.items() if name in names]:
            job.cancel()

    def close(self) -> None:
        """Jobs are left in the queue."""

    def _submit_array(self) -> None:
        from submitit.core.utils import FailedJobError

        from adaptlab.launchers._slurm_job import RunOne

        parts, self._collected = self._collected, []
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(RunOne([str(f.path.absolute()) for f in part])) for part in parts]
        except FailedJobError as error:
            raise ConfigError(
                f"Slurm did not take the jobs ({_reason(str(error))}): `sinfo` shows whether this machine reaches the "
                "cluster, and --launch says what is asked of it (partition, account, time_minutes, ...)."
            ) from error
        self._jobs.update(zip(jobs, ([folder.name for folder in part] for part in parts), strict=True))

    def _queued(self) -> set[str] | None:
        """Ids of our jobs that Slurm still has, ``None`` if it does not answer."""
        numbers = sorted({job.job_id.partition("_")[0] for job in self._jobs})
        call = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(numbers)}"]
        try:
            done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.SubprocessError):
            return None
        if done.returncode != 0:  # it has forgotten all of them
            return set() if "Invalid job id" in done.stderr else None
        return set(done.stdout.split())

    def _is_over(self, job: submitit.Job[Any], queued: set[str] | None) -> bool:
        if job.paths.result_pickle.exists():
            return True
        if queued is None or job.job_id in queued:
            self._gone_since.pop(job.job_id, None)
            return False
        return time.monotonic() - self._gone_since.setdefault(job.job_id, time.monotonic()) > _GRACE_SECONDS

    def _cancelling(self) -> str:
        numbers = sorted({job.job_id.partition("_")[0] for job in self._jobs})
        return f"To watch: adaptlab watch STUDY. To cancel: scancel {' '.join(numbers)}."


def _reason(said: str) -> str:
    """The last thing that sbatch complained of, which is why it gave up."""
    complaints = re.findall(r"^sbatch: (?:error|fatal): (.+)$", said, re.MULTILINE)
    return complaints[-1].rstrip(".") if complaints else " ".join(said.split())[:200]


plugin = Slurm()
