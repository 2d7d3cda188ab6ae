"""What each method can do, as a probe found it: for the matrix, and for refusing before anything is loaded.

``capabilities.json`` is written by ``python -m benchmarks.methods_matrix``, which tries every method on tiny models;
tests try a sample again. An answer is ``""`` for yes, else the reason why not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from adaptlab.config import Quantize
from adaptlab.models._base import ModelKind

FILE = Path(__file__).with_name("capabilities.json")

KINDS: tuple[ModelKind, ...] = ("encoder", "decoder", "encoder-decoder")

Question = Literal["trains", "reloads", "merges", "4bit", "8bit", "4bit-in-place", "8bit-in-place"]
#: ``4bit`` and ``8bit``: trains and reloads on such a base, and what ``export --merge`` makes of it answers the same.
#: ``-in-place``: PEFT's own merge into the quantised weights leaves the answers as they were.
QUESTIONS: tuple[Question, ...] = ("trains", "reloads", "merges", "4bit", "8bit", "4bit-in-place", "8bit-in-place")

BITS: tuple[Literal["4bit", "8bit"], ...] = ("4bit", "8bit")
SHOWN: tuple[Question, ...] = ("trains", "reloads", "merges", *BITS)
IN_PLACE: tuple[Question, ...] = ("4bit-in-place", "8bit-in-place")

YES, PARTLY, NO = "✓", "~", "✗"
_WORDS: dict[Question, str] = {"4bit": "4-bit", "8bit": "8-bit", "4bit-in-place": "4-bit", "8bit-in-place": "8-bit"}

Answers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Every answer of a probe.

    Attributes:
        versions: of the packages it ran with, by name.
        models: which architecture stood for each kind.
        methods: ``{method: {kind: {question: reason why not, or ""}}}``.
        refused: ``{method: {architecture: reason}}``, where a method cannot be attached as it is by default.
    """

    versions: Mapping[str, str]
    models: Mapping[str, str]
    methods: Mapping[str, Mapping[str, Answers]]
    refused: Mapping[str, Answers]

    def why_not(self, method: str, kind: ModelKind, question: Question) -> str:
        """The reason, or ``""`` where the answer is yes or nobody asked."""
        return self.methods.get(method, {}).get(kind, {}).get(question, "")

    def mark(self, method: str, kind: ModelKind, question: Question) -> str:
        """Yes, no, or (on a quantised base) all but PEFT's own merge in place."""
        if self.why_not(method, kind, question):
            return NO
        in_place: dict[Question, Question] = {"4bit": "4bit-in-place", "8bit": "8bit-in-place"}
        merges = not self.why_not(method, kind, "merges")
        partly = merges and question in in_place and bool(self.why_not(method, kind, in_place[question]))
        return PARTLY if partly else YES

    def reasons(self, questions: tuple[Question, ...]) -> Iterator[tuple[str, str, str, str]]:
        """Method, what it cannot, on which kinds, and why: a line for each reason of each method.

        A merge in place is told of only where the method works on that base, and has something to merge.
        """
        for method in self.methods:
            found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
            for kind in KINDS:
                for question in questions:
                    why = self.why_not(method, kind, question)
                    implied = question in IN_PLACE and (
                        self.why_not(method, kind, question.removesuffix("-in-place"))  # type: ignore[arg-type]
                        or self.why_not(method, kind, "merges")
                    )
                    if why and not implied:
                        whats, kinds = found.setdefault(why, ({}, {}))
                        whats[_WORDS.get(question, question)] = None
                        kinds[kind] = None
            for why, (whats, kinds) in found.items():
                where = "everywhere" if len(kinds) == len(KINDS) else ", ".join(kinds)
                what = "anything" if len(whats) == len(SHOWN) else ", ".join(whats)
                yield method, what, where, why


@cache
def capabilities() -> Capabilities:
    """What the package was shipped with."""
    return Capabilities(**json.loads(FILE.read_text(encoding="utf-8")))


def quantised_refusal(method: str, kind: ModelKind, quantize: Quantize) -> str | None:
    """Why ``method`` does not work on a quantised base of this kind, in a sentence; None if it does."""
    if quantize == "none":
        return None
    known = capabilities()
    reason = known.why_not(method, kind, quantize)
    if not reason or known.why_not(method, kind, "trains"):  # the latter is said where it is attached
        return None
    article = "an" if kind.startswith("e") else "a"
    others = [
        name for name in ("lora", "rslora", "dora", "oft", "layer-norm") if not known.why_not(name, kind, quantize)
    ]
    return (
        f"The method {method} does not work on {article} {kind} in {quantize} ({reason}; tried on a CPU with peft "
        f"{known.versions.get('peft')} and bitsandbytes {known.versions.get('bitsandbytes')}): leave quantize out, or "
        f"choose another method, such as {' or '.join(others[:2])}."
    )
