"""Full fine-tuning: every parameter is trained, the pooler included. Saved as a plain transformers folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptlab.errors import ModelError
from adaptlab.methods._base import Attached, LearningRates, Setup
from adaptlab.methods._selection import SelectionMethod
from adaptlab.models._base import Layout

if TYPE_CHECKING:
    from torch import Tensor


class Full(SelectionMethod):
    name = "full"
    summary = "every weight of the model"
    paper = "Howard and Ruder 2018, arXiv 1801.06146"
    learning_rates = LearningRates(default=2e-4, low=2e-5, high=1e-3)

    def chosen(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        head = set(layout.head)
        return tuple(name for name in layout.parameters if name not in head)

    def saved(self, attached: Attached) -> dict[str, Tensor]:
        return dict(attached.model.named_parameters())

    def save(self, attached: Attached, folder: Path) -> None:
        from transformers.utils import logging

        model: Any = attached.model
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            model.save_pretrained(folder)
        finally:
            if bars:
                logging.enable_progress_bar()

    def load(self, attached: Attached, folder: Path) -> None:
        model: Any = attached.model
        try:
            saved = type(model).from_pretrained(folder, dtype=next(model.parameters()).dtype, use_safetensors=True)
            model.load_state_dict(saved.state_dict())
        except Exception as error:  # whatever transformers, safetensors and torch raise for damaged or foreign files
            raise ModelError(
                f"The model in '{folder.name}' cannot be loaded ({type(error).__name__}): it is damaged or not of "
                f"this architecture; train the run again."
            ) from error


plugin = Full()
