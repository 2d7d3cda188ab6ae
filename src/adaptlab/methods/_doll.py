"""A model of bare layers with the names and shapes of a layout: enough for PEFT to attach to, and to count."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from adaptlab.models._base import Layer, Layout


class _Doll(nn.Module):
    prepare_inputs_for_generation = None  # PEFT keeps a language model's


def doll(layout: Layout, names: Iterable[str], device: str) -> nn.Module:
    """The layers called ``names``, each in its place in a tree of otherwise empty modules."""
    import torch

    model = _Doll()
    model.config = SimpleNamespace(model_type=layout.family, hidden_size=layout.hidden_size)  # type: ignore[assignment]
    with torch.device(device):
        for name in names:
            owner: Any = model
            *parents, leaf = name.split(".")
            for part in parents:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = getattr(owner, part)
            owner.add_module(leaf, _bare(layout.layer(name)))
    return model


def _bare(layer: Layer) -> nn.Module:
    if layer.kind == "conv1d":
        conv: nn.Module = Conv1D(layer.outputs, layer.inputs)
        return conv
    if layer.kind == "embedding":
        return nn.Embedding(layer.inputs, layer.outputs)
    return nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
