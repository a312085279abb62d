"""An attribute of torch that is replaced for a while."""

from __future__ import annotations

from typing import Any


class Patch:
    """Sets `owner.name` to `value`; `original` is what it was, and `remove` puts it back."""

    def __init__(self, owner: Any, name: str, value: Any) -> None:
        self._owner, self._name = owner, name
        self.original = getattr(owner, name)
        setattr(owner, name, value)

    def remove(self) -> None:
        setattr(self._owner, self._name, self.original)
