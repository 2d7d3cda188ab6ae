"""Every readout keeps its contract with every method, on tiny models of every family that writes and on small trained
ones. A new readout, method or family is tested by being there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from adaptlab.config import Readout as Name
from adaptlab.errors import ConfigError, ModelError
from adaptlab.methods import registry
from adaptlab.methods._base import Attached, Method
from adaptlab.resolve import ANSWERS
from adaptlab.tasks._base import Kind
from tests.contracts.method_checks import differing, snapshot
from tests.contracts.readout_checks import Asker, asker, examples
from tests.contracts.test_methods import REFUSED
from tests.tiny_models import FAMILIES

READOUTS: tuple[Name, ...] = get_args(Name)
WRITERS = ("gpt2", "llama", "opt", "qwen2", "t5")
TRAINED = ("opt-mini", "stories260k", "t5-mini")
METHODS = [method for method in registry.all() if not method.unusable and not method.generic]
#: One method of every placement; the others are asked by `make test-slow`.
FEW = ("none", "full", "lora", "prefix-tuning")

#: The families of the trained models, for what a method refuses.
_FAMILY = {"opt-mini": "opt", "stories260k": "llama", "t5-mini": "t5"}


def fits(readout: str, method: Method, model: str) -> bool:
    """Whether the method can be had on this model with this readout; what cannot is refused, which is tested too."""
    if (method.name, _FAMILY.get(model, model)) in REFUSED:
        return False
    return method.trains if readout == "head" else method.name != "head"


def products(models: tuple[str, ...], names: tuple[str, ...] | None = None) -> list[tuple[str, str, str]]:
    chosen = [method for method in METHODS if names is None or method.name in names]
    return [
        (r, method.name, model) for model in models for r in READOUTS for method in chosen if fits(r, method, model)
    ]


SMALL = products(WRITERS, FEW)


@pytest.fixture(scope="module")
def asker_of(tiny_model_folder: Callable[[str], Path], request: pytest.FixtureRequest) -> Callable[[str, str], Asker]:
    built: dict[tuple[str, str], Asker] = {}

    def build(model: str, readout: Name) -> Asker:
        if (model, readout) not in built:
            trained = model in TRAINED
            folder = request.getfixturevalue("small_models") / model if trained else tiny_model_folder(model)
            built[model, readout] = asker(folder, readout)
        return built[model, readout]

    return build


def check_contract(asked: Asker, method: Method, folder: Path) -> None:
    """Padding changes nothing; training lowers the loss and moves what is trained; answers are each row's own, know no
    gold, and come back from the disk."""
    attached = asked.attach(method)
    rows, everyone = asked.rows(attached), range(len(examples()))
    attached.model.eval()
    with torch.no_grad():
        together = asked.losses(attached, rows, everyone, more=3)
        alone = [float(asked.losses(attached, rows, [i])) for i in everyone]
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
    if method.trains:
        check_training(asked, method)
        asked.train(attached, 2, rate=method.learning_rates.default)
    check_answers(asked, attached, method, folder)


def check_training(asked: Asker, method: Method) -> None:
    rates = method.learning_rates
    for rate in (rates.default, rates.high, (rates.low * rates.default) ** 0.5):
        attached = asked.attach(method)
        frozen = [(n, p) for n, p in attached.model.named_parameters() if not p.requires_grad]
        kept, before = snapshot(frozen), asked.loss(attached)
        asked.train(attached, 8, rate=rate)
        assert differing(kept, frozen) == []
        if asked.loss(attached) < before:
            return
    pytest.fail(f"no rate of {method.name} lowers the loss from {before}")


def check_answers(asked: Asker, attached: Attached, method: Method, folder: Path) -> None:
    plain = asked.answer(attached, examples())
    answers = plain.answers
    assert len(answers.predicted) == len(examples())
    assert set(answers.predicted) <= {-1, 0, 1, 2}
    assert answers.gold.tolist() == [row.label for row in examples()]
    backwards = asked.answer(attached, examples()[::-1])
    assert backwards.answers.predicted.tolist() == answers.predicted.tolist()[::-1]
    lies = [replace(row, label=(int(row.label) + 1) % 3) for row in examples()]
    assert asked.answer(attached, lies).answers.predicted.tolist() == answers.predicted.tolist()
    if not method.trains:
        return
    method.save(attached, folder)
    other = asked.attach(method, seed=1)
    method.load(other, folder)
    again = asked.answer(other, examples()).answers
    assert again.predicted.tolist() == answers.predicted.tolist()
    if answers.probabilities is not None:
        np.testing.assert_array_equal(again.probabilities, answers.probabilities)


@pytest.mark.parametrize(("readout", "method", "model"), SMALL)
def test_every_readout_with_a_method_of_every_placement(
    readout: Name, method: str, model: str, asker_of: Callable[[str, str], Asker], tmp_path: Path
) -> None:
    check_contract(asker_of(model, readout), registry.get(method), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("readout", "method", "model"), [one for one in products(WRITERS) if one not in SMALL])
def test_every_readout_with_every_method(
    readout: Name, method: str, model: str, asker_of: Callable[[str, str], Asker], tmp_path: Path
) -> None:
    check_contract(asker_of(model, readout), registry.get(method), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("readout", "method", "model"), products(TRAINED))
def test_every_readout_with_every_method_on_small_trained_models(
    readout: Name, method: str, model: str, asker_of: Callable[[str, str], Asker], tmp_path: Path
) -> None:
    check_contract(asker_of(model, readout), registry.get(method), tmp_path)


@pytest.mark.parametrize("model", ["gpt2", "t5"])
@pytest.mark.parametrize(("readout", "kind"), [(readout, kind) for readout in READOUTS for kind in ANSWERS[readout]])
def test_every_kind_of_task_that_a_readout_answers(
    readout: Name, kind: Kind, model: str, tiny_model_folder: Callable[[str], Path]
) -> None:
    asked = asker(tiny_model_folder(model), readout, kind)
    attached = asked.attach(registry.get("lora"))
    before = asked.loss(attached)
    asked.train(attached, 8, rate=1e-2)
    assert asked.loss(attached) < before
    answers = asked.answer(attached, examples(kind)).answers
    assert answers.gold.tolist() == [row.label for row in examples(kind)]
    assert len(answers.predicted) == len(examples(kind))


@pytest.mark.parametrize("model", [family for family in FAMILIES if family not in WRITERS])
@pytest.mark.parametrize("readout", [readout for readout in READOUTS if readout != "head"])
def test_what_writes_no_text_is_refused(readout: Name, model: str, tiny_model_folder: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="writes no text"):
        asker(tiny_model_folder(model), readout)


@pytest.mark.parametrize("readout", READOUTS)
def test_what_does_not_fit_a_readout_is_refused(readout: Name, asker_of: Callable[[str, str], Asker]) -> None:
    for method in METHODS:
        if not fits(readout, method, "gpt2"):
            with pytest.raises(ConfigError):
                asker_of("gpt2", readout).attach(method)
