"""Methods: which numbers are trained and what is attached to a base. One file each, or a row in ``peft_native``."""

from __future__ import annotations

from adaptlab.methods._base import Method
from adaptlab.registry import Registry

registry: Registry[Method] = Registry("method", "adaptlab.methods")
