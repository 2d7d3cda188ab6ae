"""One method of PEFT's as one of ours: the machinery behind the rows of ``peft_native``.

PEFT does the attaching and the file format. Added here: targets in words, the head's rule (PEFT by itself knows only
heads called ``classifier`` and ``score``), exact ``requires_grad`` flags, and adapter files that carry no path.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptlab.errors import ConfigError
from adaptlab.methods._base import Attached, LearningRates, Method, MethodOptions, Placement, Setup
from adaptlab.methods._selection import (
    CONFIG_FILE,
    FROZEN_HEAD,
    WEIGHTS_FILE,
    check_shapes,
    cpu_copies,
    public_name,
    read_weights,
    write_json,
)
from adaptlab.models._base import TARGETABLE, Layer, LayerKind, Layout, fused_notes, resolve_targets, split_targets

if TYPE_CHECKING:
    from torch import Tensor, nn

ADAPTER = "default"
_PREFIX = "base_model.model."


Derived = Callable[[Layout, tuple[str, ...], Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """A method of PEFT's.

    Attributes:
        peft_type: a member of ``peft.PeftType``.
        options: the options that users may set, under PEFT's names.
        targets: default target words.
        family_targets: default target words of single families (by ``config.model_type``).
        layer_kinds: kinds of layers that the method can sit at.
        count: trainable numbers at one layer, from its shape, in closed form. It is given the options as settled by
            ``derived``.
        shared_count: trainable numbers that all layers share.
        fixed: settings of PEFT's configuration that make this variant what it is, e.g. ``{"use_dora": True}``.
        derived: settings that follow from the layout, the target names and the options, e.g. a block size that
            divides every target's features. Raises ConfigError where an option does not fit the targets.
        placement: ``base`` where attaching changes the base's own weights.
        note: what a user should know before choosing it.
    """

    name: str
    summary: str
    paper: str
    peft_type: str
    options: type[MethodOptions]
    learning_rates: LearningRates
    count: Callable[[Layer, Any], int]
    shared_count: Callable[[Any], int] | None = None
    targets: tuple[str, ...] = ("query", "value")
    family_targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    layer_kinds: tuple[LayerKind, ...] = TARGETABLE
    fixed: Mapping[str, Any] = field(default_factory=dict)
    derived: Derived | None = None
    placement: Placement = "layers"
    aliases: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


class PeftMethod(Method):
    """The :class:`Method` of a :class:`Row`."""

    takes_targets = True

    def __init__(self, row: Row) -> None:
        settled = set(row.fixed) & set(row.options.model_fields)
        if settled:
            raise ValueError(f"The row {row.name} fixes {sorted(settled)} and offers it as an option too.")
        self.row = row
        self.name = row.name
        self.summary = row.summary
        self.paper = row.paper
        self.note = row.note
        self.placement = row.placement
        self.Config = row.options
        self.learning_rates = row.learning_rates
        self.aliases = dict(row.aliases)

    def target_names(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        """The modules that adapters go to.

        Raises:
            ConfigError: a target matches nothing, is the trained head, or is the same weight as another.
        """
        targets = self._targets(layout, setup)
        self._check_kinds(layout, targets)
        names = resolve_targets(layout, targets, self.row.layer_kinds)
        head = set(layout.words.get("head", ()))
        if setup.head == "adapted":
            names = tuple(dict.fromkeys((*names, *layout.words.get("head", ()))))
        elif head & set(names):
            raise ConfigError(
                f"The targets of {self.name} include the head, which --head {setup.head} leaves without adapters: "
                f"leave it out, or use --head adapted."
            )
        for group in layout.tied:
            both = [name for name in group if name in names]
            if len(both) > 1:
                raise ConfigError(
                    f"The targets {' and '.join(both)} are one weight, which two adapters cannot change without a "
                    f"merge going wrong: name only one of them."
                )
        return names

    def attach(self, model: nn.Module, layout: Layout, setup: Setup) -> Attached:
        from peft import get_peft_model

        with _quiet_peft():
            wrapped: Any = get_peft_model(model, self._config(layout, setup))  # type: ignore[arg-type,unused-ignore]
        # Said in a forward pass, of the hooks that watch one: they see the adapted layer, which calls the base's not.
        warnings.filterwarnings("ignore", message="One of the base layers adapted with ShiRA has")
        # Of the same method's sparse matrices, which PEFT builds from places that it drew itself.
        warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
        trained, head = _split(wrapped, layout)
        wrapped.requires_grad_(False)
        if setup.head != "trained":
            head = {}
        for parameter in (*trained.values(), *head.values()):
            parameter.requires_grad_(True)
        notes = fused_notes(layout, self._targets(layout, setup)) + _tied_notes(
            layout, self.target_names(layout, setup)
        )
        if setup.head == "frozen" and layout.head:
            notes.append(FROZEN_HEAD)
        return Attached(wrapped, layout, self, setup, parameters=trained, head=head, warnings=notes)

    def trainable_count(self, layout: Layout, setup: Setup) -> int:
        names = self.target_names(layout, setup)
        options, _ = self._settle(layout, names, setup)
        shared = self.row.shared_count(options) if self.row.shared_count else 0
        return shared + sum(self.row.count(layout.layer(name), options) for name in names)

    def saved(self, attached: Attached) -> dict[str, Tensor]:
        from peft import get_peft_model_state_dict

        model: Any = attached.model
        return {**get_peft_model_state_dict(model, save_embedding_layers=False), **_adapted_head(model, attached)}

    def save(self, attached: Attached, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _save_tensors(self.saved(attached), folder / WEIGHTS_FILE)
        _write_config(attached.model, folder)

    def load(self, attached: Attached, folder: Path) -> None:
        from peft import set_peft_model_state_dict

        model: Any = attached.model
        state = read_weights(folder / WEIGHTS_FILE)
        wanted = self.saved(attached)
        check_shapes(wanted, state, folder)
        with _quiet_peft():
            set_peft_model_state_dict(model, {name: state[name] for name in wanted})

    def _targets(self, layout: Layout, setup: Setup) -> str | tuple[str, ...]:
        return setup.targets or self.row.family_targets.get(layout.family, self.row.targets)

    def _check_kinds(self, layout: Layout, targets: str | tuple[str, ...]) -> None:
        """Say so where a target is a layer of a kind that PEFT's method cannot sit at, e.g. GPT-2's ``Conv1D``."""
        fitting = {layer.name for layer in layout.layers if layer.kind in self.row.layer_kinds}
        for target in split_targets(targets):
            names = resolve_targets(layout, (target,), (*TARGETABLE, *self.row.layer_kinds))
            if not fitting & set(names):
                kind, kinds = layout.layer(names[0]).kind, " and ".join(self.row.layer_kinds)
                raise ConfigError(
                    f"In this {layout.family} model the target '{target}' is {names[0]}, a {kind} layer, and "
                    f"{self.name} works on {kinds} layers alone: choose other targets or another method, such as lora."
                )

    def _settle(self, layout: Layout, names: tuple[str, ...], setup: Setup) -> tuple[Any, dict[str, Any]]:
        """The options with what follows from the targets filled in, and PEFT's settings for them."""
        derived = self.row.derived(layout, names, setup.options) if self.row.derived else {}
        known = {name: value for name, value in derived.items() if name in self.Config.model_fields}
        settings = {**setup.options.model_dump(exclude_none=True), **self.row.fixed, **derived}
        return setup.options.model_copy(update=known), settings

    def _config(self, layout: Layout, setup: Setup) -> Any:
        """PEFT's own configuration for this model."""
        from peft import PeftType
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        names = self.target_names(layout, setup)
        _, settings = self._settle(layout, names, setup)
        with_head = bool(layout.head) and setup.head != "adapted"
        build = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(self.row.peft_type)]
        places: dict[str, Any] = {
            "target_modules": list(names),
            "modules_to_save": list(layout.head_modules) if with_head else None,
        }
        return build(
            # PEFT adds "classifier" and "score" to the head of SEQ_CLS by itself; an adapted head must not be there.
            task_type=task_type(layout, with_head=with_head),  # type: ignore[arg-type,unused-ignore]
            **{name: value for name, value in places.items() if name in build.__dataclass_fields__},
            **settings,
        )


def task_type(layout: Layout, *, with_head: bool) -> str | None:
    """PEFT's word for what a model does. It adds heads of its own to SEQ_CLS alone."""
    if with_head:
        return "SEQ_CLS"
    if layout.head or not layout.word_head:
        return None
    return {"decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}.get(layout.kind)


def _split(wrapped: Any, layout: Layout) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """What PEFT trains, adapters and head apart, by the names under which it is saved."""
    saved_head = {f"{_PREFIX}{name}": name for name in layout.head}
    trained: dict[str, nn.Parameter] = {}
    head: dict[str, nn.Parameter] = {}
    for name, parameter in _shortest_names(wrapped):
        if not parameter.requires_grad:
            continue
        if f".modules_to_save.{ADAPTER}." in name:
            saved = name.replace(f".modules_to_save.{ADAPTER}", "")
            if saved in saved_head:  # a module may also hold pretrained numbers, which stay frozen
                head[saved] = parameter
        else:
            saved = name.replace(f".{ADAPTER}.", ".").removesuffix(f".{ADAPTER}")
            trained[saved] = parameter
    return trained, head


def _shortest_names(wrapped: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter once; one that all layers share (VB-LoRA's bank) under the model's name for it, not a layer's."""
    names: dict[int, tuple[str, nn.Parameter]] = {}
    for name, parameter in wrapped.named_parameters(remove_duplicate=False):
        if id(parameter) not in names or len(name) < len(names[id(parameter)][0]):
            names[id(parameter)] = (name, parameter)
    yield from names.values()


def _tied_notes(layout: Layout, names: tuple[str, ...]) -> list[str]:
    shared = {name: [n for n in group if n != name] for group in layout.tied for name in group}
    return [
        f"The target {name} shares its weight with {', '.join(shared[name])}, which the adapter does not change: "
        f"merging it would."
        for name in names
        if name in shared
    ]


def _adapted_head(wrapped: Any, attached: Attached) -> dict[str, Any]:
    """A head with adapters on it is random underneath: its own numbers have to travel with the adapters."""
    if attached.setup.head != "adapted":
        return {}
    head = set(attached.layout.head)
    return {
        name: parameter
        for name, parameter in wrapped.named_parameters()
        if name.removeprefix(_PREFIX).replace(".base_layer.", ".") in head
    }


def _save_tensors(state: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(cpu_copies(state, sorted(state)), path, {"format": "pt"})


def _write_config(wrapped: Any, folder: Path) -> None:
    """PEFT's adapter_config.json, the same bytes in every process, and without a path of this machine."""
    config = wrapped.peft_config[ADAPTER]
    trained_in, config.inference_mode = config.inference_mode, True
    config.save_pretrained(str(folder))
    config.inference_mode = trained_in
    document = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    document["base_model_name_or_path"] = public_name(wrapped.get_base_model()) or None
    for key in ("target_modules", "modules_to_save", "feedforward_modules"):
        if isinstance(document.get(key), list):  # sets, in an order of their own in every process
            document[key] = sorted(set(document[key]))
    write_json(folder / CONFIG_FILE, document)


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """PEFT warns of what is meant (``fan_in_fan_out`` set to what a layer needs, projections drawn again from their
    key, BOFT without a compiled extension), and asks transformers in a way it outgrew."""
    with warnings.catch_warnings():
        for meant in (
            "fan_in_fan_out is set to",
            "Specified to not (save|load) ",
            "Failed to load the CUDA extension",
            "Setting boft_n_butterfly_factor to 1",
            "Unsupported layer type",  # LN tuning wraps whatever a norm is
            "Sparse invariant checks are implicitly disabled",
        ):
            warnings.filterwarnings("ignore", message=meant)
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated", category=FutureWarning)
        yield
