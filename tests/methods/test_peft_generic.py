"""PEFT's methods without a row: reachable by name, options read off PEFT's source, and the table of what was probed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from adaptlab.errors import ConfigError
from adaptlab.methods import _peft_source, peft_native, prompting, registry
from adaptlab.methods._base import Setup
from adaptlab.methods.peft_generic import PROBED, GenericPeft, plugins
from tests.contracts.method_checks import Bench
from tests.methods.peft_probe import biased, probe

GENERIC = [method for method in plugins if isinstance(method, GenericPeft)]


@pytest.fixture(scope="module")
def on(tiny_model_folder: Callable[[str], Path]) -> Callable[[str], Bench]:
    built: dict[str, Bench] = {}

    def build(family: str) -> Bench:
        if family not in built:
            built[family] = biased(tiny_model_folder(family))
        return built[family]

    return build


def test_every_type_that_peft_knows_has_a_name() -> None:
    rows = {row.peft_type for row in peft_native.ROWS} | {"ADALORA"} | {m.peft_type for m in prompting.plugins}
    assert rows | {method.peft_type for method in GENERIC} == {kind.value for kind in peft.PeftType}
    assert not rows & {method.peft_type for method in GENERIC}
    assert {method.name for method in GENERIC} <= set(registry.names())


@pytest.mark.parametrize("method", GENERIC, ids=lambda method: method.name)
def test_options_are_the_fields_of_peft_s_configuration(method: GenericPeft) -> None:
    fields = {f.name: f for f in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(method.peft_type)])}
    ours = method.Config.model_fields
    assert set(fields) - set(ours) == set(fields) & _peft_source._SETTLED
    assert set(ours) <= set(fields)
    for name, field in ours.items():
        if field.default is not None:
            assert field.default == fields[name].default


def test_the_table_says_what_a_probe_says_today(
    on: Callable[[str], Bench], tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for method in GENERIC:
        monkeypatch.setattr(method, "unusable", "")
        found[method.peft_type] = probe(method, on, tmp_path / method.name)
    table = {"peft": peft.__version__, "types": {name: said for name, said in sorted(found.items()) if said}}
    if request.config.getoption("--write-golden"):
        PROBED.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    written = json.loads(PROBED.read_text(encoding="utf-8"))
    if written["peft"] != peft.__version__:
        pytest.skip(f"the table is of peft {written['peft']}")
    assert table == written


def test_most_of_them_train() -> None:
    usable = {method.name for method in GENERIC if not method.unusable}
    assert {"hira", "waveft", "osf", "delora", "gralora", "unilora", "tinylora", "psoft"} <= usable
    assert "task_ids" in registry.get("poly").unusable


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
@pytest.mark.parametrize("method", [m for m in GENERIC if not m.unusable], ids=lambda method: method.name)
def test_counts_are_peft_s_own(method: GenericPeft, family: str, on: Callable[[str], Bench]) -> None:
    found = on(family)
    attached = found.attach(method)
    count = method.trainable_count(found.base.layout, found.setup(method))
    assert count == sum(p.numel() for p in attached.parameters.values())


def test_what_cannot_be_trained_says_why_before_anything_is_loaded(on: Callable[[str], Bench]) -> None:
    layout, method = on("bert").base.layout, registry.get("poly")
    with pytest.raises(ConfigError, match=r"poly cannot be trained here.*task_ids"):
        method.trainable_count(layout, Setup(method.Config()))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("waveft", {"n_frequency": 100_000}, "n_frequency.*change them"),
        ("psoft", {"r": 33}, "must be less than or equal to"),
    ],
)
def test_options_that_do_not_fit_are_told_when_attaching_and_when_counting(
    name: str, options: dict[str, Any], said: str, on: Callable[[str], Bench]
) -> None:
    found, method = on("bert"), registry.get(name)
    with pytest.raises(ConfigError, match=said):
        found.attach(method, **options)
    with pytest.raises(ConfigError, match=said):
        method.trainable_count(found.base.layout, Setup(method.Config(**options)))
