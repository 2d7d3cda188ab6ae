"""Answers to a benchmark's unlabelled rows, and the files in which its server takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptlab.errors import AdaptlabError
from adaptlab.predictor import Prediction, Predictor
from adaptlab.runs.files import write_atomically
from adaptlab.tasks._base import DataAccess, Example, Submission, Task


@dataclass(frozen=True, slots=True)
class SplitAnswers:
    """Answers by split, in the order of its rows; the files written for the server; what could not be done."""

    answers: dict[str, list[Prediction]]
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def answer_split(predictor: Predictor, task: Task, split: str, access: DataAccess, folder: Path) -> SplitAnswers:
    """Answer every row of ``split``, and write what the task's server takes for it to ``folder``.

    A benchmark's split may stand for several (MNLI's ``test``); one that the source lacks is a note, unless it is all.

    Raises:
        ConfigError: the task knows no rows of this name.
        AdaptlabError: the rows cannot be had.
    """
    wanted = [submission for submission in task.submissions if submission.split == split]
    if not wanted:
        return SplitAnswers({split: _answers(predictor, task.questions(split, access))}, (), ())
    answers, files, notes = {}, [], []
    for submission in wanted:
        try:
            rows = task.questions(submission.rows, access, submission.config)
        except AdaptlabError as error:
            if submission is wanted[0]:
                raise
            notes.append(f"{submission.file} is not written: {error}")
            continue
        found = _answers(predictor, rows)
        unusable = sum(answer.label == "" for answer in found)
        if unusable:
            first = task.labels_in_order()[0]
            notes.append(f"{submission.file}: {unusable} of {len(found)} answers are no class and stand as '{first}'.")
        answers[submission.rows if submission.config is None else submission.config] = found
        files.append(folder / submission.file)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(files[-1], server_file(submission, task.labels_in_order(), found).encode())
    return SplitAnswers(answers, tuple(files), tuple(notes))


def server_file(submission: Submission, labels: Sequence[str], answers: Sequence[Prediction]) -> str:
    """``index`` and ``prediction`` of every row, tabs between: a word, a class's number, or a number within limits.

    Servers take no row without an answer: one that is no class stands as the first.
    """
    lines = ["index\tprediction"]
    for index, answer in enumerate(answers):
        if isinstance(answer.label, float):
            low, high = submission.limits
            word = f"{min(high, max(low, answer.label)):.3f}"
        else:
            label = answer.label or labels[0]
            word = label if submission.words else str(labels.index(label))
        lines.append(f"{index}\t{word}")
    return "\n".join(lines) + "\n"


def _answers(predictor: Predictor, rows: Sequence[Example]) -> list[Prediction]:
    texts = [row.texts[0] if len(row.texts) == 1 else (row.texts[0], row.texts[1]) for row in rows]
    return predictor.predict(texts)


__all__ = ["SplitAnswers", "answer_split", "server_file"]
