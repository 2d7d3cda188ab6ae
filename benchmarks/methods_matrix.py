"""What every method can do, tried on tiny models: the data behind ``adaptlab list methods --matrix``.

    python -m benchmarks.methods_matrix            (some minutes of one core)
    python -m benchmarks.methods_matrix --methods lora,ia3     (only these anew)

Writes src/adaptlab/methods/capabilities.json, which is shipped and looked into before a quantised base is loaded, and
docs/methods-matrix.md. ``tests/benchmarks/test_methods_matrix.py`` tries a sample again.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adaptlab import merging
from adaptlab.config import Quantize
from adaptlab.errors import AdaptlabError
from adaptlab.methods import registry
from adaptlab.methods._base import Attached, Method
from adaptlab.methods._capabilities import BITS, FILE, IN_PLACE, KINDS, QUESTIONS, SHOWN, Answers, Capabilities
from adaptlab.models.load import fresh_model
from adaptlab.models.quantize import is_quantised, refusal
from tests.contracts.method_checks import Bench, bench, differing, snapshot
from tests.tiny_models import FAMILIES, build_tiny_model

#: Which architecture stands for a kind. Its widths are those of ``tests/tiny_models.py`` doubled: 4 bits want 64.
MODELS = {"encoder": "bert", "decoder": "opt", "encoder-decoder": "t5"}
PACKAGES = ("adaptlab", "torch", "transformers", "peft", "bitsandbytes")
PAGE = Path(__file__).parent.parent / "docs" / "methods-matrix.md"

#: A merge has to leave the logits where they were but for rounding, relative to the largest.
_ROUNDING = 1e-3
#: A merge in place quantises anew; more than this share of what the adapter did to the logits is no rounding.
_SHARE = 0.5

Benches = Mapping[Quantize, Bench]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(registry.names()), help="comma-separated; others keep their row")
    parser.add_argument("--page", action="store_true", help="try nothing, write the page from what is known")
    given = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [] if given.page else given.methods.split(",")
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"methods": {}, "refused": {}}
    rows, refused = known["methods"], known["refused"]
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS if wanted else ():
            benches = benches_of(kind, Path(folder))
            for name in wanted:
                rows.setdefault(name, {})[kind] = probe(registry.get(name), benches)
                print(kind, name, {q: why for q, why in rows[name][kind].items() if why}, flush=True)
        everywhere = {family: bench(build_tiny_model(family, Path(folder) / family)) for family in FAMILIES if wanted}
    for name in wanted:
        refused[name] = refusals(registry.get(name), everywhere)
    found = {
        "versions": {name: version(name).split("+")[0] for name in PACKAGES} if wanted else known["versions"],
        "models": MODELS,
        "methods": {name: rows[name] for name in registry.names()},
        "refused": {name: refused[name] for name in registry.names() if refused.get(name)},
    }
    FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(Capabilities(**found)), encoding="utf-8")


def benches_of(kind: str, folder: Path) -> Benches:
    """The kind's tiny model, as it is and in 4 and in 8 bits."""
    model = build_tiny_model(MODELS[kind], folder / kind, times=2)
    _draw_biases(model / "model.safetensors")
    return {how: bench(model, quantize=how) for how in ("none", "4bit", "8bit")}


def _draw_biases(weights: Path) -> None:
    """A fresh model's biases are zero, a trained one's are not, and some methods train factors of them (GLoRA)."""
    draw = torch.Generator().manual_seed(0)
    tensors = load_file(weights)
    for name, tensor in tensors.items():
        if name.endswith(".bias"):
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=draw))
    save_file(tensors, weights, {"format": "pt"})


def probe(method: Method, benches: Benches) -> Answers:
    """The answers of ``QUESTIONS``."""
    plain = benches["none"]
    answers: Answers = {"trains": _tried(lambda: trains(method, plain))}
    answers["reloads"] = answers["trains"] or _tried(lambda: reloads(method, plain))
    answers["merges"] = answers["trains"] or _tried(lambda: merges(method, plain))
    for how in BITS:
        on = benches[how]
        answers[how] = answers["trains"] or _tried(partial(works_quantised, method, on, plain))
        if not answers[how] and not answers["merges"]:
            answers[how] = _tried(partial(merges, method, on))
        answers[f"{how}-in-place"] = answers[how] or _tried(partial(merges_in_place, method, on))
    return {question: answers[question] for question in QUESTIONS}


def refusals(method: Method, everywhere: Mapping[str, Bench]) -> Answers:
    """The architectures that the method cannot be attached to as it is by default, and why.

    None of one that trains nothing, or nowhere: its row says so.
    """
    if method.unusable or not method.trains:
        return {}
    tried = {family: _tried(partial(_attaches, method, on)) for family, on in everywhere.items()}
    return {family: why for family, why in tried.items() if why}


def _attaches(method: Method, on: Bench) -> str:
    on.attach(method)
    return ""


def works_quantised(method: Method, on: Bench, plain: Bench) -> str:
    """It trains and reloads, and where it leaves a plain base as it is at its start, it leaves this one so too."""
    setup = on.setup(method)
    codes = refusal(on.base.model, on.base.layout, "", method.trains_of_base(on.base.layout, setup), method.name)
    if codes:
        return "it trains weights of the base itself, which are codes here"
    if _start(method, plain) < _ROUNDING < _start(method, on):
        return "it reads the codes as if they were the weights: untrained, it changes the answers already"
    return trains(method, on) or reloads(method, on)


def _start(method: Method, on: Bench) -> float:
    """How much attaching changes the logits before anything is trained."""
    adapted, base = on.attach(method).model, on.attach(registry.get("head")).model
    return _largest(_logits(adapted, on) - _logits(base, on))


def trains(method: Method, on: Bench) -> str:
    """Every trained number gets a gradient, nothing else moves, the loss falls at the default or the highest rate."""
    attached = on.attach(method)
    frozen = [(name, p) for name, p in attached.model.named_parameters() if not p.requires_grad]
    before = snapshot(frozen)
    on.train(attached, 3)
    moved = differing(before, frozen)
    if moved:
        return f"{_layer(moved[0])} is frozen and moved"
    dead = [name for name, p in attached.trained.items() if p.grad is None or not p.grad.any()]
    if dead:
        return f"no gradient reaches {_layer(dead[0])}"
    for rate in (method.learning_rates.default, method.learning_rates.high):
        attached = on.attach(method)
        at_first = on.loss(attached)
        on.train(attached, 20, rate=rate)
        if on.loss(attached) < 0.95 * at_first:
            return ""
    return "the loss does not fall"


def reloads(method: Method, on: Bench) -> str:
    """What was saved, loaded into a model of another seed, gives the same logits."""
    attached = on.attach(method)
    on.train(attached, 3)
    other = on.attach(method, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        method.save(attached, Path(folder))
        method.load(other, Path(folder))
    off = _largest(on.logits(other) - on.logits(attached))
    return "" if off < 1e-5 else f"logits differ by {off:.1g} afterwards"


def merges(method: Method, on: Bench) -> str:
    """What ``export --merge`` would write answers as the run does."""
    attached = _trained(method, on)
    before = _logits(attached.model, on)
    after = _logits(merging.merged(attached, on.base), on)
    off = _largest(after - before) / max(1.0, _largest(before))
    return "" if off < _ROUNDING else f"logits off by {off:.1g}"


def merges_in_place(method: Method, on: Bench) -> str:
    """PEFT's ``merge_and_unload`` on the quantised model itself leaves what the adapter does to the logits."""
    from peft import PeftModel

    attached = _trained(method, on, head="frozen") if method.takes_targets else _trained(method, on)
    wrapped: Any = attached.model
    if not isinstance(wrapped, PeftModel):
        return "" if method.placement in ("base", "nothing") else "nothing of PEFT's to merge"
    adapted = on.logits(attached)
    with wrapped.disable_adapter():
        effect = _largest(on.logits(attached) - adapted)
    merging.release_head(wrapped)
    merged = wrapped.merge_and_unload().eval()
    with torch.no_grad():
        off = _largest(merged(**on.inputs).logits - adapted) / effect
    return "" if off < _SHARE else f"wrong without a word: logits off by {off:.0%} of what the adapter does to them"


def _trained(method: Method, on: Bench, **how: Any) -> Attached:
    """Trained until there is something to lose, on a base of its own: merging writes into it."""
    own = Bench(replace(on.base, model=fresh_model(on.base, share=False)), on.inputs, on.labels)
    attached = own.attach(method, **how)
    own.train(attached, 15, rate=method.learning_rates.high)
    return attached


def _logits(model: Any, on: Bench) -> Tensor:
    """The logits, without the rounding of activations to 8 bits, which is none of the method's doing.

    On a CPU, bitsandbytes' 8-bit linears leave activations alone in training mode.
    """
    model.eval()
    for module in model.modules():
        if is_quantised(module):
            module.training = True
    with torch.no_grad():
        found: Tensor = model(**on.inputs).logits
    return found


def _largest(difference: Tensor) -> float:
    return float(difference.abs().max())


def _layer(name: str) -> str:
    return re.sub(r"^base_model\.model\.", "", name)


def _tried(check: Callable[[], str]) -> str:
    try:
        return check()
    except AdaptlabError as error:
        said = re.sub(r"^The method \S+ cannot be merged into the base(, for| here:|:) ", "", str(error))
        said = re.sub(r"^\S+ cannot be trained here: ", "", said)
        said = re.sub(r"^PEFT cannot attach .* and targets \((.*)\): change them.*$", r"PEFT fails: \1", said)
        return said.split(": export it")[0].split(": choose")[0].rstrip(".")
    except Exception as error:  # whatever a library raises is the answer
        lines = str(error).strip().splitlines() or [type(error).__name__]
        said = re.split(r"\. (?=[A-Z])", re.sub(r"\s+", " ", lines[0]))[0].rstrip(".")
        return f"PEFT fails: {re.sub(r' .[0-9]+x[0-9]+ and [0-9]+x[0-9]+.$', '', said)}"


def page(found: Capabilities) -> str:
    """docs/methods-matrix.md."""
    versions = ", ".join(f"{name} {number}" for name, number in found.versions.items())
    models = ", ".join(f"{model} for {kind}s" for kind, model in found.models.items())
    heads = ["trains", "reloads", "merges", "4-bit", "8-bit"]
    columns = [f"{kind}: {head}" if head == "trains" else head for kind in KINDS for head in heads]
    lines = [
        "# What each method can do",
        "",
        "Written by `python -m benchmarks.methods_matrix`, which tries every method on tiny models with a head for",
        f"three classes ({models}), on a CPU, with {versions}.",
        "`adaptlab list methods --matrix` prints the same.",
        "",
        "- **trains:** every trained number gets a gradient, nothing else moves, the loss falls.",
        "- **reloads:** saved and loaded into a model of another seed, the logits are the same.",
        "- **merges:** `adaptlab export --merge` writes a plain model with the same logits, but for rounding.",
        "- **4-bit, 8-bit:** trains and reloads on a base stored so (`--quantize`); where it merges, what",
        "  `export --merge` makes of it answers the same (but that an 8-bit base rounds activations too). `~`: as yes,",
        "  but PEFT's own merge into quantised weights, which adaptlab does not use, fails or gives other answers.",
        "",
        f"| method | {' | '.join(columns)} |",
        f"|---|{':-:|' * len(columns)}",
    ]
    for name in found.methods:
        cells = [found.mark(name, kind, q) for kind in KINDS for q in SHOWN]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += ["", "## Why not", "", "| method | what | where | reason |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {what} | {where} | {_cell(why)} |" for name, what, where, why in found.reasons(SHOWN)]
    lines += [
        "",
        "## PEFT's merge into quantised weights",
        "",
        "`merge_and_unload` on the quantised model itself. It quantises the sum anew, so it always changes the",
        f"answers a little; here it fails, or moves a logit by more than {_SHARE:.0%} of what the adapter moves it by.",
        "",
        "| method | what | where | reason |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{name}` | {what} | {where} | {_cell(why)} |" for name, what, where, why in found.reasons(IN_PLACE)]
    lines += [
        "",
        "## Architectures that a method refuses",
        "",
        f"Tried at each method's default targets on {', '.join(FAMILIES)}.",
        "",
        "| method | architecture | reason |",
        "|---|---|---|",
    ]
    for name, families in found.refused.items():
        for why in dict.fromkeys(families.values()):
            same = ", ".join(family for family, reason in families.items() if reason == why)
            lines.append(f"| `{name}` | {same} | {_cell(why)} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
