"""Every method in the registry keeps the contract, on a tiny model of every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adaptlab.errors import ConfigError, ModelError
from adaptlab.methods import registry
from adaptlab.methods._base import Method
from tests.contracts.method_checks import LABELS, Bench, bench, differing, saved_numbers, saved_shapes, snapshot
from tests.tiny_models import FAMILIES

#: Methods that rightly refuse a family, and why: these models have no biases outside the head, PEFT has these
#: methods for ``nn.Linear`` alone, which GPT-2's ``Conv1D`` is not, and these models' attention cannot be reached.
REFUSED = {
    **dict.fromkeys([("bitfit", "modernbert"), ("bitfit", "llama"), ("bitfit", "t5")], "no bias terms"),
    **{
        (name, "gpt2"): f"conv1d layer, and {name} works on linear layers alone"
        for name in ("boft", "c3a", "hra", "loha", "lokr", "miss", "oft", "road", "shira")
    },
    **{("prefix-tuning", family): "computes its attention itself" for family in ("mpnet", "deberta-v2")},
}

#: What PEFT alone knows is probed on three kinds of model (tests/methods/test_peft_generic.py); here one has to do.
USABLE = [method for method in registry.all() if method.trains and not method.unusable]
#: In a tiny base all biases are zero, and these trained numbers are factors of them.
FACTORS_OF_BIASES = ("glora",)

every_method = pytest.mark.parametrize("method", USABLE, ids=lambda method: method.name)
every_pair = pytest.mark.parametrize(
    ("method", "family"),
    [(m, f) for m in USABLE for f in FAMILIES if (m.name, f) not in REFUSED and (not m.generic or f == "bert")],
    ids=lambda part: part if isinstance(part, str) else part.name,
)


@pytest.fixture(scope="session")
def bench_of(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Bench]:
    built: dict[str, Bench] = {}

    def build(family: str) -> Bench:
        if family not in built:
            built[family] = bench(tiny_model_folder(family))
        return built[family]

    return build


@pytest.mark.parametrize(("name", "family"), sorted(REFUSED))
def test_refusals_are_said_by_attaching_and_by_counting(
    name: str, family: str, bench_of: Callable[[str], Bench]
) -> None:
    bench, method = bench_of(family), registry.get(name)
    with pytest.raises(ConfigError, match=REFUSED[name, family]):
        bench.attach(method)
    with pytest.raises(ConfigError, match=REFUSED[name, family]):
        method.trainable_count(bench.base.layout, bench.setup(method))


def test_a_method_that_trains_nothing_refuses_a_new_head(bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of("bert")
    for method in registry.all():
        if not method.trains:
            with pytest.raises(ConfigError, match="a new head is random"):
                bench.attach(method)


@every_pair
def test_flags_and_counts_are_exact(method: Method, family: str, bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of(family)
    attached = bench.attach(method)
    flagged = {id(p) for p in attached.model.parameters() if p.requires_grad}
    assert flagged == {id(p) for p in attached.trained.values()}
    assert not set(attached.parameters) & set(attached.head)
    assert len(flagged) == len(attached.parameters) + len(attached.head)
    count = sum(p.numel() for p in attached.parameters.values())
    assert count == method.trainable_count(bench.base.layout, bench.setup(method))
    assert sum(p.numel() for p in attached.head.values()) == bench.base.layout.head_count()
    assert all(p.dtype == torch.float32 for p in attached.trained.values())


@every_pair
def test_training_moves_what_is_trained_and_nothing_else(
    method: Method, family: str, bench_of: Callable[[str], Bench]
) -> None:
    bench = bench_of(family)
    attached = bench.attach(method)
    base_before = snapshot(bench.base.model.state_dict().items())
    frozen = [(n, p) for n, p in attached.model.named_parameters() if not p.requires_grad]
    frozen_before, trained_before = snapshot(frozen), snapshot(attached.trained.items())
    bench.train(attached, 3, rate=min(1e-3, method.learning_rates.default))  # more may end a tiny bottleneck's gradient
    assert differing(frozen_before, frozen) == []
    assert differing(base_before, bench.base.model.state_dict().items()) == []
    if method.name in FACTORS_OF_BIASES:
        return
    without_gradient = [n for n, p in attached.trained.items() if p.grad is None or not p.grad.any()]
    assert without_gradient == []
    assert set(differing(trained_before, attached.trained.items())) == set(attached.trained)


@every_pair
def test_loss_falls_within_twenty_steps(method: Method, family: str, bench_of: Callable[[str], Bench]) -> None:
    """At some rate of its range: near the top of it a model this small is chaotic, and which way it goes depends on the
    processor's rounding; a middle rate is slow but steady."""
    bench, rates = bench_of(family), method.learning_rates

    def left(rate: float) -> float:
        attached = bench.attach(method)
        before = bench.loss(attached)
        bench.train(attached, 20, rate=rate)
        return bench.loss(attached) / before

    middle = (rates.low * rates.default) ** 0.5
    assert any(left(rate) < 0.95 for rate in (rates.default, rates.high, middle, rates.default / 3))


@every_pair
def test_saving_and_loading_gives_the_same_logits(
    method: Method, family: str, bench_of: Callable[[str], Bench], tmp_path: Path
) -> None:
    bench = bench_of(family)
    attached = bench.attach(method)
    bench.train(attached, 3)
    logits = bench.logits(attached)
    method.save(attached, tmp_path / "adapter")
    other = bench.attach(method, seed=1)
    assert not torch.equal(bench.logits(other), logits)
    method.load(other, tmp_path / "adapter")
    assert torch.equal(bench.logits(other), logits)
    assert differing(snapshot(method.saved(attached).items()), method.saved(other).items()) == []
    assert set(other.head) == set(attached.head)
    assert all(p.requires_grad for p in other.trained.values())


@every_pair
def test_what_is_saved_is_what_was_trained_once(
    method: Method, family: str, bench_of: Callable[[str], Bench], tmp_path: Path
) -> None:
    bench = bench_of(family)
    attached = bench.attach(method)
    method.save(attached, tmp_path)
    saved = {name: tuple(tensor.shape) for name, tensor in method.saved(attached).items()}
    assert saved_shapes(tmp_path) == saved
    if method.generic:  # PEFT's own choice, fixed projections included
        assert saved_numbers(tmp_path) >= sum(p.numel() for p in attached.trained.values())
    elif method.name != "p-tuning":  # whose network is dropped
        assert saved_numbers(tmp_path) == sum(p.numel() for p in attached.trained.values())
    else:
        assert saved_numbers(tmp_path) < sum(p.numel() for p in attached.trained.values())
    for path in tmp_path.glob("*.json"):
        assert str(tmp_path.parent) not in path.read_text()
        assert "/tmp" not in path.read_text()


@every_method
def test_the_same_seed_gives_the_same_losses_to_the_bit(method: Method, bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of("bert")
    first, second = (bench.train(bench.attach(method, seed=3), 4, seed=3) for _ in range(2))
    assert first == second
    assert bench.train(bench.attach(method, seed=4), 4, seed=4) != first


@every_method
def test_the_seed_reaches_head_and_adapter(method: Method, bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of("bert")
    one, other = (bench.attach(method, seed=seed) for seed in (0, 1))
    assert differing(snapshot(one.head.items()), other.head.items())


@every_method
def test_a_frozen_head_is_saved_and_warned_of(method: Method, bench_of: Callable[[str], Bench], tmp_path: Path) -> None:
    bench = bench_of("bert")
    if method.name == "head":
        with pytest.raises(ConfigError, match="--head frozen"):
            bench.attach(method, head="frozen")
        return
    attached = bench.attach(method, head="frozen")
    assert attached.head == {}
    assert any("head is random" in warning for warning in attached.warnings)
    bench.train(attached, 2)
    method.save(attached, tmp_path)
    other = bench.attach(method, seed=1, head="frozen")
    method.load(other, tmp_path)
    assert torch.equal(bench.logits(other), bench.logits(attached))


@every_method
def test_damaged_weights_are_refused(method: Method, bench_of: Callable[[str], Bench], tmp_path: Path) -> None:
    bench = bench_of("bert")
    attached = bench.attach(method)
    method.save(attached, tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="train the run again"):
        method.load(attached, tmp_path)


@every_method
def test_plugins_state_their_facts(method: Method) -> None:
    assert method.summary
    assert method.summary[0].islower()
    rates = method.learning_rates
    assert 0 < rates.low <= rates.default <= rates.high
    assert set(method.aliases.values()) <= set(method.Config.model_fields)
    for field in method.Config.model_fields.values():
        assert field.description
        assert not field.is_required() or field.examples


@every_method
def test_a_real_model_learns_saves_and_loads(method: Method, minilm_folder: Path, tmp_path: Path) -> None:
    if method.generic:
        pytest.skip("no row: it was probed on tiny models")
    bench = _minilm(minilm_folder)
    attached = bench.attach(method)
    assert attached.model.get_parameter("bert.pooler.dense.weight").requires_grad == (method.name == "full")
    before = bench.loss(attached)
    bench.train(attached, 10)
    assert bench.loss(attached) < before
    logits = bench.logits(attached)
    assert logits.shape == (12, LABELS)
    method.save(attached, tmp_path)
    other = bench.attach(method, seed=1)
    method.load(other, tmp_path)
    assert torch.equal(bench.logits(other), logits)


_MINILM: list[Bench] = []


def _minilm(folder: Path) -> Bench:
    if not _MINILM:
        _MINILM.append(bench(folder))
    return _MINILM[0]
