"""Lines become texts and pairs; a bad line is named by its number."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptlab.cli.predict import Text, parse_lines
from adaptlab.errors import DataError

from .conftest import Command


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["good film\n", " bad film \r\n"], ["good film", " bad film "]),
        (["one\ttwo\n"], [("one", "two")]),
        (["[laughs] it is fine\n", "{no\n"][:1], ["[laughs] it is fine"]),
        (['"one"\n', '["two"]\n', '["a", "b"]\n'], ["one", "two", ("a", "b")]),
        (['{"text": "a", "text_pair": "b"}\n', '{"text": "c", "label": 1}\n'], [("a", "b"), "c"]),
        (['{"premise": "a", "hypothesis": "b"}\n'], [("a", "b")]),
        (["12\n"], ["12"]),
    ],
)
def test_lines_are_texts_pairs_or_json(lines: list[str], expected: list[Text]) -> None:
    assert list(parse_lines(lines, "input")) == expected


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["fine\n", "\n"], "input, line 2: the text is empty"),
        (["a\t\n"], "input, line 1: the text is empty"),
        (["a\tb\tc\n"], "input, line 1: 3 texts between tabs"),
        (['{"text": "a"}\n', "b\n"], "input, line 2: not JSON"),
        (["{text: a}\n"], "input, line 1: not JSON"),
        (['{"txt": "a"}\n'], 'input, line 1: give "text"'),
        (['["a", "b", "c"]\n'], 'input, line 1: give "text"'),
        (['["a", null]\n'], "input, line 1: a text must be a string"),
        (['{"text": "a"}\n', "5\n"], 'input, line 2: give "text"'),
    ],
)
def test_a_bad_line_is_named(lines: list[str], words: str) -> None:
    with pytest.raises(DataError) as caught:
        list(parse_lines(lines, "input"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run"], "There is nothing to predict: give texts, --input FILE, or -"),
        (["run", "text", "--input", "file"], "Texts and --input were both given"),
        (["run", "--input", "nowhere.txt"], "Cannot read nowhere.txt"),
        (["run", "--input", "empty.txt"], "There is nothing to predict: the input has no lines."),
        (["run", "--input", "latin.txt"], "latin.txt, line 2: not UTF-8"),
        (["run", "fine", " "], "text 2: the text is empty"),
    ],
)
def test_bad_input_is_told_before_anything_is_loaded(
    adaptlab: Command, tmp_path: Path, words: list[str], expected: str
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    done = adaptlab("predict", *words)
    assert done.code == 2
    assert expected in done.err
