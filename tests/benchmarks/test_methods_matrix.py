"""The matrix of what methods can do: every method has a row, the page is the data's, and a probe finds the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptlab.config import ModelConfig, RunConfig, TaskConfig
from adaptlab.errors import ConfigError
from adaptlab.methods import registry
from adaptlab.methods._capabilities import BITS, KINDS, QUESTIONS, capabilities, quantised_refusal
from adaptlab.models.load import skeleton
from adaptlab.resolve import check_method
from benchmarks import methods_matrix as matrix
from tests.contracts.test_methods import REFUSED
from tests.source_tree import REPOSITORY

pytest.importorskip("bitsandbytes")

#: Tried always: one that can do all, one that reads codes as weights, one that PEFT merges wrongly, one without places.
SAMPLE = (("lora", "encoder"), ("hra", "encoder"), ("randlora", "decoder"), ("bitfit", "encoder-decoder"))


@pytest.fixture(scope="module")
def benches_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], matrix.Benches]:
    built: dict[str, matrix.Benches] = {}

    def build(kind: str) -> matrix.Benches:
        if kind not in built:
            built[kind] = matrix.benches_of(kind, tmp_path_factory.mktemp(kind))
        return built[kind]

    return build


def test_every_method_has_a_row() -> None:
    lacking = sorted(set(registry.names()) - set(capabilities().methods))
    assert not lacking, f"try them: python -m benchmarks.methods_matrix --methods {','.join(lacking)}"
    for name in registry.names():
        row = capabilities().methods[name]
        assert {kind: set(answers) for kind, answers in row.items()} == {kind: set(QUESTIONS) for kind in KINDS}


def test_the_page_is_what_the_data_say() -> None:
    assert matrix.PAGE.read_text(encoding="utf-8") == matrix.page(capabilities())


def test_it_was_made_with_the_tested_versions() -> None:
    tested = dict(re.findall(r"^([\w-]+)==([\w.]+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE))
    made = {name: number for name, number in capabilities().versions.items() if name in tested}
    assert set(made) >= {"torch", "transformers", "peft", "bitsandbytes"}
    assert made == {name: tested[name] for name in made}


def test_architectures_that_the_contract_sees_refused_are_told() -> None:
    refused = capabilities().refused
    told = {(name, family) for name, families in refused.items() for family in families}
    assert {(name, family) for name, family in told if not registry.get(name).generic} == set(REFUSED)


def _yes_and_no(answers: dict[str, str]) -> dict[str, bool]:
    return {question: not why for question, why in answers.items()}


@pytest.mark.parametrize(("name", "kind"), SAMPLE)
def test_a_probe_finds_what_is_told(name: str, kind: str, benches_of: Callable[[str], matrix.Benches]) -> None:
    found = matrix.probe(registry.get(name), benches_of(kind))
    assert _yes_and_no(found) == _yes_and_no(dict(capabilities().methods[name][kind]))  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", registry.names())
def test_every_answer_is_found_again(name: str, kind: str, benches_of: Callable[[str], matrix.Benches]) -> None:
    test_a_probe_finds_what_is_told(name, kind, benches_of)


@pytest.mark.parametrize(
    ("method", "how", "said"),
    [
        ("loha", "4bit", "The method loha does not work on an encoder in 4bit (PEFT fails: "),
        ("c3a", "8bit", "The method c3a does not work on an encoder in 8bit (PEFT fails: "),
        ("hra", "8bit", "(it reads the codes as if they were the weights"),
        ("top-layers", "8bit", "The method top-layers trains weights of the base itself"),
        ("lora", "4bit", None),
        ("ia3", "4bit", None),
        ("bitfit", "8bit", None),
    ],
)
def test_what_does_not_work_is_said_before_a_weight_is_loaded(
    method: str, how: str, said: str | None, blocks_of_64: Callable[[str], Path]
) -> None:
    model = ModelConfig(id=str(blocks_of_64("bert")), quantize=how)  # type: ignore[arg-type]
    run = RunConfig(model=model, task=TaskConfig(name="sst2"), method={"name": method})  # type: ignore[arg-type]
    empty, layout = skeleton(model, num_labels=2)
    if said is None:
        check_method(empty, layout, run, "cpu")
        return
    with pytest.raises(ConfigError) as caught:
        check_method(empty, layout, run, "cpu")
    assert said in str(caught.value)
    assert "leave quantize out, or choose" in str(caught.value)


def test_an_unquantised_base_refuses_nothing() -> None:
    assert all(quantised_refusal(name, kind, "none") is None for name in registry.names() for kind in KINDS)


def test_a_method_that_nobody_tried_is_not_refused() -> None:
    assert all(quantised_refusal("yours", kind, how) is None for kind in KINDS for how in BITS)
