"""Which runs are trained together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adaptlab.config import MethodConfig, ModelConfig, RunConfig, RunIdentity, TaskConfig, TrainingConfig
from adaptlab.engines.packing import (
    CHECKPOINTING,
    NO_COMPANY,
    NO_PARTNER,
    NO_ROOM,
    REASONS,
    activation_bytes,
    chosen_engine,
    pack,
)
from adaptlab.methods import registry
from adaptlab.methods._base import Method
from adaptlab.methods._prompts import PromptMethod
from adaptlab.planning import run_bytes


@dataclass
class Run:
    name: str
    method: str = "lora"
    seed: int = 0
    data: str = "d"
    quantize: Any = "none"
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def resolved(self) -> RunConfig:
        return RunConfig(
            model=ModelConfig(id="m", quantize=self.quantize),
            task=TaskConfig(name="t"),
            method=MethodConfig(name=self.method, options=self.options),
            training=TrainingConfig(**self.training),
            seed=self.seed,
        )

    @property
    def identity(self) -> RunIdentity:
        return RunIdentity(weights="w", data=self.data, task="t", task_version=1)


def names(runs: list[Run], **limits: Any) -> tuple[list[list[str]], dict[str, str]]:
    packing = pack(runs, lambda run: registry.get(run.method), **limits)
    return [[run.name for run in group] for group in packing.groups], packing.alone


def test_runs_of_any_method_seed_rank_and_rate_over_one_base_go_together() -> None:
    runs = [Run("a"), Run("b", seed=1), Run("c", options={"r": 16}), Run("d", "ia3"), Run("e", "parallel-adapter")]
    runs.append(Run("f", training={"learning_rate": 0.5, "schedule": "cosine", "steps": 7}))
    groups, alone = names(runs)
    assert [sorted(group) for group in groups] == [["a", "b", "c", "d", "e", "f"]]
    assert not alone


@pytest.mark.parametrize(
    "other",
    [
        Run("b", data="other rows"),
        Run("b", quantize="4bit"),
        Run("b", training={"batch_size": 8}),
        Run("b", training={"dtype": "float64"}),
    ],
    ids=["data", "quantisation", "batch size", "dtype"],
)
def test_what_changes_the_base_or_the_batches_keeps_runs_apart(other: Run) -> None:
    groups, alone = names([Run("a"), other])
    assert groups == [["a"], ["b"]]
    assert alone == {"a": NO_PARTNER, "b": NO_PARTNER}


def test_methods_that_change_the_base_run_alone_and_it_is_said_why() -> None:
    groups, alone = names([Run("a"), Run("b", "full"), Run("c", seed=1), Run("d", "bitfit"), Run("e", "head")])
    assert groups == [["a", "c"], ["b"], ["d"], ["e"]]
    assert set(alone) == {"b", "d", "e"}
    assert "base" in alone["b"]


def test_methods_with_virtual_tokens_go_together_where_these_are_as_many_and_stand_alike() -> None:
    lstm = {"encoder_reparameterization_type": "LSTM", "num_virtual_tokens": 20}
    runs = [Run("a"), Run("b", "prompt-tuning"), Run("c", "prompt-tuning", options={"num_virtual_tokens": 30})]
    runs += [Run("d", "p-tuning", seed=1), Run("e", "p-tuning", options=lstm), Run("f", "prefix-tuning")]
    runs += [Run("g", "ia3"), Run("h", "prefix-tuning", options={"prefix_projection": True})]
    groups, alone = names(runs)
    assert [sorted(group) for group in groups] == [["a", "g"], ["b", "d", "e"], ["c"], ["f", "h"]]
    assert alone == {"c": NO_COMPANY.format(company="30 virtual tokens among the inputs")}


def test_a_method_for_the_whole_model_that_names_no_company_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptMethod, "company", Method.company)
    groups, alone = names([Run("a", "prompt-tuning"), Run("b", "prompt-tuning", seed=1), Run("c"), Run("d", seed=1)])
    assert groups == [["a"], ["b"], ["c", "d"]]
    assert alone == dict.fromkeys("ab", REASONS["prompt"])


def test_what_keeps_all_runs_alone_is_said_of_each_that_has_no_reason_of_its_own() -> None:
    groups, alone = names([Run("a"), Run("b", seed=1), Run("c", "full")], all_alone=CHECKPOINTING)
    assert groups == [["a"], ["b"], ["c"]]
    assert alone == {"a": CHECKPOINTING, "b": CHECKPOINTING, "c": alone["c"]}
    assert "base" in alone["c"]


def test_a_group_takes_what_memory_holds_and_the_next_one_the_rest() -> None:
    groups, _ = names([Run(str(i), seed=i) for i in range(5)], run_bytes=lambda run: 10, budget_bytes=25)
    assert [len(group) for group in groups] == [2, 2, 1]


def test_virtual_tokens_are_positions_that_take_memory(tiny_model_folder: Callable[[str], Path]) -> None:
    def adds(method: str, length: int) -> int:
        run = Run("a", method).resolved
        task, model = TaskConfig(name="t", max_length=length), ModelConfig(id=str(tiny_model_folder("bert")))
        return run_bytes(run.model_copy(update={"task": task, "model": model}), None)

    assert adds("prompt-tuning", 30) == adds("prefix-tuning", 30) == adds("lora", 50)


def test_a_run_too_large_for_the_budget_still_runs() -> None:
    runs = [Run("a"), Run("b", seed=1), Run("c", data="other rows")]
    groups, alone = names(runs, run_bytes=lambda run: 100, budget_bytes=25)
    assert groups == [["a"], ["b"], ["c"]]
    assert alone == {"a": NO_ROOM, "b": NO_ROOM, "c": NO_PARTNER}


def test_auto_is_solo_on_a_cpu_and_fused_on_a_gpu() -> None:
    assert [chosen_engine("auto", device) for device in ("cpu", "cuda")] == ["solo", "fused"]
    assert chosen_engine("fused", "cpu") == "fused"


def test_activations_are_those_of_the_published_formula() -> None:
    bert = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    rows, length = 32, 128
    per_layer = length * rows * 768 * (34 + 5 * 12 * length / 768)  # bytes of 16-bit numbers
    assert activation_bytes(bert, rows=rows, length=length, bytes_per_number=2) == pytest.approx(12 * per_layer)
    t5 = {"d_model": 768, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12}
    both = activation_bytes(t5, rows=rows, length=length, bytes_per_number=2)
    assert both == 2 * activation_bytes(bert, rows=rows, length=length, bytes_per_number=2)
