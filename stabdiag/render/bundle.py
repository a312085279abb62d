"""plotly.js: inside the page, compressed, or the same file from its public address."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from stabdiag.render.packing import as_text, compressed


@cache
def _source() -> bytes:
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()


@cache
def inline() -> str:
    """About 2 MB; the page inflates it with DecompressionStream."""
    return as_text(compressed(_source(), 6))


@cache
def digest() -> str:
    """`sha256-…` of the script, as integrity attributes and policies have it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(_source()).digest()).decode('ascii')}"


@cache
def address() -> str:
    """The public one of the release that is installed here."""
    found = re.search(rb"plotly\.js v(\d+\.\d+\.\d+)", _source()[:400])
    if found is None:
        raise ValueError("plotly.min.js does not tell its version")
    return f"https://cdn.plot.ly/plotly-{found[1].decode()}.min.js"


@cache
def unwanted_styles() -> tuple[str, ...]:
    """The ids of style sheets that the script adds where none has them. They are of geographic maps, and
    a policy that knows its styles by their hashes would complain."""
    found = re.findall(rb'getElementById\("([0-9a-f]{64})"\)', _source())
    return tuple(dict.fromkeys(id.decode() for id in found))
