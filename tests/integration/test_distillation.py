"""Context distillation: what a prompt does, trained into weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptlab import api
from adaptlab.config import ExecutionConfig
from adaptlab.resolve import Resolver
from adaptlab.study.expand import expand
from adaptlab.training.loop import Hooks, train
from adaptlab.workshop import Stage, Workshop, set_up


def stage_of(rows: Path, model: Path, **settings: Any) -> tuple[Stage, Workshop]:
    how = {"steps": 40, "batch_size": 8, "train_examples": 24, "seeds": [0], "dtype": "float32", **settings}
    study = api.study_of(
        task={"name": str(rows), "prompts": how.pop("prompts", ())},
        model={"id": str(model)},
        readout="verbalizer",
        objective="context-distillation",
        **how,
    )
    (run,) = expand(study)
    workshop = Workshop(ExecutionConfig(device="cpu"), lambda _: None)
    resolved = Resolver(ExecutionConfig(device="cpu")).resolve(run)
    return set_up(resolved, workshop.base(resolved), workshop), workshop


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = [f"row {i} is {'fine' if i % 2 else 'poor'},{'good' if i % 2 else 'bad'}" for i in range(60)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def divergence(stage: Stage) -> float:
    """Mean over the training rows, without dropout."""
    from adaptlab.training.words import read

    member = stage.member
    member.modes.eval()
    which = np.arange(len(member.data))
    batch = member.collate(member.data, which, int(member.data.lengths.max()))
    with torch.no_grad():
        logits = read(member.attached.model, member.attached.layout.word_head, batch.inputs, batch.places)
        return float(member.objective.losses(logits, batch).mean())


@pytest.mark.parametrize("family", ["gpt2", "opt", "t5"])
@pytest.mark.parametrize("teacher", ["frozen", "recursive"])
def test_without_context_there_is_nothing_to_learn(
    teacher: str, family: str, rows: Path, tiny_model_folder: Callable[[str], Path]
) -> None:
    """Padding on either side by the tokenizer's taste: student and teacher are read at the same places."""
    stage, _ = stage_of(rows, tiny_model_folder(family), methods="lora", teacher=teacher, teacher_shots=0)
    assert divergence(stage) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("teacher", ["frozen", "recursive"])
def test_the_student_moves_to_its_prompted_teacher(
    teacher: str, rows: Path, tiny_model_folder: Callable[[str], Path]
) -> None:
    prompt = {"name": "p", "template": "{text} so", "instruction": "It is bad, bad, bad: so bad"}
    stage, _ = stage_of(
        rows,
        tiny_model_folder("gpt2"),
        methods={"name": "lora", "learning_rate": 5e-3},
        teacher=teacher,
        teacher_shots=2,
        prompts=[prompt],
    )
    before = divergence(stage)
    assert before > 1e-4
    hooks = Hooks(
        evaluate=lambda members: [{"accuracy": 0.0} for _ in members],
        select_by="accuracy",
        on_point=lambda *_: None,
        on_step=lambda _: None,
        save=lambda _: None,
        stop=lambda: False,
    )
    train([stage.member], stage.backward, hooks)
    assert divergence(stage) < 0.5 * before
