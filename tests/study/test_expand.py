"""A study becomes runs: grids, labels, seeds, targets, names."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from adaptlab.config import AnsweringConfig, RunConfig, StudyConfig, TrainingConfig
from adaptlab.errors import ConfigError
from adaptlab.study.expand import expand, run_name


def runs(**keys: Any) -> list[RunConfig]:
    return expand(StudyConfig.model_validate({"task": "sst2", "seeds": 1, "methods": ["probe"], **keys}))


def labels(*methods: Any, **keys: Any) -> list[str]:
    return [run.method.label for run in runs(methods=list(methods), **keys)]


def test_a_study_is_the_product_of_its_axes() -> None:
    study = runs(
        task=["sst2", "mrpc"],
        model=["minilm", "a/b"],
        methods=["probe", "whole"],
        seeds=[0, 4],
        train_examples=[100, "all"],
        batch_size=[8, 16],
        max_length=[64, 128],
        data_seed=[0, 1],
    )
    assert len(study) == 2**8
    assert len({run.model_dump_json() for run in study}) == len(study)
    assert [run.seed for run in study[:4]] == [0, 4, 0, 4], "seeds vary fastest, so that a method's seeds end together"
    assert [run.method.name for run in study[:4]] == ["probe", "probe", "whole", "whole"]
    assert {run.task.name for run in study[: 2**7]} == {"sst2"}


def test_every_value_of_a_study_reaches_its_run() -> None:
    (run,) = runs(
        task={
            "name": "my.csv",
            "text_columns": ["a", "b"],
            "label_column": "y",
            "explanation_column": "why",
            "delimiter": ";",
            "prompt": "p",
            "also_evaluate": "hans",
        },
        balanced=True,
        model={"id": "a/b", "revision": "main"},
        train_examples=10,
        select_examples=20,
        eval_examples=30,
        data_seed=7,
        max_length=64,
        shots=2,
        steps=50,
        max_examples=100,
        max_tokens="2e3",
        max_flops=1e12,
        max_seconds=0.5,
        max_bytes=300,
        batch_size=4,
        learning_rate=0.5,
        head_learning_rate=0.25,
        optimizer="sgd",
        weight_decay=0.25,
        schedule="cosine",
        warmup_ratio=0.5,
        max_grad_norm=None,
        eval_every=5,
        select="last",
        dtype="float64",
    )
    assert run.model.revision == "main"
    assert run.task.model_dump() == {
        "name": "my.csv",
        "train_examples": 10,
        "select_examples": 20,
        "eval_examples": 30,
        "data_seed": 7,
        "text_columns": ("a", "b"),
        "label_column": "y",
        "explanation_column": "why",
        "delimiter": ";",
        "max_length": 64,
        "prompt": "p",
        "prompts": (),
        "also_evaluate": ("hans",),
        "balanced": True,
        "unlabelled_examples": 0,
    }
    assert run.training.model_dump() == {
        "epochs": 3.0,
        "steps": 50,
        "max_examples": 100,
        "max_tokens": 2000,
        "max_flops": 1e12,
        "max_seconds": 0.5,
        "max_bytes": 300,
        "batch_size": 4,
        "learning_rate": 0.5,
        "head_learning_rate": 0.25,
        "optimizer": "sgd",
        "weight_decay": 0.25,
        "schedule": "cosine",
        "warmup_ratio": 0.5,
        "max_grad_norm": None,
        "eval_every": 5,
        "select": "last",
        "dtype": "float64",
    }
    assert run.shots == 2


def test_every_key_of_the_training_can_be_said_in_a_study() -> None:
    assert set(TrainingConfig.model_fields) <= set(StudyConfig.model_fields)


def test_what_a_study_does_not_say_is_the_trainings_default() -> None:
    (run,) = runs()
    assert run.training == TrainingConfig()


@pytest.mark.parametrize(("given", "seeds"), [(3, [0, 1, 2]), ([5], [5]), ([0, 2], [0, 2]), ([1, 1], [1])])
def test_a_number_of_seeds_counts_and_a_list_names_them(given: Any, seeds: list[int]) -> None:
    assert [run.seed for run in runs(seeds=given)] == seeds


def test_a_list_where_a_value_stands_makes_a_grid() -> None:
    study = runs(methods=[{"name": "probe", "r": [4, 8], "alpha": [1, 2]}])
    assert [run.method.options for run in study] == [{"r": r, "lora_alpha": alpha} for r in (4, 8) for alpha in (1, 2)]


def test_where_the_option_is_a_list_only_a_list_of_lists_is_a_grid() -> None:
    assert [run.method.options for run in runs(methods=[{"name": "probe", "layers": [0, 1]}])] == [{"layers": [0, 1]}]
    grid = runs(methods=[{"name": "probe", "layers": [[0], [0, 1]]}])
    assert [run.method.options for run in grid] == [{"layers": [0]}, {"layers": [0, 1]}]


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["probe"], ["probe"]),
        ([{"name": "probe", "r": 4}], ["probe"]),
        ([{"name": "probe", "r": [4, 16]}], ["probe-r4", "probe-r16"]),
        ([{"name": "probe", "r": [4, 10**400]}], ["probe-r4", f"probe-r{10**400}"]),
        ([{"name": "probe", "r": [4, 16], "alpha": 2}], ["probe-r4", "probe-r16"]),
        (["probe", {"name": "probe", "r": 4}], ["probe-r8", "probe-r4"]),
        ([{"name": "probe", "r": 4, "alpha": [0.5, 32]}], ["probe-alpha0.5", "probe-alpha32"]),
        ([{"name": "probe", "use_dora": [True, False]}], ["probe-use_dora", "probe-no-use_dora"]),
        ([{"name": "probe", "bias": ["none", "all"]}], ["probe-bias-none", "probe-bias-all"]),
        ([{"name": "probe", "layers": [[0], [0, 1]]}], ["probe-layers-0", "probe-layers-0+1"]),
        ([{"name": "probe", "learning-rate": [1e-4, 2.5e-3]}], ["probe-lr1e-4", "probe-lr2.5e-3"]),
        ([{"name": "probe", "learning_rate": ["auto", 1]}], ["probe-lr-auto", "probe-lr1e0"]),
        ([{"name": "probe", "targets": [["query"], ["query", "value"]]}], ["probe-query", "probe-query+value"]),
        ([{"name": "probe", "head": ["trained", "frozen"]}], ["probe-head-trained", "probe-head-frozen"]),
        ([{"name": "probe", "label": "mine"}, "probe"], ["mine"]),  # the same variant: the user's word stays
        ([{"name": "probe", "label": "big", "r": 64}, "probe"], ["big", "probe"]),
        ([{"name": "probe", "label": "mine", "r": [1, 2]}], ["mine-r1", "mine-r2"]),
        (["probe", "whole"], ["probe", "whole"]),
    ],
)
def test_labels_tell_what_varies_and_nothing_else(methods: list[Any], expected: list[str]) -> None:
    assert labels(*methods) == expected


def test_rates_of_the_whole_study_are_told_too() -> None:
    assert labels("probe", "whole", learning_rate=[1e-3, 1e-2]) == [
        "probe-lr1e-3",
        "probe-lr1e-2",
        "whole-lr1e-3",
        "whole-lr1e-2",
    ]


def test_an_axis_of_training_needs_no_label() -> None:
    assert labels("probe", batch_size=[8, 16]) == ["probe", "probe"]


def test_a_methods_own_rate_wins_over_the_studys() -> None:
    study = runs(methods=[{"name": "probe", "learning-rate": [1e-4, 1e-3]}, "whole"], learning_rate=0.5)
    assert [run.training.learning_rate for run in study] == [1e-4, 1e-3, 0.5]


def test_a_default_written_out_is_no_second_run() -> None:
    assert labels("probe", {"name": "probe", "r": 8, "lora_alpha": 16.0}, "probe") == ["probe"]


def test_targets_of_the_study_reach_methods_that_sit_at_layers() -> None:
    study = runs(
        methods=["probe", "whole", {"name": "probe", "label": "own", "targets": "mlp"}], targets=["query", "value"]
    )
    assert [run.method.targets for run in study] == [("query", "value"), None, "mlp"]


def test_every_problem_of_every_method_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        runs(
            methods=[
                "prob",
                {"name": "probe", "rr": 1, "alpha": 1, "lora_alpha": 2},
                {"name": "probe", "r": ["x", 0, 5], "use_dora": "perhaps", "bias": 5},
                {"name": "whole", "r": 3},
                {"name": "probe", "r": []},
            ]
        )
    assert caught.value.problems == (
        "No method is called 'prob': did you mean probe? See `adaptlab list methods`.",
        "unknown key 'probe.rr': did you mean 'r'?",
        "'probe.alpha' is another name of 'lora_alpha': give one of the two",
        "'probe.r' must be a whole number, not 'x'",
        "'probe.use_dora' must be true or false, not 'perhaps'",
        "'probe.bias' must be a text, not 5",
        "'probe.r' must be at least 1, not 0",
        "unknown key 'whole.r': allowed are head, label, learning_rate, objective, optimizer, quantize, "
        "readout, schedule, shots, targets, teacher, verbalizer_loss",
        "'probe.r' has no value: give at least one",
    )


def test_one_label_for_two_variants_is_refused() -> None:
    with pytest.raises(ConfigError, match="label 'probe-r4' stands for two different variants"):
        labels({"name": "probe", "label": "probe-r4", "r": 2}, {"name": "probe", "r": [4, 8]})


def test_a_runs_name_says_task_method_seed_and_id() -> None:
    assert run_name("sst2", "lora-r4", 3, "0123456789abcdef") == "sst2-lora-r4-s3-01234567"
    assert run_name("/home/ada/my reviews.tsv.gz", "lora", 0, "01234567") == "my-reviews-lora-s0-01234567"
    assert run_name("./data/", "lora", 0, "01234567") == "data-lora-s0-01234567"


@pytest.mark.parametrize("text", ["../../etc/passwd", "..", "/", "a/../..", "x" * 500, "\n\x00", "ü ö", "con:", "-rf"])
def test_no_name_leaves_the_folder_or_breaks_it(text: str) -> None:
    for name in (run_name(text, "lora", 0, "01234567"), run_name("sst2", text, 0, "01234567")):
        assert "/" not in name
        assert not name.startswith((".", "-"))
        assert len(name) < 200
        assert name.isascii()
        assert name.isprintable()


def test_targets_for_a_method_that_takes_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="'whole' takes no targets"):
        expand(StudyConfig(task=["sst2"], methods=[{"name": "whole", "targets": "query"}]))


def test_a_base_is_quantised_by_study_by_method_or_by_its_own_entry() -> None:
    def bits(*methods: Any, **keys: Any) -> list[tuple[str, str]]:
        return [(run.method.label, run.model.quantize) for run in runs(methods=list(methods), **keys)]

    assert bits("probe", quantize="4bit") == [("probe", "4bit")]
    assert bits("probe", model={"id": "a/b", "quantize": "8bit"}) == [("probe", "8bit")]
    assert bits("whole", {"name": "probe", "quantize": ["none", "8bit"]}, model={"id": "a/b", "quantize": "4bit"}) == [
        ("whole", "4bit"),
        ("probe-unquantised", "none"),
        ("probe-8bit", "8bit"),
    ]
    assert bits("probe", quantize=["none", "4bit"]) == [("probe-unquantised", "none"), ("probe-4bit", "4bit")]


def test_qlora_is_lora_on_a_4_bit_base() -> None:
    qlora, lora = runs(methods=[{"name": "qlora", "r": 4}, {"name": "lora", "r": 4}])
    assert (qlora.method.name, qlora.method.label, qlora.model.quantize) == ("lora", "qlora", "4bit")
    assert (lora.method.label, lora.model.quantize) == ("lora", "none")
    (spelt_out,) = runs(methods=[{"name": "lora", "r": 4, "quantize": "4bit"}])
    same = {"method": {**qlora.method.model_dump(), "label": "lora"}}
    assert RunConfig(**{**qlora.model_dump(), **same}) == spelt_out
    with pytest.raises(ValueError, match="qlora says the quantisation already"):
        runs(methods=[{"name": "qlora", "quantize": "8bit"}])


def test_an_entry_says_for_itself_how_it_is_trained_and_asked() -> None:
    study = runs(
        readout="verbalizer",
        methods=[
            {"name": "probe", "shots": [0, 4]},
            {"name": "whole", "objective": "context-distillation", "teacher": ["frozen", "recursive"]},
            {"name": "whole", "label": "plain"},
            {"name": "lora", "optimizer": ["adamw", "lion"], "schedule": "cosine"},
        ],
    )
    assert [run.method.label for run in study] == [
        "probe-shots0",
        "probe-shots4",
        "whole-teacher-frozen",
        "whole-teacher-recursive",
        "plain",
        "lora-adamw",
        "lora-lion",
    ]
    assert [run.shots for run in study] == [0, 4, 0, 0, 0, 0, 0]
    assert [run.answering.teacher for run in study[2:4]] == ["frozen", "recursive"]
    assert [run.objective for run in study[2:5]] == ["context-distillation", "context-distillation", "supervised"]
    assert [(run.training.optimizer, run.training.schedule) for run in study[4:]] == [
        ("adamw", "linear"),
        ("adamw", "cosine"),
        ("lion", "cosine"),
    ]


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["probe", {"name": "probe", "shots": 4}], ["probe-shots0", "probe-shots4"]),
        (["probe", {"name": "probe", "optimizer": "adamw"}], ["probe"]),  # what the study says anyway
        (
            ["probe", {"name": "probe", "objective": "context-distillation", "teacher": ["frozen", "recursive"]}],
            [
                "probe-supervised",
                "probe-context-distillation-teacher-frozen",
                "probe-context-distillation-teacher-recursive",
            ],
        ),
        (
            [{"name": "probe", "readout": "verbalizer", "verbalizer_loss": ["labels", "vocabulary"]}],
            ["probe-verbalizer_loss-labels", "probe-verbalizer_loss-vocabulary"],
        ),
        (
            [
                {"name": "probe", "readout": "verbalizer"},
                {"name": "probe", "readout": "verbalizer", "verbalizer_loss": "vocabulary"},
            ],
            ["probe-verbalizer_loss-labels", "probe-verbalizer_loss-vocabulary"],
        ),
    ],
)
def test_what_an_entry_leaves_to_the_study_is_told_in_its_words(methods: list[Any], expected: list[str]) -> None:
    assert labels(*methods) == expected


def test_rows_without_answers_are_for_the_runs_that_distil() -> None:
    methods = [{"name": "lora"}, {"name": "lora", "label": "distilled", "objective": "context-distillation"}]
    keys = {"task": "rte", "readout": "verbalizer", "unlabelled_examples": [16, 64], "seeds": [0]}
    runs = expand(StudyConfig.model_validate({**keys, "methods": methods}))
    found = [(run.method.label, run.task.unlabelled_examples) for run in runs]
    assert sorted(found) == [("distilled", 16), ("distilled", 64), ("lora", 0)]
    with pytest.raises(ConfigError, match="supervised training learns from answers"):
        expand(StudyConfig.model_validate({**keys, "methods": ["lora"]}))


DISTILLED = {"name": "probe", "label": "distilled", "objective": "context-distillation"}


@pytest.mark.parametrize(
    ("keys", "methods", "expected"),
    [
        (  # a supervised run has no teacher
            {"readout": "verbalizer", "teacher": ["frozen", "recursive"]},
            ["probe", DISTILLED],
            {"probe": 1, "distilled": 2},
        ),
        (
            {"readout": "verbalizer", "temperature": [1, 2], "teacher_shots": [2, 4]},
            ["probe", DISTILLED],
            {"probe": 1, "distilled": 4},
        ),
        (  # a head has no words
            {"readout": ["head", "verbalizer"], "calibration": ["none", "content-free"]},
            ["probe"],
            {"probe": 3},
        ),
        ({"readout": ["verbalizer", "generate"], "beams": [1, 4]}, ["probe"], {"probe": 3}),
        ({"readout": "verbalizer", "shots": [0, 4], "shots_per_query": [False, True]}, ["probe"], {"probe": 3}),
        ({"readout": ["head", "verbalizer"], "head_learning_rate": [1e-3, 1e-2]}, ["probe"], {"probe": 3}),
        ({"schedule": ["linear", "one-cycle"], "warmup_ratio": [0, 0.1]}, ["probe"], {"probe": 3}),
        (  # nothing is trained
            {
                "readout": "verbalizer",
                "batch_size": [8, 16],
                "optimizer": ["adamw", "sgd"],
                "learning_rate": [1e-3, 1e-2],
                "verbalizer_loss": ["labels", "vocabulary"],
            },
            ["none", "probe"],
            {"none": 1, "probe-lr1e-3": 8, "probe-lr1e-2": 8},
        ),
        (
            {"readout": "verbalizer"},
            [{"name": "probe", "head": ["trained", "frozen"]}],
            {"probe": 1},
        ),
    ],
)
def test_a_value_multiplies_only_the_runs_that_look_at_it(
    keys: dict[str, Any], methods: list[Any], expected: dict[str, int]
) -> None:
    study = runs(methods=methods, **keys)
    assert Counter(run.method.label for run in study) == expected
    assert len({run.model_dump_json() for run in study}) == len(study)


def test_an_entrys_teachers_are_of_the_studys_distilled_runs_alone() -> None:
    objectives = ["supervised", "context-distillation"]
    entry = {"name": "probe", "teacher": ["frozen", "recursive"]}
    found = [
        (run.method.label, run.objective, run.answering.teacher)
        for run in runs(readout="verbalizer", objective=objectives, methods=[entry])
    ]
    assert found == [
        ("probe-supervised", "supervised", "frozen"),
        ("probe-context-distillation-teacher-frozen", "context-distillation", "frozen"),
        ("probe-context-distillation-teacher-recursive", "context-distillation", "recursive"),
    ]
    losses = {"name": "probe", "verbalizer_loss": ["labels", "vocabulary"]}
    assert sorted(labels(losses, readout=["head", "verbalizer"])) == [
        "probe-head",
        "probe-verbalizer-verbalizer_loss-labels",
        "probe-verbalizer-verbalizer_loss-vocabulary",
    ]


def test_values_that_a_run_does_not_look_at_are_at_their_defaults() -> None:
    plain, *distilled = runs(
        readout="verbalizer", teacher="recursive", temperature=[2, 3], methods=["probe", DISTILLED]
    )
    assert plain.answering == AnsweringConfig()
    assert [(run.answering.teacher, run.answering.temperature) for run in distilled] == [
        ("recursive", 2.0),
        ("recursive", 3.0),
    ]
    assert plain.without_idle(trains=True) == plain


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"teacher": "recursive"}, "--teacher changes nothing here: it is of --objective context-distillation"),
        ({"temperature": [1, 2]}, "--temperature changes nothing here"),
        ({"calibration": "content-free"}, "--calibration changes nothing here: it is of --readout verbalizer"),
        ({"beams": 4, "readout": "verbalizer"}, "--beams changes nothing here: it is of --readout generate"),
        (
            {"shots_per_query": True, "readout": "verbalizer"},
            "--shots-per-query changes nothing here: .* without --shots",
        ),
        ({"verbalizer_loss": "vocabulary", "readout": "verbalizer", "methods": ["none"]}, "it is of training with"),
        ({"head_learning_rate": 1e-2, "readout": "verbalizer"}, "it is of a trained head"),
        ({"methods": [{"name": "probe", "teacher": "recursive"}]}, "'probe.teacher' changes nothing here"),
        (
            {"methods": [{"name": "none", "optimizer": "lion"}], "readout": "generate"},
            "'none.optimizer' changes nothing",
        ),
        ({"methods": [{"name": "probe", "verbalizer_loss": "labels"}]}, "'probe.verbalizer_loss' changes nothing here"),
    ],
)
def test_what_no_run_looks_at_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        runs(**keys)
