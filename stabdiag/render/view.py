"""How a panel of a dashboard is drawn: a file in `views/` for what follows from series alone, and a template
in `templates/views/` for what also tells of the diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from stabdiag.core.registry import Registry
from stabdiag.core.run import Run

if TYPE_CHECKING:
    from stabdiag.render.dashboard import Panel
    from stabdiag.render.drawing import Drawing


@dataclass(frozen=True)
class View:
    """`draw(run, panel)` gives the drawings of the panel, none where the run lacks its series."""

    id: str
    draw: Callable[[Run, Panel], Iterable[Drawing]]


VIEWS: Registry[View] = Registry("view", "stabdiag.render.views")


def template_views() -> tuple[str, ...]:
    """The views that are templates, sorted."""
    folder = resources.files("stabdiag.render") / "templates" / "views"
    return tuple(sorted(entry.name.removesuffix(".html") for entry in folder.iterdir()))
