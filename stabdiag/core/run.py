"""The read view of a recorded run: all that the analysis and the reports ever see."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stabdiag.core.errors import StabdiagError
from stabdiag.core.event import Event
from stabdiag.core.site import Site

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]


INSIDE = ("stabdiag.watch",)
"""The command of a run that was recorded inside a program: what to call is not known."""


class MissingSeries(StabdiagError):
    """A series that the run does not hold."""


@dataclass(frozen=True)
class Table:
    """One series: `values[step, site]` in float32, with `steps` (int64, increasing) and `sites`.

    NaN means "not measured at this step" or "measured, and not a number"; `<kind>.nonfinite` tells
    the two apart: it is NaN where nothing was measured and a number wherever something was.
    """

    series: str
    steps: NDArray[np.int64]
    sites: tuple[Site, ...]
    values: Floats

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites)

    def column(self, name: str) -> Floats:
        """The values of the site `name`, shape [steps]. KeyError where there is none."""
        try:
            return self.values[:, self.names.index(name)]
        except ValueError:
            raise KeyError(name) from None

    def first(self) -> Floats:
        """The values of the first site, shape [steps]: the whole of a series of the run itself."""
        return self.values[:, 0]


@dataclass(frozen=True)
class KindData:
    """All that was recorded of one kind: `values[statistic]` is [steps, sites] in float32."""

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    sites: tuple[Site, ...]
    values: Mapping[str, Floats]

    def window(self, first: int, last: int) -> KindData:
        """The rows of first <= step <= last, as views."""
        low, high = np.searchsorted(self.steps, [first, last + 1])
        rows = slice(int(low), int(high))
        values = {name: array[rows] for name, array in self.values.items()}
        return KindData(self.steps[rows], self.times[rows], self.sites, values)


@dataclass(frozen=True)
class RunInfo:
    """What `run.json` says, and what the recorded processes said of themselves.

    `cwd` is the folder in which `command` was given.

    `started` and `ended` are seconds since the epoch; `ended` is None while the run goes on or where
    nobody could write its end. `signal` is the name of the signal that ended it. `processes` counts
    the recorded ones.
    """

    command: tuple[str, ...] = ()
    cwd: str = ""
    started: float | None = None
    ended: float | None = None
    exit_status: int | None = None
    signal: str | None = None
    world_size: int = 1
    processes: int = 1
    host: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    git_commit: str | None = None
    configuration: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A recorded run, or a part of one.

    `kinds` may load lazily; `notes` says what of the files could not be read.
    """

    info: RunInfo
    kinds: Mapping[str, KindData]
    events: Sequence[Event] = ()
    path: Path | None = None
    notes: tuple[str, ...] = ()

    def __contains__(self, series: object) -> bool:
        kind, _, statistic = str(series).partition(".")
        return kind in self.kinds and statistic in self.kinds[kind].values

    def table(self, series: str) -> Table:
        """Raises MissingSeries where the run does not hold it."""
        kind, _, statistic = series.partition(".")
        if series not in self:
            raise MissingSeries(f"{series} was not recorded", "run.series lists what was")
        data = self.kinds[kind]
        return Table(series, data.steps, data.sites, data.values[statistic])

    @property
    def series(self) -> tuple[str, ...]:
        return tuple(f"{kind}.{name}" for kind, data in self.kinds.items() for name in data.values)

    def sites(self, kind: str) -> tuple[Site, ...]:
        return self.kinds[kind].sites if kind in self.kinds else ()

    @cached_property
    def steps(self) -> int:
        """Number of training steps seen: one more than the last step of any kind."""
        lasts = [int(data.steps[-1]) for data in self.kinds.values() if len(data.steps)]
        return max(lasts, default=-1) + 1

    @cached_property
    def derived(self) -> dict[Hashable, Any]:
        """What was computed of this run and is worth keeping (`analysis.memory` fills it)."""
        return {}

    def window(self, first: int, last: int) -> Run:
        """The same run, seen from step `first` to step `last`, both included."""
        kinds = {name: data.window(first, last) for name, data in self.kinds.items()}
        inside = [e for e in self.events if e.step is None or first <= e.step <= last]
        return Run(self.info, kinds, inside, self.path, self.notes)

    def frame(self, series: str) -> pd.DataFrame:
        """Tidy pandas: columns step, site, value; one row a measured value."""
        import pandas as pd

        table = self.table(series)
        frame: pd.DataFrame = pd.DataFrame(
            {
                "step": np.repeat(table.steps, len(table.sites)),
                "site": np.tile(np.array(table.names, dtype=object), len(table.steps)),
                "value": table.values.ravel(),
            }
        )
        return frame

    def events_of(self, event: str) -> Iterator[Event]:
        return (e for e in self.events if e.event == event)

    def fact(self, event: str, key: str, default: Any = None) -> Any:
        """The value of `key` in the first event of that name that has it."""
        return next((e.data[key] for e in self.events_of(event) if key in e.data), default)
