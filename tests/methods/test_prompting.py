"""Prefix tuning, prompt tuning, P-tuning: counts, what plain PEFT makes of them, padding, language models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError
from safetensors.torch import load_file

from adaptlab.errors import ConfigError
from adaptlab.methods import registry
from adaptlab.methods._base import Attached, Setup
from adaptlab.models.families import describe
from adaptlab.training.modes import Modes
from tests.contracts.method_checks import Bench, bench
from tests.methods.test_peft_native import OPT_125M, PLAIN_PEFT, T5_BASE, meta
from tests.tiny_models import FAMILIES

NAMES = ("prefix-tuning", "prompt-tuning", "p-tuning")
DECODERS = ("opt", "gpt2", "llama", "qwen2")


@pytest.fixture
def on(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Bench]:
    return lambda family: bench(tiny_model_folder(family))


def language_model(folder: Path, name: str, **options: Any) -> tuple[Any, Attached]:
    """A language model without a new head, and the method on a model of its own."""
    auto = transformers.AutoModelForSeq2SeqLM if folder.name == "t5" else transformers.AutoModelForCausalLM
    plain, model = (auto.from_pretrained(folder, dtype=torch.float32).eval() for _ in range(2))
    method, layout = registry.get(name), describe(model, frozenset())
    torch.manual_seed(0)
    attached = method.attach(model, layout, Setup(method.Config(num_virtual_tokens=5, **options)))
    attached.model.eval()
    return plain, attached


# --- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_class", "config", "options", "count"),
    [
        ("OPTForCausalLM", OPT_125M, {"num_virtual_tokens": 30}, 552_960),
        ("T5ForConditionalGeneration", T5_BASE, {"num_virtual_tokens": 100}, 1_843_200),
        ("T5ForConditionalGeneration", T5_BASE, {"num_virtual_tokens": 100, "prefix_projection": True}, 14_841_600),
    ],
)
def test_prefix_counts_equal_the_published_ones(model_class: str, config: Any, options: Any, count: int) -> None:
    method, layout = registry.get("prefix-tuning"), meta(model_class, config)
    assert method.trainable_count(layout, Setup(method.Config(**options))) == count


@pytest.mark.parametrize("family", ["electra", "llama", "t5"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("prefix-tuning", {"prefix_projection": True, "encoder_hidden_size": 7}),
        ("prefix-tuning", {"init_weights": "zero"}),
        ("prompt-tuning", {"prompt_tuning_init": "RANDOM"}),
        ("p-tuning", {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 6, "encoder_num_layers": 3}),
        ("p-tuning", {"encoder_hidden_size": 9}),
    ],
)
def test_the_closed_form_holds_under_other_options(
    name: str, options: dict[str, Any], family: str, on: Callable[[str], Bench], tmp_path: Path
) -> None:
    found, method = on(family), registry.get(name)
    attached = found.attach(method, num_virtual_tokens=3, **options)
    shapes = {n.split(".encoder.")[1]: tuple(p.shape) for n, p in attached.parameters.items()}
    assert shapes == method.shapes(found.base.layout, attached.setup.options)  # type: ignore[attr-defined]
    found.train(attached, 2, rate=1e-2)
    method.save(attached, tmp_path)
    other = found.attach(method, seed=1, num_virtual_tokens=3, **options)
    method.load(other, tmp_path)
    assert torch.equal(found.logits(other), found.logits(attached))
    found.train(other, 1, rate=1e-2)  # a loaded run can be trained on
    assert not torch.equal(found.logits(other), found.logits(attached))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("p-tuning", {"encoder_num_layers": 3}, "no effect on the MLP"),
        ("prefix-tuning", {"encoder_hidden_size": 8}, "no effect without prefix_projection"),
        ("prompt-tuning", {"num_virtual_tokens": 0}, "greater than or equal to 1"),
    ],
)
def test_options_without_effect_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        registry.get(name).Config(**options)


def test_what_they_do_not_take_is_refused(on: Callable[[str], Bench]) -> None:
    found, method = on("bert"), registry.get("prompt-tuning")
    with pytest.raises(ConfigError, match="takes no targets"):
        method.trainable_count(found.base.layout, Setup(method.Config(), targets="query"))
    with pytest.raises(ConfigError, match="no adapter to put on the head"):
        found.attach(method, head="adapted")


# --- plain PEFT ------------------------------------------------------------------------------------------------------


def test_plain_peft_loads_what_it_can_run_and_computes_the_same(
    on: Callable[[str], Bench], tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """One row at a time: on a decoder's head PEFT reads the last position, padding or not."""
    cases, expected = [], []
    for name in NAMES:
        for family in FAMILIES:
            found, method = on(family), registry.get(name)
            loads = {"t5": False, "distilbert": name != "prefix-tuning", "modernbert": name != "prefix-tuning"}
            if name == "prefix-tuning" and family in ("mpnet", "deberta-v2"):
                continue
            attached = found.attach(method, num_virtual_tokens=4)
            found.train(attached, 2, rate=1e-2)
            folder = tmp_path / f"{name}-{family}"
            method.save(attached, folder)
            assert ("peft_type" in json.loads((folder / "adapter_config.json").read_text())) == loads.get(family, True)
            if not loads.get(family, True):
                continue
            length = int(found.inputs["attention_mask"][0].sum())
            row = {key: rows[:1, :length] for key, rows in found.inputs.items()}
            batch = {key: rows.tolist() for key, rows in row.items()}
            pad = found.base.tokenizer.pad_token_id
            cases.append({"base": str(tiny_model_folder(family)), "adapter": str(folder), "batch": batch, "pad": pad})
            attached.model.eval()
            expected.append(attached.model(**row).logits.detach())
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    subprocess.run([sys.executable, "-W", "ignore", "-c", PLAIN_PEFT, str(tmp_path / "cases.json")], check=True)
    for case, logits in zip(cases, expected, strict=True):
        loaded = torch.load(case["adapter"] + "/logits.pt")
        torch.testing.assert_close(
            loaded, logits, rtol=0, atol=1e-5, msg=lambda m, case=case: f"{case['adapter']}: {m}"
        )


def test_the_adapter_file_is_peft_s_prompts_and_the_head(on: Callable[[str], Bench], tmp_path: Path) -> None:
    found, method = on("gpt2"), registry.get("p-tuning")
    method.save(found.attach(method), tmp_path)
    assert {n: tuple(t.shape) for n, t in load_file(tmp_path / "adapter_model.safetensors").items()} == {
        "prompt_embeddings": (20, 32),
        "base_model.score.weight": (3, 32),
    }


# --- our loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", ["bert", "modernbert", "gpt2"])
def test_micro_batches_and_dropout_change_no_loss(name: str, family: str, tiny_run: Callable[..., Any]) -> None:
    whole = tiny_run(name, family=family, dtype="float64", steps=3).go()
    parts = tiny_run(name, family=family, dtype="float64", steps=3, micro=3).go()
    assert parts.losses == pytest.approx(whole.losses, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", ["bert", "modernbert", "llama"])
def test_bfloat16_trains_prompts_in_float32(name: str, family: str, tiny_run: Callable[..., Any]) -> None:
    run = tiny_run(name, family=family, dtype="bfloat16", steps=4)
    before = {n: p.detach().clone() for n, p in run.member.attached.parameters.items()}
    assert all(p.dtype == torch.float32 for p in before.values())
    run.go()
    assert all(torch.isfinite(torch.tensor(run.losses)))
    assert all(not torch.equal(before[n], p) for n, p in run.member.attached.parameters.items())


def test_a_prefix_of_the_decoder_leaves_the_encoder_below_it_still(on: Callable[[str], Bench]) -> None:
    found = on("t5")
    attached = found.attach(registry.get("prefix-tuning"))
    Modes(attached.model, {name: rows[:1] for name, rows in found.inputs.items()}).train()
    training = {name for name, module in attached.model.named_modules() if module.training}
    assert not any(name.startswith("transformer.encoder.block") for name in training)
    assert any(name.startswith("transformer.decoder.block") for name in training)


# --- padding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "distilbert", "t5", *DECODERS])
def test_padding_changes_no_row(family: str, side: str, name: str, on: Callable[[str], Bench]) -> None:
    """Virtual tokens stand right before the text, and a decoder's head reads the last real token."""
    if side == "left" and family not in DECODERS:
        pytest.skip("these read what stands first, or number positions from there: the base itself answers otherwise")
    found = on(family)
    attached = found.attach(registry.get(name), num_virtual_tokens=4)
    attached.model.eval()
    tokenizer = found.base.tokenizer
    texts = ["short", "a text of a few more words than that"]
    tokenizer.padding_side = side
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    assert not inputs["attention_mask"].all()
    with torch.no_grad():
        together = attached.model(**inputs).logits
        alone = torch.cat([attached.model(**tokenizer([text], return_tensors="pt")).logits for text in texts])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_switched_off_prompt_leaves_the_base(name: str, on: Callable[[str], Bench]) -> None:
    for family in ("bert", "modernbert", "llama", "t5"):
        found = on(family)
        attached = found.attach(registry.get(name))
        plain = found.attach(registry.get("head"))
        with_it = found.logits(attached)
        attached.model.get_submodule("virtual_tokens").enabled = False  # type: ignore[assignment]
        torch.testing.assert_close(found.logits(attached), found.logits(plain), rtol=0, atol=1e-6)
        assert not torch.allclose(with_it, found.logits(plain), atol=1e-4)


# --- language models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", [*DECODERS, "t5"])
def test_language_models_score_and_generate_as_peft_does(
    family: str, name: str, tiny_model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    from peft import PeftModel

    plain, attached = language_model(tiny_model_folder(family), name)
    if not attached.method.peft_loads(attached.layout):  # type: ignore[attr-defined]
        assert (family, name) == ("t5", "prefix-tuning")
        return
    attached.method.save(attached, tmp_path)
    task = json.loads((tmp_path / "adapter_config.json").read_text())["task_type"]
    assert task == ("SEQ_2_SEQ_LM" if family == "t5" else "CAUSAL_LM")
    peft = PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    ids = torch.arange(10, 17)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = {"labels": torch.arange(20, 24)[None]} if family == "t5" else {"labels": ids}
    with torch.no_grad():
        ours, theirs = attached.model(**inputs, **labels), peft(**inputs, **labels)
    assert ours.logits.shape[1] == labels["labels"].shape[1]  # the virtual tokens' are left out
    torch.testing.assert_close(ours.logits, theirs.logits[:, -ours.logits.shape[1] :], rtol=0, atol=1e-5)
    how = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    generated = attached.model.generate(**inputs, **how)  # type: ignore[operator]
    assert torch.equal(generated, peft.generate(**inputs, **how))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", DECODERS)
def test_generation_is_the_same_beside_longer_rows_and_with_beams(
    family: str, name: str, tiny_model_folder: Callable[[str], Path]
) -> None:
    _, attached = language_model(tiny_model_folder(family), name)
    model: Any = attached.model
    short, long = list(range(10, 14)), list(range(30, 40))
    how = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    for beams in (1, 3):
        padding = len(long) - len(short)
        both = model.generate(
            input_ids=torch.tensor([[1] * padding + short, long]),
            attention_mask=torch.tensor([[0] * padding + [1] * len(short), [1] * len(long)]),
            num_beams=beams, **how,
        )  # fmt: skip
        for row, prompt in zip(both, (short, long), strict=True):
            ids = torch.tensor([prompt])
            alone = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=beams, **how)
            assert torch.equal(row[-6:], alone[0, -6:])


def test_every_number_of_an_encoder_decoder_s_gets_a_gradient(tiny_model_folder: Callable[[str], Path]) -> None:
    """With PEFT half of them have none: it draws a second set of prompts for the decoder and never uses it, and it
    hands block i the prefix of block 2i."""
    from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

    ids = torch.arange(10, 17)[None]
    for name, config in (("prompt-tuning", PromptTuningConfig), ("prefix-tuning", PrefixTuningConfig)):
        plain, attached = language_model(tiny_model_folder("t5"), name)
        theirs = get_peft_model(plain, config(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=5))
        for model in (attached.model, theirs):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
        (ours,) = attached.parameters.values()
        assert ours.grad is not None
        assert ours.grad.bool().all()
        (prompts,) = (p for p in theirs.parameters() if p.requires_grad)
        assert prompts.grad.bool().float().mean() == 0.5


@pytest.mark.parametrize("family", [*DECODERS, "t5"])
def test_generation_is_the_same_with_and_without_a_cache(family: str, tiny_model_folder: Callable[[str], Path]) -> None:
    how = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    ids = torch.arange(10, 17)[None]
    for name in NAMES:
        _, attached = language_model(tiny_model_folder(family), name)
        model: Any = attached.model
        both = [model.generate(input_ids=ids, use_cache=cache, **how) for cache in (True, False)]
        assert torch.equal(*both)
