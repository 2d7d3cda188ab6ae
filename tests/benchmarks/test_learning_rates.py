"""The learning-rate sweep: which rates it tries, and what its tables say."""

from __future__ import annotations

import itertools

import pytest

from adaptlab.methods import registry
from adaptlab.methods._base import LearningRates, Method
from benchmarks import learning_rates as sweep


@pytest.mark.parametrize("method", registry.all(), ids=lambda method: method.name)
def test_rates_are_spread_evenly_over_the_range(method: Method) -> None:
    rates = sweep.grid(method.learning_rates, 4)
    assert (rates[0], rates[-1]) == (method.learning_rates.low, method.learning_rates.high)
    step = (rates[-1] / rates[0]) ** (1 / 3)
    assert all(0.6 < (later / earlier) / step < 1.6 for earlier, later in itertools.pairwise(rates))


def test_decades_are_decades() -> None:
    assert sweep.grid(LearningRates(default=1e-3, low=1e-4, high=1e-1), 4) == [1e-4, 1e-3, 1e-2, 1e-1]


def test_the_best_rate_of_a_task_stands_out() -> None:
    scores = {("lora", 1e-3, "sst2"): [0.7, 0.8], ("lora", 1e-2, "sst2"): [0.6], ("full", 1e-5, "sst2"): [0.5]}
    assert list(sweep._tables(scores)) == [
        "| full | 1e-05 |",
        "|---|---:|",
        "| sst2 | **50.0** |",
        "",
        "| lora | 0.001 | 0.01 |",
        "|---|---:|---:|",
        "| sst2 | **75.0** | 60.0 |",
        "",
    ]
