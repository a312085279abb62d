"""A page's Content-Security-Policy: only its own scripts run, told by their hashes, and nobody is asked."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping

NOTHING = ""
"""The style sheet that plotly makes, to which it adds rule by rule."""


def policy(
    style: str, scripts: Iterable[str], *, plotly: str = "", besides: Mapping[str, str] | None = None
) -> str:
    """Of a page with these as the contents of its inline elements. `plotly` is the address or the quoted hash
    of plotly.js, on a page that draws with it; `besides` are further rules."""
    rules = {
        "default-src": ["'none'"],
        "script-src": [_hash(script) for script in scripts],
        "style-src": [_hash(style)],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    if plotly:
        rules["script-src"].append(plotly)
        rules["img-src"].append("blob:")
        rules["style-src-elem"] = [*rules.pop("style-src"), _hash(NOTHING)]
        rules["style-src-attr"] = ["'unsafe-inline'"]
    told = {rule: " ".join(sources) or "'none'" for rule, sources in rules.items()} | dict(besides or {})
    return "; ".join(f"{rule} {sources}" for rule, sources in told.items())


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"
