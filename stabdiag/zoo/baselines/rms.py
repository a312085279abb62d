from __future__ import annotations

from collections.abc import Iterator

from stabdiag.core.run import Run
from stabdiag.zoo.baseline import Alarm, baseline, by_site, recorded

LEVEL = 2.3


@baseline("rms", title="RMS above 2.3")
def alarms(run: Run) -> Iterator[Alarm]:
    """The root mean square of the gradient over the square root of Adam's second moment is 2.3 or more, in
    any tensor (Wortsman et al. 2023)."""
    table = recorded(run, "optimizer.rms")
    yield from by_site(table, table.values >= LEVEL, "RMS", ("adam-stale-second-moment", "loss-spike"))
