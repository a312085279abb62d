"""Strings that come from a run: whoever named the module chose them, and a page only shows them."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup

LONGEST = 10_000
NAME = 200

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
"""Characters that cannot be seen, or that turn the direction of those around them, and halves of characters;
not tabs and ends of lines."""


def presentable(text: str, longest: int = LONGEST) -> str:
    """With what cannot be seen spelled out (`\\x1b`), and no more than `longest` of it: its ends."""
    if len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def name(text: str) -> str:
    """Of a module, a parameter or a file."""
    return presentable(text, NAME)


def presented(value: Any) -> Any:
    """`value` with all its texts presentable, all the way down; markup, and packed arrays, as they are."""
    if isinstance(value, str):
        return value if isinstance(value, Markup) else presentable(value)
    if isinstance(value, dict):
        if "bdata" in value:
            return value
        return {presentable(str(key)): presented(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [presented(item) for item in value]
    return value
