"""Row by row: where two methods disagree, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptlab.errors import RecordError
from adaptlab.report._html import Html, element, join
from adaptlab.report.charts import groups
from adaptlab.report.charts._base import cell_label
from adaptlab.report.evidence import rows_digest
from adaptlab.report.page._parts import group_names, ranked
from adaptlab.report.select import RunRow
from adaptlab.report.statistics import Cell
from adaptlab.runs.answers import AnswerArrays, read_answers
from adaptlab.runs.store import StudyFolder

#: What the page carries at most: answers of all runs together, characters of the rows' texts, characters of one text.
MOST_ANSWERS, MOST_TEXT, LONGEST_TEXT = 1_500_000, 2_500_000, 600
#: Larger confusion matrices cannot be read.
MOST_CLASSES = 25


@dataclass(frozen=True, slots=True)
class _Answered:
    """A finished run with its answers to the primary set."""

    cell: Cell
    run: RunRow
    arrays: AnswerArrays


def rows_section(rows: Sequence[RunRow]) -> tuple[list[dict[str, Any]], Html | None]:
    """The data of the script (assets/rows.js) and its places; nothing where no run kept its answers."""
    names = group_names(rows)
    read = {key: _read(found) for key, found in groups(rows).items()}
    read = {key: found for key, found in read.items() if found}
    if not read:
        return [], None
    answers = sum(len(one.arrays.ids) for found in read.values() for one in found)
    data = []
    for key, found in read.items():
        shown = found if answers <= MOST_ANSWERS else _one_each(found)
        data.append(_group(names[key], found, shown, MOST_TEXT // len(read)))
    options = [element("option", group["name"], value=str(index)) for index, group in enumerate(data)]
    chooser = element("label", "Task ", element("select", options, id="rows-group"), class_="chooser")
    body = element(
        "div",
        element("div", chooser if len(data) > 1 else None, class_="choosers"),
        element("h3", "Where two methods disagree"),
        element(
            "div",
            element("label", "Between ", element("select", id="rows-first"), class_="chooser"),
            element("label", "and ", element("select", id="rows-second"), class_="chooser"),
            element("label", "show ", element("select", id="rows-kind"), class_="chooser"),
            class_="choosers",
        ),
        element("p", id="rows-tally", class_="tally", role="status"),
        element("div", id="rows-table"),
        element("div", id="rows-matrices", class_="matrices"),
        id="rows-explorer",
    )
    silent = element("noscript", element("p", "Choosing two methods needs JavaScript."))
    return data, join([silent, body])


def _read(rows: Sequence[RunRow]) -> list[_Answered]:
    """The runs that answered the rows that most of them did; a damaged file is left out (the run's claims say why)."""
    found = []
    for cell in ranked(rows):
        for run in cell.finished:
            if run.primary is None or run.folder is None:
                continue
            try:
                arrays = read_answers(run.folder / "predictions.parquet").get(run.primary.evaluation_set)
            except RecordError:
                continue
            if arrays is not None and len(arrays.ids):
                found.append(_Answered(cell, run, arrays))
    digests = [rows_digest(one.arrays) for one in found]
    usual = max(dict.fromkeys(digests), key=digests.count) if digests else ""
    return [one for one, digest in zip(found, digests, strict=True) if digest == usual]


def _one_each(found: Sequence[_Answered]) -> list[_Answered]:
    """The first run of each cell."""
    first: dict[tuple[Any, ...], _Answered] = {}
    for one in found:
        first.setdefault(one.cell.variant, one)
    return list(first.values())


def _group(name: str, found: Sequence[_Answered], shown: Sequence[_Answered], most_text: int) -> dict[str, Any]:
    first = found[0]
    gold = first.arrays.gold
    regression = first.run.data is not None and first.run.data.kind == "regression"
    labels = list(first.run.data.labels) if first.run.data is not None else []
    kind = "number" if regression else "class" if gold.dtype.kind in "iuf" else "text"
    given = [_plain(one.arrays.predicted, kind) for one in shown]
    seeds = len({one.run.seed for one in found}) > 1
    return {
        "name": name,
        "kind": kind,
        "labels": labels,
        "set": first.run.primary.evaluation_set if first.run.primary is not None else "",
        "total": len(gold),
        "ids": [str(identifier) for identifier in first.arrays.ids],
        "gold": _plain(gold, kind),
        "texts": _texts(first.run, first.arrays.ids, _contested(given, kind), most_text),
        "runs": [
            {
                "cell": cell_label(one.cell),
                "seed": one.run.seed,
                "label": f"{cell_label(one.cell)}, seed {one.run.seed}" if seeds else cell_label(one.cell),
                "answers": answers,
            }
            for one, answers in zip(shown, given, strict=True)
        ],
        "matrices": _matrices(found, len(labels)) if kind == "class" else [],
    }


def _plain(values: NDArray[np.generic], kind: str) -> list[Any]:
    if kind == "class":
        return [int(value) for value in values.astype(np.int64)]
    if kind == "number":
        return [float(f"{value:.4g}") for value in values.astype(np.float64)]
    return [str(value)[:LONGEST_TEXT] for value in values]


def _contested(given: Sequence[Sequence[Any]], kind: str) -> list[int]:
    """Indices of the rows on which any two runs differ, the most contested first."""
    if not given:
        return []
    if kind == "number":
        spread = np.ptp(np.asarray(given, dtype=np.float64), axis=0)
    else:
        spread = np.asarray([len(set(row)) - 1 + _minority(row) for row in zip(*given, strict=True)], dtype=np.float64)
    order = np.argsort(-spread, kind="stable")
    return [int(index) for index in order if spread[index] > 0]


def _minority(answers: Sequence[Any]) -> float:
    """Share of the answers that are not the most frequent one."""
    return 1 - max(answers.count(value) for value in set(answers)) / len(answers)


def _texts(run: RunRow, ids: NDArray[np.generic], wanted: Sequence[int], most: int) -> dict[str, str]:
    """Texts by the rows' numbers, as many as ``most`` characters allow; empty where the study kept none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if run.folder is None or run.primary is None:
        return {}
    study = StudyFolder(run.folder.parent.parent)
    names = [run.task, PurePath(run.task).name.split(".")[0]]  # a user's file by its stem, as the study wrote it
    paths = [study.items_path(name, run.primary.evaluation_set) for name in names]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return {}
    try:
        table = pq.read_table(path, columns=["id", "text"], use_threads=False)
    except (pa.ArrowException, KeyError, ValueError, OSError):
        return {}
    known = dict(zip(table.column("id").to_pylist(), table.column("text").to_pylist(), strict=True))
    texts: dict[str, str] = {}
    for index in wanted:
        text = str(known.get(str(ids[index])) or "")
        if text:
            texts[str(index)] = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"
            most -= len(texts[str(index)])
        if most <= 0:
            break
    return texts


def _matrices(found: Sequence[_Answered], named: int) -> list[dict[str, Any]]:
    """Counts ``[right class][given class]`` of each method over its runs; the last column is unusable answers."""
    by_cell: dict[tuple[Any, ...], list[_Answered]] = {}
    for one in found:
        by_cell.setdefault(one.cell.variant, []).append(one)
    classes = max(named, *(int(one.arrays.gold.astype(np.int64).max()) + 1 for one in found))
    if not 1 < classes <= MOST_CLASSES:
        return []
    matrices = []
    for members in by_cell.values():
        counts = np.zeros((classes, classes + 1), dtype=np.int64)
        for one in members:
            given = one.arrays.predicted.astype(np.int64)
            given = np.where((given < 0) | (given >= classes), classes, given)
            np.add.at(counts, (one.arrays.gold.astype(np.int64), given), 1)
        matrices.append({"cell": cell_label(members[0].cell), "runs": len(members), "counts": counts.tolist()})
    return matrices
