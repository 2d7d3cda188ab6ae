"""The wait is told in words that hold: what is done, what is left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import StringIO

import pytest
from rich.live import Live

from adaptlab.cli.output import Output
from adaptlab.cli.progress import Tally, duration, planning, progress
from adaptlab.config import MethodConfig, ModelConfig, RunConfig, RunIdentity, TaskConfig
from adaptlab.runs.record import ConfigPart, Cost, ErrorPart, Primary, Record
from adaptlab.study.events import RunEnded, RunStarted, StepDone, StudyEnded, StudyStarted


def record(name: str, **changes: object) -> Record:
    config = RunConfig(model=ModelConfig(id="m"), task=TaskConfig(name="t"), method=MethodConfig(name="lora"))
    identity = RunIdentity(weights="w", data="d", task="t", task_version=1)
    done = Record(
        id="0" * 64,
        name=name,
        status="finished",
        config=ConfigPart(given=config, resolved=config, identity=identity),
        primary=Primary(name="accuracy", value=0.75, n=8, evaluation_set="test"),
        cost=Cost(train_seconds=65.2),
    )
    return done.model_copy(update=changes)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_follows_the_pace_so_far() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.update(StudyStarted("s", ("a", "b", "c", "d"), ()))
    tally.update(RunStarted("a", 100))
    assert tally.seconds_left() is None
    clock.now = 10
    tally.update(StepDone("a", 50, 100))
    assert tally.seconds_left() == pytest.approx(70)
    clock.now = 20
    tally.update(RunEnded("a", record("a")))
    assert tally.seconds_left() == pytest.approx(60)


def test_work_of_an_earlier_call_makes_no_one_faster() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.update(StudyStarted("s", ("a", "b"), ()))
    tally.update(RunStarted("a", 100, from_step=80))
    clock.now = 10
    tally.update(RunEnded("a", record("a")))
    assert tally.seconds_left() == pytest.approx(50)  # 0.2 runs took 10 s
    tally.update(RunStarted("b", 100))
    clock.now = 35
    tally.update(StepDone("b", 50, 100))
    assert tally.seconds_left() == pytest.approx(25)


def test_without_a_terminal_each_run_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(Output()) as listen:
        listen(StudyStarted("my-study", ("a", "b"), ("c",)))
        listen(RunStarted("a", 10))
        listen(StepDone("a", 10, 10, 0.5))
        listen(RunEnded("a", record("a")))
        error = ErrorPart(type="ModelError", message="No such thing.\nmore")
        listen(RunEnded("b", record("b", status="failed", error=error)))
        listen(StudyEnded("my-study", 1, ("b",)))
    said = capsys.readouterr()
    assert said.out == ""
    first, second, third = said.err.splitlines()
    assert first == "2 runs to do, 1 already done, in my-study"
    assert second.startswith("[1/2] a: accuracy 0.7500 on test, trained in 1 min 05 s, about ")
    assert third == "[2/2] b: failed (No such thing.)"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(Output(quiet=True)) as listen:
        listen(StudyStarted("s", ("a",), ()))
        listen(RunEnded("a", record("a")))
    assert capsys.readouterr() == ("", "")


LOGGING = """
import logging, sys, warnings
from adaptlab.cli.output import Output
Output.start(False, False, sys.argv[1])
for name in ("adaptlab", "library"):
    for level in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger(name), level)(level)
warnings.warn("deprecated")
"""


@pytest.mark.parametrize(
    ("level", "ours", "theirs"),
    [
        ("debug", ["DEBUG", "INFO", "WARNING", "ERROR"], ["INFO", "WARNING", "ERROR"]),
        ("info", ["INFO", "WARNING", "ERROR"], ["WARNING", "ERROR"]),
        ("warning", ["WARNING", "ERROR"], ["ERROR"]),
        ("error", ["ERROR"], ["ERROR"]),
    ],
)
def test_libraries_are_heard_when_asked_for(level: str, ours: list[str], theirs: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOGGING, level], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stderr.splitlines()]
    assert [line[0] for line in lines if line[1:2] == ["adaptlab:"]] == ours
    assert [line[0] for line in lines if line[1:2] == ["library:"]] == theirs
    assert ("deprecated" in done.stderr) == (level in ("debug", "info"))
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (8.25, "8.2 s"), (42.4, "42 s"), (65.2, "1 min 05 s"), (7384, "2 h 03 min")],
)
def test_durations_are_read_at_a_glance(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_plan_that_takes_long_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with planning(Output(), clock) as tell:
        for done, clock.now in enumerate((1.0, 4.0, 6.0, 8.0, 11.5)):
            tell(f"lora-r{2**done}", done, 5)
    with planning(Output(quiet=True), clock) as tell:
        tell("lora", 0, 1)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "[2/5] next: lora-r4\n[4/5] next: lora-r16\n")


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("begin", [progress, planning])
def test_ctrl_c_while_the_bar_begins_shows_the_cursor_again(
    begin: Callable[[Output], AbstractContextManager[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(display: Live) -> None:
        raise KeyboardInterrupt

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(Live, "refresh", interrupted)
    with pytest.raises(KeyboardInterrupt), begin(Output()):
        pass
    written = terminal.getvalue()
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
