"""Likelihoods of label words with shared demonstrations: adaptlab beside lm-evaluation-harness, on the same strings.

    python benchmarks/versus_lm_eval.py --model MODEL --data-root DIR --task sst2 --shots 8,12 --rows 200

Both sides turn the same prompts and answers into tokens and score them in float32, on as many threads; rounds
alternate, so that what else the machine does falls on both. Prints a table in Markdown with the ratio of medians and
the largest difference of a log-likelihood. Needs lm_eval (the extra ``parity``).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from adaptlab.config import AnsweringConfig, ModelConfig, TaskConfig
from adaptlab.evaluation.demonstrations import Demonstrations, choose
from adaptlab.evaluation.likelihood import Reader, log_likelihoods
from adaptlab.evaluation.prompts import Prompter
from adaptlab.models.load import Base, load_base
from adaptlab.tasks import find_task
from adaptlab.tasks._base import DataAccess, Example, TaskData
from adaptlab.tasks._prompts import render
from adaptlab.training.precision import Precision
from adaptlab.training.questions import Pieces


def strings(data: TaskData, rows: Sequence[Example], shots: Demonstrations | None) -> list[tuple[str, str]]:
    """Every (prompt, answer) pair of ``rows``, one row's answers after the other."""
    prompt = data.prompts[0]
    shown = [] if shots is None else [render(prompt, data.columns, row) for row in shots.of(rows[0])]
    parts = [part for part in (prompt.instruction, *(one.query + one.target for one in shown)) if part]
    pairs = []
    for row in rows:
        asked = render(prompt, data.columns, row)
        pairs += [(prompt.between.join([*parts, asked.query]), answer) for answer in asked.answers]
    return pairs


def ours(base: Base, data: TaskData, rows: Sequence[Example], shots: Demonstrations | None, length: int) -> Any:
    """Log-likelihoods of every answer, one row's after the other."""
    pieces = Pieces(base.tokenizer, base.layout.kind, start=base.start)
    asked = Prompter(data.prompts[0], data.columns, pieces, max_length=length).questions(rows, shots=shots)
    if asked.lost_shots or asked.truncated:
        raise SystemExit("Some prompts do not fit whole: give fewer shots.")
    precision = Precision("float32", "cpu")
    reader = Reader(base.model, base.layout.word_head, precision, base.tokenizer.pad_token_id, base.start)
    return np.concatenate(log_likelihoods(reader, asked.rows))


def theirs(model: Any, pairs: Sequence[tuple[str, str]]) -> Any:
    """The same by lm-evaluation-harness."""
    from lm_eval.api.instance import Instance

    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    return np.array([found for found, _ in model.loglikelihood(requests, disable_tqdm=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--shots", default="8,12")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="lm-evaluation-harness's")
    given = parser.parse_args()
    from lm_eval.models.huggingface import HFLM

    config = ModelConfig(id=given.model)
    base = load_base(config, num_labels=2, regression=False, device="cpu", readout="verbalizer")
    data = find_task(given.task).load(TaskConfig(name=given.task), DataAccess(data_root=given.data_root))
    rows = next(iter(data.report.values()))[: given.rows]
    backend = "causal" if base.start is None else "seq2seq"
    harness = HFLM(pretrained=given.model, backend=backend, device="cpu", dtype="float32", batch_size=given.batch_size)
    print(f"{given.task}, {len(rows)} rows, float32, {torch.get_num_threads()} thread(s), medians of {given.rounds}\n")
    print("| shots | lm-evaluation-harness s | adaptlab s | ratio | largest difference |\n|---:|---:|---:|---:|---:|")
    for count in map(int, given.shots.split(",")):
        shots = choose(data.train, count, seed=0, how=AnsweringConfig())
        pairs = strings(data, rows, shots)
        seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
        for _ in range(given.rounds):
            started = time.perf_counter()
            expected = theirs(harness, pairs)
            seconds["theirs"].append(time.perf_counter() - started)
            started = time.perf_counter()
            found = ours(base, data, rows, shots, base.max_length or 512)
            seconds["ours"].append(time.perf_counter() - started)
        slow, fast = (statistics.median(seconds[name]) for name in ("theirs", "ours"))
        difference = float(np.abs(found - expected).max())
        print(f"| {count} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f}x | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
