"""The page's Content-Security-Policy: only its own scripts run, told by their hashes, and nobody is asked."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from stabdiag.render import bundle

NOTHING = ""
"""The style sheet that plotly makes, to which it adds rule by rule."""


def policy(style: str, scripts: Iterable[str], *, address: str = "") -> str:
    """Of a page with these as the contents of its inline elements; `address` is that of plotly.js, else it is
    in the page."""
    allowed = [_hash(script.encode()) for script in scripts]
    allowed.append(address or f"'{bundle.digest()}'")
    rules = {
        "default-src": ["'none'"],
        "script-src": allowed,
        "style-src-elem": [_hash(style.encode()), _hash(NOTHING.encode())],
        "style-src-attr": ["'unsafe-inline'"],
        "img-src": ["data:", "blob:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return "; ".join(f"{rule} {' '.join(sources)}" for rule, sources in rules.items())


def _hash(content: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode('ascii')}'"
