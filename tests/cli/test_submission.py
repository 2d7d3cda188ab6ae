"""What the GLUE server takes: a file's name, its head, a row's number, and the words of each task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptlab.predictor import Prediction
from adaptlab.submission import server_file
from adaptlab.tasks import find_task
from tests.tasks.golden_rows import ROWS
from tests.tasks.tables import write_parquet, write_rte

from .conftest import Command

#: The server's own: https://gluebenchmark.com/faq. Words where it takes words, else the class's number.
SERVER = {
    "cola": ("CoLA.tsv", "acceptable", "1"),
    "sst2": ("SST-2.tsv", "positive", "1"),
    "mrpc": ("MRPC.tsv", "not_equivalent", "0"),
    "qqp": ("QQP.tsv", "duplicate", "1"),
    "mnli": ("MNLI-m.tsv", "neutral", "neutral"),
    "qnli": ("QNLI.tsv", "not_entailment", "not_entailment"),
    "rte": ("RTE.tsv", "entailment", "entailment"),
    "wnli": ("WNLI.tsv", "entailment", "1"),
}


@pytest.mark.parametrize("name", SERVER)
def test_each_task_has_its_file_and_words(name: str) -> None:
    file, label, word = SERVER[name]
    task = find_task(name)
    first = task.submissions[0]
    assert first.file == file
    assert server_file(first, task.labels_in_order(), [Prediction(label, {})]) == f"index\tprediction\n0\t{word}\n"


def test_an_answer_that_is_no_class_stands_as_the_first() -> None:
    task = find_task("sst2")
    written = server_file(task.submissions[0], task.labels_in_order(), [Prediction("", {}), Prediction("positive", {})])
    assert written == "index\tprediction\n0\t0\n1\t1\n"


def test_numbers_keep_within_the_scale() -> None:
    task = find_task("stsb")
    written = server_file(task.submissions[0], (), [Prediction(x, {}) for x in (-0.2, 3.14159, 5.5)])
    assert (task.submissions[0].file, written) == ("STS-B.tsv", "index\tprediction\n0\t0.000\n1\t3.142\n2\t5.000\n")


def test_mnli_has_both_genres_and_the_diagnostics() -> None:
    assert [submission.file for submission in find_task("mnli").submissions] == ["MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"]


def test_a_run_answers_the_test_split(adaptlab: Command, tiny_flags: list[str], tmp_path: Path) -> None:
    root = write_rte(tmp_path / "data")
    columns = {**ROWS["rte"][0], "label": [-1, -1, -1]}
    write_parquet(root / "nyu-mll/glue/rte/test.parquet", columns, {"label": ROWS["rte"][1]})
    flags = list(tiny_flags)
    flags[flags.index("--task") + 1] = "rte"
    trained = adaptlab("train", *flags, "--method", "head", "--data-root", root)
    assert trained.code == 0, trained.err
    run = trained.out.splitlines()[-1]

    done = adaptlab("predict", run, "--split", "test", "--data-root", root, "--out", "glue")
    assert done.code == 0, done.err
    answers = [json.loads(line) for line in done.out.splitlines()]
    rows = Path("glue/RTE.tsv").read_text().splitlines()
    assert rows == ["index\tprediction", *(f"{place}\t{answer['label']}" for place, answer in enumerate(answers))]
    assert len(answers) == 3
    assert "glue/RTE.tsv" in done.err

    refused = adaptlab("predict", run, "--split", "test", "a text")
    assert refused.code == 2
    assert "--split and texts were both given" in refused.err
    lacking = adaptlab("predict", run, "--split", "tset", "--data-root", root)
    assert lacking.code == 2
    assert "lacks tset.parquet; it has test.parquet, train.parquet, validation.parquet" in lacking.err
