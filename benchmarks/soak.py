"""Many short runs in one process: memory, open files and the time of a run must stay what they were.

    python benchmarks/soak.py --runs 300

Every run is a run of a study (data, base, method, training, answers, record, weights), through `adaptlab.compare`; the
methods take turns, each with a seed of its own, so that no run is another's. Memory is what the process holds (VmRSS).
The first ``WARM`` runs fill what is meant to stay: libraries, the base, tokenised rows, counted operations. The exit
code is 1 if memory then grows by more than 5 %, a file stays open, or a run takes a fifth longer than it did.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # tests/ has the tiny model and its rows

import adaptlab
from adaptlab.study.events import Event, RunEnded
from tests.integration.conftest import write_table
from tests.tiny_models import build_tiny_model

METHODS = ("head", "bitfit", "lora", "ia3", "full", "pfeiffer-adapter", "vera", "pissa", "prefix-tuning", "oft")
#: Runs before memory counts.
WARM = 50
MOST_GROWTH, MOST_SLOWER = 0.05, 0.20
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """The process after a run: bytes it holds, files it has open, its threads, and what the run took.

    Seconds are the processor's: those of the clock depend on what else the machine does.
    """

    memory_bytes: int
    files: int
    threads: int
    seconds: float


@dataclass
class Watcher:
    """A listener that looks at the process whenever a run has ended."""

    show_every: int = 0
    samples: list[Sample] = field(default_factory=list)
    _last: float = field(default_factory=time.process_time)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunEnded):
            assert event.record.status == "finished", event.record.error
            now = time.process_time()
            self.samples.append(Sample(resident_bytes(), open_files(), threading.active_count(), now - self._last))
            if self.show_every and len(self.samples) % self.show_every == 0:
                self._show()
            self._last = time.process_time()

    def _show(self) -> None:
        took = statistics.median(sample.seconds for sample in self.samples[-self.show_every :])
        now = self.samples[-1]
        numbers = f"{len(self.samples):6d} {now.memory_bytes / _MIB:12.0f} {now.files:12d} {now.threads:9d}"
        print(f"{numbers} {took:10.3f}", flush=True)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the runs after the first ``warm`` show. ``growth`` and ``slower`` are shares; ``files`` a number."""

    warm_bytes: int
    peak_bytes: int
    growth: float
    files: int
    slower: float

    @property
    def sound(self) -> bool:
        return self.growth <= MOST_GROWTH and self.files <= 0 and self.slower <= MOST_SLOWER


def judge(samples: Sequence[Sample], warm: int) -> Verdict:
    """Compare the runs after the first ``warm`` with the last of those: memory at its highest, time in the median.

    Of files it is the fewest of the last runs, for one may be open while a run is looked at.
    """
    later = samples[warm:]
    tenth = max(len(METHODS), len(later) // 5)
    settled = max(sample.memory_bytes for sample in samples[warm - len(METHODS) : warm])
    peak = max(sample.memory_bytes for sample in later)
    early, late = later[:tenth], later[-tenth:]
    took = [statistics.median(sample.seconds for sample in part) for part in (early, late)]
    files = min(sample.files for sample in late) - min(sample.files for sample in early)
    return Verdict(settled, peak, peak / settled - 1, files, took[1] / took[0] - 1)


def soak(folder: Path, *, runs: int, show_every: int = 0, **settings: Any) -> list[Sample]:
    """Do ``runs`` runs in ``folder``, a tiny model unless ``settings`` of the study say otherwise; a sample of each.

    Weight decay varies, and not the seed: its values are taken one after the other, each with every method, so that
    early and late runs are of the same kinds.
    """
    watcher = Watcher(show_every)
    rounds = -(-runs // len(settings.get("methods", METHODS)))
    study = {
        "model": str(build_tiny_model("bert", folder / "model")),
        "task": str(write_table(folder / "weather.csv")),
        "methods": list(METHODS),
        "seeds": 1,
        "weight_decay": [number * 1e-4 for number in range(rounds)],
        "steps": 6,
        "batch_size": 8,
        "eval_every": 3,
        "learning_rate": 1e-3,
        "dtype": "float32",
        "execution": {"device": "cpu", "threads": 1},
    }
    adaptlab.compare(adaptlab.study_of(**{**study, **settings}), out=folder / "study", listener=watcher)
    return watcher.samples


def resident_bytes() -> int:
    """What this process holds of the machine's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd")) - 1  # but for the one that lists them


def _after(label: str) -> None:
    print(f"  {label:<46} {resident_bytes() / _MIB:7.0f} MiB")


def main() -> int:
    """Run, print what was seen, and say whether it was sound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--settings", type=json.loads, default={}, help="of the study, as JSON, e.g. a larger model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adaptlab-soak-") as folder:
        print("   run   memory MiB   open files   threads   CPU seconds a run (median since the line before)")
        every = max(1, arguments.runs // 12)
        samples = soak(Path(folder), runs=arguments.runs, show_every=every, **arguments.settings)
    _after("at the end, the report drawn")
    gc.collect()
    _after("after collecting what only cycles hold")
    ctypes.CDLL(None).malloc_trim(0)
    _after("after malloc gave back what it had kept")
    verdict = judge(samples, min(WARM, len(samples) // 2))
    print(
        f"after {min(WARM, len(samples) // 2)} runs {verdict.warm_bytes / _MIB:.0f} MiB, at most "
        f"{verdict.peak_bytes / _MIB:.0f} MiB later: {verdict.growth:+.1%}; open files {verdict.files:+d}; "
        f"CPU seconds a run {verdict.slower:+.1%}: {'sound' if verdict.sound else 'NOT SOUND'}"
    )
    return 0 if verdict.sound else 1


if __name__ == "__main__":
    sys.exit(main())
