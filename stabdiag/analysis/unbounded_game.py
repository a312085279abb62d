"""Whether the players of a game play for ever higher stakes, because nothing bounds what decides it.

The score of a critic is worth as much as its slope, and without a floor under its loss a steeper one always
wins more (Arjovsky et al. 2017, arXiv 1701.07875: only Lipschitz critics measure a distance). The slope is a
factor of every player's gradient; so both grow together, and with them the losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.history import History, history
from stabdiag.analysis.incomparable import targets_move
from stabdiag.core.run import Run

BEGIN = 20
"""Steps that say where a player began."""

LEAST = 24
"""Records of a player that are needed to tell."""

LASTS = 1000
"""Steps after which a critic that is held has found its slope; before, it may grow as one that is not."""


@dataclass(frozen=True)
class Player:
    """The absolute `loss` and the gradient `norm` of the optimizer named `name`: medians of the first `BEGIN`
    steps and of the last third of the records. Both had grown tenfold from step `onset` on."""

    name: str
    onset: int
    loss: tuple[float, float]
    norm: tuple[float, float]


def unbounded_players(run: Run, fold: float) -> list[Player]:
    """Those whose loss, which has no floor, and gradient have grown `fold` times and are not past their
    height, where the gradient of another has grown as much; in the order in which they were told."""
    names = [site.name for site in run.sites("side")]
    # A loss from a library is none of a critic without bounds, and values that grow with a policy may grow.
    if run.steps < LASTS or run.fact("loss", "function", "unknown") != "unknown" or targets_move(run):
        return []
    norms = {name: _size(run, "side.grad_norm", name) for name in names}
    grown = [name for name in names if _grows(norms[name], fold)]
    if len(grown) < 2:
        return []
    found = (_player(run, name, norms[name], fold) for name in grown)
    return [player for player in found if player is not None]


def _player(run: Run, name: str, norm: History, fold: float) -> Player | None:
    loss = _size(run, "side.loss", name)
    lowest = float(history(run, "side.loss", name).finite().values.min(initial=np.inf))
    if min(len(norm), len(loss)) < LEAST or lowest >= 0 or not _grows(loss, fold):
        return None
    halves = np.array_split(norm.values, 8)[:4]
    if _ends(norm)[1] <= max(float(np.median(part)) for part in halves):
        return None
    low = np.flatnonzero(norm.values < 10.0 * _ends(norm)[0])
    onset = int(norm.steps[min(int(low[-1]) + 1, len(norm) - 1)])
    return Player(name, onset, _ends(loss), _ends(norm))


def _size(run: Run, series: str, name: str) -> History:
    known = history(run, series, name).finite()
    return History(known.steps, np.abs(known.values))


def _ends(size: History) -> tuple[float, float]:
    begin = size.within(0, BEGIN).values
    return float(np.median(begin)), float(np.median(size.values[-(len(size) // 3) :]))


def _grows(size: History, fold: float) -> bool:
    if len(size) < 3 or not len(size.within(0, BEGIN)):
        return False
    first, last = _ends(size)
    return last > fold * first > 0
