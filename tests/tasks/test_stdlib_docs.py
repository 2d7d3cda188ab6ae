"""stdlib-docs: real rows from the running Python, the same every time, and no near-duplicate on two sides."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from adaptlab.config import TaskConfig
from adaptlab.errors import DataError
from adaptlab.tasks import DataAccess, TaskData, find_task
from adaptlab.tasks import stdlib_docs as module

FINGERPRINT = """
from adaptlab.config import TaskConfig
from adaptlab.tasks import DataAccess, find_task
print(find_task("stdlib-docs").load(TaskConfig(name="stdlib-docs"), DataAccess()).fingerprint)
"""


@pytest.fixture(scope="module")
def data() -> TaskData:
    return find_task("stdlib-docs").load(TaskConfig(name="stdlib-docs"), DataAccess())


def test_it_has_enough_rows_of_ten_areas_and_no_area_rules(data: TaskData) -> None:
    assert len(data.labels) == 10
    assert len(data.train) > 3500
    assert len(data.select) == len(data.report["test"]) > 400
    for rows in (data.train, data.select, data.report["test"]):
        counts = Counter(row.label for row in rows)
        assert len(counts) == 10
        assert max(counts.values()) < 0.27 * len(rows)


def test_another_process_builds_the_same_rows(data: TaskData) -> None:
    done = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == data.fingerprint


def test_no_two_rows_are_near_duplicates(data: TaskData) -> None:
    """Every pair is compared, by matrix product: the task itself only compares pairs that share a rare word."""
    rows = [*data.train, *data.select, *data.report["test"]]
    words = [set(re.findall(r"[a-z]+", row.texts[0].lower())) for row in rows]
    column = {word: place for place, word in enumerate(sorted(set(chain.from_iterable(words))))}
    member = np.zeros((len(rows), len(column)), dtype=np.float32)
    for row, found in enumerate(words):
        member[row, [column[word] for word in found]] = 1
    sizes = member.sum(1)
    for start in range(0, len(rows), 500):
        shared = member[start : start + 500] @ member.T
        overlap = shared / (sizes[start : start + 500, None] + sizes[None] - shared)
        overlap[np.arange(len(overlap)), start + np.arange(len(overlap))] = 0
        assert overlap.max() < module.NEAR


def test_it_is_quick() -> None:
    start = time.process_time()
    assert module.usable_docs.__wrapped__(Path(sysconfig.get_paths()["stdlib"]))
    assert time.process_time() - start < 6  # 1.5 s of a processor of 2024


def test_it_can_be_learnt_but_not_by_the_majority(data: TaskData) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(C=20, max_iter=200)
    )
    model.fit([row.texts[0] for row in data.train], [row.label for row in data.train])
    test = data.report["test"]
    accuracy = model.score([row.texts[0] for row in test], [row.label for row in test])
    assert 0.6 < accuracy < 0.9


def test_nothing_is_imported_while_reading(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").write_text('"""One two three four five."""\nraise SystemExit("imported")\n')
    (doc,) = module._read(tmp_path)
    assert (doc.place, doc.area, doc.text) == ("json/__init__.py:0", "text and formats", "One two three four five.")


def test_what_says_little_besides_the_modules_name_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text(
        '"""A queue, the queue: queue."""\ndef f():\n    """Wait until a slot is free.\n\n    More."""\n'
    )
    assert [doc.text for doc in module._read(tmp_path)] == ["Wait until a slot is free."]


def test_one_text_in_two_areas_is_left_out_and_one_text_twice_is_kept_once(tmp_path: Path) -> None:
    twice = '"""Return the number of bytes."""\n'
    (tmp_path / "glob.py").write_text('"""Find all files that match patterns."""\n')
    (tmp_path / "io.py").write_text('"""Find all files that match patterns!"""\n')
    (tmp_path / "json.py").write_text(twice)
    (tmp_path / "queue.py").write_text(twice)
    kept = module.distinct(list(module._read(tmp_path)))
    assert [doc.place for doc in kept] == ["glob.py:0"]


def test_a_python_without_source_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DataError, match=r"this Python came without them: use another task"):
        find_task("stdlib-docs").load(TaskConfig(name="stdlib-docs"), DataAccess())
