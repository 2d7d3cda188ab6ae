"""AdaLoRA: ranks fall to the budget, a resumed run goes on with them, and what is saved is what was trained."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adaptlab.errors import ConfigError, InterruptedRunError
from adaptlab.methods._adalora import AdaLoraOptions, schedule
from adaptlab.methods._base import Attached
from adaptlab.training import checkpoint
from tests.training.conftest import TinyRun

Build = Callable[..., TinyRun]
OPTIONS = {"init_r": 6, "target_r": 2, "tinit": 4, "tfinal": 6}


def singular_values(attached: Attached) -> torch.Tensor:
    """Of every target, shape (targets, init_r)."""
    return torch.stack([p.detach().view(-1) for name, p in attached.parameters.items() if "lora_E" in name])


def test_ranks_fall_to_the_budget_and_stay(tiny_run: Build) -> None:
    ranks: list[int] = []
    run = tiny_run("adalora", steps=24, eval_every=24, select="last", options=OPTIONS)
    after_step = run.member.attached.method.after_step

    def watched(attached: Attached, step: int) -> None:
        after_step(attached, step)
        ranks.append(int(singular_values(attached).count_nonzero()))

    run.member.attached.method.after_step = watched  # type: ignore[method-assign]
    try:
        run.go()
    finally:
        del run.member.attached.method.after_step
    start, budget = 4 * 6, 4 * 2  # query and value of two blocks
    assert ranks[1:4] == [start] * 3  # all zero until the first step, whose warm-up rate is zero
    assert all(later <= earlier for earlier, later in itertools.pairwise(ranks[1:]))
    assert start > ranks[8] > budget
    assert ranks[24 - 6 - 1 :] == [budget] * 7
    kept = torch.cat([kept for name, kept in run.member.attached.state.items() if name.endswith("/kept")])
    assert int(kept.sum()) == budget


@pytest.mark.parametrize("stop", [2, 9, 17, 18, 21])
def test_a_resumed_run_ends_as_an_uninterrupted_one_to_the_bit(
    tiny_run: Build,
    tmp_path: Path,
    stop: int,
) -> None:
    settings = {"steps": 24, "eval_every": 6, "options": {**OPTIONS, "lora_dropout": 0.1}}
    whole = tiny_run("adalora", **settings).go()
    broken = tiny_run("adalora", **settings)
    with pytest.raises(InterruptedRunError):
        broken.go(stop_after=stop, save=lambda member: checkpoint.save(member, tmp_path / "checkpoint"))
    resumed = tiny_run("adalora", **settings)
    assert checkpoint.load(resumed.member, tmp_path / "checkpoint")
    resumed.go()
    assert broken.losses + resumed.losses == whole.losses
    assert all(torch.equal(p, resumed.member.trained[n]) for n, p in whole.member.trained.items())
    assert all(torch.equal(t, resumed.member.attached.state[n]) for n, t in whole.member.attached.state.items())


def test_the_best_step_s_ranks_are_saved_and_not_the_last_one_s(tiny_run: Build, tmp_path: Path) -> None:
    run = tiny_run("adalora", steps=24, eval_every=24, select="last", options=OPTIONS)
    attached = run.go().member.attached
    with torch.no_grad():
        for name, parameter in attached.parameters.items():
            if "lora_E" in name:
                parameter.fill_(0.5)
    attached.method.save(attached, tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert all(bool((tensor == 0.5).all()) for name, tensor in saved.items() if "lora_E" in name)
    assert all(tensor.shape[0] == 6 for name, tensor in saved.items() if "lora_A" in name)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["rank_pattern"] is None
    assert (config["orth_reg_weight"], config["total_step"], config["tinit"], config["tfinal"]) == (0.5, 24, 4, 6)


def test_the_orthogonality_is_the_extra_loss_once(tiny_run: Build) -> None:
    attached = tiny_run("adalora", options={**OPTIONS, "orth_reg_weight": 2.0}).member.attached
    distances = []
    for name, parameter in attached.parameters.items():
        if "lora_E" not in name:
            product = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
            distances.append(float((product - torch.eye(6)).square().sum().sqrt().detach()))
    extra = attached.method.extra_loss(attached)
    assert extra is not None
    assert float(extra.detach()) == pytest.approx(2.0 * sum(distances) / len(distances), rel=1e-5)
    batch = {"input_ids": torch.tensor([[2, 30, 40, 3]]), "labels": torch.tensor([1])}
    attached.model.eval()
    answer = attached.model(**batch)
    plain = torch.nn.functional.cross_entropy(answer.logits, batch["labels"])
    assert float(answer.loss.detach()) == pytest.approx(float(plain.detach()))
    none = tiny_run("adalora", options={**OPTIONS, "orth_reg_weight": 0.0}).member.attached
    assert none.method.extra_loss(none) is None


def test_a_schedule_needs_steps_in_which_ranks_fall() -> None:
    assert schedule(AdaLoraOptions(), 100) == {"total_step": 100, "tinit": 10, "tfinal": 33}
    assert schedule(AdaLoraOptions(), 1) == {"total_step": 1, "tinit": 0, "tfinal": 0}
    with pytest.raises(ConfigError, match=r"tinit=5 and tfinal=6 .* 11 steps leave none"):
        schedule(AdaLoraOptions(tinit=5, tfinal=6), 11)
