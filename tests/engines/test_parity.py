"""The contract of the fused engine: every run's losses and weights are those of the run alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.models.t5 import modeling_t5

from adaptlab.engines.fused import bare
from adaptlab.engines.layers import LoraProducts, Site
from adaptlab.engines.stacks import Stacked
from adaptlab.methods import registry
from adaptlab.training.member import Member

from .conftest import Group, Spec

Build = Callable[..., Group]

FUSABLE = [m.name for m in registry.all() if m.trains and m.placement != "base"]
FAMILIES = ("bert", "opt", "t5")
MIXED = (
    Spec("lora", 0, {"r": 4}),
    Spec("lora", 1, {"r": 16, "lora_dropout": 0.2}, learning_rate=3e-3),
    Spec("ia3", 2),
    Spec("ia3", 0),
    Spec("loha", 1),
    Spec("parallel-adapter", 3),
    Spec("head", 4),
)
PROMPTS = (
    Spec("prompt-tuning", 0),
    Spec("prompt-tuning", 1, {"prompt_tuning_init": "RANDOM"}, learning_rate=3e-2),
    Spec("p-tuning", 2),
    Spec("p-tuning", 0, {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 6}),
    Spec("p-tuning", 1, {"encoder_hidden_size": 9}, learning_rate=3e-3),
)
PREFIXES = (
    Spec("prefix-tuning", 0),
    Spec("prefix-tuning", 1, {"init_weights": "zero"}, learning_rate=3e-2),
    Spec("prefix-tuning", 2, {"prefix_projection": True, "encoder_hidden_size": 7}),
)
#: Every way in which dropout is drawn, in all linears: behind the last attention too, where heads need one token alone.
EVERYWHERE = (
    Spec("lora", 0, {"lora_dropout": 0.2}, targets="all-linear"),
    Spec("lora", 1, {"lora_dropout": 0.1}, targets="all-linear"),
    Spec("dora", 0, {"lora_dropout": 0.1}, targets="all-linear"),
    Spec("dora", 1, {"lora_dropout": 0.1}, targets="all-linear"),
    Spec("miss", 2, {"miss_dropout": 0.1}, targets="all-linear"),
)
GROUPS = {"layers": MIXED, "everywhere": EVERYWHERE, "prompts": PROMPTS, "prefixes": PREFIXES}
OWN_OPTIONS = {"miss": {"miss_dropout": 0.1}, "vera": {"vera_dropout": 0.1}, "dora": {"lora_dropout": 0.1}}


@pytest.fixture(autouse=True)
def norms_in_the_model_s_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """T5's norm squares in float32 even in a float64 model: a last bit then moves a whole float32 bit now and then."""

    def norm(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        return self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", norm)


def difference(build: Build, specs: Sequence[Spec], steps: int, **settings: object) -> tuple[float, float]:
    """The largest difference in any loss and any trained number, fused against solo."""
    alone = build(specs, fused=False, steps=steps, **settings)
    together = build(specs, fused=True, steps=steps, **settings)
    losses = np.abs(alone.train(steps) - together.train(steps)).max()
    weights = max(
        float((a.trained[name] - b.trained[name]).detach().abs().max())
        for a, b in zip(alone.members, together.members, strict=True)
        for name in a.trained
    )
    return float(losses), weights


def predictions(member: Member) -> NDArray[np.int64]:
    """The classes of all rows."""
    member.modes.eval()
    rows = np.arange(len(member.data.lengths))
    with torch.no_grad():
        logits = member.attached.model(
            **member.collate(member.data, rows, int(member.data.lengths.max())).inputs
        ).logits
    return np.asarray(logits.argmax(dim=1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", FUSABLE)
def test_losses_and_weights_of_every_method_are_those_of_solo_runs(group_of: Build, method: str, family: str) -> None:
    options = OWN_OPTIONS.get(method, {})
    specs = [Spec(method, seed, options, rate) for seed, rate in ((0, 1e-2), (1, 3e-3))]
    losses, weights = difference(group_of, specs, steps=3, family=family)
    assert losses < 1e-9
    assert weights < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", FUSABLE)
def test_fifty_steps_of_every_method_are_those_of_solo_runs(group_of: Build, method: str, family: str) -> None:
    specs = [
        Spec(method, seed, OWN_OPTIONS.get(method, {}), registry.get(method).learning_rates.default)
        for seed in range(3)
    ]
    losses, weights = difference(group_of, specs, steps=50, family=family)
    assert losses < 1e-9
    assert weights < 1e-9


@pytest.mark.parametrize("family", [*FAMILIES, "roberta"])
@pytest.mark.parametrize("kind", GROUPS)
def test_a_group_of_different_methods_ranks_rates_and_dropouts(group_of: Build, kind: str, family: str) -> None:
    losses, weights = difference(group_of, GROUPS[kind], steps=6, family=family)
    assert losses < 1e-9
    assert weights < 1e-9


@pytest.mark.parametrize("family", ["distilbert", "modernbert"])
def test_prefixes_that_attention_is_handed_are_each_run_s_own(group_of: Build, family: str) -> None:
    losses, weights = difference(group_of, PREFIXES, steps=3, family=family)
    assert losses < 1e-9
    assert weights < 1e-9


def test_runs_whose_virtual_tokens_stand_apart_share_no_pass(group_of: Build) -> None:
    others = [Spec("lora"), Spec("prefix-tuning"), Spec("prompt-tuning", options={"num_virtual_tokens": 3})]
    for other in others:
        with pytest.raises(ValueError, match="20 virtual tokens among the inputs"):
            group_of([Spec("prompt-tuning"), other], fused=True, steps=1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", GROUPS)
def test_float32_is_within_rounding_and_predictions_are_equal(group_of: Build, kind: str, family: str) -> None:
    alone, together = (group_of(GROUPS[kind], fused=f, steps=10, family=family, dtype="float32") for f in (False, True))
    assert np.abs(alone.train(10) - together.train(10)).max() < 1e-4
    for one, other in zip(alone.members, together.members, strict=True):
        assert np.array_equal(predictions(one), predictions(other))


@pytest.mark.parametrize("kind", GROUPS)
def test_micro_batches_of_a_group_add_up_to_its_batch(group_of: Build, kind: str) -> None:
    whole = group_of(GROUPS[kind], fused=True, steps=4).train(4)
    parts = group_of(GROUPS[kind], fused=True, steps=4, micro_batch_size=3).train(4)
    assert parts == pytest.approx(whole, abs=1e-9)


def test_batches_of_other_shapes_go_through_on_their_own(group_of: Build) -> None:
    """As the answers of an encoder-decoder's runs, which are as long as the rows that a seed has drawn."""

    def widened(group: Group) -> Group:
        plain = group.members[1].collate

        def wide(data: Any, rows: Any, length: int) -> Any:
            return plain(data, rows, length + 3)

        group.members[1].collate = wide
        return group

    expected = widened(group_of(MIXED[:3], fused=False, steps=3)).train(3)
    assert widened(group_of(MIXED[:3], fused=True, steps=3)).train(3) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", GROUPS)
def test_a_run_that_diverges_leaves_and_the_others_do_not_change(group_of: Build, kind: str) -> None:
    specs = GROUPS[kind]
    expected = group_of(specs, fused=False, steps=6).train(6)
    group = group_of(specs, fused=True, steps=6)

    def poison(step: int) -> None:
        if step == 2:
            with torch.no_grad():
                next(iter(group.members[1].trained.values())).fill_(float("nan"))

    found = group.train(6, poison)
    assert group.members[1].progress.diverged
    assert group.members[1].progress.step == 2
    others = [place for place in range(len(specs)) if place != 1]
    assert found[others] == pytest.approx(expected[others], abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", GROUPS)
def test_runs_answer_in_one_pass_what_each_answers_alone(group_of: Build, kind: str, family: str) -> None:
    group = group_of(GROUPS[kind], fused=True, steps=2, family=family)
    group.train(2)
    some = [group.members[place] for place in (2, 0)]  # neither all nor in the order of the lanes
    batch = some[0].collate(some[0].data, np.arange(6), 20)
    for member in some:
        member.modes.eval()
    with torch.no_grad():
        together = group.engines[0].side_by_side(some)(**batch.inputs).logits  # type: ignore[attr-defined]
        alone = torch.cat([member.attached.model(**batch.inputs).logits for member in some], dim=1)
    assert not torch.allclose(alone[:, :2], alone[:, 2:])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", GROUPS)
def test_the_blocks_are_passed_once_for_all_runs(group_of: Build, kind: str, family: str) -> None:
    group = group_of(GROUPS[kind], fused=True, steps=2, family=family)
    layout, passes = group.members[0].attached.layout, list[str]()
    models = {"shared": group.engines[0]._trunk.model}  # type: ignore[attr-defined]
    models |= {str(place): bare(member.attached.model) for place, member in enumerate(group.members)}
    for name, model in models.items():
        for block in layout.blocks:
            model.get_submodule(block).register_forward_hook(lambda *_, name=name: passes.append(name))
    group.train(2)
    assert passes == ["shared"] * 2 * len(layout.blocks)


def test_lora_is_one_product_and_traceable_layers_are_stacked(group_of: Build) -> None:
    group = group_of([Spec("lora", s, {"r": r}) for s, r in ((0, 4), (1, 16))] + [Spec("dora", s) for s in (0, 1)]
                     + [Spec("loha", s) for s in (0, 1)], fused=True, steps=1)  # fmt: skip
    group.train(1)
    sites = [m for m in group.engines[0]._trunk.model.modules() if isinstance(m, Site)]
    servers = {lane: {type(s._servers[lane]) for s in sites} for lane in range(6)}
    assert servers[0] == {LoraProducts, Stacked}  # Stacked: the head
    assert servers[2] == servers[4] == {Stacked}
    queries = [s for s in sites if type(s._servers[0]) is LoraProducts]
    assert all(s._servers[2].traceable and not s._servers[4].traceable for s in queries)


def test_dropout_of_stacked_layers_is_each_run_s_where_one_token_is_left(group_of: Build) -> None:
    group = group_of([spec for spec in EVERYWHERE if spec.method == "dora"], fused=True, steps=1)
    group.train(1)
    blocks = group.members[0].attached.layout.blocks
    last = group.engines[0]._trunk.model.get_submodule(blocks[-1])  # type: ignore[attr-defined]
    assert [s._servers[0].traceable for s in last.modules() if isinstance(s, Site)] == [True] * 6  # else slice by slice
