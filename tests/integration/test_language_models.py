"""Language models end to end: zero-shot, in context, tuned, tuned and then prompted; what the record says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab import api
from adaptlab.config import TaskConfig
from adaptlab.errors import ConfigError
from adaptlab.runs.record import Record
from adaptlab.runs.store import RunFolder

WORDS = {"good": ("fine", "great", "lovely"), "bad": ("awful", "poor", "dreadful")}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose class is a word of theirs."""
    path = tmp_path_factory.mktemp("rows") / "films.csv"
    lines = [
        f"the film number {i} was {word},{label}" for i in range(20) for label, words in WORDS.items() for word in words
    ]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def compare(rows: Path, model: Path, out: Path, **settings: object) -> list[Record]:
    how = {"steps": 12, "batch_size": 8, "train_examples": 40, "seeds": [0], "dtype": "float32", **settings}
    how = {"readout": "verbalizer", **how}
    study = api.study_of(
        task=str(rows),
        model={"id": str(model)},
        execution={"device": "cpu", "measure": "run"},
        **how,
    )
    result = api.compare(study, out=out)
    assert not result.failed, [record.error for record in result.records]
    return result.records


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_verbalizer_learns_answers_and_is_loaded_again(
    family: str, rows: Path, tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    records = compare(
        rows,
        tiny_model_folder(family),
        tmp_path,
        methods=["none", {"name": "lora", "learning_rate": 2e-2}],
        seeds=[0, 1],
        steps=24,
    )
    assert [record.config.resolved.method.name for record in records] == ["none", "lora", "lora"]  # no draw, no seed
    zero_shot, tuned = records[0], records[1]
    assert (zero_shot.training["steps"], zero_shot.cost.train_flops) == (0, None)
    assert zero_shot.parameters is not None
    assert (zero_shot.parameters.trainable, zero_shot.parameters.head) == (0, 0)
    assert 0 < zero_shot.answering["test"]["label_mass"] <= 1
    assert tuned.metrics["test"]["loss"] < zero_shot.metrics["test"]["loss"]
    assert tuned.data is not None
    assert tuned.data.prompt is not None
    tuned = next(record for record in records[1:] if (tmp_path / "runs" / record.name / "adapter").is_dir())
    folder = tmp_path / "runs" / tuned.name
    predictor = api.load(folder, device="cpu")
    items = RunFolder(folder).read_predictions()["test"]
    texts = {f"the film number {i} was fine" for i in range(20)}
    answers = predictor.predict(sorted(texts))
    assert {answer.label for answer in answers} <= {"good", "bad"}
    assert sum(answers[0].scores.values()) == pytest.approx(1.0)
    evaluation = api.evaluate(folder, str(rows), device="cpu")
    assert evaluation.metrics["test"]["accuracy"] == pytest.approx(tuned.metrics["test"]["accuracy"])
    assert len(items.ids) == tuned.metrics["test"]["n"]


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_answers_are_written_freely_and_what_is_no_answer_is_counted(
    family: str, rows: Path, tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    untrained, trained = compare(
        rows,
        tiny_model_folder(family),
        tmp_path,
        methods=["none", {"name": "full", "learning_rate": 1e-2}],
        readout="generate",
        max_new_tokens=6,
        steps=40,
    )
    n = untrained.metrics["test"]["n"]
    assert untrained.answering["test"]["unusable"] == n  # a random model writes no label
    assert untrained.metrics["test"]["accuracy"] == 0
    assert trained.answering["test"]["unusable"] < n
    predictions = RunFolder(tmp_path / "runs" / untrained.name).read_predictions()["test"]
    assert set(predictions.predicted) == {-1}
    assert predictions.scores is None


def test_demonstrations_are_shown_counted_and_kept(
    rows: Path, tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    how = {"methods": ["none", "bitfit"], "shots": [0, 2], "shot_sampling": "balanced", "steps": 2}
    records = compare(rows, tiny_model_folder("gpt2"), tmp_path, **how)
    by_shots = {(r.config.resolved.method.name, r.config.resolved.shots): r for r in records}
    assert len(by_shots) == 4
    shown = by_shots["none", 2]
    assert shown.data is not None
    assert shown.data.demonstrations is not None
    assert sorted(row["label"] for row in shown.data.demonstrations) == [0, 1]
    assert shown.answering["test"]["lost_shots"] == 0
    assert shown.metrics["test"]["loss"] != by_shots["none", 0].metrics["test"]["loss"]
    tuned = by_shots["bitfit", 2]
    assert (tmp_path / "runs" / tuned.name / "adapter").is_dir()
    again = api.evaluate(tmp_path / "runs" / tuned.name, str(rows), device="cpu")
    assert again.metrics["test"]["loss"] == pytest.approx(tuned.metrics["test"]["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": "none", "readout": "head"}, "a new head is random"),
        ({"methods": "lora", "readout": "head", "shots": 2}, "a head reads none"),
        ({"methods": "head"}, "this readout has no head"),
        ({"methods": "none", "shots": 50}, "50 shots were asked for, and there are 40 training rows"),
        ({"methods": "none", "shots": 40, "shot_sampling": "balanced", "train_examples": 30}, "training rows"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_runs(
    settings: dict[str, object], message: str, rows: Path, tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    how = {"readout": "verbalizer", "train_examples": 40, "seeds": [0], **settings}
    study = api.study_of(task=str(rows), model={"id": str(tiny_model_folder("gpt2"))}, **how)
    with pytest.raises(ConfigError, match=message):
        api.compare(study, out=tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_an_encoder_writes_no_text(rows: Path, tiny_model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    from adaptlab.errors import ModelError

    study = api.study_of(
        task=str(rows), model={"id": str(tiny_model_folder("bert"))}, methods="none", readout="verbalizer"
    )
    with pytest.raises(ModelError, match=r"is a bert, which writes no text.*use --readout head"):
        api.compare(study, out=tmp_path)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_an_adapter_of_a_language_model_answers_in_words(
    family: str, rows: Path, tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model = tiny_model_folder(family)
    (record,) = compare(rows, model, tmp_path, methods=[{"name": "lora", "learning_rate": 2e-2}])
    adapter = RunFolder(tmp_path / "runs" / record.name).adapter
    task = TaskConfig(name=str(rows))
    scored = api.evaluate_adapter(adapter, str(model), task, device="cpu")
    assert scored.notes == ()
    (found,) = scored.metrics.values()
    assert {name: found[name] for name in record.metrics["test"]} == pytest.approx(record.metrics["test"], abs=1e-5)
    other = api.evaluate_adapter(adapter, str(model), task, readout="generate", device="cpu").metrics
    assert other != scored.metrics
    named = task.model_copy(update={"prompt": "plain"})
    with pytest.raises(ConfigError, match="A head reads the bare texts: leave --prompt out"):
        api.evaluate_adapter(adapter, str(model), named, readout="head", device="cpu")
