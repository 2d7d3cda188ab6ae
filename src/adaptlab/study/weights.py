"""Which adapted weights of a study stay: all, none, or those of each variant's best seed on the selection rows."""

from __future__ import annotations

import shutil

from adaptlab.config import KeepWeights
from adaptlab.runs.record import Record
from adaptlab.runs.store import RunFolder, StudyFolder

Variant = tuple[str, ...]


class Weights:
    """Deletes weights as soon as a better seed of the same variant has some. Records are read once."""

    def __init__(self, study: StudyFolder, keep: KeepWeights) -> None:
        self._study = study
        self._keep = keep
        self._best: dict[Variant, Record] | None = None

    def drop(self, record: Record) -> None:
        """Delete what ``record``, just written, leaves without use: its own weights, or a former best's."""
        if self._keep == "all":
            return
        if self._keep == "none":
            self._delete(record)
            return
        if self._best is None:
            self._best = {}
            for other in self._study.records():
                self._keep_better(other)
        else:
            self._keep_better(record)

    def _keep_better(self, record: Record) -> None:
        assert self._best is not None
        variant = _variant(record)
        best = self._best.get(variant)
        if best is None or best.name == record.name:
            self._best[variant] = record
            return
        better, worse = (record, best) if _beats(record, best) else (best, record)
        self._best[variant] = better
        self._delete(worse)

    def _delete(self, record: Record) -> None:
        shutil.rmtree(RunFolder(self._study.path / "runs" / record.name).adapter, ignore_errors=True)


def _variant(record: Record) -> Variant:
    config = record.config.resolved.model_dump(mode="json", exclude={"seed"})
    return (record.config.identity.weights, record.config.identity.data, str(config))


def _beats(one: Record, other: Record) -> bool:
    """Between equals the first by name stays, whatever the order in which they ended."""
    mine, its = _selection_score(one), _selection_score(other)
    return mine > its or (mine == its and one.name < other.name)


def _selection_score(record: Record) -> float:
    score = record.training.get("select_score")
    if record.status != "finished" or score is None:
        return float("-inf")
    higher = record.primary is None or record.primary.higher_is_better
    return float(score) if higher else -float(score)
