"""Methods that train a choice of the base's own parameters: which ones, in which family, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError

from adaptlab.config import HeadMode
from adaptlab.errors import ConfigError, ModelError
from adaptlab.methods import registry
from adaptlab.methods._base import Setup
from adaptlab.models._base import Layout
from tests.contracts.method_checks import Bench, bench


@pytest.fixture
def on(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Bench]:
    return lambda family: bench(tiny_model_folder(family))


def chosen(name: str, layout: Layout, head: HeadMode = "trained", **options: Any) -> tuple[str, ...]:
    method: Any = registry.get(name)
    return method.chosen(layout, Setup(method.Config(**options), head=head))


def test_full_trains_everything_and_writes_a_plain_model_folder(on: Callable[[str], Bench], tmp_path: Path) -> None:
    found, method = on("bert"), registry.get("full")
    attached = found.attach(method)
    assert set(attached.trained) == {name for name, _ in attached.model.named_parameters()}
    found.train(attached, 2)
    method.save(attached, tmp_path)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(plain(**found.inputs).logits, found.logits(attached))


def test_top_layers_are_the_last_blocks(on: Callable[[str], Bench]) -> None:
    layout = on("bert").base.layout
    names = chosen("top-layers", layout, n=1)
    assert names == tuple(name for name in layout.parameters if name.startswith("bert.encoder.layer.1."))
    assert len(chosen("top-layers", layout, n=2)) == 2 * len(names)
    assert all(name.startswith("transformer.decoder.block.1.") for name in chosen("top-layers", on("t5").base.layout))


def test_more_top_layers_than_there_are_is_refused(on: Callable[[str], Bench]) -> None:
    with pytest.raises(ConfigError, match="n=3, but this bert model has 2 blocks: choose n from 1 to 2"):
        chosen("top-layers", on("bert").base.layout, n=3)


def test_bitfit_trains_every_bias_but_a_pretrained_pooler_s(on: Callable[[str], Bench]) -> None:
    layout = on("bert").base.layout
    biases = {name for name in layout.parameters if name.endswith(".bias")}
    assert biases - set(chosen("bitfit", layout)) == {"bert.pooler.dense.bias", "classifier.bias"}
    config = transformers.DebertaConfig(num_hidden_layers=1, relative_attention=True)
    with torch.device("meta"):
        model = transformers.DebertaForSequenceClassification(config)
    from adaptlab.models.families import describe

    assert {"deberta.encoder.layer.0.attention.self.q_bias", "deberta.encoder.layer.0.attention.self.v_bias"} <= set(
        chosen("bitfit", describe(model, frozenset()))
    )


def test_partial_takes_patterns_and_lists_what_there_is(on: Callable[[str], Bench]) -> None:
    layout = on("bert").base.layout
    names = chosen("partial", layout, parameters=[r"layer\.0\..*query", "LayerNorm.weight$"])
    assert "bert.encoder.layer.0.attention.self.query.bias" in names
    assert "bert.embeddings.LayerNorm.weight" in names
    assert not any("classifier" in name for name in chosen("partial", layout, parameters="."))
    with pytest.raises(ConfigError, match=r"'quarry' matches no parameter.*layer\.N\.attention\.self\.query\.weight"):
        chosen("partial", layout, parameters="quarry")
    with pytest.raises(ValidationError, match="not a regular expression"):
        registry.get("partial").Config(parameters="(")
    with pytest.raises(ValidationError, match="parameters"):
        registry.get("partial").Config()


@pytest.mark.parametrize("name", ["full", "bitfit", "top-layers"])
def test_there_is_no_adapter_to_put_on_the_head(name: str, on: Callable[[str], Bench]) -> None:
    with pytest.raises(ConfigError, match="no adapter to put on the head"):
        on("bert").attach(registry.get(name), head="adapted")


def test_a_frozen_head_does_not_move(on: Callable[[str], Bench]) -> None:
    found = on("roberta")
    attached = found.attach(registry.get("full"), head="frozen")
    before = {name: attached.model.get_parameter(name).clone() for name in found.base.layout.head}
    found.train(attached, 2)
    assert all(torch.equal(attached.model.get_parameter(name), value) for name, value in before.items())


def test_the_folder_says_which_method_made_it(on: Callable[[str], Bench], tmp_path: Path) -> None:
    method = registry.get("top-layers")
    method.save(on("bert").attach(method, n=2), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text()) == {
        "adaptlab_method": "top-layers",
        "base_model_name_or_path": "bert",
        "head": "trained",
        "options": {"n": 2},
    }


def test_weights_of_another_choice_are_refused(on: Callable[[str], Bench], tmp_path: Path) -> None:
    found, method = on("bert"), registry.get("top-layers")
    method.save(found.attach(method, n=1), tmp_path)
    with pytest.raises(ModelError, match=r"layer\.0.* is missing"):
        method.load(found.attach(method, n=2), tmp_path)
