"""The loop, held against a plain PyTorch loop, against itself after a resume, and against its rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adaptlab.errors import ConfigError, InterruptedRunError, RecordError
from adaptlab.training import checkpoint
from adaptlab.training.dropout import KeyedDropout
from adaptlab.training.member import Member
from adaptlab.training.precision import Precision

from .conftest import TinyRun

Build = Callable[..., TinyRun]


def without_dropout(run: TinyRun) -> TinyRun:
    for module in run.member.attached.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return run


@pytest.mark.parametrize("method", ["full", "lora", "bitfit"])
def test_losses_equal_those_of_a_plain_pytorch_loop(tiny_run: Build, method: str) -> None:
    ours = without_dropout(tiny_run(method, steps=20, weight_decay=0.01)).go().losses

    run = without_dropout(tiny_run(method, steps=20, weight_decay=0.01))
    model, data, trained = run.member.attached.model, run.data, run.member.trained
    decayed = [p for p in trained.values() if p.ndim >= 2]
    spared = [p for p in trained.values() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    warmup = math.ceil(0.06 * 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: i / warmup if i < warmup else (20 - i) / (20 - warmup)
    )
    plain = []
    model.train()
    batches = [batch for epoch in range(4) for batch in run.member.plan.epoch(epoch, 0)][:20]
    for batch in batches:
        ids = torch.zeros(len(batch.rows), batch.length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(batch.rows):
            tokens = data.tokens[data.offsets[row] : data.offsets[row + 1]]
            ids[i, : len(tokens)] = torch.from_numpy(tokens)
            mask[i, : len(tokens)] = 1
        loss = F.cross_entropy(
            model(input_ids=ids, attention_mask=mask).logits, torch.from_numpy(data.labels[batch.rows])
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        plain.append(loss.item())
    assert ours == pytest.approx(plain, abs=1e-6)


def test_same_seed_same_losses_to_the_bit_and_another_seed_others(tiny_run: Build) -> None:
    first, second, other = (tiny_run(seed=seed).go().losses for seed in (0, 0, 1))
    assert first == second
    assert first != other


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("micro", [1, 3, 8])
def test_accumulated_gradients_equal_the_whole_batch_dropout_included(tiny_run: Build, method: str, micro: int) -> None:
    whole = tiny_run(method, dtype="float64").go()
    parts = tiny_run(method, dtype="float64", micro=micro).go()
    assert parts.losses == pytest.approx(whole.losses, abs=1e-9)
    assert parts.member.progress.examples == whole.member.progress.examples


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop", [1, 5, 6, 11])
def test_a_resumed_run_ends_as_an_uninterrupted_one_to_the_bit(
    tiny_run: Build, tmp_path: Path, stop: int, dtype: str
) -> None:
    folder = tmp_path / "checkpoint"
    whole = tiny_run(dtype=dtype, options={"lora_dropout": 0.1}).go()
    broken = tiny_run(dtype=dtype, options={"lora_dropout": 0.1})
    with pytest.raises(InterruptedRunError):
        broken.go(stop_after=stop, save=lambda member: checkpoint.save(member, folder))
    resumed = tiny_run(dtype=dtype, options={"lora_dropout": 0.1})
    assert checkpoint.load(resumed.member, folder)
    resumed.go()
    assert broken.losses + resumed.losses == whole.losses
    for name, parameter in whole.member.trained.items():
        assert torch.equal(parameter, resumed.member.trained[name]), name
    timeless = [point.model_copy(update={"seconds": 0.0}) for point in broken.curve + resumed.curve]
    assert timeless == [point.model_copy(update={"seconds": 0.0}) for point in whole.curve]


def test_a_damaged_checkpoint_is_set_aside(tiny_run: Build, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    run = tiny_run()
    checkpoint.save(run.member, folder)
    content = bytearray((folder / "state.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "state.safetensors").write_bytes(content)
    with pytest.raises(RecordError, match=r"checkpoint\.damaged-1"):
        checkpoint.load(tiny_run().member, folder)
    assert not checkpoint.load(tiny_run().member, folder)
    assert (tmp_path / "checkpoint.damaged-1").exists()


def test_a_checkpoint_cut_between_its_renames_is_found(tiny_run: Build, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    checkpoint.save(tiny_run().member, folder)
    folder.rename(tmp_path / "checkpoint.old")
    assert checkpoint.load(tiny_run().member, folder)


def test_the_curve_starts_before_the_first_step_and_has_every_evaluation(tiny_run: Build) -> None:
    run = tiny_run(steps=10, eval_every=4).go()
    assert [point.step for point in run.curve] == [0, 4, 8, 10]
    assert run.curve[0].train_loss is None
    assert run.curve[1].train_loss == pytest.approx(sum(run.losses[:4]) / 4)
    assert [point.examples for point in run.curve] == [0, 32, 64, 80]


def test_best_weights_come_back_and_last_keeps_the_last(tiny_run: Build) -> None:
    best = tiny_run(steps=8, eval_every=2)
    values = iter([0.9, 0.1, 0.7, 0.3, 0.2])
    snapshots = {}
    original = Member.consider

    def consider(member: Member, value: float, loss: float | None = None) -> None:
        snapshots[member.progress.step] = {n: p.detach().clone() for n, p in member.trained.items()}
        original(member, next(values))

    best.member.consider = consider.__get__(best.member)
    best.go()
    assert best.member.progress.best_step == 4
    assert all(torch.equal(p, snapshots[4][n]) for n, p in best.member.trained.items())
    last = tiny_run(steps=8, eval_every=2, select="last").go()
    assert last.member.progress.best_step == 8


def test_a_loss_that_is_not_finite_stops_the_run(tiny_run: Build) -> None:
    run = tiny_run("full", learning_rate=1e30, max_grad_norm=None, steps=12, warmup_ratio=0.0).go()
    assert run.member.progress.diverged
    assert run.member.progress.step < 12


def test_below_the_lowest_trained_layer_nothing_is_random(tiny_run: Build) -> None:
    top = tiny_run("top-layers", options={"n": 1})
    top.member.modes.train()
    modes = {n: m.training for n, m in top.member.attached.model.named_modules() if isinstance(m, nn.Dropout)}
    assert modes["bert.embeddings.dropout"] is False
    assert all(mode is False for name, mode in modes.items() if ".layer.0." in name)
    assert any(mode for name, mode in modes.items() if ".layer.1." in name)
    head = tiny_run("head")
    head.member.modes.train()
    random = [n for n, m in head.member.attached.model.named_modules() if isinstance(m, KeyedDropout) and m.training]
    assert random == []  # the classifier's input is the same in every epoch: it could be computed once
    full = tiny_run("full")
    full.member.modes.train()
    assert all(m.training for m in full.member.attached.model.modules() if isinstance(m, KeyedDropout))


def test_bfloat16_keeps_trained_weights_norms_and_head_in_float32(tiny_run: Build) -> None:
    run = tiny_run("lora", dtype="bfloat16")
    dtypes = {name: p.dtype for name, p in run.member.attached.model.named_parameters()}
    assert all(p.dtype == torch.float32 for p in run.member.trained.values())
    assert all(dtype == torch.float32 for name, dtype in dtypes.items() if "LayerNorm" in name or "classifier" in name)
    assert any(dtype == torch.bfloat16 for name, dtype in dtypes.items() if "dense" in name)
    assert all(p.dtype == torch.float32 for p in run.base.model.parameters())  # the shared base is untouched
    with run.precision.autocast():
        logits = run.member.attached.model(input_ids=torch.tensor([[2, 5, 3]])).logits
    assert logits.dtype == torch.float32


def test_float16_on_a_cpu_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="float16 was asked for on a CPU"):
        Precision("float16", "cpu")


def test_trained_weights_leave_the_shared_base_alone(tiny_run: Build) -> None:
    run = tiny_run("full")
    before = {n: p.clone() for n, p in run.base.model.named_parameters()}
    run.go()
    assert all(torch.equal(p, before[n]) for n, p in run.base.model.named_parameters())


def test_bfloat16_on_a_cpu_takes_plain_attention_for_short_rows_and_learns_the_same(tiny_run: Build) -> None:
    own = F.scaled_dot_product_attention

    def is_plain(name: str, length: int) -> bool:
        with Precision(name, "cpu").attention(length):
            return F.scaled_dot_product_attention is not own

    assert is_plain("bfloat16", 64)
    assert not is_plain("bfloat16", 512)
    assert not is_plain("float32", 64)
    plain, exact = tiny_run(dtype="bfloat16").go().losses, tiny_run(dtype="float32").go().losses
    assert F.scaled_dot_product_attention is own
    assert plain == pytest.approx(exact, abs=0.05)
