"""Parameters that something else than an optimizer wrote to, and what the loss did then."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stabdiag.analysis.aftermath import followed, known_curve
from stabdiag.analysis.case import figure
from stabdiag.analysis.step_size import schedule
from stabdiag.core.run import Run

REACH = 20
"""Steps in which the loss has to show it."""
CERTAIN = 6.0
"""Standard errors by which its median over them lies higher, where single steps scatter."""


class Overwrite(NamedTuple):
    """At `step` the optimizer met `many` parameters, `share` of all elements, that had been written to since
    its last step; `names` are the first of them. `before` and `then` are losses. `lost`: it was not made
    good."""

    step: int
    names: tuple[str, ...]
    many: int
    share: float
    before: float
    then: float
    lost: bool

    @property
    def words(self) -> str:
        more = self.many - 1
        others = f" and {more} other parameter{'s' if more > 1 else ''}" if more else ""
        return (
            f"Something else than the optimizer wrote to {self.names[0]}{others} before step {self.step} "
            f"({self.share:.0%} of all elements), and the loss went from {figure(self.before)} to "
            f"{figure(self.then)}."
        )


def overwritten(run: Run) -> Overwrite | None:
    """The first write to weights that are trained that cost something: the loss had not risen in the steps
    before, rises within 20 steps from the write on, and is higher at that step already; the learning rate was
    the same, and the same write had not been borne before. None where there is none: an average that is put
    in and taken out again, a clipping of weights and a target network cost nothing."""
    curve = known_curve(run)
    if curve is None:
        return None
    borne, idle, rates = set[tuple[str, ...]](), _without_gradient(run), schedule(run)
    for event in run.events_of("overwritten"):
        step, names = event.step or 0, tuple(event.data["names"])
        if names in borne or idle.issuperset(names) or rates.changes(step):
            continue
        borne.add(names)
        at = int(np.searchsorted(curve.steps, step))
        rise = followed(curve, step, REACH)
        if rise is None or at >= len(curve.values):
            continue
        before = float(np.nanmedian(curve.values[max(at - REACH, 0) : at]))
        then = float(curve.values[at])
        rose = rise.bad or (rise.level > CERTAIN and rise.share > 0.05)
        if rose and not then <= before:
            data = event.data
            return Overwrite(step, names, data["count"], data["share"], before, then, rise.lost)
    return None


def _without_gradient(run: Run) -> set[str]:
    """Parameters that never had one, such as those of a target network."""
    if "grad.norm" not in run:
        return set()
    table = run.table("grad.norm")
    never = np.flatnonzero(~(table.values > 0).any(axis=0))
    return {table.names[i] for i in never}
