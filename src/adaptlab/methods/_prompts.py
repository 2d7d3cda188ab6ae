"""Prefix tuning, prompt tuning and P-tuning: the machinery behind ``prompting.py``.

What is trained is PEFT's own prompt encoder, and the file is PEFT's own format; how it enters the model is ours
(``_virtual``), since PEFT's way fails on encoder-decoders' heads and on encoders without a cache.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adaptlab.errors import ConfigError
from adaptlab.methods._base import Attached, MethodOptions, Placement, Setup
from adaptlab.methods._peft import task_type
from adaptlab.methods._selection import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    SelectionMethod,
    check_shapes,
    cpu_copies,
    public_name,
    read_weights,
    write_json,
)
from adaptlab.models._base import Layout

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adaptlab.methods._virtual import VirtualTokens

Shapes = dict[str, tuple[int, ...]]

_CHILD = "virtual_tokens"
_SAVED = "prompt_embeddings"  # PEFT's name for what a prompt encoder gives


class PromptOptions(MethodOptions):
    num_virtual_tokens: int = Field(20, ge=1, description="virtual tokens; each takes one of the model's positions")


class PromptMethod(SelectionMethod):
    """A method of PEFT's that adds virtual tokens to every text.

    Attributes:
        peft_type: a member of ``peft.PeftType``.
        where: where the virtual tokens stand, in words.
    """

    placement: Placement = "prompt"
    peft_type: str
    where: str
    Config: type[PromptOptions] = PromptOptions

    @abstractmethod
    def shapes(self, layout: Layout, options: Any) -> Shapes:
        """The parameters of the prompt encoder, by their names in it.

        Raises:
            ConfigError: this model has no place for the virtual tokens.
        """

    @abstractmethod
    def settings(self, layout: Layout, options: Any) -> dict[str, Any]:
        """PEFT's settings, beside those that all have."""

    @abstractmethod
    def place(self, model: nn.Module, layout: Layout, encoder: nn.Module, options: Any) -> VirtualTokens:
        """Virtual tokens made by ``encoder``, hung on ``model``."""

    @abstractmethod
    def peft_loads(self, layout: Layout) -> bool:
        """Whether PEFT alone can run what is saved."""

    def virtual_tokens(self, options: MethodOptions) -> int:
        assert isinstance(options, PromptOptions)
        return options.num_virtual_tokens

    def company(self, options: MethodOptions) -> str:
        return f"{self.virtual_tokens(options)} virtual tokens {self.where}"

    def hang_on_shared(self, model: nn.Module, runs: Sequence[Attached], active: Callable[[], Sequence[int]]) -> None:
        from adaptlab.methods._virtual import TokensOfRuns

        tokens: Any = [run.model.get_submodule(_CHILD) for run in runs]
        self.place(model, runs[0].layout, TokensOfRuns(tokens, active), runs[0].setup.options)

    def chosen(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        return tuple(f"{_CHILD}.encoder.{name}" for name in self._shapes(layout, setup))

    def trainable_count(self, layout: Layout, setup: Setup) -> int:
        return sum(prod(shape) for shape in self._shapes(layout, setup).values())

    def attach(self, model: nn.Module, layout: Layout, setup: Setup) -> Attached:
        from peft import PeftType
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

        self._shapes(layout, setup)
        if hasattr(model, _CHILD):
            raise ConfigError("This model has virtual tokens already: attach to a model without.")
        config = self._config(layout, setup)
        build: Any = PEFT_TYPE_TO_TUNER_MAPPING[PeftType(self.peft_type)]
        embedding = model.get_submodule(token_embedding(layout))
        wants_words = self.peft_type == "PROMPT_TUNING"
        encoder = build(config, embedding) if wants_words else build(config)
        tokens = self.place(model, layout, encoder.to(next(embedding.parameters()).device), setup.options)
        model.add_module(_CHILD, tokens)
        return super().attach(model, layout, setup)

    def saved(self, attached: Attached) -> dict[str, Tensor]:
        """What the prompt encoder gives (the encoder itself is dropped, as in the papers), and the head."""
        import torch

        prefix = "base_model." if self.peft_loads(attached.layout) else ""
        named = dict(attached.model.named_parameters())
        tokens: Any = attached.model.get_submodule(_CHILD)
        with torch.no_grad():  # as in evaluation: an LSTM's kernels differ in the last bits otherwise
            (prompts,) = tokens()
        return {_SAVED: prompts, **{f"{prefix}{name}": named[name] for name in attached.layout.head}}

    def save(self, attached: Attached, folder: Path) -> None:
        from safetensors.torch import save_file

        if not self.peft_loads(attached.layout):
            super().save(attached, folder)
            return
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.saved(attached)
        save_file(cpu_copies(tensors, sorted(tensors)), folder / WEIGHTS_FILE, {"format": "pt"})
        config = self._config(attached.layout, attached.setup)
        config.inference_mode = True
        config.base_model_name_or_path = public_name(attached.model) or None
        write_json(folder / CONFIG_FILE, _plain(config.to_dict()))

    def load(self, attached: Attached, folder: Path) -> None:
        import torch

        state = read_weights(folder / WEIGHTS_FILE)
        wanted = self.saved(attached)
        check_shapes(wanted, state, folder)
        tokens: Any = attached.model.get_submodule(_CHILD)
        with torch.no_grad():
            for name, tensor in wanted.items():
                if name != _SAVED:
                    tensor.copy_(state[name])
            if len(attached.parameters) == 1:
                tokens.encoder.embedding.weight.copy_(state[_SAVED])
        if len(attached.parameters) > 1:
            self._drop_encoder(attached, state[_SAVED])

    def _drop_encoder(self, attached: Attached, prompts: Tensor) -> None:
        """From now on the prompts themselves are the parameters: no encoder could be found that gives them."""
        from adaptlab.methods._virtual import Prompts

        tokens: Any = attached.model.get_submodule(_CHILD)
        device = next(tokens.encoder.parameters()).device
        tokens.encoder = Prompts(prompts.to(device, copy=True))
        attached.parameters = {f"{_CHILD}.encoder.embedding.weight": tokens.encoder.embedding.weight}

    def _shapes(self, layout: Layout, setup: Setup) -> Shapes:
        if setup.targets is not None:
            raise ConfigError(
                f"The method {self.name} adds virtual tokens to the whole model, so it takes no targets: leave them "
                f"out, or choose a method that sits at single layers, such as lora."
            )
        return self.shapes(layout, setup.options)

    def _config(self, layout: Layout, setup: Setup) -> Any:
        """PEFT's configuration with nothing left for PEFT to guess."""
        from peft import PeftType
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        options: Any = setup.options
        return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(self.peft_type)](
            **{
                "task_type": task_type(layout, with_head=bool(layout.head)),
                "num_virtual_tokens": options.num_virtual_tokens,
                "num_layers": len(stack_blocks(layout)),
                "modules_to_save": sorted({*layout.head_modules, "classifier", "score"}) if layout.head else None,
                **self.settings(layout, options),
            }
        )


def stack_blocks(layout: Layout) -> tuple[str, ...]:
    """The blocks that a prefix goes to: all, of an encoder-decoder the decoder's."""
    if layout.kind != "encoder-decoder":
        return layout.blocks
    return tuple(block for block in layout.blocks if "decoder" in block.split("."))


def stack_of(blocks: tuple[str, ...]) -> str:
    """The module whose list of blocks this is: ``model.decoder`` of ``model.decoder.layers.0``."""
    return blocks[0].rpartition(".")[0].rpartition(".")[0]


def encoder_blocks(layout: Layout) -> tuple[str, ...]:
    """The blocks of an encoder-decoder's encoder."""
    later = set(stack_blocks(layout))
    return tuple(block for block in layout.blocks if block not in later)


def token_embedding(layout: Layout) -> str:
    """The embedding that the virtual tokens stand beside: of an encoder-decoder the encoder's."""
    found = layout.words["embeddings"]
    if layout.kind != "encoder-decoder":
        return found[0]
    stack = stack_of(encoder_blocks(layout))
    return next((name for name in found if name.startswith(f"{stack}.")), found[0])


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Enumerations as their values."""
    return {key: getattr(value, "value", value) for key, value in document.items()}
