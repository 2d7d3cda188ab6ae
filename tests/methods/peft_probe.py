"""What each of PEFT's methods without a row does on a tiny encoder, decoder and encoder-decoder: the probe behind
``_peft_probed.json``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from adaptlab.errors import ConfigError
from adaptlab.methods._base import Attached
from adaptlab.methods.peft_generic import GenericPeft
from tests.contracts.method_checks import Bench, bench, differing, snapshot

FAMILIES = ("bert", "llama", "t5")

DRAWS = "It draws random numbers of its own in training, so a run that was interrupted does not end as it would have."


def biased(folder: Path) -> Bench:
    """A bench whose base has biases, as a trained model's are; a tiny one's are zero, and what is multiplied with them
    gets no gradient."""
    found = bench(folder)
    found.base.model.config.use_cache = False  # type: ignore[union-attr]  # X-LoRA's first wish
    with torch.no_grad():
        for name, parameter in found.base.model.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(0.05, 0.1)
    return found


def probe(method: GenericPeft, on: Callable[[str], Bench], folder: Path) -> dict[str, str]:
    """``{"unusable": why}``, or the families that refuse it, and a note where there is something to know."""
    method.unusable = ""
    found: dict[str, str] = {}
    for family in FAMILIES:
        try:
            reason = _tried(method, on(family), folder / family)
        except (ConfigError, AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            cause = error.__cause__ or error
            reason = f"PEFT says {(str(cause).strip().splitlines() or [type(cause).__name__])[0]!r}."
        if reason and "adapters" in method.Config.model_fields:
            reason = "It weighs other adapters, which have to be trained before."
        if reason:
            found[f"refuses {family}"] = reason
    if len(found) == len(FAMILIES):
        return {"unusable": found[f"refuses {FAMILIES[0]}"]}
    usable = next(family for family in FAMILIES if f"refuses {family}" not in found)
    if _draws(on(usable), _attach(method, on(usable))):
        found["note"] = DRAWS
    return found


def _attach(method: GenericPeft, bench: Bench, seed: int = 0) -> Attached:
    return bench.attach(method, seed=seed)


def _tried(method: GenericPeft, bench: Bench, folder: Path) -> str:
    """What the method does not do of what all do; empty where it does all."""
    attached = _attach(method, bench)
    before = snapshot(attached.trained.items())
    bench.train(attached, 3)
    still = [name for name, p in attached.trained.items() if p.grad is None or not p.grad.any()]
    if len(attached.head) != len(bench.base.layout.head):
        return "PEFT trains no head beside it, and a new head has to be trained."
    if still or set(differing(before, attached.trained.items())) != set(attached.trained):
        return f"{len(still) or 'Some'} of its {len(attached.trained)} tensors get no gradient, for one {still[:1]}."
    logits = bench.logits(attached)
    method.save(attached, folder)
    other = _attach(method, bench, seed=1)
    method.load(other, folder)
    if not torch.allclose(bench.logits(other), logits, atol=1e-5):
        return "What PEFT saves of it does not give the same answers when it is loaded."
    return ""


def _draws(bench: Bench, attached: Attached) -> bool:
    bench.train(attached, 3)
    for module in attached.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # type: ignore[assignment]
    outputs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        outputs.append(attached.model(**bench.inputs).logits)
    return not torch.equal(*outputs)
