"""predictions.parquet as arrays: what a report that reads a thousand of them needs."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptlab.errors import RecordError

#: Of answers that were read last; those of a thousand runs on four hundred rows take a tenth of it.
MOST_KEPT_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class AnswerArrays:
    """A run's answers to one evaluation set, in the order of their ids.

    Attributes:
        ids: ``[n]`` texts.
        gold, predicted: ``[n]`` class indices (int), numbers (float) or texts; ``-1`` is an unusable class answer.
        scores: ``[n, classes]`` probabilities, or ``None`` where there are none.
    """

    ids: NDArray[np.generic]
    gold: NDArray[np.generic]
    predicted: NDArray[np.generic]
    scores: NDArray[np.floating] | None


def read_answers(path: Path) -> dict[str, AnswerArrays]:
    """Every evaluation set of the predictions.parquet at ``path``; empty if there is no such file.

    What was read last is kept, up to :data:`MOST_KEPT_BYTES`, as a report needs a run's answers in several places: the
    arrays are not to be written to.

    Raises:
        RecordError: the file is damaged or is not one that adaptlab wrote.
    """
    try:
        found = path.stat()
        stamp = (path, found.st_mtime_ns, found.st_size, found.st_ino)
        return _kept.get(stamp) or _kept.add(stamp, _read(path, path.read_bytes()))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RecordError(f"Cannot read {path} ({error.strerror or error}).") from error


def _read(path: Path, content: bytes) -> dict[str, AnswerArrays]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["evaluation_set", "id", "gold", "prediction", "scores"]
    try:
        table = pq.read_table(io.BytesIO(content), columns=columns, use_threads=False)
        sets = table.column("evaluation_set").to_numpy()
        return {str(name): _of_set(table, sets == name) for name in dict.fromkeys(sets.tolist())}
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise RecordError(f"{path} is damaged ({error}).") from error


class _Kept:
    """The files read last, by their path and state."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[object, ...], dict[str, AnswerArrays]] = OrderedDict()
        self._bytes = 0

    def get(self, stamp: tuple[object, ...]) -> dict[str, AnswerArrays] | None:
        if stamp in self._files:
            self._files.move_to_end(stamp)
        return self._files.get(stamp)

    def add(self, stamp: tuple[object, ...], sets: dict[str, AnswerArrays]) -> dict[str, AnswerArrays]:
        self._files[stamp] = sets
        self._bytes += _size(sets)
        while self._bytes > MOST_KEPT_BYTES:
            self._bytes -= _size(self._files.popitem(last=False)[1])
        return sets


def _size(sets: dict[str, AnswerArrays]) -> int:
    arrays = (array for one in sets.values() for array in (one.ids, one.gold, one.predicted, one.scores))
    return sum(array.nbytes for array in arrays if array is not None)


_kept = _Kept()


def _of_set(table: Any, here: NDArray[np.bool_]) -> AnswerArrays:
    rows = np.flatnonzero(here)
    ids = table.column("id").to_numpy().astype(str)[rows]
    rows = rows[np.argsort(ids, kind="stable")]
    gold, predicted = (_array(table.column(name))[rows] for name in ("gold", "prediction"))
    return AnswerArrays(np.sort(ids, kind="stable"), gold, predicted, _scores(table, rows))


def _array(column: Any) -> NDArray[np.generic]:
    values: NDArray[np.generic] = column.to_numpy()
    return values.astype(str) if values.dtype == object else values


def _scores(table: Any, rows: NDArray[np.integer]) -> NDArray[np.floating] | None:
    """Rows of equal length as a matrix; where the items differ in their number of answers there is none."""
    column = table.column("scores").combine_chunks().take(rows)
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if not len(rows) or column.null_count or (lengths != lengths[0]).any() or lengths[0] == 0:
        return None
    flat: NDArray[np.floating] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(rows), int(lengths[0]))
