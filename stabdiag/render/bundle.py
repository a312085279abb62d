"""plotly.js: inside the page, compressed, or the same file from its public address."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from functools import cache
from importlib import resources


def _source() -> bytes:
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()


@cache
def inline() -> str:
    """base64 of the gzipped script, about 2 MB; the page inflates it with DecompressionStream."""
    return base64.b64encode(gzip.compress(_source(), 9, mtime=0)).decode("ascii")


@cache
def public() -> tuple[str, str]:
    """Address and integrity hash of the release that is installed here."""
    source = _source()
    found = re.search(rb"plotly\.js v(\d+\.\d+\.\d+)", source[:400])
    if found is None:
        raise ValueError("plotly.min.js does not tell its version")
    digest = base64.b64encode(hashlib.sha256(source).digest()).decode("ascii")
    return f"https://cdn.plot.ly/plotly-{found[1].decode()}.min.js", f"sha256-{digest}"
