"""The nine GLUE tasks have the benchmark's classes, metrics and splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptlab.config import TaskConfig
from adaptlab.errors import ConfigError
from adaptlab.tasks import DataAccess, find_task
from tests.tasks.tables import write_rte

#: Kind, number of classes, metrics (the first is primary).
OFFICIAL = {
    "cola": ("classification", 2, ("mcc", "accuracy")),
    "sst2": ("classification", 2, ("accuracy",)),
    "mrpc": ("classification", 2, ("accuracy", "f1")),
    "qqp": ("classification", 2, ("accuracy", "f1")),
    "stsb": ("regression", 0, ("pearson", "spearman")),
    "mnli": ("classification", 3, ("accuracy",)),
    "qnli": ("classification", 2, ("accuracy",)),
    "rte": ("classification", 2, ("accuracy",)),
    "wnli": ("classification", 2, ("accuracy",)),
}

#: Rows of the shared data: training, and each half of the validation.
SIZES = {
    "cola": (8551, 521, 522),
    "sst2": (67349, 436, 436),
    "mrpc": (3668, 204, 204),
    "qqp": (11950, 3800, 3800),
    "stsb": (5749, 750, 750),
    "mnli": (12925, 4907, 4908),
    "qnli": (9999, 2731, 2732),
    "rte": (2490, 138, 139),
    "wnli": (635, 35, 36),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_real_rows(name: str, data_root: Path) -> None:
    data = find_task(name).load(TaskConfig(name=name), DataAccess(data_root=str(data_root)))
    kind, classes, metrics = OFFICIAL[name]
    (report,) = data.report.values()
    assert (data.kind, len(data.labels), data.metrics) == (kind, classes, metrics)
    assert (len(data.train), len(data.select), len(report)) == SIZES[name]
    assert len(data.train[0].texts) == (1 if name in ("cola", "sst2") else 2)


def test_labels_are_where_the_benchmark_has_them(data_root: Path) -> None:
    data = find_task("sst2").load(TaskConfig(name="sst2"), DataAccess(data_root=str(data_root)))
    by_text = {row.texts[0].strip(): data.labels[int(row.label)] for row in data.train}
    assert by_text["hide new secretions from the parental units"] == "negative"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("text_columns", ["a"], r"^--text-columns was given for the task 'rte', which knows its own columns"),
        ("label_column", "a", r"^--label-column was given for the task 'rte'"),
        ("delimiter", ";", r"^--delimiter was given for the task 'rte'"),
        ("prompt", "qa", r"^The task 'rte' has no prompt 'qa'"),
    ],
)
def test_options_for_ones_own_files_are_refused(option: str, value: object, message: str, tmp_path: Path) -> None:
    config = TaskConfig.model_validate({"name": "rte", option: value})
    with pytest.raises(ConfigError, match=message):
        find_task("rte").load(config, DataAccess(data_root=str(write_rte(tmp_path))))
