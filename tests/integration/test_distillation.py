"""Context distillation: what a prompt does, trained into weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adaptlab import api
from adaptlab.config import ExecutionConfig
from adaptlab.resolve import ResolvedRun, Resolver
from adaptlab.study.expand import expand
from adaptlab.training.loop import Hooks, train
from adaptlab.training.words import read
from adaptlab.workshop import Stage, Workshop, set_up

PROMPT = {"name": "p", "template": "{text} so", "instruction": "It is bad, bad, bad: so bad"}


def stage_of(rows: Path, model: Path, **settings: Any) -> tuple[Stage, Workshop, ResolvedRun]:
    how = {"steps": 40, "batch_size": 8, "train_examples": 24, "seeds": [0], "dtype": "float32", **settings}
    task = {"name": str(rows), "prompts": how.pop("prompts", ())}
    if column := how.pop("explanation_column", None):
        task["explanation_column"] = column
    study = api.study_of(
        task=task,
        model={"id": str(model)},
        readout="verbalizer",
        objective="context-distillation",
        **how,
    )
    (run,) = expand(study)
    workshop = Workshop(ExecutionConfig(device="cpu"), lambda _: None)
    resolved = Resolver(ExecutionConfig(device="cpu")).resolve(run)
    return set_up(resolved, workshop.base(resolved), workshop), workshop, resolved


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of many lengths, each with a reason."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = [
        f"row {i} is{' really' * (i % 4)} {word},{label},because I say {word}"
        for i in range(30)
        for word, label in (("fine", "good"), ("poor", "bad"))
    ]
    path.write_text("text,label,why\n" + "\n".join(lines) + "\n")
    return path


def divergence(stage: Stage) -> float:
    """Mean over the training rows, without dropout."""
    member = stage.member
    member.modes.eval()
    which = np.arange(len(member.data))
    batch = member.collate(member.data, which, int(member.data.lengths.max()))
    with torch.no_grad():
        logits = read(member.attached.model, member.attached.layout.word_head, batch.inputs, batch.places)
        return float(member.objective.losses(logits, batch).mean())


@pytest.mark.parametrize("over", ["labels", "vocabulary"])
@pytest.mark.parametrize(("teacher", "family"), [("frozen", "gpt2"), ("recursive", "gpt2"), ("frozen", "t5")])
def test_without_context_there_is_nothing_to_learn(
    teacher: str, family: str, over: str, rows: Path, tiny_model_folder: Callable[[str], Path]
) -> None:
    stage, *_ = stage_of(
        rows, tiny_model_folder(family), methods="lora", teacher=teacher, teacher_shots=0, verbalizer_loss=over
    )
    assert divergence(stage) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["opt", "llama", "t5"])
def test_teacher_and_student_are_read_at_the_same_places_however_they_are_padded(
    family: str, side: str, rows: Path, tiny_model_folder: Callable[[str], Path]
) -> None:
    """Against plain passes over one unpadded sequence at a time, whatever side the tokenizer pads on."""
    words = {**PROMPT, "answers": {"good": "very good", "bad": "very bad indeed"}}
    settings: dict[str, Any] = {"teacher_shots": 2, "verbalizer_loss": "vocabulary", "prompts": [words]}
    model = tiny_model_folder(family)
    stage, workshop, resolved = stage_of(rows, model, methods="lora", **settings)
    base = workshop.base(resolved)
    base.tokenizer.padding_side = side
    stage = set_up(resolved, base, workshop)
    member, readout = stage.member, stage.readout
    which = np.arange(len(member.data))[:5]
    batch = member.collate(member.data, which, int(member.data.lengths.max()))
    assert batch.teacher is not None
    shots = resolved.data.train  # two of them are shown; which, the lessons say
    assert len(shots) == 24
    with torch.no_grad():
        student = read(base.model, base.layout.word_head, batch.inputs, batch.places).log_softmax(-1)
        place = 0
        for row in which:
            question = member.data.rows[row]
            lesson = readout_lesson(stage, resolved, int(row))
            assert lesson.options == question.options
            assert len(lesson.context) > len(question.context)
            for read_so_far in prefixes(question.options):
                for context, found in ((question.context, student), (lesson.context, batch.teacher)):
                    expected = plain(base, context, read_so_far)
                    assert found[place].numpy() == pytest.approx(expected, abs=2e-5)
                place += 1
    assert place == len(batch.teacher) == len(student)
    assert readout.setting.distils


def readout_lesson(stage: Stage, resolved: ResolvedRun, row: int) -> Any:
    from adaptlab.evaluation.demonstrations import choose
    from adaptlab.readouts import Verbalizer

    assert isinstance(stage.readout, Verbalizer)
    how = resolved.resolved.answering
    shots = choose(resolved.data.train, how.teacher_shots, seed=0, how=how)
    return stage.readout.lessons([resolved.data.train[row]], shots).rows[0]


def prefixes(options: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """What has been read of an answer wherever a token of one is asked for: each once, in the order of the answers."""
    found: dict[tuple[Any, ...], tuple[int, ...]] = {}
    longest = {option: max((o for o in options if o[: len(option) - 1] == option[:-1]), key=len) for option in options}
    for option in options:
        for end in range(len(option)):
            found.setdefault((longest[option][:-1], end) if end else (), option[:end])
    return list(found.values())


def plain(base: Any, context: NDArray[np.int32], answer: tuple[int, ...]) -> NDArray[np.float32]:
    """Log-probabilities of what comes after ``answer``, from a pass over one sequence."""
    if base.start is None:
        logits = base.model(input_ids=torch.tensor([[*context.tolist(), *answer]])).logits
    else:
        decoder = torch.tensor([[base.start, *answer]])
        logits = base.model(input_ids=torch.tensor([context.tolist()]), decoder_input_ids=decoder).logits
    found: NDArray[np.float32] = logits[0, -1].log_softmax(-1).numpy()
    return found


@pytest.mark.parametrize("over", ["labels", "vocabulary"])
@pytest.mark.parametrize("teacher", ["frozen", "recursive"])
def test_the_student_moves_to_its_prompted_teacher(
    teacher: str, over: str, rows: Path, tiny_model_folder: Callable[[str], Path]
) -> None:
    stage, workshop, resolved = stage_of(
        rows,
        tiny_model_folder("gpt2"),
        methods={"name": "lora", "learning_rate": 5e-3},
        teacher=teacher,
        teacher_shots=2,
        prompts=[PROMPT],
        verbalizer_loss=over,
        select="last",
    )
    before, apart = divergence(stage), distance(stage, workshop, resolved)
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
    if teacher == "frozen":  # a recursive teacher has gone elsewhere meanwhile
        assert distance(stage, workshop, resolved) < 0.5 * apart


def distance(stage: Stage, workshop: Workshop, resolved: ResolvedRun) -> float:
    """Between the label probabilities of the unprompted student and the prompted base, on rows not trained on."""
    from adaptlab.evaluation.demonstrations import choose
    from adaptlab.readouts import Verbalizer

    assert isinstance(stage.readout, Verbalizer)
    how, rows = resolved.resolved.answering, resolved.data.report["test"]
    shots = choose(resolved.data.train, how.teacher_shots, seed=0, how=how)
    stage.member.modes.eval()
    told = stage.readout.encode(rows, training=False)
    asked = stage.readout.answer(stage.member.attached.model, told, stage.precision).answers.probabilities
    lessons = stage.readout.lessons(rows, shots)
    taught = stage.readout.answer(workshop.base(resolved).model, lessons, stage.precision).answers.probabilities
    assert asked is not None
    assert taught is not None
    return float(np.abs(asked - taught).mean())


def test_questions_without_answers_suffice_and_explanations_are_shown(
    rows: Path, tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Twelve labelled rows to show, whose reasons the teacher reads; the rest of the rows are asked, unlabelled."""
    stage, _, resolved = stage_of(
        rows,
        tiny_model_folder("gpt2"),
        methods="bitfit",
        teacher_shots=1,
        train_examples=12,
        unlabelled_examples=20,
        explanation_column="why",
        max_length=100,
    )
    shown, asked = resolved.data.train, resolved.data.unlabelled
    assert (len(shown), len(asked), resolved.resolved.training.steps) == (12, 20, 40)
    assert not {row.id for row in shown} & {row.id for row in asked}
    assert {row.label for row in asked} == {0}
    assert stage.member.data.ids == tuple(row.id for row in asked)
    told = stage.readout.setting.tokenizer.decode(readout_lesson(stage, resolved, 0).context)
    assert "\nExplanation: because I say" in told


def test_a_folder_may_have_a_file_of_questions_without_answers(
    tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    labelled = "".join(f"row {i} is {'fine,good' if i % 2 else 'poor,bad'}\n" for i in range(20))
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text("text,label\n" + labelled.replace("row", name))
    (folder / "unlabelled.jsonl").write_text("".join(json.dumps({"text": f"what of {i}"}) + "\n" for i in range(30)))
    study = api.study_of(
        task=str(folder),
        model={"id": str(tiny_model_folder("gpt2"))},
        methods="bitfit",
        readout="verbalizer",
        objective="context-distillation",
        unlabelled_examples="all",
        verbalizer_loss="vocabulary",
        steps=2,
        batch_size=4,
        seeds=[0],
        dtype="float32",
        execution={"device": "cpu", "measure": "run"},
    )
    result = api.compare(study, out=tmp_path / "study")
    (record,) = result.records
    assert not result.failed, record.error
    assert record.data is not None
    assert record.data.sizes == {"train": 18, "unlabelled": 30, "select": 2, "test": 20}
    assert (record.training["steps"], record.training["teacher_lost_shots"]) == (2, 0)
    assert record.cost.train_flops


def test_supervised_training_has_no_use_for_questions_without_answers(
    rows: Path, tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    from adaptlab.errors import ConfigError, DataError

    how: dict[str, Any] = {"model": {"id": str(tiny_model_folder("gpt2"))}, "methods": "lora", "readout": "verbalizer"}
    study = api.study_of(task=str(rows), train_examples=10, unlabelled_examples=5, **how)
    with pytest.raises(ConfigError, match="supervised training learns from answers: use --objective context"):
        api.compare(study, out=tmp_path / "study")
    study = api.study_of(task=str(rows), unlabelled_examples=5, objective="context-distillation", **how)
    with pytest.raises(DataError, match=r"every row of .* that could be one is a training row: give --train-examples"):
        api.compare(study, out=tmp_path / "study")
