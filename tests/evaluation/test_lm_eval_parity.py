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

ROWS = 500


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shots", [0, 4])
@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("opt-mini", "sst2"),
        ("opt-mini", "rte"),
        ("opt-mini", "commonsense_qa"),
        ("t5-mini", "sst2"),
        ("stories260k", "sst2"),
    ],
)
def test_log_likelihoods_equal_those_of_lm_evaluation_harness(
    model: str, task: str, shots: int, small_models: Path, data_root: Path
) -> None:
    harness = pytest.importorskip("lm_eval.models.huggingface", reason="lm_eval is not installed: the extra parity")
    folder = str(small_models / model)
    base = load_base(ModelConfig(id=folder), num_labels=2, regression=False, device="cpu", readout="verbalizer")
    data = find_task(task).load(TaskConfig(name=task), DataAccess(data_root=str(data_root)))
    shown = choose(data.train, shots, seed=0, how=AnsweringConfig())
    length = base.max_length or 512
    prompter = Prompter(
        data.prompts[0], data.columns, Pieces(base.tokenizer, base.layout.kind, start=base.start), max_length=length
    )
    rows = [row for split in (*data.report.values(), data.select) for row in split]
    whole = []
    for row in rows:
        asked = prompter.questions([row], shots=shown)
        if not asked.lost_shots and not asked.truncated:
            whole.append(row)
        if len(whole) == ROWS:
            break
    if len(whole) < 50:
        pytest.skip(f"with {shots} shots {len(whole)} rows of {task} fit into {model}")
    backend = "causal" if base.start is None else "seq2seq"
    lm = harness.HFLM(pretrained=folder, backend=backend, device="cpu", dtype="float32", batch_size=16)
    expected = theirs(lm, strings(data, whole, shown))
    found = ours(base, data, whole, shown, length)
    assert len(found) == len(expected)
    assert np.abs(found - expected).max() < 1e-3
