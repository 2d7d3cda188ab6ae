"""Optimisers by name: torch's own, and bitsandbytes' where torch has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from adaptlab.config import TrainingConfig
from adaptlab.errors import AdaptlabError, ConfigError
from adaptlab.methods._base import Attached

Groups = list[dict[str, Any]]
Build = Callable[[Groups], torch.optim.Optimizer]


def _bitsandbytes(name: str, **settings: Any) -> Build:
    def build(groups: Groups) -> torch.optim.Optimizer:
        try:
            import bitsandbytes
        except ImportError as error:
            raise ConfigError(
                f"The optimizer {name} needs bitsandbytes: pip install 'adaptlab[quantize]', or use adamw."
            ) from error
        optimizer: torch.optim.Optimizer = getattr(bitsandbytes.optim, name)(groups, **settings)
        return optimizer

    return build


#: Settings are torch's defaults, spelt out; learning rate and weight decay come with the groups.
_BUILDERS: dict[str, Build] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True),
    "adam": lambda groups: torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8, fused=True),
    # Torch's Adafactor has no schedule of its own: relative steps are the loop's business (arXiv 1804.04235).
    "adafactor": lambda groups: torch.optim.Adafactor(groups, beta2_decay=-0.8, d=1.0),
    "sgd": lambda groups: torch.optim.SGD(groups),
    "sgd-momentum": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "sgd-nesterov": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    "lion": _bitsandbytes("Lion", betas=(0.9, 0.99)),  # arXiv 2302.06675; wants about a tenth of AdamW's rate
    "adamw-8bit": _bitsandbytes("AdamW8bit", betas=(0.9, 0.999), eps=1e-8),  # arXiv 2110.02861
}


def build(training: TrainingConfig, attached: Attached) -> torch.optim.Optimizer:
    """An optimiser over everything that ``attached`` trains.

    Each parameter group carries ``peak_rate``: the loop multiplies it by the schedule's factor at every step. The
    head has the run's learning rate unless ``head_learning_rate`` is given.
    """
    rate = float(training.learning_rate)
    head_rate = training.head_learning_rate or rate
    trained = attached.trained
    groups: Groups = []
    for group in attached.method.parameter_groups(attached):
        decay = training.weight_decay if group.decay else 0.0
        body = [trained[name] for name in group.names if name not in attached.head]
        head = [trained[name] for name in group.names if name in attached.head]
        for parameters, peak in ((body, rate * group.rate_factor), (head, head_rate * group.rate_factor)):
            if parameters:
                groups.append({"params": parameters, "lr": peak, "peak_rate": peak, "weight_decay": decay})
    _check_complete(trained, groups)
    if training.optimizer not in _BUILDERS:
        raise AdaptlabError(f"No optimizer is called '{training.optimizer}': there are {', '.join(sorted(_BUILDERS))}.")
    if not groups:  # nothing is trained, in no step
        return torch.optim.SGD([{"params": []}], lr=rate)
    return _BUILDERS[training.optimizer](groups)


def _check_complete(trained: dict[str, torch.nn.Parameter], groups: Sequence[dict[str, Any]]) -> None:
    """A method whose groups leave a parameter out would train it never, without a word."""
    grouped = [id(p) for group in groups for p in group["params"]]
    if sorted(grouped) != sorted(id(p) for p in trained.values()):
        raise RuntimeError("parameter_groups must name every trained parameter exactly once")
