"""Operations of training: what is counted against closed forms, published figures and real batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from adaptlab import api
from adaptlab.config import MethodConfig, ModelConfig, RunConfig, TaskConfig, TrainingConfig
from adaptlab.measure.flops import (
    Counted,
    NotPolynomialError,
    PassFlops,
    TrainingFlops,
    count,
    fit,
    optimizer_flops,
)
from adaptlab.methods import registry as methods
from adaptlab.models.load import load_base
from adaptlab.report import read_studies
from adaptlab.workshop import attach
from tests.tiny_models import FEED_FORWARD, HIDDEN, LAYERS

_OUTPUTS, _RANK = 3, 8


def counted_pass(model: Any, rows: int, length: int, extra: Callable[[], Any] = lambda: None) -> Counted:
    """One pass over real tensors; the last token is T5's end of text."""
    ids = torch.full((rows, length), 7)
    ids[:, -1] = 1

    def run() -> None:
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum()
        more = extra()
        (loss if more is None else loss + more).backward()

    return count(run)


@pytest.fixture(scope="module")
def attached(tiny_model_folder: Callable[[str], Path]) -> Callable[..., Any]:
    bases: dict[str, Any] = {}

    def build(family: str, method: str, options: dict[str, Any] | None = None) -> Any:
        if family not in bases:
            config = ModelConfig(id=str(tiny_model_folder(family)))
            bases[family] = load_base(config, num_labels=_OUTPUTS, regression=False, device="cpu")
        config = RunConfig(
            model=ModelConfig(id="tiny"),
            task=TaskConfig(name="tiny"),
            method=MethodConfig(name=method, options=options or {}),
            training=TrainingConfig(steps=10),
        )
        return attach(bases[family], config)

    return build


# --- closed forms ---------------------------------------------------------------------------------------------------

#: Attentions and feed-forwards of a family, and of these the attentions whose input is the frozen embeddings.
_SHAPES = {"bert": (LAYERS, LAYERS, 1), "opt": (LAYERS, LAYERS, 1), "t5": (3 * LAYERS, 2 * LAYERS, 2)}


def head_forward(family: str, rows: int, length: int) -> tuple[float, float]:
    """Operations of the frozen and of the trained part of the head."""
    out = 2 * HIDDEN * _OUTPUTS
    return {
        "bert": (rows * 2 * HIDDEN**2, rows * out),  # the checkpoint's pooler, and a new classifier
        "opt": (0.0, rows * length * out),  # a score at every token
        "t5": (0.0, rows * (2 * HIDDEN**2 + out)),
    }[family]


def full_closed_form(family: str, rows: int, length: int) -> float:
    """Three times the forward products: one each for inputs and weights on the way back."""
    attentions, feed_forwards, _ = _SHAPES[family]
    tokens = rows * length
    body = tokens * (attentions * 8 * HIDDEN**2 + feed_forwards * 4 * HIDDEN * FEED_FORWARD)
    scores = attentions * rows * 4 * length**2 * HIDDEN
    return 3 * (body + scores + sum(head_forward(family, rows, length)))


def lora_closed_form(family: str, rows: int, length: int) -> float:
    """LoRA on query and value: frozen weights get no weight gradient, frozen embeddings no gradient at all."""
    attentions, feed_forwards, first = _SHAPES[family]
    tokens = rows * length
    body = tokens * (attentions * 8 * HIDDEN**2 + feed_forwards * 4 * HIDDEN * FEED_FORWARD)
    scores = attentions * rows * 4 * length**2 * HIDDEN
    factors = tokens * attentions * 8 * HIDDEN * _RANK
    frozen, trained = head_forward(family, rows, length)
    total = 2 * (body + frozen) + 3 * (scores + factors + trained)
    # No gradient for the embeddings through q, k and v, through two factors A, and to the keys, of a first layer.
    return total - first * (tokens * (6 * HIDDEN**2 + 4 * HIDDEN * _RANK) + rows * 2 * length**2 * HIDDEN)


def left_out(family: str, rows: int, length: int) -> float:
    """Forward operations behind the last attention on tokens that no head reads, which a run does not compute."""
    return rows * (length - 1) * (2 * HIDDEN**2 + 4 * HIDDEN * FEED_FORWARD) if family == "bert" else 0.0


@pytest.mark.parametrize("family", _SHAPES)
@pytest.mark.parametrize(
    ("method", "closed_form"), [("full", full_closed_form), ("lora", lora_closed_form)], ids=["full", "lora"]
)
def test_the_fit_is_the_closed_form_at_shapes_it_has_not_seen(
    attached: Callable[..., Any], family: str, method: str, closed_form: Callable[[str, int, int], float]
) -> None:
    model = attached(family, method).model
    _, training = fit(lambda rows, length: counted_pass(model, rows, length))
    for rows, length in ((1, 100), (32, 77)):
        assert training.of(rows, length) == pytest.approx(closed_form(family, rows, length), rel=1e-12)


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_products_with_quantised_weights_are_products(minilm_folder: Path, bits: Any) -> None:
    pytest.importorskip("bitsandbytes")

    def counted(quantize: Any) -> Counted:
        config = ModelConfig(id=str(minilm_folder), quantize=quantize)
        model = load_base(config, num_labels=_OUTPUTS, regression=False, device="cpu").model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("LayerNorm" in name or "classifier" in name)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return counted_pass(model, 2, 8)

    assert counted(bits) == counted("none")


#: What a tiny model needs in place of an option's default.
SMALL = {"partial": {"parameters": "weight"}, "waveft": {"n_frequency": 64}}


@pytest.mark.parametrize("name", [method.name for method in methods.all() if method.trains and not method.unusable])
def test_every_method_is_a_polynomial(attached: Callable[..., Any], name: str) -> None:
    """``fit`` raises where it is not; and a method computes no less than a linear probe."""
    one = attached("bert", name, SMALL.get(name, {}))
    forward, training = fit(
        lambda rows, length: counted_pass(one.model, rows, length, lambda: one.method.extra_loss(one))
    )
    assert forward.of(4, 64) < training.of(4, 64)
    assert training.of(4, 64) >= 4 * 64 * LAYERS * (8 * HIDDEN**2 + 4 * HIDDEN * FEED_FORWARD)


#: Multiply-accumulates of a sample of 109 input and 22 target tokens, from a public study's logs.
T5_BASE = [
    ("full", {}, 41.44e9),
    ("lora", {"r": 8}, 27.82e9),
    ("parallel-adapter", {"reduction_factor": 8}, 27.69e9),
    ("prefix-tuning", {"num_virtual_tokens": 100, "prefix_projection": True}, 21.09e9),
]


@pytest.mark.parametrize(("name", "options", "macs"), T5_BASE, ids=[row[0] for row in T5_BASE])
def test_published_operations_of_t5_base_within_one_percent(name: str, options: dict[str, Any], macs: float) -> None:
    """True sizes on the meta device; T5 there takes no attention mask."""
    from adaptlab.methods._base import Setup
    from adaptlab.models.families import describe

    if name not in methods:
        pytest.skip(f"there is no method {name} yet")
    config = transformers.T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0)
    method = methods.get(name)
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(config)
        layout = describe(model, ())
        one = method.attach(model, layout, Setup(method.Config(**options)))
        source, target = torch.zeros(1, 109, dtype=torch.long), torch.zeros(1, 22, dtype=torch.long)
        flops = count(lambda: one.model(input_ids=source, labels=target).loss.backward())
    assert flops.total / 2 == pytest.approx(macs, rel=0.01)


# --- parts ----------------------------------------------------------------------------------------------------------


def test_fourier_transforms_and_solves_are_not_free() -> None:
    n = 64
    assert count(lambda: torch.fft.fft(torch.zeros(3, n, dtype=torch.complex64))).total == 3 * 5 * n * 6
    assert count(lambda: torch.fft.ifft2(torch.zeros(n, n, dtype=torch.complex64))).total == 5 * n * n * 12
    assert count(lambda: torch.fft.irfft(torch.fft.rfft(torch.zeros(3, n)))).total == 3 * 5 * n * 6
    eye = torch.eye(n)
    assert count(lambda: torch.linalg.solve(eye, eye)).total == pytest.approx(8 / 3 * n**3)
    assert count(lambda: torch.linalg.inv(eye)).total == 2 * n**3
    assert count(lambda: eye @ torch.ones(n)).total == 2 * n * n


def test_layers_count_the_same_in_inference_mode() -> None:
    layer, rows = torch.nn.Linear(8, 4), torch.ones(3, 8)
    with torch.inference_mode():
        alone = count(lambda: layer(rows) @ torch.ones(4, 2))
    assert (
        alone == count(lambda: (layer(rows) @ torch.ones(4, 2)).detach()) == Counted(2 * 3 * 8 * 4 + 2 * 3 * 4 * 2, 0)
    )


def test_attention_counts_the_same_with_and_without_a_fused_kernel() -> None:
    query = torch.zeros(1, 2, 16, 8, requires_grad=True)
    attend = torch.nn.functional.scaled_dot_product_attention
    flops = count(lambda: attend(query, query, query).sum().backward())
    assert flops == Counted(2 * 2 * 2 * 16 * 16 * 8, 4 * 2 * 2 * 16 * 16 * 8)


def test_what_is_no_polynomial_is_refused() -> None:
    with pytest.raises(NotPolynomialError, match="no polynomial of the length"):
        fit(lambda rows, length: Counted(rows * math.log(length) * 1e6, 0.0))


def test_padding_passes_and_the_optimizer_are_added_up() -> None:
    flops = TrainingFlops(PassFlops(0, (0, 0, 0)), PassFlops(1000, (7, 5, 3)), per_step=11, micro_batch_size=2)
    lengths = np.array([2, 4, 4])
    executed, useful = flops.of_step(lengths, 4)
    assert executed == 2 * 1000 + 3 * (7 + 5 * 4 + 3 * 16) + 11
    assert useful == 2 * 1000 + 3 * 7 + 5 * 10 + 3 * (4 + 16 + 16) + 11
    assert optimizer_flops("sgd", 10, clips=True) == 50


# --- a run ----------------------------------------------------------------------------------------------------------


def test_a_runs_operations_are_those_of_its_batches(tiny_model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    study = api.study_of(
        model=str(tiny_model_folder("bert")), task="stdlib-docs", methods=["full"], seeds=1, batch_size=8, steps=5,
        train_examples=64, select_examples=16, eval_examples=16, max_length=40, eval_every=2, max_grad_norm=None,
        optimizer="sgd",
    )  # fmt: skip
    result = api.compare(study, out=tmp_path / "study")
    record = result.records[0]
    cost, (row,) = record.cost, read_studies([result.folder]).rows
    flops = [point.flops for point in row.curve.points]
    assert flops[0] == 0.0
    assert flops == sorted(flops)
    assert flops[-1] == cost.train_flops
    trained = record.parameters.trainable + record.parameters.head
    constant = 5 * 2 * trained
    # Linear in the tokens but for the scores, of which no batch has more than 40 tokens' worth.
    behind = 3 * (2 * HIDDEN**2 + 4 * HIDDEN * FEED_FORWARD)  # the last attention: of each row's first token alone
    linear = LAYERS * 3 * (8 * HIDDEN**2 + 4 * HIDDEN * FEED_FORWARD) - behind
    scores = LAYERS * 12 * HIDDEN
    for counted, tokens in ((cost.train_flops, cost.padded_tokens), (cost.useful_flops, cost.train_tokens)):
        body = counted - constant - 40 * (3 * (2 * HIDDEN**2 + 2 * HIDDEN * len(record.data.labels)) + behind)
        assert linear * tokens < body <= (linear + scores * 40) * tokens
    assert cost.useful_flops < cost.train_flops
