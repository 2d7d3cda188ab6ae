"""Which classes a run confuses: a classification report and a confusion matrix, for a run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adaptlab.metrics._base import Answers

_UNUSABLE = "(no class)"
_COLUMNS = (("precision", 9), ("recall", 6), ("f1", 6))


def classification_report(answers: Answers, labels: Sequence[str]) -> dict[str, Any]:
    """Precision, recall, F1 and support of every class, and how often each was answered for each.

    Returns:
        ``labels``, ``confusion`` (a row for each right class, a column for each answer and a last one for answers that
        name no class), ``classes`` by label, ``accuracy`` and ``n``. A ratio of nothing is ``None``.
    """
    count = len(labels)
    gold, predicted = answers.gold.astype(np.int64), answers.predicted.astype(np.int64)
    confusion = np.zeros((count, count + 1), dtype=np.int64)
    np.add.at(confusion, (gold, np.where(predicted < 0, count, predicted)), 1)
    right = np.diag(confusion)
    classes = {}
    for i, label in enumerate(labels):
        answered, support = int(confusion[:, i].sum()), int(confusion[i].sum())
        classes[label] = {
            "precision": int(right[i]) / answered if answered else None,
            "recall": int(right[i]) / support if support else None,
            "f1": 2 * int(right[i]) / (answered + support) if answered + support else None,
            "support": support,
        }
    return {
        "labels": list(labels),
        "n": len(gold),
        "accuracy": float(right.sum()) / len(gold) if len(gold) else None,
        "classes": classes,
        "confusion": confusion.tolist(),
    }


def report_text(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The reports of several evaluation sets, to be read."""
    parts = []
    for name, report in reports.items():
        labels = report["labels"]
        wide = max(map(len, [*labels, _UNUSABLE]))
        lines = [f"{name} ({report['n']} rows)", "", f"{'':{wide}}  precision  recall      f1  support"]
        for label in labels:
            row = report["classes"][label]
            numbers = "  ".join(
                f"{_ratio(row[key]):>{width}}" for key, width in (("precision", 9), ("recall", 6), ("f1", 6))
            )
            lines.append(f"{label:{wide}}  {numbers}  {row['support']:7}")
        lines += ["", "right class (row) by answer (column)", ""]
        columns = [*labels, _UNUSABLE]
        lines.append(f"{'':{wide}}  " + "  ".join(columns))
        for label, row in zip(labels, report["confusion"], strict=True):
            lines.append(f"{label:{wide}}  " + "  ".join(f"{n:>{len(c)}}" for c, n in zip(columns, row, strict=True)))
        parts.append("\n".join(lines))
    return "\n\n\n".join(parts) + "\n"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
