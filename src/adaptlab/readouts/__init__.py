"""Readouts: how a model answers. One object each: rows to tokens, what training minimises, answers."""

from __future__ import annotations

from adaptlab.config import Readout as Name
from adaptlab.readouts._base import Answered, Readout, Setting
from adaptlab.readouts.generate import Generate
from adaptlab.readouts.head import Head
from adaptlab.readouts.teaching import Teacher, kept_bytes
from adaptlab.readouts.verbalizer import Verbalizer
from adaptlab.training.encode import Rows

__all__ = ["Answered", "Generate", "Head", "Readout", "Rows", "Setting", "Teacher", "Verbalizer", "build", "kept_bytes"]

_READOUTS: dict[Name, type[Readout]] = {"head": Head, "verbalizer": Verbalizer, "generate": Generate}


def build(name: Name, setting: Setting) -> Readout:
    """The readout called ``name`` for a task's rows and a model's tokenizer."""
    return _READOUTS[name](setting)
