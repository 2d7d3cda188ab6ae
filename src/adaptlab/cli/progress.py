"""The wait made visible: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adaptlab.cli.output import Output, cursor_restored
from adaptlab.runs.record import Record
from adaptlab.study.events import Event, Listener, RunEnded, RunsPacked, RunStarted, StepDone, StudyStarted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Tally:
    """How far a study is; several runs may be on their way at once. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self.total = 0
        self.done = 0
        self._shares: dict[str, float] = {}  # of the runs on their way
        self._at_start: dict[str, float] = {}  # done by an earlier call
        self._inherited = 0.0  # work, in runs, that earlier calls did of runs that have ended

    @property
    def share(self) -> float:
        """How much of the runs on their way is done, in runs."""
        return sum(self._shares.values())

    @property
    def together(self) -> int:
        """How many runs are on their way."""
        return len(self._shares)

    def update(self, event: Event) -> None:
        """Take ``event`` into account."""
        match event:
            case StudyStarted():
                self.total, self._began = len(event.names), self._clock()
            case RunStarted():
                self._shares[event.name] = self._at_start[event.name] = event.from_step / max(1, event.total_steps)
            case StepDone():
                self._shares[event.name] = event.step / max(1, event.total_steps)
            case RunEnded():
                self.done += 1
                self._shares.pop(event.name, None)
                self._inherited += self._at_start.pop(event.name, 0.0)

    def seconds_left(self) -> float | None:
        """An estimate from the runs so far, which may be shorter or longer than those to come; None at the start."""
        work = self.done + self.share - self._inherited - sum(self._at_start.values())
        if work <= 0.05 or self.total == 0:
            return None
        return (self._clock() - self._began) / work * (self.total - self.done - self.share)


@contextmanager
def progress(output: Output) -> Iterator[Listener]:
    """A listener that shows how a study goes on stderr: nothing if quiet, a live display only in a terminal."""
    if output.quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _live() as listener:
            yield listener
    else:
        yield _plain(output)


#: Seconds that pass in silence before a plan says how far it is, where no bar can show it.
_SILENCE_SECONDS = 5.0


@contextmanager
def planning(output: Output, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[str, int, int], None]]:
    """What a plan tells its progress: a bar in a terminal, elsewhere a line for every few seconds."""
    if output.quiet:
        yield lambda method, done, of: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True, highlight=False, markup=False)
        with cursor_restored(console), Progress(console=console, transient=True) as bars:
            bar = bars.add_task("reading data and model", total=None)
            yield lambda method, done, of: bars.update(bar, description=method, completed=done, total=of)
    else:
        said = clock()

        def tell(method: str, done: int, of: int) -> None:
            nonlocal said
            if clock() - said >= _SILENCE_SECONDS:
                said = clock()
                output.note(f"[{done}/{of}] next: {method}")

        yield tell


def _plain(output: Output) -> Listener:
    tally = Tally()

    def listen(event: Event) -> None:
        tally.update(event)
        match event:
            case StudyStarted():
                output.note(_opening(event))
            case RunsPacked():
                for line in _packed(event):
                    output.note(line)
            case RunEnded():
                left = tally.seconds_left()
                rest = f", about {duration(left)} left" if left is not None and tally.done < tally.total else ""
                output.note(f"[{tally.done}/{tally.total}] {event.name}: {_brief(event.record)}{rest}")

    return listen


@contextmanager
def _live() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False, markup=False)
    tally = Tally()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[rest]}"),
    )
    with cursor_restored(console), Progress(*columns, console=console, transient=True) as bars:
        study = bars.add_task("reading data and model", total=None, rest="")
        run = bars.add_task("loading", total=None, rest="", visible=False)

        def listen(event: Event) -> None:
            tally.update(event)
            match event:
                case StudyStarted():
                    console.print(_opening(event))
                    bars.update(run, visible=bool(event.names))
                case RunsPacked():
                    for line in _packed(event):
                        console.print(line, soft_wrap=True)
                case RunStarted():
                    rest = f"step {event.from_step}/{event.total_steps}"
                    bars.reset(
                        run, description=event.name, total=event.total_steps, completed=event.from_step, rest=rest
                    )
                case StepDone():
                    _show_step(bars, run, event)
                case RunEnded():
                    console.print(f"{event.name}: {_brief(event.record)}", soft_wrap=True)
                    bars.reset(run, description="loading", total=None, rest="")
            _show_study(bars, study, tally)

        yield listen


def _show_step(bars: Progress, run: TaskID, event: StepDone) -> None:
    loss = "" if event.loss is None else f", loss {event.loss:.3f}"
    bars.update(run, completed=event.step, total=event.total_steps, rest=f"step {event.step}/{event.total_steps}{loss}")


def _show_study(bars: Progress, study: TaskID, tally: Tally) -> None:
    left = tally.seconds_left()
    rest = "" if left is None else f"about {duration(left)} left"
    number = min(tally.done + 1, tally.total)
    last = min(tally.done + tally.together, tally.total)
    numbers = f"run {number}" if last <= number else f"runs {number} to {last}"
    description = f"{numbers} of {tally.total}"
    bars.update(
        study, description=description, total=tally.total or None, completed=tally.done + tally.share, rest=rest
    )


def _opening(event: StudyStarted) -> str:
    skipped = f", {len(event.skipped)} already done" if event.skipped else ""
    return f"{counted(len(event.names), 'run')} to do{skipped}, in {event.folder}"


def _packed(event: RunsPacked) -> list[str]:
    """Which runs train together, and which do not and why."""
    lines = [f"Fused: {counted(len(group), 'run')} train together." for group in event.groups]
    reasons: dict[str, list[str]] = {}
    for name, reason in event.alone.items():
        reasons.setdefault(reason, []).append(name)
    return lines + [f"Solo, {reason}: {', '.join(names)}." for reason, names in reasons.items()]


def outcome(record: Record) -> str:
    """How a run ended, in a few words."""
    if record.status != "finished":
        reason = f" ({record.error.message.splitlines()[0]})" if record.error and record.error.message else ""
        return f"{record.status}{reason}"
    words = "finished"
    if record.primary is not None:
        words = f"{record.primary.name} {record.primary.value:.4f} on {record.primary.evaluation_set}"
    elif (score := record.training.get("select_score")) is not None:
        words = f"{record.training.get('select_metric', 'score')} {score:.4f} on the selection rows"
    seconds = record.cost.train_seconds
    if seconds is not None:
        words = f"{words}, trained in {duration(seconds)}"
    smaller = record.training.get("micro_batch_size")
    return words if smaller is None else f"{words}; memory ran out, it went on in micro-batches of {smaller}"


def _brief(record: Record) -> str:
    """As :func:`outcome`, short enough for a line: the whole reason comes at the end."""
    words = outcome(record)
    return words if len(words) <= 100 else f"{words[:99]}…"


def duration(seconds: float) -> str:
    """``8 s``, ``1 min 05 s``, ``2 h 03 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
