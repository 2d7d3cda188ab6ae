"""Files survive kill -9, a full disk and a rival; texts lose what a record must not tell."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adaptlab.errors import StudyError
from adaptlab.runs.files import (
    BusyError,
    append_line,
    locked,
    remove_leftovers,
    scrub,
    scrub_document,
    write_atomically,
)

WRITER = """
import sys
from pathlib import Path
from adaptlab.runs.files import write_atomically
path, n = Path(sys.argv[1]), 0
while True:
    n += 1
    write_atomically(path, (str(n % 10) * 300_000).encode())
    if n == 3:
        print("started", flush=True)
"""

HOLDER = """
import sys, time
from pathlib import Path
from adaptlab.runs.files import locked
with locked(Path(sys.argv[1]), wait=False, busy=""):
    print("held", flush=True)
    time.sleep(60)
"""


def start(program: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip()
    return process


def test_kill_in_the_middle_of_writing_leaves_one_whole_state(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    for attempt in range(8):
        process = start(WRITER, path)
        time.sleep(0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = path.read_text()
        assert len(content) == 300_000
        assert len(set(content)) == 1
        remove_leftovers(tmp_path)
        assert os.listdir(tmp_path) == ["record.json"]


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_full_disk_keeps_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, b"old")

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(StudyError, match=r"No space left to write .*record\.json: free some"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_file_size_limit_of_the_kernel_keeps_the_old_state(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
from adaptlab.errors import StudyError
from adaptlab.runs.files import append_line, write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
write_atomically(folder / "record.json", b"old")
append_line(folder / "curve.jsonl", b"1")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (write_atomically, append_line):
    try:
        write(folder / ("record.json" if write is write_atomically else "curve.jsonl"), b"n" * 5000)
    except StudyError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.count("No space left to write") == 2
    assert (tmp_path / "record.json").read_bytes() == b"old"
    assert (tmp_path / "curve.jsonl").read_bytes() == b"1\n"
    assert sorted(os.listdir(tmp_path)) == ["curve.jsonl", "record.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"Cannot write .*record\.json"):
        write_atomically(tmp_path / "nowhere" / "record.json", b"")


@pytest.mark.parametrize("torn", [b"", b"to", b"t" * 200_000])
def test_appending_drops_a_torn_last_line(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "curve.jsonl"
    append_line(path, b"one")
    with open(path, "ab") as file:
        file.write(torn)
    append_line(path, b"two")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_lock_has_one_holder_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = start(HOLDER, path)
    with pytest.raises(BusyError, match="it is running"), locked(path, wait=False, busy="it is running"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(path, wait=False, busy=""):
        pass


def test_waiting_for_a_lock_keeps_additions_apart(tmp_path: Path) -> None:
    """Four processes add 1 to a number in a file 25 times each; without the lock some additions would be lost."""
    program = """
import sys, time
from pathlib import Path
from adaptlab.runs.files import locked
number = Path(sys.argv[1])
for _ in range(25):
    with locked(number.with_name(".lock"), wait=True, busy=""):
        value = int(number.read_text())
        time.sleep(0.001)
        number.write_text(str(value + 1))
"""
    number = tmp_path / "number"
    number.write_text("0")
    adders = [subprocess.Popen([sys.executable, "-c", program, str(number)]) for _ in range(4)]
    assert [adder.wait(60) for adder in adders] == [0, 0, 0, 0]
    assert number.read_text() == "100"


def test_scrubbed_text_has_no_home_and_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("SOME_API_KEY", "planted-secret-value")
    monkeypatch.setenv("MY_TOKEN", "another-planted-one")
    monkeypatch.chdir(tmp_path)
    text = f"/home/ada/x '/home/ada' /home/adam/y {tmp_path}/z planted-secret-value another-planted-one hf_abcDEF123456"
    assert scrub(text) == "~/x '~' /home/adam/y ./z *** *** ***"
    assert scrub(text, working_folder=False) == f"~/x '~' /home/adam/y {tmp_path}/z *** *** ***"
    assert scrub_document({"a": ["/home/ada", 1, None, {"/home/ada": "hf_abcDEF123456"}]}) == {
        "a": ["~", 1, None, {"/home/ada": "***"}]
    }


def test_a_home_that_is_the_root_folder_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert scrub("/etc/hosts", working_folder=False) == "/etc/hosts"
