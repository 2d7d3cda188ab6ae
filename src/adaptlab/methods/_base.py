"""What a method is: which numbers are trained and what is attached to the base.

A method plugin is one file in this folder with ``plugin = <Method>()`` (or a row in ``peft_native.py``). Importing it
must not import torch: heavy imports stand inside the functions that need them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from adaptlab.config import HeadMode
from adaptlab.models._base import Layout

if TYPE_CHECKING:
    from torch import Tensor, nn

Placement = Literal["base", "layers", "prompt", "nothing"]


class MethodOptions(BaseModel):
    """Base of a method's own options: frozen, unknown keys refused. PEFT's names where PEFT has one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: Options that came after runs without them: at their default they are no part of what a run is, nor of its id.
    later: ClassVar[frozenset[str]] = frozenset()
    #: Options that scale a result or a rate, so that runs which differ in them alone cost the same.
    free: ClassVar[frozenset[str]] = frozenset()

    def resolved(self) -> dict[str, Any]:
        """All values, as a run's configuration holds them."""
        document = self.model_dump(mode="json")
        fields = type(self).model_fields
        return {k: v for k, v in document.items() if k not in self.later or v != fields[k].default}


@dataclass(frozen=True, slots=True)
class LearningRates:
    """A method's default rate and the range a tuner may search; docs/learning-rates.md has the measurements."""

    default: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Setup:
    """How a method is to be attached: its options, where (words, a regex or module names), and the head's part."""

    options: MethodOptions
    targets: str | tuple[str, ...] | None = None
    head: HeadMode = "trained"
    total_steps: int | None = None  # of the training to come; None when only loading


@dataclass(slots=True)
class Attached:
    """A base with a method on it.

    Attributes:
        model: what to call, with the arguments and outputs of the Hugging Face model.
        parameters: every trained parameter without the head's, by the name it is saved under.
        head: every trained head parameter, likewise.
        extra: whatever the method keeps for its hooks.
        state: tensors that change in training beside the parameters; checkpoints hold them, and a resumed run gets them
            back in place before ``before_training``.
        warnings: sentences for the record, e.g. that a target word names a fused module.
    """

    model: nn.Module
    layout: Layout
    method: Method
    setup: Setup
    parameters: dict[str, nn.Parameter]
    head: dict[str, nn.Parameter]
    extra: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Every trained parameter, the head's last."""
        return {**self.parameters, **self.head}


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that share optimiser settings. ``rate_factor`` multiplies the run's learning rate."""

    names: tuple[str, ...]
    rate_factor: float = 1.0
    decay: bool = True


class ForAllRows:
    """Marks what hangs on hooks of a whole model, and serves the rows of every run that passes through it.

    Where runs share a pass, :meth:`Method.hang_on_shared` hangs one of its kind on the shared model; those on the runs'
    own models have no part in that pass.
    """


class Method(ABC):
    """Base of every method.

    Attributes:
        placement: ``base`` trains the base's own weights (the run needs its own copy), ``layers`` sits at single
            layers, ``prompt`` changes inputs, cache or mask of the whole model, ``nothing`` trains at most the head.
        trains: False for a method that trains nothing at all.
        takes_targets: whether ``targets`` say where it goes; others refuse them.
        Config: the pydantic model of the options.
        learning_rates: default and range.
        aliases: other names an option is known by, e.g. ``{"alpha": "lora_alpha"}``.
        generic: a method that PEFT alone knows; its rates and options are nobody's choice.
        unusable: why it cannot be trained here, from a probe; empty where it can.
    """

    name: str
    summary: str
    paper: str = ""
    note: str = ""
    placement: Placement
    trains: bool = True
    takes_targets: bool = False
    Config: type[MethodOptions] = MethodOptions
    learning_rates: LearningRates
    aliases: dict[str, str] = {}
    generic: bool = False
    unusable: str = ""

    @abstractmethod
    def attach(self, model: nn.Module, layout: Layout, setup: Setup) -> Attached:
        """Attach to ``model`` in place, and set ``requires_grad`` on every parameter of the result.

        The caller has seeded torch: everything random here follows the run's seed.

        Raises:
            ConfigError: the options or targets do not fit this model (targets that match nothing name what could).
        """

    @abstractmethod
    def trainable_count(self, layout: Layout, setup: Setup) -> int:
        """How many numbers ``attach`` would train, head excluded, in closed form from shapes alone."""

    def trains_of_base(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        """Names of the base's own parameters that it trains, head excluded: a quantised weight cannot be one."""
        return ()

    @abstractmethod
    def save(self, attached: Attached, folder: Path) -> None:
        """Write what was trained, head included, as safetensors (in PEFT's own format where PEFT has the method)."""

    @abstractmethod
    def saved(self, attached: Attached) -> dict[str, Tensor]:
        """The tensors that :meth:`save` writes, by their names in the file; on the meta device if the model is."""

    @abstractmethod
    def load(self, attached: Attached, folder: Path) -> None:
        """Put what :meth:`save` wrote back into ``attached``, which :meth:`attach` made with the same setup.

        So a loaded run is in the same state as a trained one: it can be evaluated, trained on or exported. (Where a
        prompt encoder was dropped, as P-tuning says, ``attached.parameters`` are the prompts themselves from then on.)

        Raises:
            ModelError: ``folder`` does not hold every trained parameter in its shape.
        """

    def virtual_tokens(self, options: MethodOptions) -> int:
        """How many of the model's positions the method takes from each text."""
        return 0

    def company(self, options: MethodOptions) -> str:
        """What runs have in common that can share a pass, in words; empty for what sits at single layers."""
        return ""

    def hang_on_shared(self, model: nn.Module, runs: Sequence[Attached], active: Callable[[], Sequence[int]]) -> None:
        """Hang on ``model``, through which ``runs`` of one :meth:`company` pass together, what serves all their rows.

        Nothing where the method sits at single layers: the engine finds those itself.

        Args:
            active: which of ``runs``, by their places, the present pass carries: the rows of each one after the other,
                equally many.
        """

    def alone_in_peft(self, layout: Layout) -> str | None:
        """Why plain PEFT answers a row rightly only without others in its batch; ``None`` where it does with them."""
        return None

    def parameter_groups(self, attached: Attached) -> list[ParameterGroup]:
        """Optimiser groups; by default one, with weight decay spared for biases and norms."""
        plain = [n for n, p in attached.trained.items() if p.ndim < 2]
        decayed = [n for n, p in attached.trained.items() if p.ndim >= 2]
        groups = [ParameterGroup(tuple(decayed)), ParameterGroup(tuple(plain), decay=False)]
        return [group for group in groups if group.names]

    def before_training(self, attached: Attached, total_steps: int | None) -> None:
        """Called once, before the first step (also after a resume); ``None``: the clock ends the training.

        Raises:
            ConfigError: the method must know its last step, and nobody does.
        """

    def extra_loss(self, attached: Attached) -> Tensor | None:
        """A scalar added to the loss of each step, e.g. AdaLoRA's orthogonality."""
        return None

    def after_step(self, attached: Attached, step: int) -> None:
        """Called after the optimiser's ``step`` (1-based), while gradients are still there."""
