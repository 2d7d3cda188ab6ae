"""A study killed (kill -9) at named points and at random moments, begun again, and compared with one left in peace.

    python benchmarks/kill_harness.py --named 100 --random 100

Studies run under `inline` and under `local` with two workers. A process that is to die at a point gets there and kills
itself; at random, the study's process, one of its workers or all of them are killed from outside. Each study is killed
several times, begun again each time, and at the end left to finish. Then every run must have the metrics, predictions,
weights and curve of a study that nobody disturbed, to the bit; none may be lost or done twice; nothing temporary may be
left. The exit code is 1 if anything differs.

Processes are forked from this one, which has loaded the libraries and computed nothing: a kill costs a second
instead of ten. That and the points are all that is different from `adaptlab compare`; nothing of it is in the package.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # tests/ has the tiny model and its rows
os.environ["TOKENIZERS_PARALLELISM"] = "false"

METHODS, SEEDS = ("lora", "full", "head"), 2
KILLS_A_STUDY = 6
#: Longer than any of these studies takes.
_HUNG_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Point:
    """Where a process kills itself: as ``function`` is called for the ``call``-th time on something called ``about``.

    Attributes:
        when: ``before`` or ``after`` the call; ``torn``: half-way through writing a file.
        about: part of the path that the call is about.
        of: the process that dies: the ``study``'s (under ``local`` the launcher's), or a ``worker``'s.
    """

    label: str
    function: str
    when: str
    about: str = ""
    of: str = "study"
    call: int = 0


_FILES = "adaptlab.runs.files"
#: The places, by what a process is doing there.
PLACES: dict[str, list[Point]] = {
    "a record": [
        Point("", f"{_FILES}:_write_all", "torn", ".record.json"),
        Point("", "os:replace", "before", "/record.json"),
        Point("", "os:replace", "after", "/record.json"),
    ],
    "a checkpoint": [
        Point("", "safetensors.torch:save_file", "torn", "checkpoint"),
        Point("", "pathlib:Path.rename", "before", "checkpoint"),
        Point("", "pathlib:Path.rename", "after", "checkpoint"),
        Point("", "shutil:rmtree", "before", "checkpoint"),
        Point("", "shutil:rmtree", "after", "checkpoint"),
    ],
    "predictions": [
        Point("", f"{_FILES}:_write_all", "torn", ".predictions"),
        Point("", "os:replace", "before", "/predictions"),
        Point("", "os:replace", "after", "/predictions"),
    ],
    "a curve": [
        Point("", f"{_FILES}:_write_all", "torn", "curve.jsonl"),
        Point("", "adaptlab.runs.store:RunFolder.append_curve", "after"),
    ],
    "weights": [
        Point("", "safetensors.torch:save_file", "torn", "adapter"),
        Point("", "pathlib:Path.rename", "before", "adapter"),
        Point("", "pathlib:Path.rename", "after", "adapter"),
    ],
    "the study's files": [
        Point("", f"{_FILES}:_write_all", "torn", ".study.yaml"),
        Point("", f"{_FILES}:_write_all", "torn", "items/"),
        Point("", "os:replace", "before", "items/"),
        Point("", f"{_FILES}:_write_all", "torn", ".classification"),
    ],
    "loading": [
        Point("", "adaptlab.workshop:load_base", "before"),
        Point("", "adaptlab.workshop:load_base", "after"),
        Point("", "adaptlab.training.checkpoint:load", "before"),
        Point("", "adaptlab.training.checkpoint:load", "after"),
        Point("", "adaptlab.training.member:Member.load_state", "before"),
    ],
    "the launcher": [
        Point("", f"{_FILES}:_write_all", "torn", ".job.json"),
        Point("", "adaptlab.study.schedule:_Schedule._hand_out", "before"),
        Point("", "adaptlab.study.schedule:_Schedule._hand_out", "after"),
        Point("", "adaptlab.study.schedule:_Schedule._take_in", "before"),
        Point("", "adaptlab.study.schedule:_Schedule._take_in", "after"),
        Point("", "adaptlab.study.schedule:remove_job", "before"),
    ],
    "a worker": [
        Point("", "adaptlab.worker:read_job", "before"),
        Point("", "adaptlab.worker:read_job", "after"),
        Point("", "adaptlab.training.member:Member.update", "before"),
        Point("", "adaptlab.training.member:Member.update", "after"),
        Point("", "os:replace", "before", "/record.json"),
        Point("", "os:replace", "after", "/record.json"),
        Point("", "pathlib:Path.rename", "before", "checkpoint"),
        Point("", "adaptlab.cli.run_one:dumps", "before"),
        Point("", "adaptlab.cli.run_one:dumps", "after"),
    ],
}


def points(count: int, draw: random.Random) -> list[Point]:
    """``count`` points: every place as often as every other, at one of the first calls there."""
    every = [(label, point) for label, there in PLACES.items() for point in there]
    draw.shuffle(every)
    found = []
    for number in range(count):
        label, point = every[number % len(every)]
        calls = 1 if "study.yaml" in point.about or "load_base" in point.function else 2
        of = "worker" if label == "a worker" else "study"
        found.append(Point(label, point.function, point.when, point.about, of, draw.randrange(calls)))
    draw.shuffle(found)
    return found


# --- inside the processes that are killed -----------------------------------------------------------------------------


def arm(point: Point, flag: Path) -> None:
    """Have this process kill itself at ``point``, once; ``flag`` is the file that says it did."""
    module, _, where = point.function.partition(":")
    *owners, name = where.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    function = getattr(owner, name)
    calls = 0

    def die() -> None:
        flag.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if point.about not in " ".join(map(_path_of, args)) or flag.exists():
            return function(*args, **kwargs)
        calls += 1
        hit = calls == point.call + 1
        if hit and point.when == "before":
            die()
        if hit and name == "_write_all":
            os.write(args[0], args[1][: len(args[1]) // 2])
            die()
        result = function(*args, **kwargs)
        if hit and point.when == "torn":
            os.truncate(args[1], os.path.getsize(args[1]) // 2)
        if hit:
            die()
        return result

    setattr(owner, name, wrapped)


def _path_of(argument: object) -> str:
    """What an argument says of a path; a descriptor stands for its file."""
    if isinstance(argument, int) and argument > 2:
        return os.path.realpath(f"/proc/self/fd/{argument}")
    return str(argument) if isinstance(argument, str | Path) else ""


class Forked:
    """Stands in for ``subprocess.Popen`` of a worker: the same command, forked instead of started anew."""

    def __init__(self, command: Sequence[str], *, point: Point | None, flag: Path) -> None:
        from adaptlab.cli.main import main

        inward, outward, said = os.pipe(), os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.setsid()
            for descriptor, number in ((inward[0], 0), (outward[1], 1), (said[1], 2)):
                os.dup2(descriptor, number)
            os.closerange(3, 256)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            if point is not None and not flag.exists():
                arm(point, flag)
            os._exit(main(list(command[command.index("run-one") :])))
        for descriptor in (inward[0], outward[1], said[1]):
            os.close(descriptor)
        self.stdin, self.stdout = os.fdopen(inward[1], "wb", 0), os.fdopen(outward[0], "rb", 0)
        self.stderr = os.fdopen(said[0], "rb", 0)
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit code if it has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        while (code := self.poll()) is None:
            time.sleep(0.005)
        return code

    def terminate(self) -> None:
        """Ask it to stop."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        self.stdin.close()
        self.stdout.close()


def fork_workers(points: Sequence[Point], flag: Path) -> None:
    """Have the local launcher fork its workers; the first gets to the first point, the second to the second, ..."""
    from adaptlab.launchers import local
    from adaptlab.study import schedule

    left = list(enumerate(points))

    class Processes:
        """What the launcher uses of ``subprocess``."""

        PIPE, TimeoutExpired, SubprocessError = -1, TimeoutError, OSError

        @staticmethod
        def Popen(command: Sequence[str], **_: Any) -> Forked:  # noqa: N802  # as it is called there
            number, point = left.pop(0) if left else (0, None)
            return Forked(command, point=point, flag=flag.with_suffix(f".killed-{number}"))

    local.subprocess = Processes  # type: ignore[attr-defined]
    # A run that has cost three workers is given up as their killer; here it may be struck as often by ours.
    schedule.ATTEMPTS += len(points)


def keep_log(log: Path) -> None:
    """Have this process and those forked from it note each record that they write: who wrote what of which run."""
    from adaptlab.runs.store import RunFolder

    write = RunFolder.write_record

    def noted(self: Any, record: Any) -> None:
        write(self, record)
        line = json.dumps([os.getpid(), self.name, record.status]).encode() + b"\n"
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line)
        os.close(descriptor)

    RunFolder.write_record = noted  # type: ignore[method-assign]


# --- the harness ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder with what every study needs."""

    folder: Path

    def study(self, launcher: str) -> Any:
        """The study, of six short runs; a checkpoint after every step."""
        import adaptlab

        execution = {"device": "cpu", "threads": 1, "keep_weights": "all", "checkpoint_seconds": 0, "measure": "run"}
        if launcher != "inline":
            execution |= {"launcher": launcher, "workers": 2}
        return adaptlab.study_of(
            model=str(self.folder / "model"), task=str(self.folder / "weather.csv"), methods=list(METHODS), seeds=SEEDS,
            steps=8, batch_size=8, eval_every=4, learning_rate=1e-3, dtype="float32", execution=execution,
        )  # fmt: skip

    def build(self) -> None:
        """Write model and rows."""
        from tests.integration.conftest import write_table
        from tests.tiny_models import build_tiny_model

        build_tiny_model("bert", self.folder / "model")
        write_table(self.folder / "weather.csv")

    def start(self, out: Path, launcher: str, points: Sequence[Point] = ()) -> int:
        """Fork a process that does the study in ``out``; returns its id. It gets to a point, or its workers to some."""

        def work() -> None:
            import adaptlab

            flag = out.with_suffix(".killed")
            keep_log(out.with_suffix(".log"))
            fork_workers([point for point in points if point.of == "worker"], flag)
            for point in points:
                if point.of == "study":
                    arm(point, flag)
            result = adaptlab.compare(self.study(launcher), out=out)
            assert not result.failed, result.failed

        return forked(work, out.with_suffix(".output"))


def forked(work: Callable[[], object], output: Path) -> int:
    """The id of a new process, in a group of its own, that does ``work``; what it prints goes to ``output``."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int, seconds: float = _HUNG_SECONDS) -> int:
    """How a process ended: its exit code, or minus the signal that killed it.

    Raises:
        TimeoutError: it did not end.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    raise TimeoutError(f"process {pid} has not ended after {seconds} s")


def workers_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def reap_orphans() -> None:
    """Wait for workers whose launcher was killed: they end their run and then themselves."""
    deadline = time.monotonic() + _HUNG_SECONDS
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
        except ChildProcessError:
            return
    raise TimeoutError("a worker whose launcher was killed does not end")


def load_libraries(bench: Bench) -> None:
    """Build the bench, and import here whatever a study imports: only then is forking cheap."""

    def work() -> None:
        import adaptlab

        bench.build()
        adaptlab.compare(bench.study("inline"), out=bench.folder / "first")
        (bench.folder / "modules").write_text("\n".join(sys.modules))

    pid = forked(work, bench.folder / "first.output")
    if ended(pid):
        raise SystemExit((bench.folder / "first.output").read_text())
    for name in (bench.folder / "modules").read_text().splitlines():
        try:
            importlib.import_module(name)
        except Exception:  # libraries make modules that cannot be imported by name
            continue
    importlib.import_module("adaptlab.cli.main")
    import torch

    torch.set_num_threads(1)


def numbers(study: Path) -> dict[str, Any]:
    """Everything in a study's folders that must not depend on what happened on the way."""
    found = {}
    for folder in sorted((study / "runs").iterdir()):
        if not (folder / "record.json").exists():
            continue  # a run that was never begun is one that was lost
        record = json.loads((folder / "record.json").read_text())
        if record["training"]:
            record["training"].pop("inherited_seconds", None)  # a clock's
        curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
        kept = ("status", "metrics", "primary", "parameters", "training", "data")
        found[folder.name] = {
            **{key: record[key] for key in kept},
            "tokens": (record["cost"]["train_tokens"], record["cost"]["padded_tokens"]),
            "curve": [{key: value for key, value in point.items() if key != "seconds"} for point in curve],
            "predictions": (folder / "predictions.parquet").read_bytes(),
            "weights": {path.name: path.read_bytes() for path in sorted(folder.glob("adapter/*.safetensors"))},
        }
    return found


def strays(study: Path) -> list[str]:
    """Files that a finished study should not have."""
    ends = (".tmp", ".new", ".old", ".part")
    names = {"checkpoint", "job.json"}
    return [str(p.relative_to(study)) for p in study.rglob("*") if p.name.endswith(ends) or p.name in names]


def twice(log: Path) -> list[str]:
    """What the log of records shows of runs done twice: begun again after the end, or ended by who was replaced."""
    wrong = []
    holder: dict[str, int] = {}
    over: set[str] = set()
    for line in log.read_text().splitlines() if log.exists() else ():
        pid, name, status = json.loads(line)
        if name in over:
            wrong.append(f"{name} was written again ({status}) after it had finished")
        if status == "running":
            holder[name] = pid
        elif holder.get(name) != pid:
            wrong.append(f"{name} was ended ({status}) by a process that no longer had it")
        if status == "finished":
            over.add(name)
    return wrong


@dataclass
class Tally:
    """What was done to studies, and what was found wrong."""

    kills: Counter[str]
    missed: int
    studies: int
    wrong: list[str]


def torment(bench: Bench, kills: Sequence[Sequence[Point] | float], launcher: str, out: Path, tally: Tally) -> None:
    """Do a study in ``out``, killed as ``kills`` say, one after the other, and at last left in peace; count the kills.

    A kill is a point that the study's process gets to, points that its workers get to, or a number of seconds.
    """
    for kill in kills:
        for flag in out.parent.glob(f"{out.name}.killed*"):
            flag.unlink()
        if isinstance(kill, float):
            pid = bench.start(out, launcher)
            time.sleep(kill)
            prey = random.Random(kill).choice([[pid], workers_of(pid)[:1] or [pid], [pid, *workers_of(pid)]])
            for each in prey:
                os.kill(each, signal.SIGKILL)
            what = "the study" if prey == [pid] else "the study and its workers" if pid in prey else "a worker"
            struck = ended(pid) == -signal.SIGKILL or pid not in prey  # else it had ended before
            tally.kills[f"at random: {what}"] += struck
            tally.missed += not struck
        else:
            code = ended(bench.start(out, launcher, kill))
            struck = len(list(out.parent.glob(f"{out.name}.killed*")))
            tally.kills[kill[0].label] += struck
            tally.missed += len(kill) - struck
            if code not in (0, -signal.SIGKILL):
                tally.wrong.append(f"{out.name}: exit code {code} at {kill}: {out.with_suffix('.output').read_text()}")
    reap_orphans()
    code = ended(bench.start(out, launcher))
    if code:
        tally.wrong.append(f"{out.name}: left in peace it ended with {code}: {out.with_suffix('.output').read_text()}")
    tally.studies += 1


def check(out: Path, peaceful: dict[str, Any], tally: Tally) -> None:
    """Compare a study with the peaceful one."""
    found = numbers(out)
    if found.keys() != peaceful.keys():
        tally.wrong.append(f"{out.name}: runs lost or added: {sorted(found.keys() ^ peaceful.keys())}")
    for name in found.keys() & peaceful.keys():
        different = [key for key in peaceful[name] if found[name][key] != peaceful[name][key]]
        if different:
            tally.wrong.append(f"{out.name}: {name} differs in {different}")
    tally.wrong += [f"{out.name}: left behind: {stray}" for stray in strays(out)]
    tally.wrong += [f"{out.name}: {sentence}" for sentence in twice(out.with_suffix(".log"))]


def harness(folder: Path, *, named: int, at_random: int, seed: int, say: Callable[[str], None]) -> Tally:
    """Kill studies ``named`` times at points and ``at_random`` times at random; what came of it."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: workers without their launcher are ours to wait for
    draw = random.Random(seed)
    bench = Bench(folder)
    load_libraries(bench)
    tally = Tally(Counter(), 0, 0, [])
    peace = time.monotonic()
    torment(bench, [], "inline", folder / "peaceful", tally)
    seconds = time.monotonic() - peace
    peaceful = numbers(folder / "peaceful")
    say(f"a study of {len(peaceful)} runs takes {seconds:.1f} s in peace")
    plans = itertools.chain(_named(named, draw, tally), _at_random(at_random, seconds, draw, tally))
    for number, (launcher, kills) in enumerate(plans):
        out, known = folder / f"{launcher}-{number}", len(tally.wrong)
        torment(bench, kills, launcher, out, tally)
        check(out, peaceful, tally)
        say(f"{out.name}: {sum(tally.kills.values())} kills so far, {len(tally.wrong)} things wrong")
        for sentence in tally.wrong[known:]:
            say(sentence)
        shutil.rmtree(out)
    return tally


Plan = tuple[str, list[Sequence[Point] | float]]


def _named(count: int, draw: random.Random, tally: Tally) -> Iterator[Plan]:
    """Launchers and kills of studies, until ``count`` kills at points have struck."""
    while sum(tally.kills.values()) < count:
        wanted = points(min(count, sum(map(len, PLACES.values()))), draw)
        workers = [point for point in wanted if point.of == "worker"]
        launcher = [point for point in wanted if point.label == "the launcher"]
        inline = [point for point in wanted if point not in workers and point not in launcher]
        studies: list[Plan] = []
        for name, of_study in (("inline", inline), ("local", launcher)):
            for i in range(0, len(of_study), KILLS_A_STUDY):
                studies.append((name, [[point] for point in of_study[i : i + KILLS_A_STUDY]]))
        for i in range(0, len(workers), KILLS_A_STUDY):
            studies.append(("local", [workers[i : i + KILLS_A_STUDY]]))
        for plan in studies:
            left = count - sum(tally.kills.values())
            if left > 0:
                yield plan[0], plan[1][:left]


def _at_random(count: int, seconds: float, draw: random.Random, tally: Tally) -> Iterator[Plan]:
    """The same until ``count`` kills within the time that a study takes have struck."""
    goal = sum(tally.kills.values()) + count
    launchers = itertools.cycle(["inline", "local"])
    while (left := goal - sum(tally.kills.values())) > 0:
        yield next(launchers), [draw.uniform(0.0, seconds) for _ in range(min(left, KILLS_A_STUDY))]


def main() -> int:
    """Kill, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--named", type=int, default=100)
    parser.add_argument("--random", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="adaptlab-kill-") as folder:
        os.environ["ADAPTLAB_CACHE"] = f"{folder}/cache"
        tally = harness(
            Path(folder),
            named=arguments.named,
            at_random=arguments.random,
            seed=arguments.seed,
            say=lambda line: print(line, flush=True),
        )
    for label, count in sorted(tally.kills.items()):
        print(f"{count:5d} kills: {label}")
    print(f"{tally.missed:5d} points that no process got to")
    print(*tally.wrong, sep="\n")
    print(
        f"{sum(tally.kills.values())} kills over {tally.studies} studies in {time.monotonic() - began:.0f} s: "
        f"{len(tally.wrong)} things wrong"
    )
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
