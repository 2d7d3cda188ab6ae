"""Damaged files given to the command line: each command must succeed or end in one clear error.

    python benchmarks/fuzz_cli.py --count 500 --seed 0

Around a real study of two runs, a file is damaged as in ``benchmarks/fuzz.py``, a command that reads it is run in this
process, and everything is put back. Counted as failures: what nobody expected to be raised (a traceback, or the
sentence that stands for one), an exit code without a word, a command longer than ``SECONDS``, and any file changed that
is not the command's to write.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adaptlab.cli.main import main as adaptlab
from adaptlab.config import ExecutionConfig
from adaptlab.runs.job import Job, write_job
from adaptlab.runs.store import StudyFolder
from benchmarks.fuzz import HangError, Tally, deadline, mutated
from tests.integration.conftest import write_table
from tests.tiny_models import build_tiny_model

#: Of the wall: on a machine that others use too, a report has taken more than a minute.
SECONDS = 300


@dataclass(frozen=True)
class Attack:
    """A file to damage, the command that reads it, and what the command may write, as folders or files."""

    file: Path
    words: Sequence[str | Path]
    writes: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """For the tally."""
        return f"{self.file.name}: {self.words[0]}"


def attacks(folder: Path) -> list[Attack]:
    """A model, rows and a study with two runs in ``folder``, one of which a launcher has handed out."""
    model = build_tiny_model("bert", folder / "model")
    rows = write_table(folder / "rows.csv", rows=60)
    lines = [line.split(",") for line in rows.read_text().splitlines()[1:]]
    jsonl = folder / "rows.jsonl"
    jsonl.write_text("".join(f'{{"text": "{text}", "label": "{label}"}}\n' for text, label in lines))
    yaml = folder / "mine.yaml"
    yaml.write_text(
        f"model: {model}\ntask: {rows}\nmethods:\n  - lora\n  - {{name: full, head: frozen}}\nseeds: [0, 1]\n"
    )
    study = folder / "study"
    flags = [
        *(
            "--seeds",
            "1",
            "--steps",
            "2",
            "--batch-size",
            "8",
            "--device",
            "cpu",
            "--threads",
            "1",
            "--keep-weights",
            "all",
        )
    ]
    asked = ["compare", "--model", model, "--task", rows, "--methods", "head,lora", *flags, "--out", study]
    code, said = run(asked)
    assert code == 0, said
    head, lora = sorted((study / "runs").iterdir())
    waiting = _handed_out(study, head)
    report, adapter = study / "report", lora / "adapter"
    scored = ("--task", rows, "--device", "cpu")
    by_adapter = ["evaluate", "--adapter", adapter, "--model", model, *scored]
    return [
        Attack(yaml, ["validate", yaml]),
        Attack(study / "study.yaml", ["watch", study, "--once"]),
        Attack(rows, ["evaluate", lora, *scored], (lora / "evaluations",)),
        Attack(jsonl, ["evaluate", lora, "--task", jsonl, "--device", "cpu"], (lora / "evaluations",)),
        Attack(lora / "record.json", ["watch", study, "--once"]),
        Attack(lora / "record.json", ["report", study], (report,)),
        Attack(lora / "record.json", ["evaluate", lora, *scored], (lora / "evaluations",)),
        Attack(lora / "curve.jsonl", ["report", study], (report,)),
        Attack(lora / "predictions.parquet", ["report", study], (report,)),
        Attack(waiting / "job.json", ["run-one", waiting], (waiting, waiting.parents[1])),
        Attack(adapter / "adapter_model.safetensors", by_adapter),
        Attack(adapter / "adapter_config.json", by_adapter),
        Attack(model / "config.json", by_adapter),
        Attack(model / "model.safetensors", by_adapter),
        Attack(model / "tokenizer.json", by_adapter),
    ]


def _handed_out(study: Path, done: Path) -> Path:
    """The run of folder ``done`` as if it were still to be done, in a study beside it."""
    folder = StudyFolder(study.with_name("other"))
    record = StudyFolder(study).runs()[0].read_record()
    assert record is not None
    folder.path.mkdir()
    waiting = folder.run(record.name).path
    config = record.config
    execution = ExecutionConfig(device="cpu", threads=1)
    write_job(waiting, Job(id=record.id, run=config.resolved, given=config.given, execution=execution))
    return waiting


def run(words: Sequence[str | Path]) -> tuple[int, str]:
    """The command in this process: its exit code and what it said on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = adaptlab([str(word) for word in words])
    return code, err.getvalue()


def fuzz(found: Sequence[Attack], folder: Path, *, count: int, seed: int) -> Tally:
    """``count`` commands on damaged files, the attacks in turn; a fresh draw for each."""
    tally = Tally()
    before = contents(folder)
    kept = folder.with_name(f"{folder.name}-kept")
    shutil.copytree(folder, kept)
    for attack in found:  # a command that fails on the good file would hide what damage does
        code, said = run(attack.words)
        assert code == 0, f"{attack.name}: {said}"
        _restore(folder, kept)
    for number in range(count):
        attack = found[number % len(found)]
        good = attack.file.read_bytes()
        attack.file.write_bytes(mutated(good, random.Random(f"{seed}/{number}")))
        wrong = ""
        try:
            with deadline(SECONDS):
                code, said = run(attack.words)
            wrong = "" if code == 0 else unclear(said)
            (tally.errors if code else tally.results)[attack.name] += 1
        except (Exception, HangError) as error:
            wrong = f"{type(error).__name__}: {error}"
        attack.file.write_bytes(good)
        touched = [name for name in differing(before, contents(folder)) if not _may(folder / name, attack)]
        if touched:
            wrong = f"{wrong}; touched {', '.join(touched)}".lstrip("; ")
        if wrong:
            tally.failures.append(f"{attack.name}, seed {seed}, number {number}: {wrong[:300]}")
        if touched or attack.writes:
            _restore(folder, kept)
    shutil.rmtree(kept)
    return tally


def _restore(folder: Path, kept: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)


def unclear(said: str) -> str:
    """What is wrong with the words of a command that did not succeed; empty if they are one clear error."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error: ")]
    if "Traceback" in said or "Unexpected" in said:
        return said.strip()
    if len(errors) == 1 or (lines and lines[-1].endswith(" errors.")):
        return ""
    return f"not one error: {said.strip()!r}"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Names of files that are not the same, or not there, in both."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _may(path: Path, attack: Attack) -> bool:
    return any(path == allowed or allowed in path.parents for allowed in attack.writes)


def prepared(folder: Path, call: Callable[[list[Attack]], Tally]) -> Tally:
    """``call`` on the attacks around a study in ``folder``, with libraries quiet and no way to a hub."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    logging.disable(logging.CRITICAL)
    try:
        return call(attacks(folder))
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    """Fuzz, print the tally, and say by the exit code whether anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="commands in all")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other damage")
    given = parser.parse_args()
    start = time.process_time()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "made")
        folder.mkdir()
        tally = prepared(folder, lambda found: fuzz(found, folder, count=given.count, seed=given.seed))
    for name in sorted(collections.Counter(tally.results) + collections.Counter(tally.errors)):
        print(f"{name:40} {tally.results[name]:5} succeeded {tally.errors[name]:5} refused")
    print(*tally.failures, sep="\n")
    print(f"{given.count} commands, {len(tally.failures)} failures, {time.process_time() - start:.0f} CPU seconds")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
