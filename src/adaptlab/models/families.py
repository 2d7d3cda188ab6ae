"""Where things are in each architecture: blocks, head, and what target words mean.

Everything is read off the module tree. Families differ in names only (``query``, ``q_lin``, ``q_proj`` ...), so the
tables below hold the names of a role in all of them; a family with names of its own needs an entry there.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from adaptlab.models._base import KeyValues, Layer, Layout, ModelKind

if TYPE_CHECKING:
    from torch import nn

_ROLES: dict[str, frozenset[str]] = {
    "query": frozenset({"query", "q", "q_proj", "q_lin", "query_proj", "q_attn"}),
    "key": frozenset({"key", "k", "k_proj", "k_lin", "key_proj"}),
    "value": frozenset({"value", "v", "v_proj", "v_lin", "value_proj"}),
    "output": frozenset({"o", "o_proj", "out_proj", "out_lin", "Wo", "c_proj", "dense"}),
}
#: Attention projections that stand in one matrix.
_FUSED_ATTENTION: dict[str, tuple[str, ...]] = {
    "c_attn": ("query", "key", "value"),
    "Wqkv": ("query", "key", "value"),
    "query_key_value": ("query", "key", "value"),
    "qkv_proj": ("query", "key", "value"),
    "in_proj": ("query", "key", "value"),
}
_GATES = frozenset({"gate_proj", "wi_0", "w1"})
#: Gate and input projection in one matrix. ModernBERT's is called ``Wi``.
_FUSED_GATES = frozenset({"gate_up_proj", "Wi"})
#: Families whose classifier reads a row's first token, and whose blocks have a module for what follows attention, which
#: is given attention's output and what is added to it.
_FIRST_TOKEN = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "deberta", "deberta-v2"})
_AFTER_ATTENTION = "attention.output"
_ATTENTION = re.compile(r"att", re.IGNORECASE)
_CLASSIFIER = re.compile(r"classif|^score$")


def describe(model: nn.Module, missing_keys: Collection[str]) -> Layout:
    """Read a Hugging Face model's layout off its module tree.

    Args:
        model: the bare model; weights may be on the meta device.
        missing_keys: names of parameters that the checkpoint does not have.
    """
    config: Any = model.config
    kind = model_kind(config)
    parameters = {name: tuple(shape) for name, shape in _shapes(model)}
    blocks = _blocks(model, kind)
    layers = tuple(_layers(model, blocks))
    head = _head(model, parameters, missing_keys)
    words, fused = _words(model, layers, head)
    return Layout(
        family=config.model_type,
        kind=kind,
        hidden_size=config.hidden_size,
        blocks=blocks,
        layers=layers,
        head=head,
        head_modules=tuple(_covering(model, frozenset(head))),
        parameters=parameters,
        words=words,
        fused_words=fused,
        tied=_tied(model),
        key_values=_key_values(model, kind),
        word_head=_word_head(model),
        tokens_part=_tokens_part(model, blocks),
    )


def model_kind(config: Any) -> ModelKind:
    """Encoder, decoder or encoder-decoder. What has a causal and no masked language model is a decoder."""
    from transformers.models.auto import modeling_auto

    if config.is_encoder_decoder:
        return "encoder-decoder"
    causal = config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "decoder" if causal and not masked else "encoder"


def classifier_modules(model: nn.Module) -> tuple[str, ...]:
    """Children beside the base model that make a class decision: ``classifier``, ``score``, ``pre_classifier`` ..."""
    base: str = getattr(model, "base_model_prefix", "")
    return tuple(name for name, _ in model.named_children() if name != base and _CLASSIFIER.search(name))


def _shapes(model: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Parameters' shapes. A quantised linear stores packed bytes; its shape is that of the matrix it stands for."""
    from torch import nn

    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        module = modules[owner]
        if isinstance(module, nn.Linear) and leaf == "weight":
            yield name, (module.out_features, module.in_features)
        else:
            yield name, tuple(parameter.shape)


def _blocks(model: nn.Module, kind: ModelKind) -> tuple[str, ...]:
    """Members of the outermost lists of like modules that hold linears; of those, the ones with attention."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    lists: list[tuple[list[str], bool]] = []
    inside: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{outer}.") for outer in inside):
            continue
        members = list(module.named_children())
        if len({type(member) for _, member in members}) != 1:
            continue
        if not any(isinstance(part, (nn.Linear, Conv1D)) for part in members[0][1].modules()):
            continue
        inside.append(name)
        attends = any(_ATTENTION.search(part) for part, _ in members[0][1].named_modules())
        lists.append(([f"{name}.{child}" for child, _ in members], attends))
    if any(attends for _, attends in lists):
        lists = [found for found in lists if found[1]]
    if kind == "encoder-decoder":
        lists.sort(key=lambda found: "decoder" in found[0][0].split("."))
    return tuple(name for names, _ in lists for name in names)


def _layers(model: nn.Module, blocks: tuple[str, ...]) -> Iterator[Layer]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            kind, inputs, outputs, bias = "linear", module.in_features, module.out_features, module.bias is not None
        elif isinstance(module, Conv1D):
            kind, inputs, outputs, bias = "conv1d", module.nx, module.nf, True
        elif isinstance(module, nn.Embedding):
            kind, inputs, outputs, bias = "embedding", module.num_embeddings, module.embedding_dim, False
        elif "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
            size = module.weight.numel()
            kind, inputs, outputs, bias = "norm", size, size, getattr(module, "bias", None) is not None
        else:
            continue
        block = next((i for i, prefix in enumerate(blocks) if name.startswith(f"{prefix}.")), None)
        yield Layer(name, kind, inputs, outputs, bias, block)  # type: ignore[arg-type]


def _head(model: nn.Module, parameters: Collection[str], missing_keys: Collection[str]) -> tuple[str, ...]:
    prefixes = tuple(f"{name}." for name in classifier_modules(model))
    return tuple(name for name in parameters if name in missing_keys or name.startswith(prefixes))


def _covering(module: nn.Module, wanted: frozenset[str], prefix: str = "") -> Iterator[str]:
    """The fewest modules below ``module`` that hold the parameters ``wanted`` and, where possible, no others."""
    from torch import nn

    for child_name, child in module.named_children():
        name = f"{prefix}{child_name}"
        held = {f"{name}.{leaf}" for leaf, _ in child.named_parameters()}
        if not held & wanted:
            continue
        # Containers have no forward of their own, so PEFT cannot wrap them.
        callable_whole = held <= wanted and not isinstance(child, (nn.ModuleList, nn.ModuleDict))
        own = {f"{name}.{leaf}" for leaf, _ in child.named_parameters(recurse=False)}
        if callable_whole or own & wanted:
            yield name
        else:
            yield from _covering(child, wanted, f"{name}.")


def _words(
    model: nn.Module, layers: tuple[Layer, ...], head: tuple[str, ...]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Target words to modules, and of these the words that name only a part of a fused module."""
    words: dict[str, list[str]] = {word: [] for word in (*_ROLES, "mlp", "mlp-input", "mlp-gate", "mlp-output")}
    fused: dict[str, list[str]] = {}
    matrices = [layer for layer in layers if layer.kind in ("linear", "conv1d")]
    in_blocks = [layer for layer in matrices if layer.block is not None]
    for layer in in_blocks:
        path, _, leaf = layer.name.rpartition(".")
        if _ATTENTION.search(_inside_block(path)):
            for role, names in _ROLES.items():
                if leaf in names:
                    words[role].append(layer.name)
            for role in _FUSED_ATTENTION.get(leaf, ()):
                words[role].append(layer.name)
                fused.setdefault(role, []).append(layer.name)
        else:
            words["mlp"].append(layer.name)
    _split_mlp(in_blocks, words, fused)
    head_owners = {name.rpartition(".")[0] for name in head}
    words["head"] = [layer.name for layer in matrices if layer.name in head_owners]
    words["embeddings"] = _token_embeddings(model)
    words["norms"] = [
        layer.name
        for layer in layers
        if layer.kind == "norm" and not {layer.name, *layer.name.split(".")} & {*head_owners, "pooler"}
    ]
    words["all-linear"] = [layer.name for layer in in_blocks if layer.name not in head_owners]
    return (
        {word: tuple(names) for word, names in words.items() if names},
        {word: tuple(names) for word, names in fused.items()},
    )


def _inside_block(path: str) -> str:
    """A module's path below its block, so that a model called "attentive" is not all attention."""
    return re.split(r"\.\d+\.", f"{path}.", maxsplit=1)[-1]


def _split_mlp(in_blocks: list[Layer], words: dict[str, list[str]], fused: dict[str, list[str]]) -> None:
    """Of a block's feed-forward linears the last one leads out, gates are known by name, the rest lead in."""
    members: dict[int, list[str]] = {}
    mlp = set(words["mlp"])
    for layer in in_blocks:
        if layer.name in mlp and layer.block is not None:
            members.setdefault(layer.block, []).append(layer.name)
    for *inwards, last in members.values():
        words["mlp-output"].append(last)
        for name in inwards:
            leaf = name.rpartition(".")[2]
            if leaf in _FUSED_GATES:
                for word in ("mlp-input", "mlp-gate"):
                    words[word].append(name)
                    fused.setdefault(word, []).append(name)
            else:
                words["mlp-gate" if leaf in _GATES else "mlp-input"].append(name)


def _token_embeddings(model: nn.Module) -> list[str]:
    """The token embeddings that the forward pass goes through.

    Encoder-decoders keep a ``shared`` embedding that only lends its weight to those of encoder and decoder:
    whatever is attached to it gets no gradient.
    """
    from torch import nn

    source = model.get_input_embeddings()  # type: ignore[operator]
    same = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Embedding) and m.weight is source.weight]
    return [name for name, module in same if module is not source or len(same) == 1]


def _word_head(model: nn.Module) -> str:
    """The module whose outputs are logits over the vocabulary; empty where there is none."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return next((name for name, module in model.named_modules() if head is not None and module is head), "")


def _tokens_part(model: nn.Module, blocks: tuple[str, ...]) -> str:
    config: Any = model.config
    known = config.model_type in _FIRST_TOKEN and model_kind(config) == "encoder"
    return f"{blocks[-1]}.{_AFTER_ATTENTION}" if known and classifier_modules(model) else ""


def _tied(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None and "weight" in module._parameters:
            owners.setdefault(id(weight), []).append(name)
    return tuple(tuple(names) for names in owners.values() if len(names) > 1)


def _key_values(model: nn.Module, kind: ModelKind) -> KeyValues | None:
    config: Any = model.config
    queries = getattr(config, "decoder_attention_heads", None) or getattr(config, "num_attention_heads", None)
    if not isinstance(queries, int) or config.to_dict().get("per_layer_config") is not None:
        return None
    heads = getattr(config, "num_key_value_heads", None) or queries
    features = getattr(config, "d_kv", None) or getattr(config, "head_dim", None) or config.hidden_size // queries
    body = getattr(model, getattr(model, "base_model_prefix", ""), model)
    if kind != "encoder" or "past_key_values" in inspect.signature(body.forward).parameters:
        return KeyValues(heads, features, "cache")
    replaceable = getattr(model, "_supports_attention_backend", False)
    return KeyValues(heads, features, "interface" if replaceable else None)
