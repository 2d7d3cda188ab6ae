"""Behind the last attention the tokens that no head reads are left out, and every number is the same without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from adaptlab.engines.fused import bare
from adaptlab.methods import registry
from adaptlab.models.families import describe
from adaptlab.models.load import Base
from adaptlab.training.dropout import DropoutClock
from adaptlab.training.first_tokens import FirstTokens
from tests.tiny_models import FAMILIES
from tests.training.conftest import TinyRun

KNOWN = ["bert", "camembert", "deberta", "deberta-v2", "electra", "roberta", "xlm-roberta"]
#: They draw dropout, change a weight, hang on modules behind the last attention, or stand before the first token.
METHODS = ["full", "lora", "ia3", "oft", "pfeiffer-adapter", "houlsby-adapter", "prompt-tuning", "prefix-tuning"]


def _layer(run: TinyRun, name: str) -> nn.Module:
    return bare(run.member.attached.model).get_submodule(name)


def _seen(module: nn.Module) -> list[int]:
    """The numbers of tokens that ``module`` is given from now on."""
    tokens: list[int] = []
    module.register_forward_pre_hook(lambda m, args: tokens.append(args[0].shape[1]))
    return tokens


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_known_families_are_those_whose_head_reads_the_first_token(tiny_base: Callable[..., Base], family: str) -> None:
    base = tiny_base(family)
    layout, model = base.layout, base.model
    if layout.kind != "encoder":
        assert not layout.tokens_part
        return

    def spoil(module: nn.Module, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        spoilt = torch.cat([hidden[:, :1], torch.full_like(hidden[:, 1:], float("nan"))], dim=1)
        return (spoilt, *output[1:]) if isinstance(output, tuple) else spoilt

    handle = model.get_submodule(layout.blocks[-1]).register_forward_hook(spoil)
    ids = torch.arange(6, 16).view(1, 10)
    with torch.no_grad():
        first_alone = bool(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.isfinite().all())
    handle.remove()
    assert bool(layout.tokens_part) == (family in KNOWN)
    assert first_alone or not layout.tokens_part


@pytest.mark.parametrize("family", [name for name in KNOWN if name in FAMILIES])
def test_the_wide_layers_of_the_last_block_see_one_token(tiny_run: Callable[..., TinyRun], family: str) -> None:
    run = tiny_run("lora", family=family, steps=1)
    blocks = run.base.layout.blocks
    last, lower = (_seen(_layer(run, f"{block}.intermediate")) for block in (blocks[-1], blocks[0]))
    run.go()
    assert set(last) == {1}
    assert min(lower) > 1


@pytest.mark.parametrize("family", [name for name in KNOWN if name in FAMILIES])
@pytest.mark.parametrize("method", METHODS)
def test_losses_and_weights_are_those_of_all_tokens(tiny_run: Callable[..., TinyRun], family: str, method: str) -> None:
    if registry.get(method).placement == "prompt" and family in ("deberta", "deberta-v2"):
        pytest.skip("refused for this family")
    targets = "all-linear" if method in ("lora", "oft") else None
    options = {"lora_dropout": 0.2} if method == "lora" else {}
    settings: dict[str, Any] = dict(
        family=family, dtype="float64", steps=4, eval_every=4, learning_rate=1e-3, targets=targets, options=options
    )
    micro = None if family.startswith("deberta") else 3  # its table of positions is dropped for whole batches
    part = tiny_run(method, **settings, micro=micro).go()
    whole = tiny_run(method, **settings, all_tokens=True).go()
    assert part.losses == pytest.approx(whole.losses, rel=1e-10)
    others = whole.member.attached.trained
    for name, tensor in part.member.attached.trained.items():
        assert torch.allclose(tensor, others[name], rtol=1e-8, atol=1e-9), name
    assert _dropped(part)


def _dropped(run: TinyRun) -> bool:
    """Whether dropout is drawn behind the last attention at all, so that the test says something about it."""
    part = _layer(run, run.base.layout.tokens_part)
    outputs: list[Tensor] = []
    for module in part.modules():
        if type(module).__name__ == "KeyedDropout":
            module.register_forward_hook(lambda m, args, output: outputs.append((output == 0).any()))
    run.member.modes.train()
    run.backward([run.member])
    return bool(torch.stack(outputs).any())


@pytest.mark.parametrize("family", ["Camembert", "Deberta", "XLMRoberta"])
def test_relatives_without_a_tiny_model_answer_alike_too(family: str) -> None:
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=100)
    config = getattr(transformers, f"{family}Config")(**sizes)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    ids = torch.arange(6, 26).view(2, 10)
    layout = describe(model, ())
    assert layout.family in KNOWN
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        FirstTokens(model, layout, [DropoutClock()])
        last = _seen(model.get_submodule(f"{layout.blocks[-1]}.intermediate"))
        part = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert last == [1]
    torch.testing.assert_close(part, whole)
