"""Prefix tuning, prompt tuning and P-tuning: virtual tokens that are trained, over a frozen base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from adaptlab.errors import ConfigError
from adaptlab.methods._base import LearningRates
from adaptlab.methods._prompts import (
    PromptMethod,
    PromptOptions,
    Shapes,
    encoder_blocks,
    stack_blocks,
    stack_of,
    token_embedding,
)
from adaptlab.models._base import KeyValues, Layout

if TYPE_CHECKING:
    from torch import nn

    from adaptlab.methods._virtual import VirtualTokens


class InputPrompt(PromptMethod):
    """Virtual tokens among the inputs, before the first real one."""

    where = "among the inputs"

    def settings(self, layout: Layout, options: Any) -> dict[str, Any]:
        # PEFT would draw a second set for an encoder-decoder's decoder, and use only the first.
        return {"token_dim": _embedding_width(layout), "num_attention_heads": 1, "num_transformer_submodules": 1}

    def place(self, model: nn.Module, layout: Layout, encoder: nn.Module, options: Any) -> VirtualTokens:
        from adaptlab.methods._virtual import PromptTokens

        config: Any = model.config
        placeholder = 1 if getattr(config, "pad_token_id", None) == 0 else 0
        tokens = PromptTokens(encoder, options.num_virtual_tokens, placeholder)
        tokens.hang_on_embedding(model.get_submodule(token_embedding(layout)))
        if layout.kind == "encoder":
            tokens.hang_on_encoder(model)
        elif layout.kind == "decoder":
            tokens.hang_on_decoder(model.get_submodule(stack_of(layout.blocks)))
        else:
            tokens.hang_on_encoder(model.get_submodule(stack_of(encoder_blocks(layout))))
            tokens.hang_on_cross_attention(model.get_submodule(stack_of(stack_blocks(layout))))
        return tokens

    def peft_loads(self, layout: Layout) -> bool:
        return layout.kind != "encoder-decoder" or not layout.head

    def alone_in_peft(self, layout: Layout) -> str | None:
        if layout.kind != "decoder" or not layout.head:
            return None
        return (
            f"With {self.name}, PEFT's classifier of a {layout.family} model reads the last position, padding or not: "
            f"give PEFT one row at a time."
        )


class PromptTuningOptions(PromptOptions):
    prompt_tuning_init: Literal["SAMPLE_VOCAB", "RANDOM"] = Field(
        "SAMPLE_VOCAB", description="start as the embeddings of random words, or from a normal distribution"
    )


class PromptTuning(InputPrompt):
    name = "prompt-tuning"
    summary = "trained embeddings before each text"
    paper = "Lester et al. 2021, arXiv 2104.08691"
    peft_type = "PROMPT_TUNING"
    Config = PromptTuningOptions
    learning_rates = LearningRates(default=4e-2, low=1e-3, high=3e-1)

    def shapes(self, layout: Layout, options: Any) -> Shapes:
        return {"embedding.weight": (options.num_virtual_tokens, _embedding_width(layout))}

    def settings(self, layout: Layout, options: Any) -> dict[str, Any]:
        return {**super().settings(layout, options), "prompt_tuning_init": options.prompt_tuning_init}


class PTuningOptions(PromptOptions):
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = Field("MLP", description="the network they come from")
    encoder_hidden_size: int | None = Field(None, ge=1, description="its width; by default that of the embeddings")
    encoder_num_layers: int | None = Field(None, ge=1, description="layers of the LSTM; 2 by default")

    @model_validator(mode="after")
    def _layers_of_an_lstm(self) -> Self:
        if self.encoder_num_layers is not None and self.encoder_reparameterization_type == "MLP":
            raise ValueError("encoder_num_layers has no effect on the MLP, which has 3 layers: leave it out")
        return self


class PTuning(InputPrompt):
    name = "p-tuning"
    summary = "embeddings before each text, from a small network that is trained with them and then dropped"
    paper = "Liu et al. 2021, arXiv 2103.10385"
    peft_type = "P_TUNING"
    Config = PTuningOptions
    learning_rates = LearningRates(default=3e-2, low=1e-3, high=1e-1)

    def shapes(self, layout: Layout, options: Any) -> Shapes:
        width = _embedding_width(layout)
        hidden = options.encoder_hidden_size or width
        embedding = {"embedding.weight": (options.num_virtual_tokens, width)}
        if options.encoder_reparameterization_type == "MLP":
            return embedding | _linears("mlp_head", {0: (hidden, width), 2: (hidden, hidden), 4: (width, hidden)})
        lstm: Shapes = {}
        for layer in range(options.encoder_num_layers or 2):
            for side in ("", "_reverse"):
                inputs = 2 * hidden if layer else width
                lstm[f"lstm_head.weight_ih_l{layer}{side}"] = (4 * hidden, inputs)
                lstm[f"lstm_head.weight_hh_l{layer}{side}"] = (4 * hidden, hidden)
                lstm[f"lstm_head.bias_ih_l{layer}{side}"] = (4 * hidden,)
                lstm[f"lstm_head.bias_hh_l{layer}{side}"] = (4 * hidden,)
        return embedding | lstm | _linears("mlp_head", {0: (2 * hidden, 2 * hidden), 2: (width, 2 * hidden)})

    def settings(self, layout: Layout, options: Any) -> dict[str, Any]:
        return {
            **super().settings(layout, options),
            "encoder_reparameterization_type": options.encoder_reparameterization_type,
            "encoder_hidden_size": options.encoder_hidden_size or _embedding_width(layout),
            "encoder_num_layers": options.encoder_num_layers or 2,
        }


class PrefixOptions(PromptOptions):
    prefix_projection: bool = Field(False, description="train a network that gives them, and drop it afterwards")
    encoder_hidden_size: int | None = Field(None, ge=1, description="that network's width; by default that of the keys")
    init_weights: Literal["zero"] | None = Field(None, description="'zero' starts them at zero, not at random")

    @model_validator(mode="after")
    def _width_of_a_network(self) -> Self:
        if self.encoder_hidden_size is not None and not self.prefix_projection:
            raise ValueError("encoder_hidden_size has no effect without prefix_projection: give both or neither")
        return self


class PrefixTuning(PromptMethod):
    name = "prefix-tuning"
    summary = "trained keys and values before those of every block (an encoder-decoder's decoder)"
    paper = "Li and Liang 2021, arXiv 2101.00190"
    peft_type = "PREFIX_TUNING"
    where = "before the keys"
    Config = PrefixOptions
    learning_rates = LearningRates(default=2e-2, low=1e-3, high=1e-1)

    def shapes(self, layout: Layout, options: Any) -> Shapes:
        width = _key_values(layout).width
        every = 2 * len(stack_blocks(layout)) * width
        if not options.prefix_projection:
            return {"embedding.weight": (options.num_virtual_tokens, every)}
        hidden = options.encoder_hidden_size or width
        network = _linears("transform", {0: (hidden, width), 2: (every, hidden)})
        return {"embedding.weight": (options.num_virtual_tokens, width)} | network

    def settings(self, layout: Layout, options: Any) -> dict[str, Any]:
        shape = _key_values(layout)
        return {
            "token_dim": shape.width,
            "num_attention_heads": shape.heads,
            "prefix_projection": options.prefix_projection,
            "encoder_hidden_size": options.encoder_hidden_size or shape.width,
            "init_weights": options.init_weights,
        }

    def place(self, model: nn.Module, layout: Layout, encoder: nn.Module, options: Any) -> VirtualTokens:
        from adaptlab.methods._virtual import PrefixStates

        shape = _key_values(layout)
        tokens = PrefixStates(encoder, options.num_virtual_tokens, shape)
        if shape.reached_by == "interface":
            tokens.hang_on_attention(model, [_attention(model.get_submodule(block)) for block in layout.blocks])
        elif layout.kind == "encoder":
            body: Any = model.base_model
            tokens.hang_on_stack(body, positions=False)
        else:
            stack = model.get_submodule(stack_of(stack_blocks(layout)))
            tokens.hang_on_stack(stack, positions=layout.kind == "decoder")
        return tokens

    def peft_loads(self, layout: Layout) -> bool:
        # In an encoder-decoder PEFT 0.21 hands block i the prefix of block 2i (mod blocks), and none gets the others.
        return layout.kind != "encoder-decoder" and _key_values(layout).reached_by == "cache"


def _linears(name: str, shapes: dict[int, tuple[int, int]]) -> Shapes:
    """The parameters of a sequence's linears, by their places in it; shapes are ``(outputs, inputs)``."""
    found: Shapes = {}
    for place, shape in shapes.items():
        found[f"{name}.{place}.weight"] = shape
        found[f"{name}.{place}.bias"] = shape[:1]
    return found


def _embedding_width(layout: Layout) -> int:
    return layout.layer(token_embedding(layout)).outputs


def _key_values(layout: Layout) -> KeyValues:
    """Raises :class:`ConfigError` where no prefix can come before the keys."""
    found = layout.key_values
    if found is None or found.reached_by is None:
        reason = (
            "has blocks that differ in their keys, or none" if found is None else
            "computes its attention itself, with neither a cache nor transformers' registry"
        )  # fmt: skip
        raise ConfigError(
            f"This {layout.family} model {reason}, so that nothing can come before its keys and values: choose "
            f"prompt-tuning, or another method, such as lora."
        )
    return found


def _attention(block: nn.Module) -> nn.Module:
    """The module of a block that computes attention scores: the innermost that is called so."""
    return [module for module in block.modules() if "Attention" in type(module).__name__][-1]


plugins = [PrefixTuning(), PromptTuning(), PTuning()]
