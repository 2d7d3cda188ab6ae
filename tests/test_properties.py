"""Configs, data files, records and checkpoints, tried with whatever a machine thinks of."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from adaptlab import api
from adaptlab.config import (
    MethodConfig,
    ModelConfig,
    RunConfig,
    RunIdentity,
    StudyConfig,
    TaskConfig,
    TrainingConfig,
    run_id,
)
from adaptlab.errors import AdaptlabError, ConfigError
from adaptlab.runs import studyfile
from adaptlab.runs.record import ConfigPart, CurvePoint, Record
from adaptlab.runs.store import Predictions, RunFolder
from adaptlab.study.document import read_study
from adaptlab.study.expand import expand
from adaptlab.tasks._base import DataAccess
from adaptlab.tasks._files import FileTask

bounded = settings(
    phases=[Phase.explicit, Phase.generate],
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def refused(call: Callable[[], object]) -> str | None:
    """The sentence of our error, which is never empty; ``None`` if there was none, and any other error passes on."""
    try:
        call()
    except AdaptlabError as error:
        return str(error).strip() or "an error without a word"
    return None


IDENTITY = RunIdentity(weights="sha256:1", data="sha256:2", task="t", task_version=1)

# --- configs --------------------------------------------------------------------------------------------------------

_LABELS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), min_size=1, max_size=12)
_METHODS = st.lists(
    st.one_of(
        st.sampled_from(["lora", "head", "full", "bitfit"]),
        st.fixed_dictionaries(
            {"name": st.just("lora")},
            optional={"r": st.integers(1, 64), "dropout": st.floats(0, 0.5), "label": _LABELS},
        ),
    ),
    min_size=1,
    max_size=4,
)
_STUDIES = st.fixed_dictionaries(
    {"task": st.just("stdlib-docs"), "methods": _METHODS},
    optional={
        "seeds": st.lists(st.integers(0, 2**31), min_size=1, max_size=4, unique=True),
        "epochs": st.floats(0.01, 100),
        "batch_size": st.integers(1, 512),
        "learning_rate": st.one_of(st.just("auto"), st.floats(1e-7, 1)),
        "weight_decay": st.floats(0, 1),
        "train_examples": st.one_of(st.just("all"), st.integers(1, 10**6)),
        "max_length": st.one_of(st.just("auto"), st.integers(1, 4096)),
        "warmup_ratio": st.floats(0, 0.99),
    },
)


@bounded
@given(_STUDIES)
def test_a_study_is_the_same_after_a_trip_through_yaml(given_: dict[str, Any]) -> None:
    study = api.study_of(**given_)
    again = studyfile.parse(studyfile.dump(study))
    assert studyfile.dump(again) == studyfile.dump(study)
    assert grid(again) == grid(study)


def grid(study: StudyConfig) -> list[RunConfig] | str | None:
    """The study's runs, or why there are none."""
    runs: list[RunConfig] = []
    return refused(lambda: runs.extend(expand(study))) or runs


@bounded
@given(
    st.dictionaries(st.sampled_from(["r", "alpha", "dropout", "init", "bias", "x_y"]), st.integers(0, 9)), st.randoms()
)
def test_a_run_keeps_its_id_whatever_the_order_of_its_keys(options: dict[str, Any], draw: random.Random) -> None:
    def run(options: dict[str, Any]) -> str:
        method = MethodConfig(name="lora", options=options)
        return run_id(RunConfig(model=ModelConfig(id="m"), task=TaskConfig(name="t"), method=method), IDENTITY)

    shuffled = list(options.items())
    draw.shuffle(shuffled)
    assert run(options) == run(dict(shuffled))
    assert not options or run(options) != run({})


@bounded
@given(st.integers(0, 2**31), st.integers(1, 512), st.floats(1e-6, 1))
def test_whatever_changes_a_result_changes_the_id(seed: int, batch_size: int, rate: float) -> None:
    def run(**changed: Any) -> str:
        training = TrainingConfig(**{"batch_size": 32, "learning_rate": 1e-4, **changed.pop("training", {})})
        parts = {"model": ModelConfig(id="m"), "task": TaskConfig(name="t"), "method": MethodConfig(name="lora")}
        return run_id(RunConfig(**parts, training=training, **{"seed": 7, **changed}), IDENTITY)

    assert (run(seed=seed) == run()) == (seed == 7)
    assert (run(training={"batch_size": batch_size}) == run()) == (batch_size == 32)
    assert (run(training={"learning_rate": rate}) == run()) == (rate == 1e-4)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_KEYS = sorted(set(StudyConfig.model_fields) - {"execution"})


@bounded
@given(st.sampled_from(_KEYS), _JSON)
@example("seeds", 10**9)
@example("methods", {"name": "lora"})
def test_any_value_of_any_key_is_taken_or_refused_in_our_words(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "study.yaml"
    document = {"task": "stdlib-docs", "methods": ["lora"], key: value}
    path.write_text(json.dumps(document), encoding="utf-8", errors="surrogatepass")
    found: list[StudyConfig] = []
    said = refused(lambda: found.append(read_study(path)))
    assert said != "an error without a word"
    if said is None:
        assert grid(studyfile.parse(studyfile.dump(found[0]))) == grid(found[0])


def test_an_invalid_value_is_named() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        api.study_of(task="stdlib-docs", methods=["lora"], batch_size=0)


# --- data files -----------------------------------------------------------------------------------------------------

_CELL = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FFF), max_size=30)
_ROWS = st.lists(st.tuples(_CELL, st.sampled_from(["warm", "cold"])), min_size=30, max_size=40)


def texts(path: Path) -> list[str]:
    """Every text that was read, in any order."""
    data = FileTask(path).load(TaskConfig(name=str(path)), DataAccess())
    rows = [*data.train, *data.select, *(row for rows in data.report.values() for row in rows)]
    return sorted(row.texts[0] for row in rows)


@bounded
@given(_ROWS, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n"]))
def test_a_csv_is_read_as_it_was_written_or_refused(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, end: str
) -> None:
    made = io.StringIO()
    writer = csv.writer(made, delimiter=delimiter, lineterminator=end)
    writer.writerows([("text", "label"), *rows])
    path = tmp_path / "rows.csv"
    path.write_bytes(made.getvalue().encode())
    _as_written(path, rows)


@bounded
@given(_ROWS, st.booleans())
def test_jsonl_is_read_as_it_was_written_or_refused(tmp_path: Path, rows: list[tuple[str, str]], ascii_: bool) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=ascii_) for text, label in rows]
    path.write_bytes("\n".join(lines).encode() + b"\n")
    _as_written(path, rows)


def _as_written(path: Path, rows: list[tuple[str, str]]) -> None:
    found: list[str] = []
    said = refused(lambda: found.extend(texts(path)))
    if said is not None:
        assert not plain(rows), said
        return
    wanted = {text for text, _ in rows}
    assert set(found) <= wanted | {text.strip() for text in wanted}


def plain(rows: list[tuple[str, str]]) -> bool:
    """Rows that nobody may refuse: words in one line, both classes often enough for every split."""
    counts = [sum(label == name for _, label in rows) for name in ("warm", "cold")]
    return min(counts) >= 10 and all(text.isalnum() and text.isascii() for text, _ in rows)


@bounded
@given(st.lists(st.sampled_from([None, "", 3, 2.5, True, ["x"], {"a": 1}, "text"]), min_size=20, max_size=20))
def test_nulls_and_odd_values_are_read_or_refused(tmp_path: Path, values: list[Any]) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": value, "label": ["warm", "cold"][i % 2]} for i, value in enumerate(values)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found: list[str] = []
    said = refused(lambda: found.extend(texts(path)))
    assert said is None or said != "an error without a word"
    assert all(isinstance(text, str) and text.strip() for text in found)


# --- records and checkpoints ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run, by name."""
    folder = RunFolder(tmp_path_factory.mktemp("left"))
    run = RunConfig(model=ModelConfig(id="m"), task=TaskConfig(name="t"), method=MethodConfig(name="lora"))
    part = ConfigPart(given=run, resolved=run, identity=IDENTITY)
    folder.write_record(Record(id="0" * 64, name="a-b-s0-00000000", status="finished", config=part))
    for step in range(3):
        folder.append_curve(CurvePoint(step=step, examples=step, tokens=step, metrics={"accuracy": 0.5}))
    folder.write_predictions([Predictions("test", ["a", "b"], [0, 1], [1, 1], [[0.5, 0.5], [0.25, 0.75]])])
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


_READERS: dict[str, Callable[[RunFolder], object]] = {
    "record.json": RunFolder.read_record,
    "curve.jsonl": RunFolder.read_curve,
    "predictions.parquet": RunFolder.read_predictions,
}


@bounded
@given(st.sampled_from(sorted(_READERS)), st.floats(0, 1), st.integers(0, 7), st.booleans())
def test_a_cut_or_a_flipped_bit_of_a_run_is_read_or_named(
    tmp_path: Path, left: dict[str, bytes], name: str, where: float, bit: int, cut: bool
) -> None:
    content = bytearray(left[name])
    place = int(where * (len(content) - 1))
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    (tmp_path / name).write_bytes(content)
    said = refused(lambda: _READERS[name](RunFolder(tmp_path)))
    assert said is None or name in said
    assert (tmp_path / name).read_bytes() == content


class Stub:
    """A member as far as a checkpoint knows it."""

    name = "a run"

    def __init__(self) -> None:
        import torch

        self.tensors = {"weights": torch.arange(24.0).reshape(4, 6), "moments": torch.ones(3)}
        self.values: dict[str, Any] = {"step": 7, "rate": 0.125, "best": [0.5, None], "by_key": {"3": "x"}}
        self.loaded: tuple[dict[str, Any], dict[str, Any]] | None = None

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.tensors, dict(self.values)

    def load_state(self, tensors: dict[str, Any], values: dict[str, Any]) -> None:
        self.loaded = tensors, values


@bounded
@given(st.sampled_from(["state.safetensors", "state.json"]), st.floats(0, 1), st.integers(0, 7), st.booleans())
def test_a_cut_or_a_flipped_bit_of_a_checkpoint_is_never_trained_on(
    tmp_path: Path, name: str, where: float, bit: int, cut: bool
) -> None:
    from adaptlab.training import checkpoint

    folder = tmp_path / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    member: Any = Stub()
    checkpoint.save(member, folder)
    content = bytearray((folder / name).read_bytes())
    place = int(where * (len(content) - 1))
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    (folder / name).write_bytes(content)
    said = refused(lambda: checkpoint.load(member, folder))
    if said is not None:
        assert "set aside" in said
        assert not folder.exists()
    else:
        tensors, values = member.loaded
        assert values == member.values
        assert all((tensors[key] == tensor).all() for key, tensor in member.tensors.items())
    for aside in tmp_path.glob("checkpoint.damaged-*"):
        shutil.rmtree(aside)
