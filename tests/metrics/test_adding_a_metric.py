"""docs/adding-a-metric.md, carried out: its metric keeps the contract that the page names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from adaptlab.metrics import Answers, registry, score, standard_error
from tests.contracts import test_metrics as contract
from tests.source_tree import REPOSITORY

PAGE = (REPOSITORY / "docs" / "adding-a-metric.md").read_text(encoding="utf-8")


@pytest.fixture
def sure(monkeypatch: pytest.MonkeyPatch) -> Any:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    module: dict[str, Any] = {"__name__": "sure"}
    exec(compile(code, "sure.py", "exec"), module)
    monkeypatch.setitem(registry._plugins, "sure", module["plugin"])
    return module["plugin"]


def test_it_scores_what_the_page_says(sure: Any) -> None:
    probabilities = np.array([[0.95, 0.05], [0.6, 0.4], [0.92, 0.08]])
    answers = Answers(np.array([0, 0, 1]), np.array([0, 0, 0]), probabilities, 2)
    assert score(answers, "classification", ("sure",))["sure"] == pytest.approx(1 / 3)
    assert standard_error("sure", answers) == pytest.approx(np.std([1, 0, 0], ddof=1) / 3**0.5)


def test_it_keeps_the_contract(sure: Any) -> None:
    contract.test_it_says_what_it_is(sure)
    contract.test_it_is_one_finite_number(sure)
    contract.test_perfect_answers_are_best(sure)
    contract.test_the_order_of_items_does_not_matter(sure)
    contract.test_the_mean_of_its_per_example_values_is_the_metric(sure)
