"""Tokenised rows on disk: tokenised once for all processes that read the same rows with the same tokenizer."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from adaptlab.training.encode import Encoded

#: Raised when the same rows and tokenizer would give other tokens or another file.
_VERSION = 1


def fingerprint(tokenizer: Any, *parts: str) -> str | None:
    """A name for what ``tokenizer`` makes of the rows that ``parts`` identify; ``None`` if it cannot be told.

    The tokenizer counts as a whole (vocabulary, normalisation, templates), for nothing else says what it does.
    """
    if not getattr(tokenizer, "is_fast", False):
        return None
    whole = f"{_VERSION}|{tokenizer.backend_tokenizer.to_str()}|{tokenizer.padding_side}|{'|'.join(parts)}"
    return hashlib.sha256(whole.encode()).hexdigest()


def save(encoded: Encoded, path: Path) -> None:
    """Write ``encoded`` to ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        np.savez(
            file,
            ids=np.array(encoded.ids),
            tokens=encoded.tokens,
            offsets=encoded.offsets,
            labels=encoded.labels,
            truncated=np.array(encoded.truncated),
            types=np.empty(0, dtype=np.int8) if encoded.types is None else encoded.types,
        )
    os.replace(file.name, path)


def load(path: Path) -> Encoded | None:
    """What :func:`save` wrote, or ``None`` where there is nothing, or nothing whole."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return Encoded(
                ids=tuple(found["ids"].tolist()),
                tokens=found["tokens"],
                types=found["types"] if len(found["types"]) else None,
                offsets=found["offsets"],
                labels=found["labels"],
                truncated=int(found["truncated"]),
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
