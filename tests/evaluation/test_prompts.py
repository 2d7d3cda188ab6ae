"""Prompts with demonstrations: who is shown, what is lost when there is no room, what is never touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adaptlab.config import AnsweringConfig, Prompt
from adaptlab.errors import ConfigError
from adaptlab.evaluation.demonstrations import Fixed, PerQuery, choose, draw
from adaptlab.evaluation.prompts import Prompter
from adaptlab.models.load import Base
from adaptlab.tasks._base import Example
from adaptlab.training.questions import Pieces

PROMPT = Prompt(name="p", template="Q: {text}\nA:", answers=("no", "yes"), instruction="Answer.")
POOL = [Example(f"train/{i}", (f"row {i}",), i % 2) for i in range(10)]
QUESTION = Example("test/0", ("is this a question?",), 1)


def prompter(base: Base, max_length: int) -> Prompter:
    return Prompter(PROMPT, ("text",), Pieces(base.tokenizer, base.layout.kind), max_length=max_length)


def read(base: Base, tokens: object) -> str:
    return str(base.tokenizer.decode(tokens))


def test_instruction_demonstrations_question(language_model: Callable[[str], Base]) -> None:
    base = language_model("gpt2")
    shown = Fixed((POOL[0], POOL[1]))
    found = prompter(base, 500).questions([QUESTION], shots=shown)
    text = "Answer.\n\nQ: row 0\nA: no\n\nQ: row 1\nA: yes\n\nQ: is this a question?\nA:"
    assert read(base, found.rows[0].context) == text
    assert [read(base, option) for option in found.rows[0].options] == [" no", " yes"]
    assert (found.lost_shots, found.truncated) == (0, 0)


def test_whole_demonstrations_are_lost_and_the_question_never(language_model: Callable[[str], Base]) -> None:
    base = language_model("gpt2")
    shown = Fixed(tuple(POOL[:8]))
    all_of_it = len(prompter(base, 10_000).questions([QUESTION], shots=shown).rows[0].context)
    for room in (all_of_it, all_of_it - 1, all_of_it // 2, 40):
        found = prompter(base, room + 3).questions([QUESTION], shots=shown)
        text = read(base, found.rows[0].context)
        kept = text.count("Q: row")
        assert found.lost_shots == 8 - kept
        assert text == prompter(base, 500).text(
            [f"Q: row {i}\nA: {'yes' if i % 2 else 'no'}" for i in range(kept)], "Q: is this a question?\nA:"
        )
        longest = max(map(len, found.rows[0].options))
        assert len(found.rows[0].context) + longest - 1 <= room + 3
        if kept < 8:  # one more would not have fitted
            one_more = prompter(base, 10_000).questions([QUESTION], shots=Fixed(tuple(POOL[: kept + 1]))).rows[0]
            assert len(one_more.context) + longest - 1 > room + 3
        assert found.truncated == 0


def test_a_question_too_long_by_itself_loses_the_end_of_its_text(language_model: Callable[[str], Base]) -> None:
    base = language_model("gpt2")
    long = Example("test/1", ("is this " * 40 + "a question?",), 1)
    found = prompter(base, 60).questions([long, QUESTION], shots=Fixed(tuple(POOL[:1])))
    text = read(base, found.rows[0].context)
    assert text.startswith("Answer.\n\nQ: is this is this")
    assert text.endswith("\nA:")
    assert len(found.rows[0].context) + max(map(len, found.rows[0].options)) - 1 <= 60
    assert (found.truncated, found.lost_shots) == (1, 1)
    with pytest.raises(ConfigError, match="take more than 8 tokens without any text of the row"):
        prompter(base, 8).questions([QUESTION])


def test_draws_are_seeded_balanced_and_never_repeat_a_row() -> None:
    one, same = (choose(POOL, 4, seed=3, how=AnsweringConfig()) for _ in range(2))
    assert one == same
    assert one != choose(POOL, 4, seed=4, how=AnsweringConfig())
    assert isinstance(one, Fixed)
    assert len({row.id for row in one.rows}) == 4
    balanced = choose(POOL, 5, seed=0, how=AnsweringConfig(shot_sampling="balanced"))
    assert balanced is not None
    counts = sorted(sum(row.label == label for row in balanced.of(QUESTION)) for label in (0, 1))
    assert counts == [2, 3]
    assert choose(POOL, 0, seed=0, how=AnsweringConfig()) is None


def test_each_query_has_its_own_demonstrations_and_is_none_of_them() -> None:
    shots = choose(POOL, 9, seed=0, how=AnsweringConfig(shots_per_query=True))
    assert isinstance(shots, PerQuery)
    for row in POOL:
        assert row.id not in {shown.id for shown in shots.of(row)}
        assert len(shots.of(row)) == 9
    assert shots.of(POOL[0]) == shots.of(POOL[0])
    assert [row.id for row in shots.of(POOL[0])] != [row.id for row in shots.of(POOL[1])]


def test_a_draw_of_nothing_is_empty() -> None:
    import numpy as np

    assert draw(POOL, 0, np.random.default_rng(0), balanced=True) == ()


@pytest.mark.parametrize(("how", "divisors"), [("none", (1.0, 1.0)), ("characters", (2.0, 3.0))])
def test_answers_are_divided_by_their_length_if_asked(
    how: str, divisors: tuple[float, ...], language_model: Callable[[str], Base]
) -> None:
    found = prompter(language_model("gpt2"), 500).questions([QUESTION], normalization=how)
    assert found.rows[0].divisors == divisors
