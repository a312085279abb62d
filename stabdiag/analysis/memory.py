"""What several signatures need of one run is computed once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from stabdiag.core.run import Run

P = ParamSpec("P")
T = TypeVar("T")


def once(function: Callable[Concatenate[Run, P], T]) -> Callable[Concatenate[Run, P], T]:
    """`function`, which is asked of each run once for the same (hashable) arguments.

    The result lives as long as the run and is shared: nobody may change it. What is raised is not kept.
    """

    def remembered(run: Run, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (function, args, tuple(sorted(kwargs.items())))
        if key not in run.derived:
            run.derived[key] = function(run, *args, **kwargs)
        result: T = run.derived[key]
        return result

    functools.update_wrapper(remembered, function)
    return remembered
