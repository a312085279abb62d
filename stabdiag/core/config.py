"""What the user selects, ignores and tunes: `[tool.stabdiag]` of pyproject.toml, and the options."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from stabdiag.core.errors import StabdiagError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

TABLE = "[tool.stabdiag]"
KEYS = ("select", "ignore", "thresholds")


@dataclass(frozen=True, slots=True)
class Ignore:
    """One suppression, written `signature`, `signature@site-glob`, or either with `: reason` after it."""

    signature: str
    sites: str = "*"
    reason: str = ""

    @classmethod
    def parse(cls, text: str) -> Ignore:
        head, _, reason = text.partition(":")
        signature, at, sites = head.partition("@")
        if not signature.strip() or (at and not sites.strip()):
            raise StabdiagError(
                f"an ignored finding is written signature or signature@site-glob, not {text!r}",
                "for example: dead-units@encoder.*: sparse by design",
            )
        return cls(signature.strip(), sites.strip() or "*", reason.strip())

    def covers(self, site: str) -> bool:
        return fnmatchcase(site, self.sites)


@dataclass(frozen=True)
class Configuration:
    """`select` empty means every signature; `thresholds` is signature -> threshold -> value.

    Names of signatures and thresholds are checked by the analysis, which knows them.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[Ignore, ...] = ()
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def with_settings(self, settings: Iterable[str]) -> Configuration:
        """With each `signature.threshold=value` of `settings` on top."""
        merged = {signature: dict(values) for signature, values in self.thresholds.items()}
        for setting in settings:
            name, equals, value = setting.partition("=")
            signature, dot, threshold = name.strip().partition(".")
            if not (equals and dot and signature and threshold):
                raise StabdiagError(
                    f"a setting is written signature.threshold=value, not {setting!r}",
                    "for example: loss-spike.z=5",
                )
            merged.setdefault(signature, {})[threshold] = _number(name.strip(), value.strip())
        return replace(self, thresholds=merged)

    def with_selection(self, select: Iterable[str] = (), ignore: Iterable[str] = ()) -> Configuration:
        """`select` replaces the one that is set, where it names any; `ignore` adds to it."""
        added = tuple(Ignore.parse(entry) for entry in ignore)
        return replace(self, select=tuple(select) or self.select, ignore=self.ignore + added)


def load_configuration(start: Path) -> Configuration:
    """The configuration of the nearest pyproject.toml at or above the folder `start`; without one, or
    without the table in it, the default. StabdiagError for a file that does not parse."""
    start = start.resolve()
    path = next((p for folder in (start, *start.parents) if (p := folder / "pyproject.toml").is_file()), None)
    if path is None:
        return Configuration()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise StabdiagError(f"{path} cannot be read: {error}", "correct it, or run elsewhere") from error
    return _parse(document.get("tool", {}).get("stabdiag", {}), path)


def _parse(table: Mapping[str, Any], path: Path) -> Configuration:
    for key in table:
        if key not in KEYS:
            raise StabdiagError(f"{path}: {TABLE} has no key {key!r}", f"its keys are {', '.join(KEYS)}")
    thresholds = table.get("thresholds", {})
    if not isinstance(thresholds, Mapping) or not all(isinstance(v, Mapping) for v in thresholds.values()):
        raise StabdiagError(
            f"{path}: thresholds are tables, one a signature",
            "for example: [tool.stabdiag.thresholds.loss-spike] with z = 5",
        )
    numbers = {
        signature: {name: _number(f"{signature}.{name}", value) for name, value in values.items()}
        for signature, values in thresholds.items()
    }
    ignore = tuple(Ignore.parse(entry) for entry in _strings(table, "ignore", path))
    return Configuration(_strings(table, "select", path), ignore, numbers)


def _strings(table: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise StabdiagError(
            f"{path}: {key} of {TABLE} is a list of names, not {value!r}",
            f'for example: {key} = ["loss-spike"]',
        )
    return tuple(value)


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            number = float(value)
            if number == number:
                return number
    except ValueError:
        pass
    raise StabdiagError(f"{name} is a number, not {value!r}", f"for example: {name}=5")
