"""What every page is made with: templates, files and data within it, and the file that it is written to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from stabdiag.core.errors import StabdiagError
from stabdiag.render.untrusted import presented


def environment(**filters: Any) -> jinja2.Environment:
    """Every value is escaped on its way into a page, and spelled out where nobody could read it."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("stabdiag.render"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=presented,
    )
    made.filters.update(filters)
    return made


@cache
def source(name: str) -> str:
    """A style sheet or a script, which stands in the page itself."""
    return (resources.files("stabdiag.render") / "templates" / name).read_text(encoding="utf-8")


def embedded(value: Mapping[str, Any]) -> Markup:
    """JSON that no browser takes for markup."""
    text = json.dumps(presented(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def write_document(page: str, path: Path) -> None:
    """Raises StabdiagError where `path` cannot be written."""
    try:
        path.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StabdiagError(
            f"cannot write {path}: {error.strerror}", "give another place by --output"
        ) from None
