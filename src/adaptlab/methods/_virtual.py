"""Tokens that no text has: trained embeddings among a model's inputs, or trained keys and values before its own.

Nothing of the base is wrapped or renamed. A :class:`VirtualTokens` is a child of the model and hangs on hooks of the
module that reads the token ids, so that logits, labels, pooling of the last token and ``generate`` stay Hugging Face's
own. PEFT wraps the model instead, and its classifiers of decoders then read the last position, padding or not. What is
computed for a text without padding is what PEFT computes; padding on either side changes nothing.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaptlab.methods._base import ForAllRows
from adaptlab.models._base import KeyValues

#: The name under which the attention that :func:`_attend` computes is known to transformers.
_ATTENTION = "adaptlab_prefix"


@dataclass(frozen=True, slots=True)
class Places:
    """Where ``count`` virtual tokens stand in each row of a batch: right before its first real token.

    ``starts`` is ``[rows]``: how much padding comes before them.
    """

    starts: Tensor
    count: int

    @classmethod
    def of(cls, mask: Tensor | None, rows: int, count: int, device: torch.device) -> Places:
        """From an attention mask ``[rows, tokens]``, or from none where nothing is padded."""
        starts = torch.zeros(rows, dtype=torch.long, device=device) if mask is None else mask.long().argmax(dim=1)
        return cls(starts[:, None], count)

    def insert(self, values: Tensor, fill: int) -> Tensor:
        """``[rows, tokens]`` to ``[rows, count + tokens]``, with ``fill`` at the virtual tokens."""
        columns = torch.arange(values.shape[1] + self.count, device=values.device)[None]
        source = torch.where(columns < self.starts, columns, (columns - self.count).clamp(min=0))
        return values.gather(1, source).masked_fill(self._virtual(columns), fill)

    def write(self, prompt: Tensor, embedded: Tensor) -> Tensor:
        """``embedded`` ``[rows, count + tokens, features]`` with ``prompt`` ``[runs, count, features]`` put in."""
        columns = torch.arange(embedded.shape[1], device=embedded.device)[None]
        run = torch.arange(len(embedded), device=embedded.device)[:, None] // (len(embedded) // len(prompt))
        index = (columns - self.starts).clamp(0, self.count - 1) + run * self.count
        virtual = prompt.to(embedded.dtype).flatten(0, 1)[index]
        return torch.where(self._virtual(columns)[..., None], virtual, embedded)

    def remove(self, hidden: Tensor) -> Tensor:
        """``[rows, count + tokens, features]`` to ``[rows, tokens, features]``."""
        columns = torch.arange(hidden.shape[1] - self.count, device=hidden.device)[None]
        kept = torch.where(columns < self.starts, columns, columns + self.count)
        return hidden.gather(1, kept[..., None].expand(-1, -1, hidden.shape[2]))

    def _virtual(self, columns: Tensor) -> Tensor:
        return (columns >= self.starts) & (columns < self.starts + self.count)


class _Held(threading.local):
    """What one hook leaves for the next: each thread has its own, and a copy starts without."""

    value: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Held, ()


class Prompts(nn.Module):
    """The trained numbers themselves, ``[tokens, features]``, where no encoder makes them."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding(values.shape[0], values.shape[1], _weight=values)

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.embedding(tokens)
        return found


class TokensOfRuns(nn.Module):
    """The virtual tokens of runs that share a pass: what their encoders give, one after the other.

    Args:
        runs: each run's own.
        active: which of them, by their places in ``runs``, the present pass carries.
    """

    def __init__(self, runs: Sequence[VirtualTokens], active: Callable[[], Sequence[int]]) -> None:
        super().__init__()
        self.runs = nn.ModuleList(runs)
        self._active = active

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.runs[run]() for run in self._active()])


class VirtualTokens(nn.Module, ForAllRows):
    """``count`` virtual tokens. ``encoder`` gives their features, ``[1, count]`` to ``[1, count, features]``.

    A pass that several runs share (``encoder`` is :class:`TokensOfRuns`) has the rows of each one after the other,
    equally many, and the encoder gives ``[runs, count, features]``.

    While ``enabled`` is false the model computes exactly what it computes without them.
    """

    def __init__(self, encoder: nn.Module, count: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.count = count
        self.enabled = True
        self._held = _Held()

    def forward(self) -> Tensor:
        """``[runs, count, features]``, in float32 whatever the model's dtype."""
        weight = next(self.encoder.parameters())
        # The meta device, on which operations are counted, knows no autocast.
        with nullcontext() if weight.is_meta else torch.autocast(weight.device.type, enabled=False):
            found: Tensor = self.encoder(torch.arange(self.count, device=weight.device)[None])
        return found


class PromptTokens(VirtualTokens):
    """Virtual tokens among the inputs. ``placeholder`` is any token that is not padding."""

    def __init__(self, encoder: nn.Module, count: int, placeholder: int) -> None:
        super().__init__(encoder, count)
        self.placeholder = placeholder

    def hang_on_embedding(self, embedding: nn.Module) -> None:
        """``embedding`` turns token ids into features: the virtual tokens' are put in."""
        embedding.register_forward_hook(self._write)

    def hang_on_encoder(self, module: nn.Module) -> None:
        """``module`` reads all tokens at once: a whole encoder, or the encoder of an encoder-decoder."""
        module.register_forward_pre_hook(self._extend, with_kwargs=True)
        module.register_forward_hook(self._forget, always_call=True)

    def hang_on_cross_attention(self, decoder: nn.Module) -> None:
        """``decoder`` reads what the encoder made of the virtual tokens too."""
        decoder.register_forward_pre_hook(self._extend_cross_attention, with_kwargs=True)

    def hang_on_decoder(self, stack: nn.Module) -> None:
        """``stack`` reads tokens with a cache. What it gives for virtual tokens, nobody asked for."""
        stack.register_forward_pre_hook(self._extend_decoder, with_kwargs=True)
        stack.register_forward_hook(self._trim)
        stack.register_forward_hook(self._forget, always_call=True)

    def _write(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        places = self._held.value
        return None if places is None else places.write(self(), output)

    def _extend(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if not self.enabled:
            return None
        given = _named(module, args, kwargs)
        ids, mask = given["input_ids"], given.get("attention_mask")
        places = Places.of(mask, len(ids), self.count, ids.device)
        given["input_ids"] = places.insert(ids, self.placeholder)
        if mask is not None:
            given["attention_mask"] = places.insert(mask, 1)
        if given.get("token_type_ids") is not None:
            given["token_type_ids"] = places.insert(given["token_type_ids"], 0)
        self._held.value = places
        return (), given

    def _extend_cross_attention(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        given = _named(module, args, kwargs)
        mask = given.get("encoder_attention_mask")
        if not self.enabled or mask is None:
            return None
        given["encoder_attention_mask"] = Places.of(mask, len(mask), self.count, mask.device).insert(mask, 1)
        return (), given

    def _extend_decoder(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The first call puts the virtual tokens in; later ones, in generation, find them in the cache."""
        if not self.enabled:
            return None
        given = _named(module, args, kwargs)
        ids, mask = given["input_ids"], given.get("attention_mask")
        places = Places.of(mask, len(ids), self.count, ids.device)
        if mask is not None:
            given["attention_mask"] = places.insert(mask, 1)
        if not _cached(given.get("past_key_values")):
            given["input_ids"] = places.insert(ids, self.placeholder)
            self._held.value = places
        _count_positions(module, given)
        return (), given

    def _trim(self, module: nn.Module, args: Any, output: Any) -> Any:
        places = self._held.value
        if places is not None:
            output["last_hidden_state"] = places.remove(output["last_hidden_state"])
            if output.get("hidden_states") is not None:
                output["hidden_states"] = tuple(places.remove(hidden) for hidden in output["hidden_states"])
        return output

    def _forget(self, module: nn.Module, args: Any, output: Any) -> None:
        self._held.value = None


class PrefixStates(VirtualTokens):
    """Virtual keys and values before those of every block."""

    def __init__(self, encoder: nn.Module, count: int, shape: KeyValues) -> None:
        super().__init__(encoder, count)
        self.shape = shape

    def states(self) -> Tensor:
        """``[2 x blocks, runs, heads, count, features]``: a block's keys, then its values."""
        values = self()
        if not values.is_meta and torch.is_autocast_enabled(values.device.type):
            values = values.to(torch.get_autocast_dtype(values.device.type))
        split: Tensor = values.view(len(values), self.count, -1, self.shape.heads, self.shape.features)
        return split.permute(2, 0, 3, 1, 4)

    def hang_on_stack(self, stack: nn.Module, *, positions: bool) -> None:
        """``stack`` takes a cache. With ``positions``, texts are numbered from behind the prefix, padding left out."""
        stack.register_forward_pre_hook(self._counting if positions else self._filling, with_kwargs=True)
        stack.register_forward_hook(self._keep_cache, with_kwargs=True)

    def hang_on_attention(self, model: Any, attentions: list[nn.Module]) -> None:
        """Each of ``attentions`` computes its scores through transformers' registry, under ``model``'s own name."""
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        AttentionInterface.register(_ATTENTION, _attend)
        AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
        model.config._attn_implementation = _ATTENTION
        for index, attention in enumerate(attentions):
            attention.register_forward_pre_hook(_Handing(self, index), with_kwargs=True)
        model.register_forward_pre_hook(self._prepare)

    def _counting(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        filled = self._filling(module, args, kwargs)
        if filled is not None:
            _count_positions(module, filled[1])
        return filled

    def _filling(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        from transformers import DynamicCache, EncoderDecoderCache

        if not self.enabled:
            return None
        given = _named(module, args, kwargs)
        ids, mask, cache = given["input_ids"], given.get("attention_mask"), given.get("past_key_values")
        if mask is not None:
            given["attention_mask"] = torch.cat((mask.new_ones(len(mask), self.count), mask), dim=1)
        if not _cached(cache):
            if cache is None:
                own = DynamicCache()
                crosses = "encoder_hidden_states" in given and module.config.is_encoder_decoder  # type: ignore[union-attr]
                cache = EncoderDecoderCache(own, DynamicCache()) if crosses else own
            inner = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
            states = _for_rows(self.states(), len(ids), dim=1)
            for block in range(len(states) // 2):
                inner.update(states[2 * block], states[2 * block + 1], block)
            given["past_key_values"] = cache
        return (), given

    def _keep_cache(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """A cache that is ours alone is no output: ``generate`` would go on from it, and call with all tokens again."""
        if self.enabled and kwargs.get("use_cache") is False:
            output["past_key_values"] = None
        return output

    def _prepare(self, module: nn.Module, args: Any) -> None:
        self._held.value = self.states() if self.enabled else None

    def of_block(self, index: int) -> tuple[Tensor, Tensor] | None:
        """The keys and values, ``[runs, heads, count, features]``, that a block's attention is handed."""
        states = self._held.value
        return None if states is None else (states[2 * index], states[2 * index + 1])


class _Handing(ForAllRows):
    """A hook that hands an attention its block's prefix; an object, so that a copied model's hooks are its own."""

    def __init__(self, prefix: PrefixStates, index: int) -> None:
        self.prefix = prefix
        self.index = index

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "prefix": self.prefix.of_block(self.index)}


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> Any:
    """Scaled dot-product attention, over the prefix too; a mask is ``[rows, 1, queries, keys]``."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    prefix = settings.pop("prefix", None)
    if prefix is not None:
        keys, values = (_for_rows(part.to(key.dtype), len(key), dim=0) for part in prefix)
        key, value = torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)
        if attention_mask is not None:
            seen = True if attention_mask.dtype == torch.bool else 0.0
            attention_mask = nn.functional.pad(attention_mask, (keys.shape[2], 0), value=seen)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)


def _for_rows(states: Tensor, rows: int, *, dim: int) -> Tensor:
    """Runs along ``dim`` to rows: each run's states for each of its rows; of one run, nothing is copied."""
    before, after = states.shape[: dim + 1], states.shape[dim + 1 :]
    return states.unsqueeze(dim + 1).expand(*before, rows // before[-1], *after).flatten(dim, dim + 1)


def _named(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name."""
    names = inspect.signature(module.forward).parameters
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given.get("input_ids") is None:
        raise ValueError("virtual tokens stand among token ids: call the model with input_ids")
    return given


def _cached(cache: Any) -> bool:
    return cache is not None and cache.get_seq_length() > 0


def _count_positions(module: nn.Module, given: dict[str, Any]) -> None:
    """Positions that count real and virtual tokens alone, for a stack that takes any; else its own, from the cache."""
    if "position_ids" not in inspect.signature(module.forward).parameters:
        return
    mask = given.get("attention_mask")
    counted = None if mask is None else (mask.cumsum(dim=1) - 1).clamp(min=0)
    given["position_ids"] = None if counted is None else counted[:, -given["input_ids"].shape[1] :]
