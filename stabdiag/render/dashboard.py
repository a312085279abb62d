"""Dashboards: which series are shown, in which order and how; TOML files, of which a user writes his own.

The page, TensorBoard's layout and the live view are drawn from the same ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stabdiag
from stabdiag.core.errors import StabdiagError
from stabdiag.render.dashboard_names import Place, check_keys, check_series, check_view, suggestion, typed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

if TYPE_CHECKING:
    from importlib.abc import Traversable

DEFAULT = "health"
SUFFIX = ".toml"


@dataclass(frozen=True)
class Panel:
    """One chart, map or part of the page.

    `series` are names or globs (`attention.entropy*`), the most telling first, and `sites` globs of the
    sites to show of them, empty for all. `view` is how they are drawn; empty is lines for a few sites and
    a map for many. `log` wishes a logarithmic axis, `limit` is a horizontal line, and `dashed` names those
    of the series that are limits to the others. Of many sites those with the highest last values are shown
    where there is no room for all, with `lowest` those with the lowest. A panel is left out of runs that
    hold the series `unless`.
    """

    title: str = ""
    note: str = ""
    series: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    view: str = ""
    log: bool = False
    limit: float | None = None
    dashed: tuple[str, ...] = ()
    lowest: bool = False
    unless: str = ""

    def matching(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the series `names` that the panel shows, in its own order; none where it is left out."""
        present = list(names)
        if self.unless and self.unless in present:
            return ()
        found = [name for pattern in self.series for name in present if fnmatchcase(name, pattern)]
        return tuple(dict.fromkeys(found))

    def shows(self, site: str) -> bool:
        return not self.sites or any(fnmatchcase(site, pattern) for pattern in self.sites)


@dataclass(frozen=True)
class Section:
    title: str
    note: str = ""
    panels: tuple[Panel, ...] = ()


@dataclass(frozen=True)
class Dashboard:
    """`name` is that of its file, without `.toml`."""

    name: str
    title: str
    note: str = ""
    sections: tuple[Section, ...] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for section in self.sections for panel in section.panels)


def dashboards() -> tuple[str, ...]:
    """The names of those that come with stabdiag, sorted."""
    names = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)))


def load_dashboard(name_or_path: str | Path = DEFAULT, recorded: Iterable[str] = ()) -> Dashboard:
    """The dashboard of that name, or in the TOML file of that path (`my.toml`, `./my`).

    Series are checked against those that stabdiag records, and against `recorded`: what else a run holds.
    Raises StabdiagError for a file that does not parse, and for a name that nothing has.
    """
    return _load(str(name_or_path), Path(), tuple(recorded), ())


def _folder() -> Traversable:
    """A resource of an installed package; beside it where it runs from its checkout."""
    inside = resources.files("stabdiag") / "dashboards"
    return inside if inside.is_dir() else Path(stabdiag.__file__).parent.parent / "dashboards"


def _load(
    wanted: str, folder: Path, recorded: tuple[str, ...], parents: tuple[tuple[str, Path], ...]
) -> Dashboard:
    """`wanted` may be a path from `folder`."""
    at = (folder / wanted).resolve()
    if (wanted, at) in parents:
        way = " and ".join(name for name, _ in parents)
        raise StabdiagError(f"the dashboard {wanted} includes itself", f"by way of {way}: leave one out")
    text = _text(wanted, at)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StabdiagError(
            f"the dashboard {wanted} is not valid TOML: {error}",
            "a section begins with [[section]], a panel of it with [[section.panel]]",
        ) from None
    place = Place(wanted, text)
    check_keys(place, "dashboard", content, ("title", "note", "section"))
    name = Path(wanted).name.removesuffix(SUFFIX)
    sections: list[Section] = []
    for table in typed(place, content, "section", list, []):
        included = typed(place, table, "include", str, "")
        if included:
            check_keys(place, "section with include", table, ("include",))
            sections += _load(included, at.parent, recorded, (*parents, (wanted, at))).sections
        else:
            sections.append(_section(place, table, recorded))
    title, note = (typed(place, content, key, str, "") for key in ("title", "note"))
    return Dashboard(name, title or name, note, tuple(sections))


def _text(wanted: str, at: Path) -> str:
    if not _is_path(wanted):
        if wanted not in dashboards():
            hint = suggestion(wanted, dashboards())
            raise StabdiagError(
                f"there is no dashboard {wanted!r}", f"{hint} (a file of your own ends in {SUFFIX})"
            )
        return (_folder() / f"{wanted}{SUFFIX}").read_text(encoding="utf-8")
    try:
        return at.read_text(encoding="utf-8")
    except OSError as error:
        raise StabdiagError(
            f"cannot read the dashboard {wanted}: {error.strerror}",
            f"those that come with stabdiag have plain names: {', '.join(dashboards())}",
        ) from None
    except UnicodeDecodeError:
        raise StabdiagError(
            f"the dashboard {wanted} is no text in UTF-8", "a dashboard is a TOML file"
        ) from None


def _is_path(wanted: str) -> bool:
    return wanted.endswith(SUFFIX) or Path(wanted).name != wanted


def _section(place: Place, table: dict[str, Any], recorded: tuple[str, ...]) -> Section:
    check_keys(place, "section", table, ("title", "note", "panel", "include"))
    panels = tuple(_panel(place, panel, recorded) for panel in typed(place, table, "panel", list, []))
    title = typed(place, table, "title", str, "")
    if not title:
        raise place.wrong("a section has no title", title, 'write title = "…" under [[section]]')
    return Section(title, typed(place, table, "note", str, ""), panels)


def _panel(place: Place, table: dict[str, Any], recorded: tuple[str, ...]) -> Panel:
    check_keys(place, "panel", table, tuple(Panel.__dataclass_fields__))
    panel = Panel(
        title=typed(place, table, "title", str, ""),
        note=typed(place, table, "note", str, ""),
        series=_names(place, table, "series"),
        sites=_names(place, table, "sites"),
        view=typed(place, table, "view", str, ""),
        log=typed(place, table, "log", bool, False),
        limit=typed(place, table, "limit", float, None),
        dashed=_names(place, table, "dashed"),
        lowest=typed(place, table, "lowest", bool, False),
        unless=typed(place, table, "unless", str, ""),
    )
    for series in (*panel.series, *panel.dashed, *filter(None, [panel.unless])):
        check_series(place, series, recorded)
    check_view(place, panel.view)
    if not panel.series and not panel.view:
        raise place.wrong("a panel shows nothing", panel.title, 'give it series = ["run.loss"], or a view')
    return panel


def _names(place: Place, table: dict[str, Any], key: str) -> tuple[str, ...]:
    names = typed(place, table, key, list, [])
    for name in names:
        if not isinstance(name, str):
            raise place.wrong(f"{key} is a list of names, not of {name!r}", key, f'{key} = ["run.loss"]')
    return tuple(names)
