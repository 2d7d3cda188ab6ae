"""Equal tuning: as many trials for every method, from its own ranges, and no look at the report rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adaptlab
from adaptlab.config import StudyConfig
from adaptlab.errors import ConfigError
from adaptlab.methods import registry as methods
from adaptlab.runs.record import Record
from adaptlab.study.events import Event, RunEnded
from adaptlab.study.tuning import Choices, Range, cells

Build = Callable[..., StudyConfig]


@pytest.fixture
def tuned(tiny_study: Build) -> StudyConfig:
    methods = ["head", {"name": "lora", "r": [2, 4]}]
    return tiny_study(methods=methods, seeds=2, tune=5, learning_rate="auto", steps=6, eval_every=3)


def test_the_space_is_what_the_study_leaves_open(tuned: StudyConfig) -> None:
    head, lora = cells(tuned)
    rates = methods.get("lora").learning_rates
    assert lora.space == {
        "r": Choices((2, 4)),
        "learning_rate": Range(rates.low, rates.high, rates.default),
    }
    assert set(head.space) == {"learning_rate"}
    run = lora.run({"r": 4, "learning_rate": 0.002}, seed=7, report=False)
    assert (run.method.options["r"], run.training.learning_rate, run.seed, run.report) == (4, 0.002, 7, False)
    assert run.method.label == "lora"


def test_a_closed_space_and_a_label_for_two_are_refused(tiny_study: Build) -> None:
    with pytest.raises(ConfigError, match="nothing to choose for head"):
        cells(tiny_study(methods=["head"], tune=3, learning_rate=1e-3))
    with pytest.raises(ConfigError, match="label of its own"):
        cells(tiny_study(methods=["lora", {"name": "lora", "r": 2}], tune=3, learning_rate="auto"))


def test_each_method_gets_its_trials_and_the_best_is_run_with_every_seed(tuned: StudyConfig, tmp_path: Path) -> None:
    result = adaptlab.compare(tuned, out=tmp_path / "study")
    assert [(r.config.resolved.method.label, r.config.resolved.seed) for r in result.records] == [
        ("head", 0),
        ("head", 1),
        ("lora", 0),
        ("lora", 1),
    ]
    trials = trials_of(result.folder)
    for label in ("head", "lora"):
        own = [record for record in trials if record.config.resolved.method.label == label]
        scores = [record.training["select_score"] for record in own]
        final = next(record for record in result.records if record.config.resolved.method.label == label)
        assert final.tuning is not None
        assert final.tuning.trials == 5
        assert sorted(set(scores)) == sorted(set(filter(None, final.tuning.scores)))
        if None not in [record.cost.train_seconds for record in own]:  # trials that shared outputs have no clock
            assert final.tuning.train_seconds == pytest.approx(sum_of(own, final.tuning.trials), rel=0.5)
        chosen = next(r for r in own if r.training["select_score"] == max(scores))
        assert final.tuning.chosen["learning_rate"] in [
            r.config.resolved.training.learning_rate for r in own if r.training["select_score"] == max(scores)
        ]
        assert chosen.config.resolved.method.label == label


def test_trials_never_look_at_the_report_rows(
    tuned: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watched where a run's rows come from: without that, no model sees them."""
    from adaptlab.workshop import Workshop

    looked: list[tuple[bool, str]] = []
    rows = Workshop.rows

    def watch(self: Any, run: Any, readout: Any, split: str, **how: Any) -> Any:
        looked.append((run.resolved.report, split))
        return rows(self, run, readout, split, **how)

    monkeypatch.setattr(Workshop, "rows", watch)
    result = adaptlab.compare(tuned, out=tmp_path / "study")
    assert {split for report, split in looked if not report} == {"train", "select"}
    assert len({split for report, split in looked if report}) == 3
    for record in trials_of(result.folder):
        assert record.metrics == {}
        assert record.primary is None
        assert not (result.folder / "runs" / record.name / "predictions.parquet").exists()


def test_an_interrupted_search_ends_where_an_uninterrupted_one_does(tuned: StudyConfig, tmp_path: Path) -> None:
    peaceful = adaptlab.compare(tuned, out=tmp_path / "peaceful")

    for survive in (1, 3, 2):
        crashed_after(survive, tuned, tmp_path / "crashed")
    crashed = adaptlab.compare(tuned, out=tmp_path / "crashed")
    assert [r.name for r in crashed.records] == [r.name for r in peaceful.records]
    assert [r.metrics for r in crashed.records] == [r.metrics for r in peaceful.records]
    again: list[Event] = []
    adaptlab.compare(tuned, out=tmp_path / "crashed", listener=again.append)
    assert not [event for event in again if isinstance(event, RunEnded)]


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["halving", "median"])
def test_a_pruner_says_what_it_did(tuned: StudyConfig, tmp_path: Path, pruner: str) -> None:
    study = tuned.model_copy(update={"pruner": pruner, "methods": tuned.methods[1:], "tune": 8, "steps": (18,)})
    result = adaptlab.compare(study, out=tmp_path / "study")
    part = result.records[0].tuning
    assert part is not None
    trials = trials_of(result.folder)
    assert {record.training["steps"] for record in trials} == {2, 6, 18}
    assert part.trials == 8
    assert part.pruned == sum(score is None for score in part.scores)
    assert part.pruned < 8
    assert part.steps_unpruned == 8 * 18
    # What goes on is trained anew: where few trials end, as when all scores are alike, that costs more than it saves.
    searched = {record.name: record.training["steps"] for record in trials}
    assert part.steps is not None
    assert part.steps >= sum(searched.values())
    assert None not in part.short_scores
    best = max(record.training["select_score"] for record in trials if record.training["steps"] == 18)
    assert max(score for score in part.scores if score is not None) == best
    page = (result.folder / "report" / "index.html").read_text()
    assert f"Trials were ended early by {pruner}" in page
    assert f"{1 - part.steps / part.steps_unpruned:.0%}</td>" in page


def test_a_pruned_search_goes_on_after_a_crash_as_if_there_had_been_none(tuned: StudyConfig, tmp_path: Path) -> None:
    study = tuned.model_copy(update={"pruner": "halving", "methods": tuned.methods[1:], "tune": 4, "steps": (9,)})
    peaceful = adaptlab.compare(study, out=tmp_path / "peaceful")

    for survive in (1, 3):
        crashed_after(survive, study, tmp_path / "crashed")
    crashed = adaptlab.compare(study, out=tmp_path / "crashed")
    assert [r.name for r in crashed.records] == [r.name for r in peaceful.records]
    parts = [r.tuning and r.tuning.model_copy(update={"train_seconds": None}) for r in crashed.records]
    assert parts == [r.tuning and r.tuning.model_copy(update={"train_seconds": None}) for r in peaceful.records]


def test_a_pruner_without_a_search_is_refused(tiny_study: Build) -> None:
    with pytest.raises(ConfigError, match="give tune"):
        tiny_study(pruner="halving")


def test_trials_are_no_method_of_the_report(tuned: StudyConfig, tmp_path: Path) -> None:
    result = adaptlab.compare(tuned, out=tmp_path / "study")
    table = (result.folder / "report" / "results.csv").read_text().splitlines()
    assert len(table) == 1 + 4  # a header, and a line for each seed of each method


def crashed_after(runs: int, study: StudyConfig, out: Path) -> None:
    """Have ``study`` crash in ``out`` when so many of its runs have ended."""

    class CrashError(Exception):
        pass

    ended: list[Event] = []

    def crash(event: Event) -> None:
        if isinstance(event, RunEnded):
            ended.append(event)
            if len(ended) == runs:
                raise CrashError

    with pytest.raises(CrashError):
        adaptlab.compare(study, out=out, listener=crash)


def trials_of(folder: Path) -> list[Record]:
    from adaptlab.runs.store import StudyFolder

    return [record for record in StudyFolder(folder).records() if not record.config.resolved.report]


def sum_of(records: list[Record], trials: int) -> float:
    seconds = [record.cost.train_seconds or 0.0 for record in records]
    return sum(seconds) * trials / len(seconds)  # two trials that propose the same are one run
