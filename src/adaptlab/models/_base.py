"""What is where in a model: the facts that methods and the loop need, without knowing an architecture by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from adaptlab.errors import ConfigError

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
class KeyValues:
    """The keys and values of one self-attention; those of an encoder-decoder's decoder.

    Attributes:
        heads: heads of the keys, which may be fewer than the queries'.
        features: features of each head.
        reached_by: how keys and values of one's own come before them: the model takes a ``cache`` of earlier ones, or
            its attention is a function that can be replaced (``interface``), or there is no way (``None``).
    """

    heads: int
    features: int
    reached_by: Literal["cache", "interface"] | None

    @property
    def width(self) -> int:
        """Features of all heads."""
        return self.heads * self.features


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
            ``("transformer.h.0.attn.c_attn", ...)``. The same modules stand in ``words``.
        tied: groups of layers that share one weight, e.g. the embeddings of T5's encoder and decoder.
        key_values: of every block; ``None`` where blocks differ, or have no attention.
        tokens_part: the module of the last block behind which tokens go their own ways and the head reads the first of
            each row alone; empty where that is not known.
        word_head: the module that turns hidden states into logits over the vocabulary; empty for the readout ``head``.
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
    tied: tuple[tuple[str, ...], ...] = ()
    key_values: KeyValues | None = None
    word_head: str = ""
    tokens_part: str = ""

    def layer(self, name: str) -> Layer:
        """The layer called ``name``; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def owner(self, parameter: str) -> str:
        """The module that holds a parameter: its name without the last part."""
        return parameter.rpartition(".")[0]

    def without_head(self) -> Layout:
        """The same, answering as a language model does."""
        return replace(self, head=(), head_modules=(), tokens_part="")

    def head_count(self) -> int:
        """Numbers in the head."""
        return sum(self.count(name) for name in self.head)

    def count(self, parameter: str) -> int:
        """Numbers in a parameter."""
        count = 1
        for size in self.parameters[parameter]:
            count *= size
        return count


_PLAIN = re.compile(r"[\w.\-]+")
TARGETABLE: tuple[LayerKind, ...] = ("linear", "conv1d", "embedding")


def split_targets(targets: str | tuple[str, ...]) -> tuple[str, ...]:
    """``"query, value"`` to its parts. A string that is not a plain list of names is one regular expression."""
    if not isinstance(targets, str):
        return tuple(targets)
    parts = tuple(part.strip() for part in targets.split(",") if part.strip())
    return parts if all(_PLAIN.fullmatch(part) for part in parts) else (targets,)


def resolve_targets(
    layout: Layout, targets: str | tuple[str, ...], kinds: tuple[LayerKind, ...] = TARGETABLE
) -> tuple[str, ...]:
    """The names of the layers that ``targets`` mean, in the model's order.

    Each target is a word (``query``, ``mlp``, ``all-linear`` ...), a layer's whole name, the end of one
    (``q_proj``), or a regular expression over whole names. Ends and expressions never reach into the head.

    Raises:
        ConfigError: a target matches nothing; the message lists what could.
    """
    found: set[str] = set()
    for target in split_targets(targets):
        matched = _matches(layout, target, kinds)
        if not matched:
            raise ConfigError(_nothing_matched(layout, target, kinds))
        found.update(matched)
    if not found:
        raise ConfigError(_nothing_matched(layout, "", kinds))
    return tuple(layer.name for layer in layout.layers if layer.name in found)


def _matches(layout: Layout, target: str, kinds: tuple[LayerKind, ...]) -> set[str]:
    fitting = {layer.name for layer in layout.layers if layer.kind in kinds}
    if target in layout.words:
        return fitting & set(layout.words[target])
    if target in fitting:
        return {target}
    outside_head = fitting - set(layout.words.get("head", ()))
    if _PLAIN.fullmatch(target):
        return {name for name in outside_head if name.endswith(f".{target}")}
    try:
        pattern = re.compile(target)
    except re.error as error:
        raise ConfigError(f"The target '{target}' is not a regular expression ({error}): correct it.") from error
    return {name for name in outside_head if pattern.fullmatch(name)}


def _nothing_matched(layout: Layout, target: str, kinds: tuple[LayerKind, ...]) -> str:
    words = sorted(word for word in layout.words if _matches(layout, word, kinds))
    names = [layer.name for layer in layout.layers if layer.kind in kinds and layer.block is not None]
    ends = list(dict.fromkeys(re.sub(r"^.*\.\d+\.", "", name) for name in names))
    return (
        f"The target '{target}' matches nothing in this {layout.family} model: give a word "
        f"({', '.join(words)}), the end of a module's name ({', '.join(ends)}), or a regular expression over "
        f"whole names such as {names[0] if names else 'encoder.0.dense'}."
    )


def fused_notes(layout: Layout, targets: str | tuple[str, ...]) -> list[str]:
    """A sentence for each fused module that the words in ``targets`` reach only together with something else."""
    asked: dict[str, list[str]] = {}
    for word in split_targets(targets):
        for name in layout.fused_words.get(word, ()):
            leaf = name.rpartition(".")[2]
            if word not in asked.setdefault(leaf, []):
                asked[leaf].append(word)
    notes = []
    for leaf, words in asked.items():
        held = [w for w, names in layout.fused_words.items() if any(n.rpartition(".")[2] == leaf for n in names)]
        notes.append(
            f"In {layout.family}, {' and '.join(words)} name a part of the fused module {leaf}, which holds "
            f"{', '.join(held)}: the whole module is adapted."
        )
    return notes
