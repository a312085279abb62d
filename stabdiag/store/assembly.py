"""The numbers of another tool's log as a `Run`: named, put in order, and laid over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stabdiag.core.errors import DamagedRun
from stabdiag.core.run import Floats, KindData, Run, RunInfo
from stabdiag.core.site import KINDS, Site
from stabdiag.store.importer import Log, Names
from stabdiag.store.naming import TOLD, chosen, listed
from stabdiag.store.ordering import Ordered, ordered
from stabdiag.store.rows import keeps_books

HINT = "--map THEIRS=OURS says what a number is: --map training/cost=run.loss"

Columns = Mapping[str, Mapping[str, Ordered]]
"""Statistic -> site -> numbers."""


def assembled(log: Log, path: Path, title: str, names: Names) -> Run:
    """Raises DamagedRun where nothing in the log is known, StabdiagError where `names` has one that is not
    there."""
    present = {name: len(scalars) for name, scalars in log.scalars.items()}
    if not present:
        damage = f": {log.notes[0]}" if log.notes else ""
        raise DamagedRun(f"{path} holds no numbers{damage}", "is it the log of a training?")
    series = chosen(names, present)
    if not series:
        raise DamagedRun(f"{path} holds no number of a known name: {listed(present)}", HINT)
    numbers = {name: ordered(log.scalars[name]) for found in series.values() for name in found}
    kinds: dict[str, dict[str, dict[str, Ordered]]] = {}
    for one in sorted(series, key=lambda name: KINDS.index(name.partition(".")[0])):
        kind, _, statistic = one.partition(".")
        sites = {"run" if kind == "run" else name: numbers[name] for name in series[one]}
        kinds.setdefault(kind, {})[statistic] = sites
    notes = [*log.notes, *_notes(numbers, series, present)]
    if _hidden(kinds):
        notes.append(
            "a loss of exactly 0 beside a gradient that is not finite is read as NaN: Trainer hides it"
        )
    data = {kind: _kind(kind, columns) for kind, columns in kinds.items()}
    told = {one: ", ".join(found[:TOLD]) for one, found in series.items()}
    info = RunInfo(configuration={"read from": title, **told})
    return Run(info, data, (), path, tuple(notes))


def _kind(kind: str, columns: Columns) -> KindData:
    names = tuple(dict.fromkeys(name for sites in columns.values() for name in sites))
    parts = [one for sites in columns.values() for one in sites.values()]
    steps = np.unique(np.concatenate([one.steps for one in parts]))
    times = np.full(len(steps), np.nan)
    for one in reversed(parts):
        times[np.searchsorted(steps, one.steps)] = one.times
    values = {name: np.full((len(steps), len(names)), np.nan, np.float32) for name in columns}
    lost = np.full((len(steps), len(names)), np.nan, np.float32)
    for statistic, sites in columns.items():
        for name, one in sites.items():
            at, column = np.searchsorted(steps, one.steps), names.index(name)
            values[statistic][at, column] = _narrowed(one.values)
            if statistic == "loss" or kind != "run":
                lost[at, column] = np.fmax(lost[at, column], ~np.isfinite(one.values))
    sites_of = tuple(Site(kind, name, order=order) for order, name in enumerate(names))
    return KindData(steps, times, sites_of, {**values, "nonfinite": lost})


def _narrowed(values: np.ndarray) -> Floats:
    """In float32; a finite number stays finite."""
    limit = np.finfo(np.float32).max
    return np.where(np.isfinite(values), np.clip(values, -limit, limit), values).astype(np.float32)


def _hidden(kinds: Mapping[str, dict[str, dict[str, Ordered]]]) -> bool:
    """Makes losses NaN that the Hugging Face Trainer hid: with its `logging_nan_inf_filter`, which is on by
    default, a loss that is not finite counts as the mean of those before it, and as 0 where there are none.
    The gradient beside it is told as it is."""
    run = kinds.get("run", {})
    if "loss" not in run or "grad_norm" not in run:
        return False
    loss, norm = run["loss"]["run"], run["grad_norm"]["run"]
    broken = norm.steps[~np.isfinite(norm.values)]
    hidden = (loss.values == 0) & np.isin(loss.steps, broken)
    loss.values[hidden] = np.nan
    return bool(hidden.any())


def _notes(
    numbers: Mapping[str, Ordered], series: Mapping[str, Sequence[str]], present: Mapping[str, int]
) -> list[str]:
    notes = []
    restarts = max((one.restarts for one in numbers.values()), key=len)
    if restarts:
        steps = ", ".join(f"{step:,}" for step in restarts[:TOLD])
        notes.append(
            f"restarted at step {steps}: what the attempts before had written from there on is left out"
        )
    counted = [name for name, one in numbers.items() if one.counted]
    if counted:
        notes.append(f"{listed(counted)}: all at one step, so their values are counted as steps")
    rest = [name for name in present if name not in numbers and not keeps_books(name)]
    if rest:
        notes.append(f"not used: {listed(rest)} (--map gives a number its meaning)")
    if "run.loss" not in series:
        notes.append("no number is known to be the training loss (--map THEIRS=run.loss)")
    return notes
