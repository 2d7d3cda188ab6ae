"""Colours that everyone can tell apart, and labels that do not cover each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from adaptlab.report.charts._base import COLOURS, config, place_labels, spread

Array = NDArray[np.float64]

#: Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009:
#: severity 1.0, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
#: Ottosson, "A perceptual color space for image processing", 2020.
TO_CONES = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
TO_LAB = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
          [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip


def linear(colour: str) -> Array:
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ np.array([0.2126, 0.7152, 0.0722]))


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_stands_out_from_the_page(colour: str, theme: str) -> None:
    assert contrast(colour, config(theme)["background"]) >= 3  # type: ignore[arg-type]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(theme: str) -> None:
    look = config(theme)  # type: ignore[arg-type]
    for colour in (look["text"]["color"], look["axis"]["labelColor"], look["title"]["subtitleColor"]):
        assert contrast(colour, look["background"]) >= 4.5


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_any_two_colours_can_be_told_apart(deficiency: str) -> None:
    seen = {}
    for colour in COLOURS:
        rgb = np.clip(np.array(DEFICIENCIES[deficiency]) @ linear(colour), 0, 1)
        seen[colour] = np.array(TO_LAB) @ np.cbrt(np.array(TO_CONES) @ rgb)
    closest = min(float(np.linalg.norm(seen[a] - seen[b])) for a, b in itertools.combinations(COLOURS, 2))
    assert closest >= 0.085  # 0.02 is about the smallest difference that is seen side by side


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.1, 20))
def test_spread_keeps_order_and_gap_and_moves_nothing_without_need(positions: list[float], gap: float) -> None:
    moved = spread(positions, gap)
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    assert all(moved[b] - moved[a] >= gap - 1e-6 for a, b in itertools.pairwise(order))
    if all(positions[b] - positions[a] >= gap for a, b in itertools.pairwise(order)):
        assert moved == pytest.approx(positions)


def test_labels_of_close_points_take_different_sides() -> None:
    left, right = place_labels([(0.50, 0.5, 0.0, "first method"), (0.53, 0.5, 0.0, "second method")])
    assert left != right


def test_a_label_stays_inside_the_plot() -> None:
    [place] = place_labels([(0.99, 0.5, 0.0, "a long name of a method")])
    assert place.align == "right"
