"""Damaged files put through the functions that read them: each must give a result or one clear error.

    python benchmarks/fuzz.py --count 10000 --seed 0

A file is a good one with a few mutations: bytes flipped, cut, doubled, or swapped for what parsers choke on. Whatever
else is raised than an ``AdaptlabError``, a read longer than ``SECONDS``, and a change to a file beside the one that is
read are printed with what repeats them, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from adaptlab.adapter import read_settings, stored_labels, weight_names
from adaptlab.config import MethodConfig, ModelConfig, RunConfig, RunIdentity, StudyConfig, TaskConfig
from adaptlab.errors import AdaptlabError
from adaptlab.models.identity import read_config
from adaptlab.runs.answers import read_answers
from adaptlab.runs.job import read_job
from adaptlab.runs.record import ConfigPart, CurvePoint, Record
from adaptlab.runs.store import Predictions, RunFolder, StudyFolder
from adaptlab.runs.studyfile import dump
from adaptlab.study.document import read_study
from adaptlab.tasks._base import DataAccess
from adaptlab.tasks._files import FileTask

SECONDS = 10
#: What parsers choke on: depth, aliases, tags, huge and odd numbers, half a character, a null byte, a missing quote.
_CHOKES = (
    b"[" * 3000, b"{" * 3000, b"&a [*a, *a]", b"!!python/object/apply:os.system ['false']", b"<<: *x", b"9" * 5000,
    b"1e999", b"-1e999", b"NaN", b"Infinity", b"\\ud800", b"\xff\xfe", b"\xed\xa0\x80", b"\0", b'"', b"'", b"\r", b"\t",
    b"null", b"true", b"{}", b"[]", b"''", b"../../..", b"~nobody/x", b"\xe2\x80\xae", b"\xef\xbb\xbf", b"2026-01-32",
    b"0x", b"%", b": ", b"- ", b"---\n", b"...\n", b"\xff" * 8, b"\0" * 8, b"\n\n",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A kind of file: a good one, where it lies, everything that reads it, and what must lie ``beside`` it."""

    name: str
    good: bytes
    read: Callable[[Path], object]
    beside: tuple[str, ...] = ()


@dataclass
class Tally:
    """How many reads gave a result or an error, and what went wrong."""

    results: collections.Counter[str] = field(default_factory=collections.Counter)
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)


class HangError(BaseException):
    """A read took longer than it may; no handler of ours catches it."""


def mutated(good: bytes, draw: random.Random) -> bytes:
    """``good`` with one to four mutations."""
    content = bytearray(good)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        start = draw.randrange(len(content) + 1)
        end = min(len(content), start + draw.choice([1, 1, 2, 8, 64, 512]))
        kind = draw.randrange(6)
        if kind == 0:
            content[start:end] = bytes(draw.randrange(256) for _ in range(end - start))
        elif kind == 1:
            del content[start:end]
        elif kind == 2:
            content[start:start] = draw.choice(_CHOKES)
        elif kind == 3:
            content[start:end] = draw.choice(_CHOKES)
        elif kind == 4:
            content[start:start] = content[start:end]
        else:
            del content[start:]
    return bytes(content)


def fuzz(targets: list[Target], folder: Path, *, count: int, seed: int) -> Tally:
    """Read ``count`` damaged files, the kinds in turn; a fresh draw for each, so that one can be repeated alone."""
    tally = Tally()
    folder.mkdir(parents=True, exist_ok=True)
    neighbour = folder / "neighbour.json"
    neighbour.write_bytes(b"untouched")
    for number in range(count):
        target = targets[number % len(targets)]
        path = folder / target.name
        path.parent.mkdir(parents=True, exist_ok=True)
        for name in target.beside:
            (path.parent / name).touch()
        content = mutated(target.good, random.Random(f"{seed}/{number}"))
        path.write_bytes(content)
        present = {file for file in folder.rglob("*") if file.is_file()}
        try:
            with deadline():
                target.read(path)
            tally.results[target.name] += 1
        except AdaptlabError as error:
            tally.errors[target.name] += 1
            if not str(error).strip():
                tally.failures.append(f"{target.name}, seed {seed}, number {number}: an error without a word")
        except (Exception, HangError) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {str(error)[:120]} ({Path(where.filename).name}:{where.lineno})"
            tally.failures.append(f"{target.name}, seed {seed}, number {number}: {text}")
        left = {file for file in folder.rglob("*") if file.is_file()}
        if left != present or path.read_bytes() != content or neighbour.read_bytes() != b"untouched":
            tally.failures.append(f"{target.name}, seed {seed}, number {number}: reading it changed files")
    return tally


@contextmanager
def deadline(seconds: float = SECONDS) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise HangError(f"over {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def targets(folder: Path) -> list[Target]:
    """One of each kind; the good files are written by the functions that write them, in ``folder``."""
    config = RunConfig(model=ModelConfig(id="minilm"), task=TaskConfig(name="sst2"), method=MethodConfig(name="lora"))
    identity = RunIdentity(weights="sha256:1", data="sha256:2", task="sst2", task_version=1)
    run = RunFolder(folder / "good")
    run.path.mkdir(parents=True)
    parts = ConfigPart(given=config, resolved=config, identity=identity)
    run.write_record(Record(id="0" * 64, name="a-b-s0-00000000", status="finished", config=parts))
    for step in range(4):
        run.append_curve(CurvePoint(step=step, examples=step, tokens=step, select_loss=0.5, metrics={"accuracy": 0.5}))
    run.write_predictions([Predictions("test", ["a", "b"], [0, 1], [1, 1], [[0.5, 0.5], [0.25, 0.75]])])
    study = StudyConfig.model_validate({"task": "sst2", "methods": ["lora", {"name": "full", "head": "frozen"}]})
    rows = [{"text": f"row {i} 'é', \"x\"", "label": ["warm", "cold"][i % 2]} for i in range(40)]
    document = {"id": "0" * 64, "run": config.model_dump(), "given": config.model_dump(), "execution": {}}
    settings = {"peft_type": "LORA", "r": 8, "target_modules": ["query"]}
    model = {"model_type": "bert", "hidden_size": 32, "architectures": ["BertModel"]}
    return [
        Target("study.yaml", dump(study).encode(), _read_yaml),
        Target("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode(), _read_rows),
        Target("rows.csv", _csv(rows), _read_rows),
        Target("run/record.json", run.record_path.read_bytes(), lambda path: RunFolder(path.parent).read_record()),
        Target("run/curve.jsonl", run.curve_path.read_bytes(), lambda path: RunFolder(path.parent).read_curve()),
        Target("run/predictions.parquet", run.predictions_path.read_bytes(), _read_predictions),
        Target("run/job.json", json.dumps(document).encode(), lambda path: read_job(path.parent)),
        Target("adapter/adapter_model.safetensors", _tensors(), lambda path: weight_names(path.parent)),
        Target(
            "settings/adapter_config.json",
            json.dumps(settings).encode(),
            _read_settings,
            beside=("adapter_model.safetensors",),
        ),
        Target("model/config.json", json.dumps(model).encode(), _read_model),
    ]


def _read_yaml(path: Path) -> None:
    errors = []
    for read in (lambda: read_study(path), lambda: StudyFolder(path.parent).read_study()):
        try:
            read()
        except AdaptlabError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _read_rows(path: Path) -> None:
    FileTask(path).load(TaskConfig(name=str(path)), DataAccess())


def _read_predictions(path: Path) -> None:
    try:
        RunFolder(path.parent).read_predictions()
    finally:
        read_answers(path)


def _read_settings(path: Path) -> None:
    stored_labels(path.parent)
    read_settings(path.parent)


def _read_model(path: Path) -> None:
    read_config(ModelConfig(id=str(path.parent)))


def _csv(rows: list[dict[str, str]]) -> bytes:
    quoted = ['"{}",{}'.format(row["text"].replace('"', '""'), row["label"]) for row in rows]
    return "\n".join(["text,label", *quoted, ""]).encode()


def _tensors() -> bytes:
    import numpy as np
    import torch  # noqa: F401  # reading tensors imports it, and no deadline is for that
    from safetensors.numpy import save

    return save({f"layer.{i}.weight": np.ones((4, 4), dtype=np.float32) for i in range(3)})


def main() -> int:
    """Fuzz, print the tally, and say by the exit code whether anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="damaged files in all")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other damage")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        kinds = targets(Path(folder, "made"))
        tally = fuzz(kinds, Path(folder, "damaged"), count=given.count, seed=given.seed)
    for kind in kinds:
        print(f"{kind.name:36} {tally.results[kind.name]:6} read {tally.errors[kind.name]:6} refused")
    print(*tally.failures, sep="\n")
    print(f"{given.count} files, {len(tally.failures)} failures, {time.process_time() - start:.0f} CPU seconds")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
