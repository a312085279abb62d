"""Which instances of a class are alive, known from the moment they are made."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from stabdiag.capture.patch import Patch

T = TypeVar("T")


class Instances(Generic[T]):
    """The living instances of `cls` and its subclasses, in the order they were made.

    It observes `cls.__new__`, not `__init__`: an error in a constructor then has no frame of ours in
    its traceback, and unpickled or copied instances count too.
    """

    def __init__(self, cls: type[T]) -> None:
        self._cls = cls
        self._living: list[weakref.ref[T]] = []
        living = self._living
        original: Any = cls.__new__

        def plain(subclass: type, *_args: Any, **_kwargs: Any) -> Any:
            return object.__new__(subclass)

        # A class that had no __new__ of its own can never lose one again without object.__new__ refusing
        # the constructor's arguments (CPython issue 5322).
        make = plain if original is object.__new__ else original

        def observe(subclass: type, *args: Any, **kwargs: Any) -> Any:
            instance = make(subclass, *args, **kwargs)
            living.append(weakref.ref(instance, living.remove))
            return instance

        self._patch = Patch(cls, "__new__", staticmethod(observe))
        self._patch.original = staticmethod(make)

    def adopt(self) -> None:
        """Takes in those that were made before it began to observe, in whatever order."""
        known = {id(instance) for instance in self}
        for candidate in gc.get_objects():
            if issubclass(type(candidate), self._cls) and id(candidate) not in known:
                self._living.append(weakref.ref(candidate, self._living.remove))

    def __iter__(self) -> Iterator[T]:
        return (instance for ref in tuple(self._living) if (instance := ref()) is not None)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def forget(self) -> None:
        """Stops observing."""
        self._patch.remove()
