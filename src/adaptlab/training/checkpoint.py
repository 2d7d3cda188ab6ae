"""A run's checkpoint: safetensors and JSON, whole or not there at all.

Everything goes into a new folder which is renamed when complete; nothing is unpickled. The values carry the digest of
themselves and the tensor file, so that a damaged checkpoint is noticed and never trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adaptlab.errors import RecordError
from adaptlab.training.member import Member

_TENSORS, _VALUES = "state.safetensors", "state.json"


def save(member: Member, folder: Path, *, may_replace: Callable[[], None] = lambda: None) -> None:
    """Write ``member``'s state to ``folder``, in place of what was there.

    Args:
        may_replace: called when all is written, before it takes its place; what it raises leaves the old state.

    Raises:
        OSError, SafetensorError: it cannot be written; the old state is still there.
    """
    new = folder.with_name(folder.name + ".new")
    try:
        _write(member, new)
        may_replace()
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write(member: Member, new: Path) -> None:
    from safetensors.torch import save_file

    tensors, values = member.state()
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    # Copies, since safetensors refuses tensors that share memory, as 8-bit optimisers' tables do.
    save_file({name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}, new / _TENSORS)
    plain = json.loads(json.dumps(values))  # as it will be read
    (new / _VALUES).write_text(json.dumps({**plain, "sha256": _digest(new / _TENSORS, plain)}), encoding="utf-8")
    for path in (new / _TENSORS, new / _VALUES):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def load(member: Member, folder: Path) -> bool:
    """Go on from the checkpoint in ``folder``; False if there is none.

    Raises:
        RecordError: it is damaged; it has been set aside under the name in the message, and the run starts anew.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():  # stopped between the two renames
        old.rename(folder)
    shutil.rmtree(new, ignore_errors=True)
    if not folder.exists():
        return False
    try:
        values = json.loads((folder / _VALUES).read_text(encoding="utf-8"))
        if values.pop("sha256") != _digest(folder / _TENSORS, values):
            raise ValueError("it does not match its digest")
        member.load_state(load_file(folder / _TENSORS), values)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        aside = _set_aside(folder)
        raise RecordError(
            f"The checkpoint of {member.name} is damaged ({error}); it was set aside as {aside.name} and the run"
            " starts from its beginning."
        ) from error
    return True


def remove(folder: Path) -> None:
    """Delete the checkpoint, and whatever an interrupted save left."""
    for name in (folder.name, folder.name + ".new", folder.name + ".old"):
        shutil.rmtree(folder.with_name(name), ignore_errors=True)


def _set_aside(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
        number += 1
    folder.rename(aside)
    return aside


def _digest(tensors: Path, values: dict[str, Any]) -> str:
    """Of both files: a flipped bit in a step or a rate is as bad as one in a weight."""
    with tensors.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(values, sort_keys=True).encode())
    return digest.hexdigest()
