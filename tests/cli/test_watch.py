"""``adaptlab watch``: what the records say at one moment, and again when they change."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from adaptlab.cli.watch import headline, watch
from adaptlab.report.live import Watcher
from tests.cli.conftest import Command
from tests.report.build import METHODS, Run, build_study, diverged, write_run

FULL, LORA, IA3, BITFIT, HEAD = METHODS


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Four of six runs begun: two finished (40 s each), one running, one diverged."""
    runs = [Run(FULL), Run(LORA), replace(Run(FULL, seed=1), status="running"), diverged(Run(LORA, seed=1))]
    folder = build_study(tmp_path / "study", runs)
    (folder / "study.yaml").write_text("task: sst2\nmethods: [full, lora]\nseeds: [0, 1, 2]\n")
    return folder


def test_a_look_counts_what_the_records_say(study: Path) -> None:
    standing = Watcher(study, planned=6).look()
    assert (standing.total, standing.finished, standing.to_come, standing.over) == (6, 2, 2, False)
    [running] = standing.running
    assert (running.step, running.total_steps, running.train_loss) == (60, 120, pytest.approx(0.258, abs=0.01))
    assert standing.lost[0][1] == "diverged: The loss was nan at step 61."
    assert standing.seconds_left == pytest.approx(40 * 2.5)
    [best] = standing.best
    assert (best.task, best.method, best.n) == ("sst2", "full", 1)
    assert headline(standing) == ("2 of 6 runs done, 1 running, 1 did not finish, 2 to come, about 1 min 40 s left")


def test_only_what_changed_is_read_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(study, planned=6)
    watcher.look()
    read: list[str] = []
    monkeypatch.setattr("adaptlab.report.live.RunFolder.read_record", lambda run: read.append(run.name))
    assert watcher.look().finished == 2
    assert read == []
    monkeypatch.undo()
    write_run(study / "runs" / Run(IA3).folder_name, Run(IA3))
    assert watcher.look().finished == 3


def test_a_silent_run_is_told_apart(study: Path) -> None:
    folder = study / "runs" / Run(FULL, seed=1).folder_name
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1_000_000, 1_000_000))
    [running] = Watcher(study, clock=lambda: 1_000_900.0).look().running
    assert running.quiet_seconds == 900


def test_damaged_records_are_named_and_harm_nothing(study: Path) -> None:
    (study / "runs" / "broken").mkdir()
    (study / "runs" / "broken" / "record.json").write_text("{")
    standing = Watcher(study, planned=6).look()
    assert standing.finished == 2
    assert standing.damaged == ("runs/broken/record.json is damaged (not JSON, or cut off).",)


def test_once_shows_it_and_ends(study: Path, adaptlab: Command) -> None:
    done = adaptlab("watch", str(study), "--once")
    assert done.code == 0
    assert "study: 2 of 6 runs done, 1 running" in done.out
    assert f"{Run(FULL, seed=1).folder_name} 60/120" in " ".join(done.out.split())
    assert "sst2: full, accuracy 0.9025 (1 run)" in done.out


def test_json_is_a_document(study: Path, adaptlab: Command) -> None:
    document = json.loads(adaptlab("watch", str(study), "--json").out)
    assert (document["total"], document["finished"], document["to_come"]) == (6, 2, 2)
    assert document["running"][0]["step"] == 60


def test_it_ends_by_itself_when_the_study_is_over(tmp_path: Path, adaptlab: Command) -> None:
    folder = build_study(tmp_path / "study", [Run(FULL), Run(LORA)])
    (folder / "study.yaml").write_text("task: sst2\nmethods: [full, lora]\nseeds: [0]\n")
    assert "2 of 2 runs done" in adaptlab("watch", str(folder), "--interval", "0.2").out


def test_a_folder_that_is_no_study_is_an_error(tmp_path: Path, adaptlab: Command) -> None:
    assert adaptlab("watch", str(tmp_path), "--once").code == 2


def test_ctrl_c_leaves_with_the_cursor_shown_and_no_complaint(study: Path) -> None:
    inside, outside = pty.openpty()
    command = [sys.executable, "-m", "adaptlab", "watch", str(study), "--interval", "0.2"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    # What runs in a shell's background is started with Ctrl-C ignored, and hands that on.
    process = subprocess.Popen(
        command, stdin=outside, stdout=outside, stderr=outside, env=environment, preexec_fn=_heed_ctrl_c
    )
    os.close(outside)
    written = b""
    try:
        while b"2 to come" not in written and process.poll() is None:
            written += os.read(inside, 4096)
        process.send_signal(signal.SIGINT)
        written += _rest(inside)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        os.close(inside)
    assert b"Traceback" not in written
    assert written.rindex(b"\x1b[?25h") > written.rindex(b"\x1b[?25l")  # the cursor, hidden while it redraws


def test_ctrl_c_while_the_display_begins_shows_the_cursor_too(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"TERM": "xterm-256color"}
    terminal = Console(file=StringIO(), force_terminal=True, _environ=environment)
    monkeypatch.setattr("adaptlab.cli.watch.stdout_console", lambda: terminal)

    def interrupted(display: Live) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Live, "refresh", interrupted)
    watch(study)
    assert isinstance(terminal.file, StringIO)
    written = terminal.file.getvalue()
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _rest(terminal: int) -> bytes:
    """What is written until the other side closes."""
    found = b""
    try:
        while part := os.read(terminal, 4096):
            found += part
    except OSError:  # Linux's way to say that nobody writes any more
        pass
    return found
