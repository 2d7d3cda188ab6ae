"""What every readout promises with every method, as checks on a small model with a plain training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptlab import readouts
from adaptlab.config import AnsweringConfig, ModelConfig, Prompt
from adaptlab.config import Readout as Name
from adaptlab.methods._base import Attached, Method, Setup
from adaptlab.models.load import Base, fresh_model, initialise_head, load_base
from adaptlab.readouts import Answered, Readout, Rows, Setting
from adaptlab.tasks._base import Example, Kind
from adaptlab.tasks._prompts import fit_prompt
from adaptlab.training.precision import Precision
from adaptlab.training.words import read
from tests.contracts.method_checks import example_options

LABELS = ("list", "module", "float")
_TEXTS = ("the list keeps its order", "import it by name", "a number with a point", "x", "the order of a list again")
#: Places of the answers that are right.
_GOLD = (0, 1, 2, 1, 0)

PRECISION = Precision("float32", "cpu")


def examples(kind: Kind = "classification") -> list[Example]:
    """Rows of different lengths, a few of each class; of other kinds with answers that fit."""
    rows = [Example(str(i), (text,), gold) for i, (text, gold) in enumerate(zip(_TEXTS, _GOLD, strict=True))]
    if kind == "regression":
        return [replace(row, label=float(row.label)) for row in rows]
    if kind == "multiple-choice":
        return [replace(row, choices=LABELS[: 2 + i % 2], label=int(row.label) % 2) for i, row in enumerate(rows)]
    if kind == "generation":
        return [replace(row, label=f"it is a {LABELS[int(row.label)]}") for row in rows]
    return rows


@dataclass(frozen=True)
class Asker:
    """A model and one way to ask it."""

    base: Base
    name: Name
    kind: Kind = "classification"

    def attach(self, method: Method, *, seed: int = 0) -> Attached:
        """As a run does it; a method that trains nothing is the model itself."""
        model = fresh_model(self.base, share=method.placement != "base")
        torch.manual_seed(seed)
        initialise_head(model, self.base.layout)
        torch.manual_seed(seed)
        return method.attach(model, self.base.layout, Setup(method.Config(**example_options(method)), total_steps=20))

    def readout(self, method: Method) -> Readout:
        labels = LABELS if self.kind == "classification" else ()
        prompt = fit_prompt(Prompt(name="so", template="{text}\nSo:"), self.kind, ("text",), labels)
        setting = Setting(
            tokenizer=self.base.tokenizer,
            layout=self.base.layout,
            kind=self.kind,
            labels=labels,
            columns=("text",),
            prompt=None if self.name == "head" else prompt,
            max_length=64,
            start=self.base.start,
            caches=method.placement != "prompt",
            how=AnsweringConfig(max_new_tokens=3),
        )
        return readouts.build(self.name, setting)

    def losses(self, attached: Attached, rows: Rows, which: Sequence[int], *, more: int = 0) -> Tensor:
        """``[which]`` losses of rows padded to the longest of them and ``more`` tokens."""
        readout = self.readout(attached.method)
        length = int(rows.lengths[list(which)].max()) + more
        batch = readout.collate(rows, np.array(which), length, device="cpu")
        logits = read(attached.model, attached.layout.word_head, batch.inputs, batch.places)
        return readout.objective().losses(logits, batch)

    def rows(self, attached: Attached) -> Rows:
        return self.readout(attached.method).encode(examples(self.kind), training=True)

    def loss(self, attached: Attached) -> float:
        """Mean over all rows, without dropout."""
        attached.model.eval()
        rows = self.rows(attached)
        with torch.no_grad():
            return float(self.losses(attached, rows, range(len(rows))).mean())

    def train(self, attached: Attached, steps: int, *, rate: float) -> None:
        """A plain loop over all rows as one batch, with the method's hooks."""
        torch.manual_seed(0)
        rows, method = self.rows(attached), attached.method
        groups = [
            {"params": [attached.trained[n] for n in group.names], "lr": rate * group.rate_factor, "weight_decay": 0.0}
            for group in method.parameter_groups(attached)
        ]
        optimiser = torch.optim.AdamW(groups)
        method.before_training(attached, steps)
        attached.model.train()
        for step in range(1, steps + 1):
            optimiser.zero_grad()
            loss = self.losses(attached, rows, range(len(rows))).mean()
            extra = method.extra_loss(attached)
            (loss if extra is None else loss + extra).backward()
            optimiser.step()
            method.after_step(attached, step)

    def answer(self, attached: Attached, asked: Sequence[Example]) -> Answered:
        attached.model.eval()
        readout = self.readout(attached.method)
        return readout.answer(attached.model, readout.encode(asked, training=False), PRECISION)


def asker(folder: Path | str, name: Name, kind: Kind = "classification") -> Asker:
    """The model in ``folder``, asked by the readout called ``name``.

    Raises:
        ModelError: the model cannot answer in this way.
    """
    outputs = len(LABELS) if kind == "classification" else 1
    config = ModelConfig(id=str(folder))
    base = load_base(config, num_labels=outputs, regression=kind == "regression", device="cpu", readout=name)
    return Asker(base, name, kind)
