"""Counts before training: from config.json alone, and exactly what training then counts and writes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from adaptlab import api, forecast
from adaptlab.config import ModelConfig
from adaptlab.errors import ConfigError
from adaptlab.measure.parameters import count_parameters
from adaptlab.methods import registry as methods
from adaptlab.models.load import skeleton
from adaptlab.planning import safetensors_bytes
from adaptlab.resolve import setup_of
from adaptlab.study.expand import expand

from .conftest import Command

#: Public architectures by their published configurations; only what differs from transformers' defaults.
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "roberta-base": (
        "RobertaConfig",
        "RobertaForMaskedLM",
        {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
    "distilbert-base": ("DistilBertConfig", "DistilBertForMaskedLM", {}),
    "t5-base": (
        "T5Config",
        "T5ForConditionalGeneration",
        {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "decoder_start_token_id": 0},
    ),
    "opt-125m": (
        "OPTConfig",
        "OPTForCausalLM",
        {"vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072},
    ),
}

_OPT_LINEARS = ["k_proj", "q_proj", "v_proj", "out_proj", "fc1", "fc2"]
#: Published counts (peft 0.21), without the head.
PUBLISHED = [
    ("opt-125m", {"name": "prefix-tuning", "num_virtual_tokens": 30}, 552_960),
    # The published 19,200 have the 768 inputs of lm_head too, which a classifier does not have.
    ("opt-125m", {"name": "ia3", "targets": ["q_proj", "v_proj"]}, 19_200 - 768),
    ("opt-125m", {"name": "loha", "r": 8, "targets": _OPT_LINEARS}, 2_654_208),
    ("opt-125m", {"name": "lokr", "r": 8, "targets": _OPT_LINEARS}, 98_304),
    ("t5-base", {"name": "lora", "r": 8, "targets": ["q", "v"]}, 884_736),
    ("t5-base", {"name": "prefix-tuning", "num_virtual_tokens": 100}, 1_843_200),
    ("t5-base", {"name": "prefix-tuning", "num_virtual_tokens": 100, "prefix_projection": True}, 14_841_600),
    ("t5-base", {"name": "parallel-adapter", "reduction_factor": 8}, 3_559_680),
    ("t5-base", {"name": "parallel-adapter", "reduction_factor": 16}, 1_789_056),
    ("t5-base", {"name": "vera", "r": 256, "targets": ["q", "v"]}, 73_728),
    ("roberta-base", {"name": "lora", "r": 4, "targets": ["all-linear"]}, 663_552),
    ("roberta-base", {"name": "randlora", "r": 64, "targets": ["all-linear"]}, 718_848),
    ("roberta-base", {"name": "vera", "r": 256, "targets": ["all-linear"]}, 101_376),
    ("distilbert-base", {"name": "lora", "r": 8, "targets": ["q_lin", "v_lin"]}, 147_456),
]
#: Everything before a head is put on it.
TOTALS = {"opt-125m": 125_239_296, "roberta-base": 124_055_040, "distilbert-base": 66_362_880, "t5-base": 222_903_552}


@pytest.fixture(autouse=True)
def _quick_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptlab.measure.machine.SECONDS", 0.2)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a public architecture's config.json and nothing else."""
    built: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in built:
            config, architecture, options = ARCHITECTURES[name]
            built[name] = tmp_path_factory.mktemp("published") / name
            getattr(transformers, config)(architectures=[architecture], **options).save_pretrained(built[name])
        return built[name]

    return build


def row_id(value: Any) -> str | None:
    return "-".join(str(v) for v in value.values()) if isinstance(value, dict) else None


@pytest.mark.parametrize(("architecture", "entry", "expected"), PUBLISHED, ids=row_id)
def test_published_counts(
    published: Callable[[str], Path], architecture: str, entry: dict[str, Any], expected: int
) -> None:
    if entry["name"] not in methods:
        pytest.skip(f"there is no method {entry['name']} yet")
    study = api.study_of(model=str(published(architecture)), task="stdlib-docs", methods=[entry], seeds=1)
    (plan,) = api.plan(study, with_task=False, costs=False)
    assert plan.trainable == expected
    assert list(published(architecture).iterdir()) == [published(architecture) / "config.json"]


@pytest.mark.parametrize("architecture", TOTALS)
def test_totals_are_the_published_ones(published: Callable[[str], Path], architecture: str) -> None:
    model = str(published(architecture))
    (plan,) = api.plan(
        api.study_of(model=model, task="stdlib-docs", methods=["full"], seeds=1), with_task=False, costs=False
    )
    assert plan.total - plan.head == TOTALS[architecture]
    assert plan.total == plan.trainable + plan.head


@pytest.mark.parametrize("architecture", ["bert", "opt", "t5"])
@pytest.mark.parametrize("name", methods.names())
def test_the_closed_form_agrees_with_the_meta_device(
    tiny_model_folder: Callable[[str], Path], architecture: str, name: str
) -> None:
    """All three counts, where a method can be attached to weights that are not there."""
    entry = {"name": name, **{"partial": {"parameters": "weight"}}.get(name, {})}
    study = api.study_of(model=str(tiny_model_folder(architecture)), task="stdlib-docs", methods=[entry], seeds=1)
    try:
        (plan,) = api.plan(study, with_task=False, costs=False)
    except ConfigError as error:
        pytest.skip(str(error))
    model, layout = skeleton(ModelConfig(id=study.model[0].id), num_labels=plan.labels)
    (run,) = expand(study)
    try:
        with torch.device("meta"):
            attached = methods.get(name).attach(copy.deepcopy(model), layout, setup_of(run))
    except (NotImplementedError, RuntimeError) as error:
        assert plan.notes
        pytest.skip(f"{name} asks weights while it is attached: {error}")
    counted = count_parameters(attached)
    assert (plan.trainable, plan.head, plan.total) == (counted.trainable, counted.head, counted.total)


@pytest.mark.parametrize("name", ["lora", "bitfit", "full"])
def test_the_size_is_that_of_the_file_to_the_byte(adaptlab: Command, tiny_flags: list[str], name: str) -> None:
    planned = json.loads(adaptlab("plan", *tiny_flags, "--methods", name, "--seeds", "1", "--json").out)
    done = adaptlab("train", *tiny_flags, "--method", name, "--out", "study")
    assert done.code == 0, done.err
    (written,) = Path("study").glob("runs/*/adapter/*.safetensors")
    assert planned[0]["adapter_bytes"] == written.stat().st_size
    record = json.loads(next(Path("study").glob("runs/*/record.json")).read_text())
    counted = record["parameters"]
    assert {key: planned[0][key] for key in counted} == counted


def test_bytes_of_a_file_with_long_and_foreign_names(tmp_path: Path) -> None:
    tensors = {f"layer.{'é' * n}.{n}": torch.zeros(n + 1, 7) for n in range(12)}
    save_file(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert safetensors_bytes(shapes) == (tmp_path / "x.safetensors").stat().st_size


def test_a_plan_needs_no_task_and_says_what_it_took(adaptlab: Command, published: Callable[[str], Path]) -> None:
    done = adaptlab("plan", "--model", published("roberta-base"), "--methods", "lora,head")
    assert done.code == 0, done.err
    assert done.err.splitlines()[0] == "No task was given: heads are counted with 2 labels."
    assert "294,912" in done.out  # r 8 on query and value of 12 layers
    assert "592,130" in done.out  # two layers of head: 768 x 768 + 768 and 768 x 2 + 2


def test_a_plan_reads_the_tasks_labels_and_shows_every_variant(
    adaptlab: Command, published: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = "".join(f"text {i},{'abc'[i % 3]}\n" for i in range(60))
    (tmp_path / "three.csv").write_text(f"text,label\n{rows}")
    done = adaptlab(
        *("plan", "--model", published("distilbert-base"), "--task", "three.csv", "--methods", "lora,full"),
        *("--set", "lora.r=4,8", "--seeds", "5", "--json"),
    )
    assert done.code == 0, done.err
    plans = json.loads(done.out)
    assert [(plan["method"], plan["labels"], plan["runs"]) for plan in plans] == [
        ("lora-r4", 3, 5),
        ("lora-r8", 3, 5),
        ("full", 3, 5),
    ]
    assert plans[1]["trainable"] == 2 * plans[0]["trainable"] == 147_456


def test_a_method_that_does_not_fit_is_told_in_a_sentence(adaptlab: Command, published: Callable[[str], Path]) -> None:
    done = adaptlab("plan", "--model", published("opt-125m"), "--methods", "lora", "--targets", "quary")
    assert done.code == 2
    assert "The target 'quary' matches nothing" in done.err


def test_a_plan_forecasts_memory_operations_time_and_disk(adaptlab: Command, tiny_flags: list[str]) -> None:
    flags = (*tiny_flags, "--methods", "lora,full", "--seeds", "3")
    done = adaptlab("plan", *flags, "--json")
    assert done.code == 0, done.err
    lora, full = json.loads(done.out)
    for one in (lora, full):
        ahead = one["forecast"]
        assert ahead["fits"]
        assert ahead["exact_lengths"]
        assert ahead["advice"] == []
        assert ahead["steps"] > 0
        assert ahead["memory"]["total"] == ahead["memory_bytes"] < ahead["available_bytes"]
        assert one["disk_bytes"] >= one["adapter_bytes"]
    assert full["forecast"]["memory_bytes"] > lora["forecast"]["memory_bytes"]
    assert full["forecast"]["train_flops"] > lora["forecast"]["train_flops"]
    shown = adaptlab("plan", *flags)
    assert "What a run takes" in shown.out
    assert "In all: 6 runs, " in shown.out


def test_planned_operations_are_the_records(adaptlab: Command, tiny_flags: list[str]) -> None:
    flags = (*tiny_flags, "--methods", "lora", "--seeds", "1", "--dtype", "float32")
    (planned,) = json.loads(adaptlab("plan", *flags, "--json").out)
    done = adaptlab("compare", *flags, "--out", "study")
    assert done.code == 0, done.err
    record = json.loads(next(Path("study").glob("runs/*/record.json")).read_text())
    assert planned["forecast"]["train_flops"] == pytest.approx(record["cost"]["train_flops"], rel=1e-9)


def test_what_costs_the_same_is_simulated_and_tokenised_once(
    adaptlab: Command, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("simulate", "rows_ahead"):
        real = getattr(forecast, name)
        monkeypatch.setattr(forecast, name, lambda *a, _n=name, _r=real, **k: calls.append(_n) or _r(*a, **k))
    varied = ("--set", "lora.r=4,8", "--set", "lora.alpha=8,16", "--set", "lora.optimizer=adamw,sgd")
    flags = (*tiny_flags, "--methods", "lora", *varied, "--seeds", "1", "--json")
    done = adaptlab("plan", *flags)
    assert done.code == 0, done.err
    plans = json.loads(done.out)
    assert len(plans) == 8
    assert (calls.count("simulate"), calls.count("rows_ahead")) == (2, 1)  # the ranks
    (alone,) = json.loads(
        adaptlab("plan", *tiny_flags, "--methods", "lora", "--seeds", "1", "--json", "--set", "lora.r=4",
                 "--set", "lora.alpha=16", "--set", "lora.optimizer=sgd").out
    )  # fmt: skip
    among = next(one for one in plans if "r4" in one["method"] and "a16" in one["method"] and "sgd" in one["method"])
    same = ("memory", "step_flops", "train_flops", "step_seconds", "train_seconds", "checkpoint_bytes")
    assert {key: among["forecast"][key] for key in same} == {key: alone["forecast"][key] for key in same}


def test_gradient_checkpointing_is_planned_as_it_is_run(adaptlab: Command, tiny_flags: list[str]) -> None:
    flags = (*tiny_flags, "--methods", "full", "--seeds", "1", "--dtype", "float32", "--batch-size", "64")
    (plain,) = json.loads(adaptlab("plan", *flags, "--json").out)
    (planned,) = json.loads(adaptlab("plan", *flags, "--gradient-checkpointing", "--json").out)
    assert planned["forecast"]["memory"]["activations"] < plain["forecast"]["memory"]["activations"]
    assert planned["forecast"]["train_flops"] > plain["forecast"]["train_flops"]
    records = {}
    for out, more in (("with", ("--gradient-checkpointing",)), ("without", ())):
        done = adaptlab("compare", *flags, *more, "--out", out)
        assert done.code == 0, done.err
        records[out] = json.loads(next(Path(out).glob("runs/*/record.json")).read_text())
    assert records["with"]["cost"]["train_flops"] == pytest.approx(planned["forecast"]["train_flops"], rel=1e-9)
    assert records["with"]["training"]["gradient_checkpointing"]
    assert records["with"]["id"] == records["without"]["id"]
    assert records["with"]["metrics"] == records["without"]["metrics"]


def test_memory_is_that_of_each_device_with_and_without_shards(adaptlab: Command, tiny_flags: list[str]) -> None:
    flags = (*tiny_flags, "--methods", "lora,full", "--seeds", "1", "--dtype", "float32", "--batch-size", "64")
    planned = [
        {one["method"]: one["forecast"] for one in json.loads(adaptlab("plan", *flags, *more, "--json").out)}
        for more in ((), ("--devices-per-run", "2"), ("--devices-per-run", "2", "--shard"))
    ]
    for method in ("lora", "full"):
        alone, whole, cut = (found[method] for found in planned)
        assert (alone["devices"], cut["devices"]) == (1, 2)
        assert cut["rows"] == alone["rows"]
        assert cut["train_flops"] == pytest.approx(alone["train_flops"], rel=1e-9)
        assert whole["memory"]["base"] == alone["memory"]["base"]
        assert whole["memory"]["activations"] == cut["memory"]["activations"] < alone["memory"]["activations"]
    lora, full = ([found[method]["memory"] for found in planned] for method in ("lora", "full"))
    assert lora[2]["base"] < lora[0]["base"]
    assert lora[2]["optimizer"] == lora[0]["optimizer"]
    assert full[2]["optimizer"] == full[0]["optimizer"] // 2
    assert full[2]["best"] == full[0]["best"] // 2
    shown = adaptlab("plan", *flags, "--devices-per-run", "2", "--shard").out
    assert "on 2 devices (memory of each)" in shown
    refused = adaptlab("plan", *flags, "--devices-per-run", "2", "--shard", "--optimizer", "adafactor")
    assert refused.code == 2
    assert "--shard was given with full" in refused.err


def test_gradient_checkpointing_is_refused_where_prefixes_pass_through_caches(
    adaptlab: Command, tiny_flags: list[str]
) -> None:
    adaptlab("compare", *tiny_flags, "--methods", "prefix-tuning", "--seeds", "1", "--gradient-checkpointing",
             "--out", "study")  # fmt: skip
    record = json.loads(next(Path("study").glob("runs/*/record.json")).read_text())
    assert record["status"] == "failed"
    assert "--gradient-checkpointing was given with prefix-tuning" in record["error"]["message"]


def test_a_plan_says_which_runs_would_share_passes_and_why_others_do_not(
    adaptlab: Command, tiny_flags: list[str]
) -> None:
    flags = (*tiny_flags, "--methods", "lora,ia3,full,prompt-tuning,p-tuning", "--seeds", "2", "--device", "cpu")
    plans = {one["method"]: one for one in json.loads(adaptlab("plan", *flags, "--json").out)}
    assert {name: one["groups"] for name, one in plans.items()} == {
        "lora": [1], "ia3": [1], "full": [], "prompt-tuning": [2], "p-tuning": [2],
    }  # fmt: skip
    assert {one["engine"] for one in plans.values()} == {"solo"}
    assert "base itself" in plans["full"]["alone"]
    shown = adaptlab("plan", *flags, "--engine", "fused").out
    assert "Fused, group 1: lora, ia3." in shown
    assert "Fused, group 2: prompt-tuning, p-tuning." in shown
    assert "Solo, the method changes the base itself: full." in shown
    apart = adaptlab("plan", *flags, "--engine", "fused", "--gradient-checkpointing").out
    assert "computed anew, for one run at a time: lora, ia3, prompt-tuning, p-tuning." in apart.replace("\n", " ")


def test_what_does_not_fit_is_told_with_the_flags_that_help(
    adaptlab: Command, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*tiny_flags, "--methods", "full", "--seeds", "1", "--batch-size", "64")
    (plain,) = json.loads(adaptlab("plan", *flags, "--json").out)
    enough = plain["forecast"]["memory_bytes"] - plain["forecast"]["memory"]["activations"] // 3
    monkeypatch.setattr("adaptlab.forecast.available_bytes", lambda device: int(enough / 0.95))
    done = adaptlab("plan", *flags)
    (advice,) = [line for line in done.out.splitlines() if "are free" in line]
    assert "add --micro-batch-size 32." in advice
    assert json.loads(adaptlab("plan", *flags, "--micro-batch-size", "32", "--json").out)[0]["forecast"]["fits"]
    monkeypatch.setattr("adaptlab.forecast.available_bytes", lambda device: 1000)
    assert "no flag makes it fit" in adaptlab("plan", *flags).out
