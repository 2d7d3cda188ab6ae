"""The user's own rows: what is found by itself, and one clear sentence for everything that cannot be used."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab.config import TaskConfig
from adaptlab.errors import AdaptlabError, ConfigError, DataError
from adaptlab.tasks import DataAccess, TaskData, find_task
from tests.tasks.tables import pairs, write_parquet

GOOD = "text,label\n" + "".join(f"a text about {i},{'good' if i % 2 else 'bad'}\n" for i in range(20))


def load(path: Path, **config: object) -> TaskData:
    return find_task(str(path)).load(TaskConfig.model_validate({"name": str(path), **config}), DataAccess())


def csv(text: str, labels: list[object], header: str = "text,label") -> str:
    return header + "\n" + "".join(f"{text} {i},{label}\n" for i, label in enumerate(labels))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write("my.csv", content)`` writes a file; a name that ends in .gz is packed."""

    def writer(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return writer


def every(data: TaskData) -> list[tuple[tuple[str, ...], int | float | str]]:
    rows = [*data.train, *data.select, *(row for part in data.report.values() for row in part)]
    return sorted((row.texts, row.label) for row in rows)


def test_every_format_gives_the_same_task(write: Callable[..., Path], tmp_path: Path) -> None:
    table = pairs(30, "x")
    rows = list(zip(table["sentence1"], table["sentence2"], table["label"], strict=True))
    header = ("sentence1", "sentence2", "label")
    lines = [header, *rows]
    jsonl = "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows)
    parquet = write_parquet(tmp_path / "p" / "my.parquet", {name: table[name] for name in header})
    files = [
        write("a/my.csv", "".join(",".join(map(str, line)) + "\n" for line in lines)),
        write("b/my.tsv", "".join("\t".join(map(str, line)) + "\n" for line in lines)),
        write("c/my.jsonl", jsonl),
        write("d/my.csv.gz", "".join(",".join(map(str, line)) + "\r\n" for line in lines)),
        write("e/my.jsonl.gz", jsonl),
        write("f/my.parquet.gz", parquet.read_bytes()),
        parquet,
    ]
    loaded = [load(file) for file in files]
    assert len({data.fingerprint for data in loaded}) == 1
    assert loaded[0].kind == "classification"
    assert loaded[0].labels == ("0", "1")
    assert loaded[0].train[0].texts == ("x premise number 0", "x hypothesis number 0")
    assert [data.source for data in loaded] == [file.name for file in files]


def test_text_labels_are_classes_in_alphabetical_order(write: Callable[..., Path]) -> None:
    data = load(write("my.csv", GOOD))
    assert data.labels == ("bad", "good")
    assert data.metrics[0] == "accuracy"
    assert {row.texts[0]: data.labels[int(row.label)] for row in data.train}["a text about 1"] == "good"


def test_whole_numbers_are_classes_in_numerical_order(write: Callable[..., Path]) -> None:
    data = load(write("my.csv", csv("text", [10, 9, 2] * 10)))
    assert (data.kind, data.labels) == ("classification", ("2", "9", "10"))


def test_a_float_column_is_regression(write: Callable[..., Path]) -> None:
    data = load(write("my.csv", csv("text", [0.0, 1.0] * 10)))
    assert (data.kind, data.labels, data.metrics) == ("regression", (), ("pearson", "spearman"))
    assert {row.label for row in data.train} == {0.0, 1.0}


def test_whole_numbers_that_hardly_repeat_are_regression(write: Callable[..., Path]) -> None:
    assert load(write("my.csv", csv("text", list(range(30))))).kind == "regression"
    assert load(write("many.csv", csv("text", [i % 101 for i in range(500)]))).kind == "regression"
    assert load(write("few.csv", csv("text", [i % 100 for i in range(500)]))).kind == "classification"


def test_class_names_in_a_parquet_file_are_used(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "my.parquet", pairs(30, "x"), {"label": ("yes", "no")})
    assert load(path).labels == ("yes", "no")


def test_truth_values_are_classes(write: Callable[..., Path]) -> None:
    lines = "".join(json.dumps({"text": f"t {i}", "label": i % 3 == 0}) + "\n" for i in range(20))
    assert load(write("my.jsonl", lines)).labels == ("false", "true")


def test_a_folder_has_its_own_splits(write: Callable[..., Path]) -> None:
    write("data/train.csv", csv("train", ["a", "b"] * 10))
    write("data/dev.tsv.gz", csv("dev", ["a", "b"] * 3).replace(",", "\t"))
    path = write(
        "data/test.jsonl", "".join(json.dumps({"text": f"test {i}", "label": "ab"[i % 2]}) + "\n" for i in range(7))
    )
    data = load(path.parent)
    assert (len(data.train), len(data.select), len(data.report["test"])) == (20, 6, 7)
    assert data.source == "data"
    assert not data.warnings


def test_a_folder_with_train_and_validation_halves_the_validation(write: Callable[..., Path]) -> None:
    write("data/train.csv", csv("train", ["a", "b"] * 10))
    path = write("data/validation.csv", csv("validation", ["a", "b"] * 5))
    data = load(path.parent)
    assert (len(data.select), len(data.report["validation"])) == (5, 5)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("text\nx y\nz w\n", "test.csv has no column 'label': it is not used."),
        ("text,topic\na,b\n", "test.csv has no column 'label': it is not used."),
        (csv("test", [-1, -1, -1]), "test.csv has the label -1 on every row, which means none: it is not used."),
    ],
)
def test_a_test_file_without_labels_is_not_used(write: Callable[..., Path], test: str, message: str) -> None:
    write("data/train.csv", csv("train", [0, 1] * 10))
    write("data/validation.csv", csv("validation", [0, 1] * 5))
    path = write("data/test.csv", test)
    data = load(path.parent)
    assert data.warnings == (message,)
    assert list(data.report) == ["validation"]


def test_a_file_that_belongs_to_no_split_is_named(write: Callable[..., Path]) -> None:
    write("data/train.csv", csv("train", [0, 1] * 10))
    path = write("data/extra.csv", csv("extra", [0, 1]))
    write("data/README.md", "not data")
    assert load(path.parent).warnings == ("extra.csv is called neither train, validation nor test: it is not used.",)


def test_columns_can_be_named(write: Callable[..., Path]) -> None:
    path = write("my.csv", csv("x", ["a", "b"] * 10, header="title,topic"))
    with pytest.raises(
        DataError, match=r"my.csv has no column with a usual name for the label.*title, topic.*--label-column"
    ):
        load(path)
    assert load(path, label_column="topic").labels == ("a", "b")
    assert load(path, label_column="topic", text_columns=["title"]).train[0].texts[0].startswith("x ")


def test_usual_names_are_found_whatever_their_case(write: Callable[..., Path]) -> None:
    lines = [{"ID": i, "Premise": f"p {i}", "Hypothesis": f"h {i}", "Label": "ab"[i % 2]} for i in range(20)]
    data = load(write("my.jsonl", "".join(json.dumps(line) + "\n" for line in lines)))
    assert data.train[0].texts == ("p 0", "h 0")


def test_a_pair_can_be_named(write: Callable[..., Path]) -> None:
    path = write("my.csv", csv("x,y", ["a", "b"] * 10, header="first,second,label"))
    with pytest.raises(
        DataError, match=r"usual name for the text: its columns are first, second, label; .*--text-columns"
    ):
        load(path)
    assert len(load(path, text_columns=["first", "second"]).train[0].texts) == 2


def test_quotes_line_breaks_and_marks_at_the_start_are_read(write: Callable[..., Path]) -> None:
    rows = "".join(f'"one, ""two""\nthree {i}",{"ab"[i % 2]}\n' for i in range(20))
    data = load(write("my.csv", "\ufefftext,label\n" + rows + "\n"))
    assert data.train[0].texts == ('one, "two"\nthree 0',)


def test_long_fields_are_read(write: Callable[..., Path]) -> None:
    data = load(write("my.csv", csv("word " * 40_000, ["a", "b"] * 5)))
    assert len(data.train[0].texts[0]) > 190_000


def test_a_delimiter_can_be_given(write: Callable[..., Path]) -> None:
    semicolons = write("my.csv", GOOD.replace(",", ";"))
    assert load(semicolons, delimiter=";").fingerprint == load(write("other.csv", GOOD)).fingerprint
    assert load(write("tabs.csv", GOOD.replace(",", "\t")), delimiter="tab").labels == ("bad", "good")


def test_the_rows_decide_not_where_they_lie(write: Callable[..., Path]) -> None:
    here, there = write("here/my.csv", GOOD), write("there/other.csv", GOOD)
    assert load(here).fingerprint == load(there).fingerprint
    assert find_task(str(here)).name == find_task(str(there)).name


BAD: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("my.csv", "", r"^my.csv is empty"),
    "blank": ("my.jsonl", "\n \n", r"^my.jsonl is empty"),
    "no rows": ("my.csv", "text,label\n", r"^my.csv has a header and no rows"),
    "not utf-8": ("my.csv", b"text,label\ncaf\xe9,good\n", r"^my.csv is not UTF-8: byte 0xe9 on line 2 .* save"),
    "utf-16": ("my.csv", GOOD.encode("utf-16"), r"^my.csv is not UTF-8"),
    "semicolons": ("my.csv", GOOD.replace(",", ";"), r"only one column when a comma separates.*give --delimiter ';'"),
    "tabs": ("my.csv", GOOD.replace(",", "\t"), r"only one column when a comma separates.*give --delimiter 'tab'"),
    "commas": ("my.tsv", GOOD, r"only one column when a tab separates.*give --delimiter ','"),
    "one column": ("my.csv", "text\na\nb\n", r"^my.csv has no column with a usual name for the label"),
    "ragged": ("my.csv", "text,label\na,1\nb,c,0\n", r"^my.csv, row 2 has 3 fields where the header has 2"),
    "open quote": ("my.csv", 'text,label\n"a,1\nb,0\n', r"^my.csv, line 3: unexpected end of data; a quoted field"),
    "twice": ("my.csv", "text,label,text\na,1,b\n", r"^my.csv has two columns called 'text': rename one"),
    "empty text": ("my.csv", "text,label\na,1\n  ,0\n", r"^my.csv, row 2: the text in column 'text' is empty"),
    "null text": ("my.jsonl", '{"text": "a", "label": 1}\n{"label": 0}\n', r"^my.jsonl, row 2: the text in column"),
    "empty label": ("my.csv", "text,label\na,1\nb,\n", r"^my.csv, row 2: the label in column 'label' is empty"),
    "null label": ("my.jsonl", '{"text": "a", "label": null}\n', r"^my.jsonl, row 1: the label in column 'label' is"),
    "number for text": ("my.jsonl", '{"text": 7, "label": 1}\n', r"^my.jsonl, row 1: column 'text' has 7, which is"),
    "list for label": ("my.jsonl", '{"text": "a", "label": [1]}\n', r"row 1: the label \[1\] is neither text nor a"),
    "half a character": ("my.jsonl", '{"text": "\\ud800", "label": 1}\n', r"row 1: column 'text' has half a surrogate"),
    "not a number": ("my.csv", csv("t", [0.5, "nan"] * 8), r"^my.csv, row 2: the label nan is not a finite number"),
    "no json": ("my.jsonl", '{"text": "a", "label": 1}\n{"text"\n', r"^my.jsonl, line 2 is not JSON"),
    "deep json": ("my.jsonl", "[" * 100_000 + "\n", r"^my.jsonl, line 1 is not JSON"),
    "no object": ("my.jsonl", '["a", 1]\n', r"^my.jsonl, line 1 is not an object"),
    "too few rows": ("my.csv", csv("t", ["a", "b"]), r"^my.csv has 2 training rows.*too few rows to split, give"),
    "one class": ("my.csv", csv("t", ["a"] * 20), r"^my.csv: all 16 training rows have the label 'a'"),
    "no parquet": ("my.parquet", b"PAR1 nothing of the kind", r"^my.parquet is not a readable parquet file"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_one_clear_sentence(case: str, write: Callable[..., Path]) -> None:
    name, content, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        load(write(name, content))
    assert "\n" not in str(caught.value)


def test_half_a_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.csv.gz"
    path.write_bytes(gzip.compress(GOOD.encode())[:-20])
    with pytest.raises(DataError, match=r"^my.csv.gz is not a whole gzip file"):
        load(path)
    path.write_text(GOOD)
    with pytest.raises(DataError, match=r"^my.csv.gz is not a whole gzip file"):
        load(path)


def test_a_label_that_only_the_test_file_has_is_named(write: Callable[..., Path]) -> None:
    write("data/train.csv", csv("train", ["a", "b"] * 10))
    path = write("data/test.csv", csv("test", ["a", "c"]))
    with pytest.raises(DataError, match=r"^data: the label 'c' of row test/1 \(test\) never occurs in training"):
        load(path.parent)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"text_columns": ["tekst"]}, r"^my.csv has no column 'tekst': its columns are text, label"),
        ({"label_column": "class"}, r"^my.csv has no column 'class': its columns are text, label"),
        ({"text_columns": ["text", "label"], "label_column": "label"}, r"^The text columns text, label do not do"),
        ({"delimiter": "::"}, r"^The delimiter '::' has 2 characters"),
    ],
)
def test_bad_options_are_named(config: dict[str, object], message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=message):
        load(write("my.csv", GOOD), **config)


def test_rows_about_which_nothing_is_known_have_a_plain_prompt(write: Callable[..., Path]) -> None:
    (plain,) = load(write("my.csv", GOOD)).prompts
    assert (plain.name, plain.template) == ("plain", "text: {text}\nlabel:")


def test_answers_of_their_own_in_nearly_every_row_are_to_be_written(write: Callable[..., Path]) -> None:
    rows = "".join(f"what is {i} and {i},{i} and {i} is {2 * i}\n" for i in range(20))
    data = load(write("sums.csv", f"question,answer\n{rows}"))
    assert (data.kind, data.labels, data.metrics) == ("generation", (), ("rouge_l", "exact_match"))
    assert (
        data.train[0].label == f"{data.train[0].texts[0].removeprefix('what is ')} is {2 * int(data.train[0].id[6:])}"
    )
    (plain,) = data.prompts
    assert (plain.template, plain.stop) == ("question: {question}\nanswer:", ("\n",))


@pytest.mark.parametrize(("answer", "stop"), [("line {i}\n2", ("\n\n",)), ("line {i}\n\n3", ())])
def test_an_answer_of_several_lines_is_not_cut_at_the_first(
    answer: str, stop: tuple[str, ...], write: Callable[..., Path]
) -> None:
    lines = [json.dumps({"input": f"row {i}", "output": answer.format(i=i)}) for i in range(20)]
    (plain,) = load(write("rows.jsonl", "\n".join(lines) + "\n")).prompts
    assert plain.stop == stop


def test_ones_own_prompt_goes_before_the_plain_one(write: Callable[..., Path]) -> None:
    mine = {"name": "mine", "template": "{text}\nSo:"}
    assert [prompt.name for prompt in load(write("my.csv", GOOD), prompts=[mine]).prompts] == ["mine", "plain"]
    assert [p.name for p in load(write("my.csv", GOOD), prompts=[mine], prompt="plain").prompts] == ["plain"]


def test_a_prompt_that_is_not_there_or_names_no_column_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="has no prompt 'qa': it has plain"):
        load(write("my.csv", GOOD), prompt="qa")
    with pytest.raises(ConfigError, match=r"names the column 'tekst' in its template: there are text."):
        load(write("my.csv", GOOD), prompts=[{"name": "mine", "template": "{tekst}"}])
    with pytest.raises(ConfigError, match=r"Two prompts of '.*my.csv' are called 'plain': give yours another name."):
        load(write("my.csv", GOOD), prompts=[{"name": "plain", "template": "{text}"}])


def test_a_column_that_no_template_can_name_has_no_plain_prompt(write: Callable[..., Path]) -> None:
    assert load(write("my.csv", GOOD.replace("text", "text{"))).prompts == ()


def test_a_folder_without_a_train_file_says_what_it_has(write: Callable[..., Path]) -> None:
    path = write("data/rows.csv", GOOD)
    with pytest.raises(DataError, match=r"^The folder data has none of train.csv, .*: it has rows.csv"):
        load(path.parent)


def test_two_files_for_one_split_are_refused(write: Callable[..., Path]) -> None:
    write("data/train.csv", GOOD)
    path = write("data/train.tsv", GOOD)
    with pytest.raises(DataError, match=r"^data has two train files, train\.csv and train\.tsv"):
        load(path.parent)


@pytest.mark.parametrize("name", ["nothing.csv", "no/such/folder", "./nothing", "nothing.parquet.gz"])
def test_a_path_where_nothing_is(name: str) -> None:
    with pytest.raises(DataError, match=f"There is no file or folder {name}"):
        find_task(name)


def test_a_file_of_another_format_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"rows.xlsx is of no known format: give a csv, tsv, jsonl or parquet file"):
        load(write("rows.xlsx", "x"))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", ""])
def test_a_name_that_no_file_can_have_is_an_unknown_task(name: str) -> None:
    with pytest.raises(AdaptlabError, match="No task is called"):
        find_task(name)


def test_an_unknown_name_has_near_matches() -> None:
    with pytest.raises(AdaptlabError, match=r"No task is called 'stsbb': did you mean stsb"):
        find_task("stsbb")
