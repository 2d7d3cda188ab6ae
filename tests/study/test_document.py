"""study.yaml: every problem at once with its line; flags over it; nothing but plain data is read."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptlab import config
from adaptlab.config import ModelConfig, StudyConfig
from adaptlab.errors import AdaptlabError, ConfigError
from adaptlab.study.document import Flags, read_study, write_study
from adaptlab.study.expand import expand


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("study.yaml")


def problems(file: Path, text: str | bytes, **flags: Any) -> list[str]:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read_study(file, Flags(study=flags))
    return list(caught.value.problems)


def test_a_study_is_read_with_either_spelling_of_keys(file: Path) -> None:
    file.write_text(
        """
model: minilm
task: sst2
methods: [whole, {name: probe, r: [4, 8], label: x, learning-rate: 1e-3}]
seeds: 2
train-examples: [100, all]
batch_size: 16
device: cpu
execution:
  keep-weights: none
"""
    )
    study = read_study(file)
    assert [entry.name for entry in study.methods] == ["whole", "probe"]
    assert study.methods[1].options == {"r": [4, 8]}
    assert study.methods[1].learning_rate == (1e-3,)
    assert study.seeds == (0, 1)
    assert study.train_examples == (100, "all")
    assert (study.execution.device, study.execution.keep_weights) == ("cpu", "none")


def test_every_problem_is_told_at_once_with_its_line(file: Path) -> None:
    assert problems(
        file,
        """\
model: minilm
task: sst22
sedes: 3
methods:
  - prob
  - name: probe
    r: many
    rank: 4
  - {name: probe, learnin-rate: 1e-3}
  - {name: probe, r: 0}
batch-size: [8, big]
train-examples: some
epochs: -1
dtype: float23
optimizer: adamx
execution:
  thread: 2
device: tpu
quiet: true
""",
    ) == [
        "study.yaml:2: No task is called 'sst22': did you mean sst2? See `adaptlab list tasks`.",
        "study.yaml:3: unknown key 'sedes': did you mean 'seeds'?",
        "study.yaml:5: No method is called 'prob': did you mean probe? See `adaptlab list methods`.",
        "study.yaml:8: unknown key 'probe.rank': allowed are alpha, bias, head, label, layers, learning_rate, "
        "lora_alpha, objective, optimizer, quantize, r, readout, schedule, shots, targets, teacher, use_dora, "
        "verbalizer_loss",
        "study.yaml:9: unknown key 'probe.learnin_rate': did you mean 'learning_rate'?",
        "study.yaml:10: 'probe.r' must be at least 1, not 0",
        "study.yaml:11: 'batch_size' must be a whole number, not 'big'",
        "study.yaml:12: 'train_examples' must be a whole number or 'all', not 'some'",
        "study.yaml:13: 'epochs' must be above 0, not -1",
        "study.yaml:14: 'dtype' must be 'auto', 'float32', 'bfloat16', 'float16' or 'float64', not 'float23'",
        f"study.yaml:15: 'optimizer' must be {one_of(config.Optimizer)}, not 'adamx'",
        "study.yaml:17: unknown key 'thread': did you mean 'threads'?",
        "study.yaml:18: 'device' must be 'auto', 'cpu' or 'cuda', not 'tpu'",
        "study.yaml:19: unknown key 'quiet': `adaptlab compare --help` has those that there are",
    ]


def one_of(literal: Any) -> str:
    *most, last = [repr(name) for name in get_args(literal)]
    return f"{', '.join(most)} or {last}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("methods: [probe]\n", ["study.yaml: 'task' is missing"]),
        ("task: sst2\nmethods: []\n", ["study.yaml:2: 'methods' must be a list with at least one value, not []"]),
        ("task: sst2\nmethods:\n", ["study.yaml:2: 'methods' must be a name or a mapping, not nothing"]),
        ("task: sst2\nmethods: [{r: 4}]\n", ["study.yaml:2: 'name' is missing"]),
        ("task: sst2\nmethods: [{probe: {r: 4}}]\n", [
            "study.yaml:2: 'name' is missing: write '- name: probe' and its options below it, beside the name",
        ]),
        ("task: sst2\nmethods: [probe]\nprobe:\n  r: 4\n", [
            "study.yaml:3: unknown key 'probe': it is a method, so write it under 'methods', as '- name: probe'",
        ]),
        ("task: sst2\nmethods: {name: probe, r: x}\n", ["study.yaml:2: 'probe.r' must be a whole number, not 'x'"]),
        ("task: sst2\nmethods: [5]\n", ["study.yaml:2: 'methods' must be a name or a mapping, not 5"]),
        ("task: {nam: sst2}\nmethods: [probe]\n", [
            "study.yaml:1: 'name' is missing", "study.yaml:1: unknown key 'nam': did you mean 'name'?",
        ]),
        ("task: sst2\nmethods: [probe]\nmodel: {id: minilm, revison: a}\n", [
            "study.yaml:3: unknown key 'revison': did you mean 'revision'?",
        ]),
        ("task: sst2\nmethods: [probe]\nmodel: ./nowhere\n", [
            "study.yaml:3: There is no model folder './nowhere': give a folder that has a config.json and weights, "
            "a hub id such as google-bert/bert-base-uncased, or minilm.",
        ]),
        ("task: my.csv\nmethods: [probe]\n", [
            "study.yaml:1: There is no file or folder my.csv: give a path to your rows, "
            "or a name from `adaptlab list tasks`.",
        ]),
        ("task: sst2\nmethods: [probe]\nepochs: 1\nsteps: 5\n", [
            "study.yaml: epochs and steps were both given: keep the one that says how long to train",
        ]),
        ("task: sst2\nmethods: [probe]\nseeds: -1\n", [
            "study.yaml:3: 'seeds' must be at least 1, not -1",
        ]),
        ("task: sst2\nmethods: [probe]\nepochs: .inf\n", ["study.yaml:3: 'epochs' must be a finite number, not inf"]),
        ("task: sst2\nmethods: [{name: probe, alpha: .nan}]\n", [
            "study.yaml:2: 'probe.alpha' must be a finite number, not nan",
        ]),
        ("task: sst2\nmethods: [probe]\nmodel: ~nobody_here/model\n", [
            "study.yaml:3: There is no model folder '~nobody_here/model': give a folder that has a config.json and "
            "weights, a hub id such as google-bert/bert-base-uncased, or minilm.",
        ]),
        (f"task: sst2\nmethods: [probe]\nmodel: {'m' * 5000}\n", [
            f"study.yaml:3: '{'m' * 40}...' is too long for a model's name: give a folder, a hub id, or minilm.",
        ]),
        ("task: sst2\nmethods: [probe]\nseeds: [0, -1]\n", ["study.yaml:3: 'seeds' must be at least 0, not -1"]),
        ("task: sst2\nmethods: [{name: probe, head: thawed}]\n", [
            "study.yaml:2: 'head' must be 'trained', 'frozen' or 'adapted', not 'thawed'",
        ]),
    ],
)  # fmt: skip
def test_one_problem(file: Path, text: str, expected: list[str]) -> None:
    assert problems(file, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "study.yaml: a study is a mapping of keys such as model, task and methods."),
        ("- a\n- b\n", "study.yaml: a study is a mapping of keys such as model, task and methods."),
        ("just text", "study.yaml: a study is a mapping of keys such as model, task and methods."),
        ("task: sst2\ntask: mrpc\n", "study.yaml:2: not valid YAML: found duplicate key \"task\""),
        ("task: [sst2\nmethods: x\n", "study.yaml:2: not valid YAML: expected ',' or ']'"),
        ("task: 'sst2\n", "study.yaml:2: not valid YAML: found unexpected end of stream"),
        ("\ttask: sst2\n", "study.yaml:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("task: !!python/object/apply:os.system ['true']\n", "study.yaml:1: not valid YAML: could not determine"),
        ("task: !custom x\n", "study.yaml:1: not valid YAML: could not determine a constructor for the tag"),
        ("task: *nobody\n", "study.yaml:1: not valid YAML: found undefined alias"),
        ("task: a\n---\ntask: b\n", "study.yaml:2: not valid YAML: but found another document"),
        (b"task: sst2\nmethods: \xff\n", "study.yaml:2: not UTF-8: save the file in UTF-8."),
        (b"task: \x00\n", "study.yaml: not valid YAML"),
        ("a: &a [*a]\n", "study.yaml: too many values, or values nested too deep, for a study."),
        ("[" * 3000, "study.yaml: not valid YAML"),
    ],
)  # fmt: skip
def test_what_is_no_study_is_said_in_one_sentence(file: Path, text: str | bytes, expected: str) -> None:
    (problem,) = problems(file, text)
    assert problem.startswith(expected)
    assert "\n" not in problem


def test_aliases_cannot_fill_the_memory(file: Path) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    assert problems(file, bomb) == ["study.yaml: too many values, or values nested too deep, for a study."]


def test_a_missing_file_a_folder_and_a_huge_file_are_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no file study\.yaml"):
        read_study(file)
    with pytest.raises(ConfigError, match="Cannot read"):
        read_study(tmp_path)
    (problem,) = problems(file, "#" * 1_000_001)
    assert problem == "study.yaml has 1,000,001 bytes: a study is a short file; is it the right one?"


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_spoilt_file_is_a_study_or_an_error_of_ours(file: Path, data: st.DataObject) -> None:
    """Bytes are cut out of a good file, put into it, or changed."""
    text = GOOD.encode()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(st.sampled_from(PIECES) | st.binary(max_size=3)) + text[end:]
    file.write_bytes(text)
    with contextlib.suppress(AdaptlabError):
        expand(read_study(file))


GOOD = """\
model: [minilm, {id: minilm, revision: main}]
task: [sst2, {name: mrpc, label_column: y}]
methods: [whole, {name: probe, r: [4, 8], alpha: 16, label: x, learning-rate: [1e-3, auto], layers: [[0], [1]]}]
seeds: [0, 1]
train-examples: [100, all]
targets: [[query, value], [key]]
epochs: 2.5
max_grad_norm: null
execution: {device: cpu, threads: 2}
"""
PIECES = [
    *(b"null", b"true", b"[]", b"{}", b"-1", b"1e999", b".nan", b"&a ", b"*a", b"? ", b"!!set ", b"!!binary ", b"<<: "),
    *(b"'", b'"', b"\n", b": ", b"- ", b"\xff", b"9" * 400, b"[[[[", b"0x10", b"2020-01-01", b"|\n", b"{a: {b: c}}"),
]


def test_flags_win_over_the_file(file: Path) -> None:
    file.write_text("task: sst2\nmethods: [probe]\nepochs: 9\nthreads: 4\nexecution: {device: cpu}\nseeds: 2\n")
    study = read_study(file, Flags(study={"steps": 5, "seeds": (7,), "device": "auto", "methods": ["whole"]}))
    assert (study.steps, study.epochs, study.seeds) == ((5,), None, (7,))
    assert (study.execution.device, study.execution.threads) == ("auto", 4)
    assert [entry.name for entry in study.methods] == ["whole"]


def test_a_wrong_flag_is_named_as_a_flag(file: Path) -> None:
    assert problems(file, "task: sst2\nmethods: [probe]\nbatch-size: x\n", batch_size=(0,), threads=0) == [
        "--batch-size must be at least 1, not 0",
        "--threads must be at least 1, not 0",
    ]
    with pytest.raises(ConfigError) as caught:
        read_study(None, Flags(study={"task": ("sst2",), "methods": ["prob"]}))
    assert caught.value.problems == (
        "--methods: No method is called 'prob': did you mean probe? See `adaptlab list methods`.",
    )


def test_flags_about_entries_reach_every_entry(file: Path) -> None:
    file.write_text("task: sst2\nmethods: [probe, {name: probe, label: b, alpha: 2}, whole]\nmodel: {id: a/b}\n")
    flags = Flags(
        task={"label_column": "y"},
        model={"allow_pickle": True},
        methods={"probe": {"r": [1, 2], "learning_rate": [0.5]}},
    )
    study = read_study(file, flags)
    assert study.task[0].label_column == "y"
    assert (study.model[0].id, study.model[0].allow_pickle) == ("a/b", True)
    assert [entry.options for entry in study.methods] == [{"r": [1, 2]}, {"alpha": 2, "r": [1, 2]}, {}]
    assert [entry.learning_rate for entry in study.methods] == [(0.5,), (0.5,), None]
    assert read_study(None, Flags(study={"task": "sst2", "methods": "probe"}, model={"allow_pickle": True})).model[
        0
    ] == ModelConfig(id="minilm", allow_pickle=True)


def test_wrong_options_on_the_command_line_are_named_as_such(file: Path) -> None:
    file.write_text("task: sst2\nmethods: [whole, {name: probe, r: x}]\n")
    with pytest.raises(ConfigError) as caught:
        read_study(file, Flags(methods={"probe": {"r": 0, "rank": 1}, "lora": {"r": 1}}, task={"delimiter": 5}))
    assert caught.value.problems == (
        "--set lora.r: the study's methods are whole, probe",
        "--delimiter must be a text, not 5",
        "--set: unknown key 'probe.rank': allowed are alpha, bias, head, label, layers, learning_rate, lora_alpha, "
        "objective, optimizer, quantize, r, readout, schedule, shots, targets, teacher, use_dora, verbalizer_loss",
    )


def test_the_home_folder_may_be_written_short(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.csv").write_text("text,label\n")
    (tmp_path / "model").mkdir()
    file.write_text("task: [{name: ~/my.csv}]\nmodel: ~/model\nmethods: [probe]\ndata-root: ~/data\n")
    study = read_study(file)
    assert study.task[0].name == f"{tmp_path}/my.csv"
    assert study.model[0].id == f"{tmp_path}/model"
    assert study.execution.data_root == f"{tmp_path}/data"


def test_a_written_study_is_read_again(file: Path) -> None:
    study = StudyConfig.model_validate({"task": "sst2", "methods": [{"name": "probe", "r": [2, 4]}], "steps": 5})
    write_study(file, study)
    assert read_study(file) == study


def test_reading_and_expanding_a_study_imports_no_torch(file: Path) -> None:
    file.write_text("task: sst2\nmethods: [head]\n")
    program = """
import sys
from adaptlab.study.document import read_study
from adaptlab.study.expand import expand
try:
    expand(read_study("study.yaml"))
except Exception as error:
    print(error)
print(sorted({"torch", "transformers", "datasets", "pandas", "peft"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_names_in_the_configuration_are_those_of_the_training(file: Path) -> None:
    """They are written twice, so that reading a study needs no torch."""
    from adaptlab import readouts
    from adaptlab.training import optimizers, schedules

    assert set(get_args(config.Optimizer)) == set(optimizers._BUILDERS)
    assert set(get_args(config.Schedule)) == set(schedules._SHAPES)
    assert set(readouts._READOUTS) == set(get_args(config.Readout))


def test_prompts_of_ones_own_stand_in_the_task(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("text,label\na,0\n")
    path = tmp_path / "study.yaml"
    path.write_text(
        f"""task:
  name: {tmp_path / "my.csv"}
  prompt: [mine, curt]
  prompts:
    - name: mine
      template: "{{text}}\\nSo:"
      answers: {{0: bad, 1: good}}
    - {{name: curt, template: "{{text}}"}}
methods: lora
"""
    )
    study = read_study(path)
    assert study.task[0].prompts[0].answers == {"0": "bad", "1": "good"}
    assert [run.task.prompt for run in expand(study)][::3] == ["mine", "curt"]
    write_study(tmp_path / "again.yaml", study)
    assert read_study(tmp_path / "again.yaml").task == study.task
    path.write_text(path.read_text().replace("template", "tempalte", 1))
    with pytest.raises(ConfigError, match=r"study.yaml:6: unknown key 'tempalte': did you mean 'template'"):
        read_study(path)
