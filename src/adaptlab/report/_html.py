"""HTML in which text cannot become markup: everything is escaped unless it was made here."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

#: Elements without content.
_VOID = {"meta", "br", "input", "hr"}


class Html(str):
    """A string that is markup already. Only this module makes one out of data."""

    __slots__ = ()


Content = str | Html | Iterable["Content"] | None


def element(tag: str, *content: Content, **attributes: str | bool | None) -> Html:
    """``<tag ...>content</tag>``. A trailing underscore of an attribute's name falls off, others become hyphens.

    ``True`` gives an attribute without a value, ``False`` and ``None`` give none.
    """
    written = "".join(
        f" {_attribute(name)}" if value is True else f' {_attribute(name)}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(content)}</{tag}>")


def join(content: Content) -> Html:
    """``content`` in one piece: strings escaped, markup as it is, ``None`` left out."""
    if content is None:
        return Html("")
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(html.escape(content))
    return Html("".join(join(part) for part in content))


def json_script(identifier: str, value: Any) -> Html:
    """``value`` as a JSON block that scripts read. No ``<``, ``>`` or ``&`` is left in it that could end the block."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Html(f'<script type="application/json" id="{html.escape(identifier)}">{safe}</script>')


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")
