"""`adaptlab list methods --matrix`: readable in a terminal of 100 columns, complete as JSON."""

from __future__ import annotations

import json

import pytest

from adaptlab.cli import output
from adaptlab.methods import registry
from tests.cli.conftest import Command


def test_the_matrix_fits_a_hundred_columns(adaptlab: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_PIPED_WIDTH", 100)
    done = adaptlab("list", "methods", "--matrix")
    lines = done.out.splitlines()
    assert [line for line in lines if len(line) > 100 and not line.startswith("Tried on")] == []
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split()[1:] and line.split()[1] in "✓✗~"}
    assert sorted(rows) == registry.names()
    assert rows["lora"] == ["✓"] * 15
    assert rows["full"] == ["✓", "✓", "✓", "✗", "✗"] * 3
    assert rows["ia3"][:5] == ["✓", "✓", "✓", "~", "~"]
    assert "it reads the codes as if they were the weights" in " ".join(done.out.split())
    assert lines[-1].startswith("Tried on tiny models (bert, opt, t5) on a CPU, with adaptlab ")


def test_the_matrix_as_json_has_every_reason(adaptlab: Command) -> None:
    found = json.loads(adaptlab("list", "methods", "--matrix", "--json").out)
    assert set(found) == {"versions", "models", "methods", "refused"}
    assert found["methods"]["lora"]["encoder"] == dict.fromkeys(found["methods"]["lora"]["encoder"], "")
    assert "adds layers" in found["methods"]["houlsby-adapter"]["decoder"]["merges"]


def test_what_qlora_means_is_told(adaptlab: Command) -> None:
    assert "qlora is lora on a base in 4bit." in adaptlab("list", "methods").out
