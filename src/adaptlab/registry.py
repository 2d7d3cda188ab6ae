"""Plugins, found by file name in a folder and by entry point.

A plugin module sets ``plugin`` (one object) or ``plugins`` (several); each object has a ``name``. Modules whose
name starts with an underscore are machinery. Importing a plugin module must not import torch: a test holds this.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from adaptlab.errors import unknown_name


class Named(Protocol):
    """What every plugin has."""

    @property
    def name(self) -> str: ...


P = TypeVar("P", bound=Named)


class Registry(Generic[P]):
    """The plugins of one kind.

    Args:
        kind: the word used in messages, e.g. ``"method"``.
        package: the dotted package whose modules are scanned; it is also the entry-point group under which
            other distributions offer theirs.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package

    @cached_property
    def _plugins(self) -> dict[str, P]:
        found: dict[str, P] = {}
        for module in self._modules():
            plugin: P
            for plugin in _plugins_in(module):
                if plugin.name in found:
                    raise RuntimeError(f"Two {self.kind}s are called '{plugin.name}'.")
                found[plugin.name] = plugin
        return found

    def _modules(self) -> Iterator[object]:
        package = importlib.import_module(self.package)
        for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
            if not info.name.startswith("_"):
                yield importlib.import_module(f"{self.package}.{info.name}")
        for entry in importlib.metadata.entry_points(group=self.package):
            yield entry.load()

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._plugins)

    def all(self) -> list[P]:
        """All plugins, sorted by name."""
        return [self._plugins[name] for name in self.names()]

    def __contains__(self, name: object) -> bool:
        return name in self._plugins

    def get(self, name: str) -> P:
        """The plugin called ``name``.

        Raises:
            UnknownNameError: there is none; the message has the near matches.
        """
        if name not in self._plugins:
            raise unknown_name(self.kind, name, self._plugins)
        return self._plugins[name]


def _plugins_in(module: object) -> list[Any]:
    several = getattr(module, "plugins", None)
    if several is not None:
        return list(several)
    single = getattr(module, "plugin", None)
    return [] if single is None else [single]
