"""What every method promises, as checks on a tiny model with a plain training loop (ours has its own tests)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from adaptlab.config import HeadMode, ModelConfig, Quantize
from adaptlab.methods._base import Attached, Method, Setup
from adaptlab.models.load import Base, fresh_model, initialise_head, load_base

LABELS = 3
_CLASSES = ("the list keeps its order", "import a module by name", "a float is a number with a point")
_TEXTS = tuple(f"{text} {suffix}" for text in _CLASSES for suffix in ("", "again", "in Python", "and so on"))


@dataclass
class Bench:
    """A base and a small batch that can be learned by heart. Inputs are integers of shape (12, tokens)."""

    base: Base
    inputs: dict[str, Tensor]
    labels: Tensor

    def attach(self, method: Method, *, seed: int = 0, head: HeadMode = "trained", **options: Any) -> Attached:
        """As a run does it: a fresh model, head and adapter drawn from the seed."""
        model = fresh_model(self.base, share=method.placement != "base")
        torch.manual_seed(seed)
        initialise_head(model, self.base.layout)
        torch.manual_seed(seed)
        return method.attach(model, self.base.layout, self.setup(method, head=head, **options))

    def setup(self, method: Method, *, head: HeadMode = "trained", **options: Any) -> Setup:
        return Setup(method.Config(**{**example_options(method), **options}), head=head, total_steps=20)

    def logits(self, attached: Attached) -> Tensor:
        attached.model.eval()
        with torch.no_grad():
            found: Tensor = attached.model(**self.inputs).logits
        return found

    def loss(self, attached: Attached) -> float:
        """Mean cross-entropy over the batch, without dropout."""
        return float(torch.nn.functional.cross_entropy(self.logits(attached), self.labels))

    def train(self, attached: Attached, steps: int, *, seed: int = 0, rate: float | None = None) -> list[float]:
        """Losses of a plain loop over the one batch, dropout on. Gradients of the last step stay."""
        torch.manual_seed(seed)
        rate = rate or attached.method.learning_rates.default
        groups = attached.method.parameter_groups(attached)
        optimiser = torch.optim.AdamW(
            [
                {"params": [attached.trained[n] for n in g.names], "lr": rate * g.rate_factor, "weight_decay": 0.0}
                for g in groups
            ]
        )
        attached.method.before_training(attached, steps)
        attached.model.train()
        losses = []
        for step in range(1, steps + 1):
            optimiser.zero_grad()
            loss = attached.model(**self.inputs, labels=self.labels).loss
            extra = attached.method.extra_loss(attached)
            (loss if extra is None else loss + extra).backward()
            optimiser.step()
            attached.method.after_step(attached, step)
            losses.append(loss.item())
        return losses


def bench(folder: Path | str, *, quantize: Quantize = "none") -> Bench:
    """A bench on the model in ``folder``."""
    base = load_base(ModelConfig(id=str(folder), quantize=quantize), num_labels=LABELS, regression=False, device="cpu")
    inputs = dict(base.tokenizer(list(_TEXTS), padding=True, return_tensors="pt"))
    return Bench(base, inputs, torch.arange(len(_TEXTS)) // (len(_TEXTS) // LABELS))


#: For PEFT's methods without a row: options without a default that could work, and sizes that fit 32 features.
PEFT_OPTIONS: dict[str, dict[str, Any]] = {
    "adaption-prompt": {"adapter_len": 4, "adapter_layers": 2},
    "cartridge": {"num_virtual_tokens": 4},
    "cpt": {"cpt_token_ids": [5, 6], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 2]},
    "multitask-prompt-tuning": {"num_virtual_tokens": 4},
    "psoft": {"r": 8},
    "trainable-tokens": {"token_indices": [5, 6, 7]},
    "waveft": {"n_frequency": 64},
}


def example_options(method: Method) -> dict[str, Any]:
    """Values for options without a default: the first example that the option's field gives."""
    fields = method.Config.model_fields
    examples = {name: (field.examples or [None])[0] for name, field in fields.items() if field.is_required()}
    return examples | PEFT_OPTIONS.get(method.name, {})


def snapshot(parameters: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in parameters}


def differing(before: dict[str, Tensor], after: Iterable[tuple[str, Tensor]]) -> list[str]:
    return [name for name, value in after if not torch.equal(before[name], value)]


def saved_numbers(folder: Path) -> int:
    """How many numbers the safetensors files in ``folder`` hold. Integers say where numbers belong (SHiRA's do)."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 (not a dict)
            count += sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())
    return count


def saved_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every tensor of the safetensors files in ``folder``."""
    shapes = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            shapes.update({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
    return shapes
