"""Bottleneck adapters: counts, places, formulas, switching off, and what a module tree may go through."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from pydantic import ValidationError
from torch import Tensor, nn

from adaptlab.errors import ConfigError
from adaptlab.methods import registry
from adaptlab.methods._adapters import AdapterMethod
from adaptlab.methods._base import Attached, Setup
from adaptlab.methods._bottleneck import Adapter, Bottleneck, without_adapters
from adaptlab.models.families import describe
from tests.contracts.method_checks import Bench, bench
from tests.training.conftest import TinyRun, tiny_base, tiny_run  # noqa: F401

NAMES = ("parallel-adapter", "houlsby-adapter", "pfeiffer-adapter")
every_adapter = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def on(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Bench]:
    return lambda family: bench(tiny_model_folder(family))


def on_model(name: str, model: nn.Module, **options: Any) -> Attached:
    """``name`` on a bare model whose checkpoint brings everything."""
    method = registry.get(name)
    return method.attach(model, describe(model, ()), Setup(method.Config(**options)))


def unlike_base(attached: Attached) -> Attached:
    """The same with weights of a size that shows: nothing starts at zero any more."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in attached.parameters.values():
            parameter.normal_(std=0.3)
    return attached


def adapters(attached: Attached) -> dict[str, Adapter]:
    return {name: module for name, module in attached.model.named_modules() if isinstance(module, Adapter)}


def seen(attached: Attached, inputs: dict[str, Tensor], *names: str) -> dict[str, tuple[Tensor, Tensor]]:
    """What the modules called ``names`` read and gave in the last of their calls, adapters included."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            found[name] = (args[0], output[0] if isinstance(output, tuple) else output)

        return keep

    handles = [attached.model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    with torch.no_grad():
        attached.model.eval()(**inputs)
    for handle in handles:
        handle.remove()
    return found


def formula(adapter: Adapter, x: Tensor, function: Callable[[Tensor], Tensor], scaling: float) -> Tensor:
    state = dict(adapter.bottleneck.named_parameters())
    inner = function(x @ state["down.weight"].T + state["down.bias"])
    return scaling * (inner @ state["up.weight"].T + state["up.bias"])


# --- counts ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def t5_base() -> Callable[[], nn.Module]:
    config = transformers.T5Config(
        vocab_size=32128, d_model=768, d_ff=3072, d_kv=64, num_layers=12, num_decoder_layers=12, num_heads=12
    )

    def build() -> nn.Module:
        with torch.device("meta"):
            return transformers.T5ForConditionalGeneration(config)

    return build


@pytest.mark.parametrize(("factor", "published"), [(8, 3_559_680), (16, 1_789_056)])
def test_the_parallel_adapter_on_t5_base_has_the_published_count(
    factor: int, published: int, t5_base: Callable[[], nn.Module]
) -> None:
    method, model = registry.get("parallel-adapter"), t5_base()
    layout, setup = describe(model, ()), Setup(method.Config(reduction_factor=factor))
    assert method.trainable_count(layout, setup) == published
    attached = method.attach(model, layout, setup)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == published
    assert sum(p.numel() for p in attached.parameters.values()) == published
    assert {p.device.type for p in attached.parameters.values()} == {"meta"}


def test_the_series_adapters_on_t5_base_are_two_and_one_a_block(t5_base: Callable[[], nn.Module]) -> None:
    layout = describe(t5_base(), ())
    one = 768 * 48 + 48 + 48 * 768 + 768
    for name, places in (("houlsby-adapter", 2), ("pfeiffer-adapter", 1)):
        method = registry.get(name)
        assert method.trainable_count(layout, Setup(method.Config())) == 24 * places * one


# --- places and formulas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "normed", "reader", "writer"),
    [
        ("bert", "attention.output.LayerNorm", "intermediate.dense", "output.dense"),
        ("distilbert", "sa_layer_norm", "ffn.lin1", "ffn.lin2"),
        ("modernbert", "mlp_norm", "mlp.Wi", "mlp.Wo"),
        ("opt", "final_layer_norm", "fc1", "fc2"),
        ("gpt2", "ln_2", "mlp.c_fc", "mlp.c_proj"),
        ("llama", "post_attention_layernorm", "mlp.up_proj", "mlp.down_proj"),
        ("t5", "layer.2.layer_norm", "layer.2.DenseReluDense.wi", "layer.2.DenseReluDense.wo"),
    ],
)
def test_the_parallel_adapter_reads_the_feed_forward_s_own_input_and_adds_to_its_output(
    family: str, normed: str, reader: str, writer: str, on: Callable[[str], Bench]
) -> None:
    found = on(family)
    attached = unlike_base(found.attach(registry.get("parallel-adapter"), reduction_factor=4))
    assert {f"{block}.parallel_adapter" for block in found.base.layout.blocks} == set(adapters(attached))
    block = found.base.layout.blocks[-1]
    names = [f"{block}.{part}" for part in (normed, reader, writer)]
    (_, norm_gave), (x, _), (inner, gave) = seen(attached, found.inputs, *names).values()
    assert torch.equal(x, norm_gave.reshape(x.shape))
    feed_forward = attached.model.get_submodule(names[2]).forward(inner)
    added = formula(adapters(attached)[f"{block}.parallel_adapter"], x, torch.relu, 4.0)
    assert added.abs().max() > 0.1
    torch.testing.assert_close(gave, feed_forward + added)


@pytest.mark.parametrize(
    ("family", "attention", "feed_forward"),
    [
        ("bert", "attention.output.dense", "output.dense"),
        ("mpnet", "attention.attn.o", "output.dense"),
        ("opt", "self_attn.out_proj", "fc2"),
        ("t5", "layer.0.SelfAttention.o", "layer.2.DenseReluDense.wo"),
    ],
)
def test_the_houlsby_adapters_stand_behind_both_sub_layers_before_residual_and_norm(
    family: str, attention: str, feed_forward: str, on: Callable[[str], Bench]
) -> None:
    found = on(family)
    attached = unlike_base(found.attach(registry.get("houlsby-adapter"), reduction_factor=4))
    assert len(adapters(attached)) == 2 * len(found.base.layout.blocks)
    block = found.base.layout.blocks[-1]
    for child, writer in (("attention_adapter", attention), ("feed_forward_adapter", feed_forward)):
        ((inner, gave),) = seen(attached, found.inputs, f"{block}.{writer}").values()
        h = attached.model.get_submodule(f"{block}.{writer}").forward(inner)
        added = formula(adapters(attached)[f"{block}.{child}"], h, F.gelu, 1.0)
        torch.testing.assert_close(gave, h + added)


@pytest.mark.parametrize(
    ("family", "norm"),
    [("bert", "output.LayerNorm"), ("distilbert", "output_layer_norm"), ("mpnet", "output.LayerNorm")],
)
def test_the_pfeiffer_adapter_reads_and_goes_through_the_last_norm_of_a_post_norm_block(
    family: str, norm: str, on: Callable[[str], Bench]
) -> None:
    found = on(family)
    attached = unlike_base(found.attach(registry.get("pfeiffer-adapter"), reduction_factor=4))
    block = found.base.layout.blocks[-1]
    for _ in range(2):  # the first pass finds the place
        ((z, gave),) = seen(attached, found.inputs, f"{block}.{norm}").values()
        function = attached.model.get_submodule(f"{block}.{norm}").forward
        added = formula(adapters(attached)[f"{block}.pfeiffer_adapter"], function(z), torch.relu, 1.0)
        torch.testing.assert_close(gave, function(z + added))


@pytest.mark.parametrize("family", ["opt", "t5", "gpt2", "llama", "modernbert"])
def test_the_pfeiffer_adapter_reads_and_adds_to_the_residual_stream_of_a_pre_norm_block(
    family: str, on: Callable[[str], Bench]
) -> None:
    found = on(family)
    attached = unlike_base(found.attach(registry.get("pfeiffer-adapter"), reduction_factor=4))
    block = found.base.layout.blocks[-1]
    adapter = adapters(attached)[f"{block}.pfeiffer_adapter"]
    for _ in range(2):
        ((_, gave),) = seen(attached, found.inputs, block).values()
        adapter.enabled = False
        ((_, z),) = seen(attached, found.inputs, block).values()
        adapter.enabled = True
        torch.testing.assert_close(gave, z + formula(adapter, z, torch.relu, 1.0))


@every_adapter
@pytest.mark.parametrize("post_norm", [True, False])
def test_an_interrupted_first_pass_does_not_mislead_an_adapter(name: str, post_norm: bool) -> None:
    config = transformers.OPTConfig(
        vocab_size=40, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2,
        word_embed_proj_dim=16, pad_token_id=1, do_layer_norm_before=not post_norm,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.OPTForSequenceClassification(config)
    interrupted, plain = (unlike_base(on_model(name, copy.deepcopy(model), bottleneck=4)) for _ in range(2))
    inputs = {"input_ids": torch.arange(4, 12)[None]}

    def stop(*_: Any) -> None:
        raise MemoryError

    writer = interrupted.model.get_submodule("model.decoder.layers.1.fc2")
    for register in (writer.register_forward_hook, writer.register_forward_pre_hook):
        handle = register(stop)
        with pytest.raises(MemoryError):
            interrupted.model.eval()(**inputs)
        handle.remove()
    copied = copy.deepcopy(interrupted.model)
    expected = plain.model.eval()(**inputs).logits
    assert torch.equal(interrupted.model(**inputs).logits, expected)
    assert torch.equal(copied(**inputs).logits, expected)


def other_models() -> dict[str, Any]:
    """Families that the contract suite has no tiny model of."""
    decoder = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    small = {"vocab_size": 40, **decoder}
    grouped = {**small, "num_key_value_heads": 1, "pad_token_id": 0}
    bart = {
        "vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
    }  # fmt: skip
    gated = {
        "vocab_size": 40, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2,
        "feed_forward_proj": "gated-gelu", "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0,
    }  # fmt: skip
    return {
        "albert": ("Albert", {**small, "embedding_size": 8, "num_hidden_layers": 3}, 1),
        "bart": ("Bart", bart, 4),
        "mistral": ("Mistral", grouped, 2),
        "qwen3": ("Qwen3", {**grouped, "head_dim": 8}, 2),
        "t5 v1.1": ("T5", gated, 4),
    }


@every_adapter
@pytest.mark.parametrize("family", sorted(other_models()))
def test_adapters_work_in_families_beyond_the_contract_suite_s(name: str, family: str) -> None:
    prefix, settings, blocks = other_models()[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{prefix}Config")(**settings)
    model = getattr(transformers, f"{prefix}ForSequenceClassification")(config).eval().requires_grad_(False)
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 2], [9, 10, 11, 12, 2]])}
    base_logits = model(**inputs).logits
    attached = unlike_base(on_model(name, model, bottleneck=4))
    assert len(adapters(attached)) == blocks * (2 if name == "houlsby-adapter" else 1)
    logits = model(**inputs).logits
    logits.square().sum().backward()
    assert [n for n, p in attached.parameters.items() if p.grad is None or not p.grad.any()] == []
    assert not torch.equal(logits, base_logits)
    with without_adapters(model):
        assert torch.equal(model(**inputs).logits, base_logits)


def test_blocks_without_a_single_feed_forward_are_refused() -> None:
    config = transformers.MixtralConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.MixtralForSequenceClassification(config)
    for name in NAMES:
        with pytest.raises(ConfigError, match=r"model\.layers\.0 of this mixtral model has no single"):
            on_model(name, model)


# --- starting, switching off, copying --------------------------------------------------------------------------------


@every_adapter
def test_switched_off_the_base_s_own_logits_come_back_to_the_bit(name: str, on: Callable[[str], Bench]) -> None:
    found = on("bert")
    base_logits = found.logits(found.attach(registry.get("head")))
    attached = found.attach(registry.get(name))
    started = found.logits(attached)
    assert torch.equal(started, base_logits) == (name == "parallel-adapter")
    torch.testing.assert_close(started, base_logits, rtol=0, atol=0.05)  # all start near the identity
    adapted = found.logits(unlike_base(attached))
    with without_adapters(attached.model):
        assert torch.equal(found.logits(attached), base_logits)
    assert torch.equal(found.logits(attached), adapted)
    assert not torch.equal(adapted, base_logits)


@every_adapter
def test_the_seed_reaches_every_matrix_that_does_not_start_at_zero(name: str, on: Callable[[str], Bench]) -> None:
    found, method = on("bert"), registry.get(name)
    assert isinstance(method, AdapterMethod)
    one, same, other = (found.attach(method, seed=seed).parameters for seed in (0, 0, 1))
    for leaf, parameter in one.items():
        assert torch.equal(parameter, same[leaf])
        starts_at_zero = leaf.endswith("bias") or (leaf.endswith("up.weight") and method.std is None)
        assert torch.equal(parameter, other[leaf]) == starts_at_zero == (not parameter.any())
        if method.std is not None:
            assert parameter.abs().max() <= 2 * method.std


@every_adapter
def test_a_copied_model_has_adapters_of_its_own(name: str, on: Callable[[str], Bench]) -> None:
    found = on("bert")
    attached = unlike_base(found.attach(registry.get(name)))
    logits = found.logits(attached)
    copied = copy.deepcopy(attached.model)
    with torch.no_grad():
        for parameter in attached.parameters.values():
            parameter.zero_()
        assert torch.equal(copied(**found.inputs).logits, logits)
    assert not torch.equal(found.logits(attached), logits)
    with without_adapters(copied), torch.no_grad():
        assert not torch.equal(copied(**found.inputs).logits, logits)


@every_adapter
@pytest.mark.parametrize("family", ["bert", "opt", "t5"])
def test_gradient_checkpointing_gives_the_same_gradients(name: str, family: str, on: Callable[[str], Bench]) -> None:
    found, method = on(family), registry.get(name)
    plain, checkpointed = (unlike_base(found.attach(method)) for _ in range(2))
    model: Any = checkpointed.model
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert model.is_gradient_checkpointing
    for _ in range(2):  # the second pass starts from whatever the first one's recomputation left behind
        for attached in (plain, checkpointed):
            torch.manual_seed(0)
            attached.model.train()(**found.inputs, labels=found.labels).loss.backward()
    for leaf, parameter in plain.trained.items():
        torch.testing.assert_close(checkpointed.trained[leaf].grad, parameter.grad)


@every_adapter
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_float32_adapters_train_under_bfloat16(name: str, family: str, tiny_run: Callable[..., TinyRun]) -> None:  # noqa: F811
    run = tiny_run(name, family=family, dtype="bfloat16")
    trained = run.member.trained
    before = {leaf: parameter.detach().clone() for leaf, parameter in trained.items()}
    run.go()
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    assert [leaf for leaf, parameter in trained.items() if torch.equal(parameter, before[leaf])] == []
    assert run.losses == pytest.approx(tiny_run(name, family=family).go().losses, abs=0.02)


def test_threads_do_not_read_each_other_s_inputs(on: Callable[[str], Bench]) -> None:
    found = on("bert")
    attached = unlike_base(found.attach(registry.get("parallel-adapter")))
    found.logits(attached)
    parts = [{key: rows[i : i + 1] for key, rows in found.inputs.items()} for i in range(2)]
    expected = [attached.model(**part).logits.detach() for part in parts]
    right: list[int] = []
    both = threading.Barrier(2)
    # Both threads stand between the feed-forward's two linears at the same time.
    writer = attached.model.get_submodule("bert.encoder.layer.0.output.dense")

    def meet(*_: Any) -> None:
        both.wait(60)

    writer.register_forward_pre_hook(meet)

    def work(index: int) -> None:
        with torch.no_grad():
            if torch.equal(attached.model(**parts[index]).logits, expected[index]):
                right.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(right) == [0, 1]


def test_bottlenecks_of_several_runs_can_be_stacked() -> None:
    torch.manual_seed(0)
    several = [Bottleneck(8, 2, "gelu", 2.0, 0.5) for _ in range(3)]
    parameters, _ = torch.func.stack_module_state(several)  # type: ignore[arg-type]
    x = torch.randn(3, 4, 5, 8)
    stacked = torch.func.vmap(lambda p, rows: torch.func.functional_call(several[0], p, (rows,)))(parameters, x)
    for index, single in enumerate(several):
        torch.testing.assert_close(stacked[index], single(x[index]))


# --- options and refusals --------------------------------------------------------------------------------------------


@every_adapter
def test_the_width_is_given_in_one_of_two_ways(name: str, on: Callable[[str], Bench]) -> None:
    method, layout = registry.get(name), on("bert").base.layout
    assert method.Config().model_dump()["reduction_factor"] == 16
    by_factor = Setup(method.Config(reduction_factor=8))
    by_width = Setup(method.Config(bottleneck=4))
    assert method.trainable_count(layout, by_factor) == method.trainable_count(layout, by_width)
    for setup in (by_factor, by_width):  # a record holds every option
        assert method.Config(**setup.options.model_dump()) == setup.options
    with pytest.raises(ValidationError, match="give one of the two"):
        method.Config(bottleneck=4, reduction_factor=8)
    with pytest.raises(ConfigError, match=r"is 64, but this model has 32 features.*at most 32"):
        method.trainable_count(layout, Setup(method.Config(reduction_factor=64)))


@every_adapter
def test_what_does_not_apply_is_refused(name: str, on: Callable[[str], Bench]) -> None:
    found, method = on("bert"), registry.get(name)
    with pytest.raises(ConfigError, match="takes no targets"):
        method.trainable_count(found.base.layout, Setup(method.Config(), targets="query"))
    with pytest.raises(ConfigError, match="--head trained or --head frozen"):
        found.attach(method, head="adapted")
    attached = found.attach(method)
    with pytest.raises(ConfigError, match="already"):
        method.attach(attached.model, found.base.layout, found.setup(method))


@every_adapter
def test_the_folder_says_what_is_in_it(name: str, on: Callable[[str], Bench], tmp_path: Path) -> None:
    found, method = on("bert"), registry.get(name)
    attached = found.attach(method, bottleneck=3)
    method.save(attached, tmp_path)
    document = json.loads((tmp_path / "adapter_config.json").read_text())
    assert document["adaptlab_method"] == name
    assert document["options"] == attached.setup.options.model_dump(mode="json")
    assert document["base_model_name_or_path"] == "bert"


# --- layer-norm ------------------------------------------------------------------------------------------------------


def test_layer_norm_trains_the_numbers_of_the_norms_and_no_others(on: Callable[[str], Bench]) -> None:
    method: Any = registry.get("layer-norm")
    for family in ("bert", "t5", "modernbert"):
        layout = on(family).base.layout
        chosen = set(method.chosen(layout, Setup(method.Config())))
        norms = {name for name in layout.parameters if "norm" in layout.owner(name).rpartition(".")[2].lower()}
        assert chosen == norms - set(layout.head) != set()
    assert "bert.embeddings.LayerNorm.bias" in method.chosen(on("bert").base.layout, Setup(method.Config()))
