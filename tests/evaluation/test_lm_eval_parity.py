"""Likelihoods are lm-evaluation-harness's: real rows, the small trained models, the same rendered strings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adaptlab.config import AnsweringConfig, ModelConfig, TaskConfig
from adaptlab.evaluation.demonstrations import choose
from adaptlab.evaluation.prompts import Prompter
from adaptlab.models.load import load_base
from adaptlab.tasks import find_task
from adaptlab.tasks._base import DataAccess
from adaptlab.training.questions import Pieces
from benchmarks.versus_lm_eval import ours, strings, theirs

#: Of each task, those that fit whole into the model's 512 positions with every demonstration.
ROWS = 500


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("model", "task", "rows", "shots"),
    [
        *[("opt-mini", task, ROWS, shots) for task in ("sst2", "qqp", "commonsense_qa") for shots in (0, 4)],
        ("t5-mini", "sst2", ROWS // 5, 4),
        ("stories260k", "sst2", ROWS // 5, 0),  # its tokens are so short that few demonstrations fit
    ],
)
def test_log_likelihoods_equal_those_of_lm_evaluation_harness(
    model: str, task: str, rows: int, shots: int, small_models: Path, data_root: Path
) -> None:
    harness = pytest.importorskip("lm_eval.models.huggingface", reason="lm_eval is not installed: the extra parity")
    folder = str(small_models / model)
    base = load_base(ModelConfig(id=folder), num_labels=2, regression=False, device="cpu", readout="verbalizer")
    data = find_task(task).load(TaskConfig(name=task), DataAccess(data_root=str(data_root)))
    shown = choose(data.train, shots, seed=0, how=AnsweringConfig())
    length = base.max_length or 512
    pieces = Pieces(base.tokenizer, base.layout.kind, start=base.start)
    prompter = Prompter(data.prompts[0], data.columns, pieces, max_length=length)
    every = [row for split in (*data.report.values(), data.select) for row in split]
    some = every[: rows + rows // 2]
    fitting = zip(some, prompter.questions(some, shots=shown).rows, strict=True)
    whole = [row for row, asked in fitting if asked.group == shots and len(asked.context) < length][:rows]
    assert len(whole) == rows, "another choice of demonstrations does not fit"
    backend = "causal" if base.start is None else "seq2seq"
    lm = harness.HFLM(pretrained=folder, backend=backend, device="cpu", dtype="float32", batch_size=16)
    expected = theirs(lm, strings(data, whole, shown))
    found = ours(base, data, whole, shown, length)
    assert len(found) == len(expected)
    assert np.abs(found - expected).max() < 1e-3
