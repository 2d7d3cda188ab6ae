"""Loading: float32, frozen, the head told apart, nothing random that no seed reaches; and copies for runs."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from adaptlab.config import ModelConfig
from adaptlab.errors import ModelError
from adaptlab.models.load import Base, fresh_model, initialise_head, load_base, skeleton
from tests.tiny_models import FAMILIES, POSITIONS

every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def load(tiny_model_folder: Callable[[str], Path]) -> Callable[..., Base]:
    def build(family: str | Path, *, num_labels: int = 3, regression: bool = False, **config: Any) -> Base:
        folder = tiny_model_folder(family) if isinstance(family, str) else family
        model = ModelConfig(id=str(folder), **config)
        return load_base(model, num_labels=num_labels, regression=regression, device="cpu")

    return build


@pytest.fixture
def copied(tiny_model_folder: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda family: Path(shutil.copytree(tiny_model_folder(family), tmp_path / family))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


@every_family
def test_a_base_is_frozen_float32_and_in_eval_mode(family: str, load: Callable[..., Base]) -> None:
    base = load(family)
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())
    assert {p.dtype for p in base.model.parameters()} == {torch.float32}
    assert base.load_seconds > 0
    inputs = base.tokenizer(["a text", "another, longer text"], padding=True, return_tensors="pt")
    assert base.model(**inputs).logits.shape == (2, 3)


def test_weights_stored_in_16_bits_come_out_as_float32(
    copied: Callable[[str], Path], load: Callable[..., Base]
) -> None:
    folder = copied("bert")
    rewrite(folder, lambda state: {name: tensor.to(torch.bfloat16) for name, tensor in state.items()})
    base = load(folder)
    assert {p.dtype for p in base.model.parameters()} == {torch.float32}


def attention_dropout_rates(model: nn.Module, inputs: Any, monkeypatch: pytest.MonkeyPatch) -> set[float]:
    """Rates at which a training forward drops attention probabilities: in kernels, or as (batch, head, query, key)."""
    asked: set[float] = set()
    kernel, dropout = nn.functional.scaled_dot_product_attention, nn.functional.dropout

    def listening_kernel(*args: Any, dropout_p: float = 0.0, **kwargs: Any) -> torch.Tensor:
        asked.add(dropout_p)
        return kernel(*args, dropout_p=dropout_p, **kwargs)

    def listening_dropout(
        x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        if x.ndim == 4 and training:
            asked.add(p)
        return dropout(x, p, training, inplace)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", listening_kernel)
    monkeypatch.setattr(nn.functional, "dropout", listening_dropout)
    model.train()(**inputs)
    return asked - {0.0}


@every_family
def test_attention_draws_no_dropout_of_its_own(
    family: str,
    load: Callable[..., Base],
    tiny_model_folder: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = load(family)
    inputs = base.tokenizer(["a text", "another, longer text"], padding=True, return_tensors="pt")
    assert attention_dropout_rates(base.model, inputs, monkeypatch) == set()
    assert base.attention_dropout == "off"
    if family not in ("modernbert", "llama", "qwen2", "opt"):  # published with a rate above 0
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_model_folder(family))
        plain.config.pad_token_id = base.tokenizer.pad_token_id
        assert attention_dropout_rates(plain, inputs, monkeypatch) == {0.1}


def test_other_dropouts_stay(load: Callable[..., Base]) -> None:
    for family, module in (("bert", "bert.encoder.layer.0.output.dropout"), ("t5", "transformer.encoder.dropout")):
        assert load(family).model.get_submodule(module).p == pytest.approx(0.1)


@every_family
def test_max_length_is_the_model_s_positions(family: str, load: Callable[..., Base]) -> None:
    base = load(family)
    if family == "t5":
        assert base.max_length is None
        return
    assert base.max_length == POSITIONS
    if family in ("deberta-v2", "modernbert", "llama", "qwen2"):
        return  # relative positions: more of them would not fail
    fits = torch.full((1, POSITIONS), 7)
    base.model(input_ids=fits, attention_mask=torch.ones_like(fits))
    longer = torch.full((1, POSITIONS + 1), 7)
    with pytest.raises((IndexError, RuntimeError)):
        base.model(input_ids=longer, attention_mask=torch.ones_like(longer))


class TestHead:
    def test_a_checkpoint_without_a_pooler_makes_the_pooler_head(
        self, copied: Callable[[str], Path], load: Callable[..., Base]
    ) -> None:
        assert load("bert").layout.head == ("classifier.weight", "classifier.bias")
        folder = copied("bert")
        rewrite(folder, lambda state: {name: t for name, t in state.items() if "pooler" not in name})
        base = load(folder)
        assert base.layout.head_modules == ("bert.pooler", "classifier")
        assert base.layout.head_count() == 32 * 32 + 32 + 3 * 32 + 3

    def test_the_pooler_outside_deberta_s_encoder_is_head_too(self, load: Callable[..., Base]) -> None:
        assert load("deberta-v2").layout.head_modules == ("pooler", "classifier")

    def test_a_pretrained_prediction_head_is_not(self, load: Callable[..., Base]) -> None:
        base = load("modernbert")
        assert "head.dense.weight" in base.layout.parameters
        assert base.layout.head_modules == ("classifier",)

    def test_a_head_in_the_checkpoint_is_drawn_anew_whatever_its_size(
        self, load: Callable[..., Base], tmp_path: Path
    ) -> None:
        first = load("bert", num_labels=3)
        first.model.save_pretrained(tmp_path)
        first.tokenizer.save_pretrained(tmp_path)
        again = load(tmp_path, num_labels=3)
        assert again.layout.head_modules == ("classifier",)
        assert any("brings a trained classification head" in warning for warning in again.warnings)
        other = load(tmp_path, num_labels=2)
        assert other.model.get_parameter("classifier.weight").shape == (2, 32)
        model = fresh_model(again, share=True)
        torch.manual_seed(99)
        initialise_head(model, again.layout)
        assert not torch.equal(model.get_parameter("classifier.weight"), first.model.get_parameter("classifier.weight"))

    @every_family
    def test_it_is_drawn_from_the_seed_as_the_architecture_does(self, family: str, load: Callable[..., Base]) -> None:
        base = load(family)
        drawn = []
        for seed in (0, 0, 1):
            model = fresh_model(base, share=True)
            torch.manual_seed(seed)
            initialise_head(model, base.layout)
            drawn.append({name: model.get_parameter(name).clone() for name in base.layout.head})
        weights = [name for name in base.layout.head if name.endswith("weight")]
        assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in base.layout.head)
        assert not any(torch.equal(drawn[0][name], drawn[2][name]) for name in weights)
        assert not any(drawn[0][name].any() for name in base.layout.head if name.endswith("bias"))
        if family != "t5":  # which takes its deviation from the width
            deviation = torch.cat([drawn[0][name].flatten() for name in weights]).std()
            assert deviation == pytest.approx(base.model.config.initializer_range, rel=0.25)

    def test_only_the_missing_half_of_a_module_is_drawn(
        self, copied: Callable[[str], Path], load: Callable[..., Base]
    ) -> None:
        folder, lost = copied("bert"), "bert.encoder.layer.1.output.LayerNorm.bias"
        rewrite(folder, lambda state: {n: t + 0.5 if "LayerNorm" in n else t for n, t in state.items() if n != lost})
        base = load(folder)
        assert lost in base.layout.head
        assert any("lacks 1 parameters inside the blocks" in warning for warning in base.warnings)
        model = fresh_model(base, share=True)
        initialise_head(model, base.layout)
        kept = model.get_parameter(lost.replace("bias", "weight"))
        torch.testing.assert_close(kept, torch.full_like(kept, 1.5))

    def test_regression_has_one_output_and_is_told_so(self, load: Callable[..., Base]) -> None:
        base = load("bert", num_labels=1, regression=True)
        assert base.model.config.problem_type == "regression"
        assert base.model.get_parameter("classifier.weight").shape == (1, 32)


class TestFreshModel:
    def test_sharing_copies_the_head_and_no_other_tensor(self, load: Callable[..., Base]) -> None:
        base = load("t5")  # with tied embeddings
        model = fresh_model(base, share=True)
        head = set(base.layout.head)
        for name, parameter in model.named_parameters(remove_duplicate=False):
            original = base.model.get_parameter(name)
            assert (parameter is original) == (name not in head), name
        buffers = dict(base.model.named_buffers())
        assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
        modules = {id(module) for module in base.model.modules()}
        assert not any(id(module) in modules for module in model.modules())
        assert model.config is not base.model.config

    def test_not_sharing_copies_every_tensor_and_keeps_ties(self, load: Callable[..., Base]) -> None:
        base = load("t5")
        model = fresh_model(base, share=False)
        originals = {p.data_ptr() for p in base.model.parameters()}
        assert not any(p.data_ptr() in originals for p in model.parameters())
        shared, used = "transformer.shared.weight", "transformer.encoder.embed_tokens.weight"
        assert model.get_parameter(shared) is model.get_parameter(used)


def numbers_of_modules(model: nn.Module) -> dict[str, float]:
    """Plain numbers that modules hold, such as rates of dropout, by their path."""
    return {
        f"{path}.{name}": value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, float)
    }


@every_family
def test_the_skeleton_draws_the_dropout_that_the_loaded_model_draws(
    family: str, load: Callable[..., Base], copied: Callable[[str], Path]
) -> None:
    """Without its attention's, kernels keep less in memory."""
    model, _ = skeleton(ModelConfig(id=str(copied(family))), num_labels=3)
    assert numbers_of_modules(model) == numbers_of_modules(load(family, num_labels=3).model)


@every_family
def test_the_skeleton_has_the_loaded_model_s_layout(
    family: str, load: Callable[..., Base], copied: Callable[[str], Path]
) -> None:
    """From a safetensors header, and from config.json alone."""
    layout = load(family).layout
    folder = copied(family)
    for _ in range(2):
        model, found = skeleton(ModelConfig(id=str(folder)), num_labels=3)
        assert found == layout
        assert {p.device.type for p in model.parameters()} == {"meta"}
        (folder / "model.safetensors").unlink(missing_ok=True)


def test_the_skeleton_of_minilm_needs_no_weights() -> None:
    _, layout = skeleton(ModelConfig(id="minilm"), num_labels=2)
    assert sum(layout.count(name) for name in layout.parameters) == 22_713_216 + 2 * 384 + 2
    assert layout.head_modules == ("classifier",)


class TestPadding:
    def test_decoders_without_a_padding_token_get_one_and_say_so(self, load: Callable[..., Base]) -> None:
        base = load("gpt2")
        assert base.warnings == ["The tokenizer has no padding token: '<|endoftext|>' is used."]
        assert base.model.config.pad_token_id == base.tokenizer.pad_token_id == 0
        assert load("bert").warnings == []

    @pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "qwen2"])
    def test_padding_does_not_change_a_decoder_s_answer(self, family: str, load: Callable[..., Base]) -> None:
        base = load(family)
        texts = ["short", "a text that is a good deal longer than the other one"]
        together = base.model(**base.tokenizer(texts, padding=True, return_tensors="pt")).logits[0]
        alone = base.model(**base.tokenizer(texts[:1], return_tensors="pt")).logits[0]
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


class TestErrors:
    def test_weights_that_do_not_belong_to_the_config(
        self, copied: Callable[[str], Path], load: Callable[..., Base]
    ) -> None:
        folder = copied("bert")
        rewrite(folder, lambda state: {f"other.{name}": tensor for name, tensor in state.items()})
        with pytest.raises(ModelError, match=r"none of the bert blocks.*do not belong together"):
            load(folder)

    def test_damaged_weights(self, copied: Callable[[str], Path], load: Callable[..., Base]) -> None:
        folder = copied("bert")
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
        with pytest.raises(ModelError, match=r"cannot be loaded.*fetch or save the model again"):
            load(folder)

    def test_a_type_that_transformers_does_not_know(
        self, copied: Callable[[str], Path], load: Callable[..., Base]
    ) -> None:
        folder = copied("bert")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert-2077"}))
        with pytest.raises(ModelError, match=r"does not know.*newer transformers"):
            load(folder)

    def test_a_model_that_cannot_classify(self, load: Callable[..., Base], tmp_path: Path) -> None:
        transformers.ViTConfig(num_hidden_layers=1).save_pretrained(tmp_path)
        save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match="tokenizer"):
            load(tmp_path)
        with pytest.raises(ModelError, match="is a vit, for which transformers has no sequence classification"):
            skeleton(ModelConfig(id=str(tmp_path)), num_labels=2)

    def test_no_tokenizer(self, copied: Callable[[str], Path], load: Callable[..., Base]) -> None:
        folder = copied("bert")
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            (folder / name).unlink(missing_ok=True)
        with pytest.raises(ModelError, match=r"tokenizer of the model.*needs tokenizer\.json"):
            load(folder)

    def test_a_tokenizer_without_any_token_to_pad_with(
        self, copied: Callable[[str], Path], load: Callable[..., Base]
    ) -> None:
        folder = copied("gpt2")
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        for role in ("eos_token", "unk_token", "pad_token"):
            settings.pop(role, None)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        (folder / "special_tokens_map.json").unlink(missing_ok=True)
        with pytest.raises(ModelError, match="no padding token and none that could stand in"):
            load(folder)

    def test_pickled_weights_load_only_when_allowed_and_only_as_plain_tensors(
        self, copied: Callable[[str], Path], load: Callable[..., Base], tmp_path: Path
    ) -> None:
        folder = copied("bert")
        expected = load(folder).model.get_parameter("bert.pooler.dense.weight").clone()
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="--allow-pickle"):
            load(folder)
        loaded = load(folder, allow_pickle=True).model.get_parameter("bert.pooler.dense.weight")
        assert torch.equal(loaded, expected)
        torch.save({"weight": _Evil(tmp_path / "harm")}, folder / "pytorch_model.bin")
        with pytest.raises(ModelError, match="cannot be loaded"):
            load(folder, allow_pickle=True)
        assert not (tmp_path / "harm").exists()


class _Evil:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_loading_is_silent_and_leaves_the_generator_and_the_settings_alone(
    load: Callable[..., Base], capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging as transformers_logging

    before = torch.get_rng_state(), transformers_logging.get_verbosity()
    load("bert")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert transformers_logging.get_verbosity() == before[1]
    assert logging.getLogger("transformers").handlers
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_the_model_carries_no_path(load: Callable[..., Base], tiny_model_folder: Callable[[str], Path]) -> None:
    model: Any = load("bert").model
    assert model.name_or_path == "bert"
    assert str(tiny_model_folder("bert").parent) not in json.dumps(model.config.to_dict())
    assert model.config._name_or_path == "bert"
