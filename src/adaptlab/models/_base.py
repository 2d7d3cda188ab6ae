"""What is where in a model: the facts that methods and the loop need, without knowing an architecture by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ModelKind = Literal["encoder", "decoder", "encoder-decoder"]
LayerKind = Literal["linear", "conv1d", "embedding", "norm"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A module with weights. ``inputs`` and ``outputs`` are features (an embedding's inputs are its rows)."""

    name: str
    kind: LayerKind
    inputs: int
    outputs: int
    bias: bool
    block: int | None  # index into ``Layout.blocks``; None outside the transformer blocks


@dataclass(frozen=True, slots=True)
class Layout:
    """A model's structure, from the module tree alone (a meta-device model will do).

    Names are those of the unwrapped Hugging Face model.

    Attributes:
        family: ``config.model_type``.
        blocks: names of the transformer blocks, bottom first (encoder before decoder).
        head: names of the *parameters* that make the head: the classifier's, and every one missing from the
            checkpoint. Empty for language-model readouts.
        head_modules: the smallest modules that hold exactly those parameters.
        parameters: shape of every parameter by name, tied ones once.
        words: target words (``query``, ``value``, ``mlp``, ``all-linear`` ...) to module names.
        fused_words: words that here name a module which also holds something else, e.g. ``query`` to
            ``("transformer.h.0.attn.c_attn", ...)``.
    """

    family: str
    kind: ModelKind
    hidden_size: int
    blocks: tuple[str, ...]
    layers: tuple[Layer, ...]
    head: tuple[str, ...]
    head_modules: tuple[str, ...]
    parameters: Mapping[str, tuple[int, ...]]
    words: Mapping[str, tuple[str, ...]]
    fused_words: Mapping[str, tuple[str, ...]]

    def layer(self, name: str) -> Layer:
        """The layer called ``name``; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)
