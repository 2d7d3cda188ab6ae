"""Methods that train a part of the base's own parameters, chosen by name; nothing is attached.

What was trained is saved as ``adapter_model.safetensors`` under the model's own parameter names, beside an
``adapter_config.json`` that carries ``adaptlab_method`` (PEFT has no such type, so PEFT alone cannot load it).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptlab.errors import ConfigError, ModelError
from adaptlab.methods._base import Attached, Method, Placement, Setup
from adaptlab.models._base import Layout

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
FROZEN_HEAD = "The head is random and stays frozen: the rest has to learn to be read by it."


class SelectionMethod(Method):
    """A method that is a choice of parameter names."""

    placement: Placement = "base"

    @abstractmethod
    def chosen(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        """Names of the base's parameters to train, without the head's.

        Raises:
            ConfigError: the choice is empty or does not fit the model.
        """

    def attach(self, model: nn.Module, layout: Layout, setup: Setup) -> Attached:
        if setup.head == "adapted":
            raise ConfigError(
                f"The method {self.name} has no adapter to put on the head: use --head trained or --head frozen."
            )
        chosen = self.chosen(layout, setup)
        named = dict(model.named_parameters())
        head = layout.head if setup.head == "trained" else ()
        model.requires_grad_(False)
        for name in (*chosen, *head):
            named[name].requires_grad_(True)
        return Attached(
            model=model,
            layout=layout,
            method=self,
            setup=setup,
            parameters={name: named[name] for name in chosen},
            head={name: named[name] for name in head},
            warnings=[FROZEN_HEAD] if layout.head and not head else [],
        )

    def trainable_count(self, layout: Layout, setup: Setup) -> int:
        return sum(layout.count(name) for name in self.chosen(layout, setup))

    def trains_of_base(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        return tuple(name for name in self.chosen(layout, setup) if name in layout.parameters)

    def saved(self, attached: Attached) -> dict[str, Tensor]:
        named = dict(attached.model.named_parameters())
        # A frozen head is random: without it the trained numbers mean nothing.
        return {name: named[name] for name in (*attached.parameters, *attached.layout.head)}

    def save(self, attached: Attached, folder: Path) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.saved(attached)
        save_file(cpu_copies(tensors, tensors), folder / WEIGHTS_FILE, {"format": "pt"})
        config = {
            "adaptlab_method": self.name,
            "base_model_name_or_path": public_name(attached.model),
            "options": attached.setup.options.model_dump(mode="json"),
            "head": attached.setup.head,
        }
        write_json(folder / CONFIG_FILE, config)

    def load(self, attached: Attached, folder: Path) -> None:
        import torch

        state = read_weights(folder / WEIGHTS_FILE)
        wanted = self.saved(attached)
        check_shapes(wanted, state, folder)
        with torch.no_grad():
            for name, parameter in wanted.items():
                parameter.copy_(state[name])


def cpu_copies(tensors: dict[str, Tensor], names: Any) -> dict[str, Tensor]:
    """``names`` of ``tensors`` as safetensors wants them: contiguous, on the CPU, none sharing memory."""
    return {name: tensors[name].detach().cpu().clone().contiguous() for name in names}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ModelError: it is not there or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The trained weights {path.parent.name}/{path.name} cannot be read ({type(error).__name__}): "
            f"train the run again."
        ) from error
    return tensors


def check_shapes(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], folder: Path) -> None:
    """Raise :class:`ModelError` unless ``state`` has every wanted tensor in its shape."""
    for name, tensor in wanted.items():
        if name not in state or state[name].shape != tensor.shape:
            found = "is missing" if name not in state else f"has shape {tuple(state[name].shape)}"
            raise ModelError(
                f"The trained weights in '{folder.name}' do not fit this model and method: {name} {found}, and should "
                f"have shape {tuple(tensor.shape)}; load them with the model and method they were trained with."
            )


def public_name(model: Any) -> str:
    """The base's name for others: a hub id, or a folder's last part, never a path of this machine."""
    name = str(getattr(model, "name_or_path", "") or "")
    return Path(name).name if name.startswith(("/", ".", "~")) or Path(name).is_dir() else name


def write_json(path: Path, document: dict[str, Any]) -> None:
    """As PEFT writes its own: sorted keys, two spaces."""
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def in_pooler(name: str) -> bool:
    """Whether a parameter belongs to a pooler. A pretrained one stays frozen except in ``full``."""
    return "pooler" in name.split(".")
