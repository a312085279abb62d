"""A registry: the entries that the modules of one package declare, loaded when first asked for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from stabdiag.core.errors import UnknownName


class Named(Protocol):
    @property
    def id(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """Entries by id, in the order of their ids.

    Each module of `package` adds its own by calling `add`, so that a new entry is one new file and
    no list names it. `what` is the word for an entry in messages.
    """

    def __init__(self, what: str, package: str) -> None:
        self.what = what
        self.package = package
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def add(self, entry: Entry) -> None:
        if entry.id in self._entries:
            raise ValueError(f"two {self.what}s are called {entry.id!r}")
        self._entries[entry.id] = entry

    def _load(self) -> dict[str, Entry]:
        if not self._loaded:
            self._loaded = True
            folder = importlib.import_module(self.package).__path__
            for module in pkgutil.iter_modules(folder):
                importlib.import_module(f"{self.package}.{module.name}")
            self._entries = dict(sorted(self._entries.items()))
        return self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._load().values())

    def __len__(self) -> int:
        return len(self._load())

    def __contains__(self, name: object) -> bool:
        return name in self._load()

    def __getitem__(self, name: str) -> Entry:
        """Raises UnknownName, which suggests the nearest ids."""
        try:
            return self._load()[name]
        except KeyError:
            raise UnknownName(self.what, name, self._load()) from None
