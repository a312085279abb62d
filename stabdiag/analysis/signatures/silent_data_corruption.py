"""A value that training cannot have made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.robust import Doubles
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run, Table
from stabdiag.core.synthetic import run_of

LARGEST = float(np.finfo(np.float32).max)
USUAL = 32
"""Records that say what is usual of a gradient."""


class _Odd(NamedTuple):
    site: str
    before: int
    step: int
    series: str
    multiple: float
    words: str


@signature(
    "silent-data-corruption",
    title="A value changed that training did not change",
    needs=("run.loss",),
    explains=(
        "nonfinite-origin",
        "exploding-activation",
        "exploding-gradient",
        "loss-spike",
        "loss-divergence",
        "update-ratio-high",
        "bad-batch",
    ),
    causes=("hardware-corruption",),
)
def silent_data_corruption(
    run: Run, *, beyond: float = 10.0, alone: float = 300.0, others: float = 3.0
) -> Iterator[Finding]:
    """What it means: memory, an arithmetic unit or a link gave a wrong value and no error. Rarely it is a
    script that writes into weights.

    How it is detected: the largest element of one weight grew between two records by more than `beyond` times
    what all updates in between can have added: no element changes by more than the norm of the update.
    All but this tensor obey. Or the gradient norm of one tensor is `alone` times its usual while no other
    is above `others` times, its own module's other parameters included: a true gradient spike reaches all
    of a module, and what lies before it.

    Calibrated on flipped bits in MLPs: bit 30 of a weight and of a gradient (found at its step), bits 23 and
    27 (change a weight by less than training does: not found, and harmless); the largest lone weight change
    in 32 healthy runs was 0.4 of its bound, the largest lone gradient 40 times.

    Look-alikes: weights that are loaded, reset or clipped by the script change together. Embeddings of rare
    tokens have lone gradients, and are left out.

    Fixes: replay the step from the same state and batch: a hardware fault does not come again. Go back to
    before it; take the machine out if it repeats.

    Reference: Ma et al. 2025 (arXiv 2502.12340); Meta, The Llama 3 herd of models (arXiv 2407.21783), 3.3.4.

    Facts: multiple (of what training can do), before (last step at which all was well).
    """
    if "weight.absmax" not in run and "grad.norm" not in run:
        raise NotEvaluable("neither weight.absmax nor grad.norm was recorded")
    odd = [o for o in (_weight(run, beyond), _gradient(run, alone, others)) if o is not None]
    if not odd:
        return
    first = min(odd, key=lambda o: o.step)
    yield Finding(
        severity=Severity.critical if first.series == "weight.absmax" else Severity.warning,
        confidence=0.8,
        sites=(first.site,),
        onset_step=first.before + 1,
        peak_step=first.step,
        last_step=first.step,
        message=first.words,
        value=first.multiple,
        threshold=beyond if first.series == "weight.absmax" else alone,
        evidence=(Evidence(first.series, (first.site,), log=True),),
        facts={"multiple": first.multiple, "before": float(first.before)},
    )


def _weight(run: Run, beyond: float) -> _Odd | None:
    """The first lone growth of a weight's largest element that its updates do not explain."""
    if "weight.absmax" not in run or "update.norm" not in run:
        return None
    table, change = run.table("weight.absmax"), run.table("update.norm")
    known = {name: i for i, name in enumerate(change.names)}
    shared = [i for i, name in enumerate(table.names) if name in known]
    if len(shared) < 3 or len(table.steps) < 2 or not len(change.steps):
        return None
    norms = change.values[:, [known[table.names[i]] for i in shared]].astype(np.float64)
    # The largest update recorded so far bounds those that were not recorded; the first ones are the largest.
    largest = np.maximum.accumulate(np.nan_to_num(norms, nan=0.0, posinf=np.inf), axis=0)
    row = np.clip(np.searchsorted(change.steps, table.steps[1:], side="right") - 1, 0, None)
    values = table.values[:, shared].astype(np.float64)
    bound = largest[row] * np.diff(table.steps)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        multiple = np.diff(values, axis=0) / bound
    multiple[~np.isfinite(multiple) | (bound <= 0)] = 0.0
    above = multiple > beyond
    lone = np.flatnonzero(above.sum(axis=1) == 1)
    lone = lone[(multiple[lone] > 1.0).sum(axis=1) == 1]
    if not len(lone):
        return None
    at = int(lone[0])
    which = int(np.argmax(multiple[at]))
    site, most = table.names[shared[which]], float(multiple[at, which])
    before, step = int(table.steps[at]), int(table.steps[at + 1])
    return _Odd(
        site, before, step, "weight.absmax", most,
        f"The largest element of {site} went from {figure(float(values[at, which]))} to "
        f"{figure(float(values[at + 1, which]))} between steps {before} and {step}, {figure(most)} times "
        "what the updates in between can have added; no other parameter did.",
    )  # fmt: skip


def _gradient(run: Run, alone: float, others: float) -> _Odd | None:
    """The first step at which one gradient alone was far above its usual."""
    if "grad.norm" not in run:
        return None
    table = _without_embeddings(run.table("grad.norm"))
    values = _with_lost_ones(run, table)
    if values.shape[0] <= USUAL or values.shape[1] < 3:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        # Against the steps just before: cheap, and enough to find the few rows that are worth a median.
        near = values[1:] / np.nanmax(np.stack([values[:-1], np.full_like(values[:-1], 1e-300)]), axis=0)
    for row in (np.flatnonzero((near > 0.1 * alone).any(axis=1)) + 1).tolist():
        if row < USUAL:
            continue
        past = values[row - USUAL : row]
        usual, most = np.nanmedian(past, axis=0), np.nanmax(past, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            multiple = np.nan_to_num(values[row] / usual, nan=0.0, posinf=0.0)
        which = int(np.argmax(multiple))
        rest = np.delete(multiple, which)
        if (
            multiple[which] > alone
            and values[row, which] > 0.1 * alone * most[which]
            and rest.max() <= others
        ):
            step, site = int(table.steps[row]), table.names[which]
            return _Odd(
                site, int(table.steps[row - 1]), step, "grad.norm", float(multiple[which]),
                f"The gradient of {site} alone was {figure(float(multiple[which]))} times its usual at step "
                f"{step}; that of no other parameter was above {figure(float(rest.max()))} times.",
            )  # fmt: skip
    return None


def _with_lost_ones(run: Run, table: Table) -> Doubles:
    """The norms, and where one is not finite while another parameter of the same module has a finite one,
    the largest float32 in its place: what reaches one of them reaches the other."""
    values = np.where(np.isfinite(table.values), table.values, np.nan).astype(np.float64)
    if "grad.nonfinite" not in run:
        return values
    counts = run.table("grad.nonfinite")
    lost = counts.values[:, [counts.names.index(name) for name in table.names]] > 0
    modules = [site.module for site in table.sites]
    for row in np.flatnonzero(lost.any(axis=1) & ~lost.all(axis=1)).tolist():
        well = {modules[i] for i in np.flatnonzero(np.isfinite(values[row]))}
        for i in np.flatnonzero(lost[row]).tolist():
            if modules[i] in well:
                values[row, i] = LARGEST
    return values


def _without_embeddings(table: Table) -> Table:
    kept = [i for i, site in enumerate(table.sites) if "Embedding" not in site.module_type]
    return Table(table.series, table.steps, tuple(table.sites[i] for i in kept), table.values[:, kept])


def _run(rng: np.random.Generator, growth: float = 1.0, pull: float = 1.0, all_of_them: bool = False) -> Run:
    absmax = 0.3 + 0.001 * np.arange(60)[:, None] + 0.001 * rng.random((60, 5))
    norm = 1.0 + 0.1 * rng.random((60, 5))
    column = slice(None) if all_of_them else 2
    absmax[40:, column] *= growth
    norm[40, column] *= pull
    series = {
        "run.loss": np.ones(60), "weight.absmax": absmax, "grad.norm": norm,
        "update.norm": np.full((60, 5), 0.01),
    }  # fmt: skip
    return run_of(series, sites={kind: weights(kind, 5) for kind in ("weight", "grad", "update")})


@silent_data_corruption.fires_on
def _a_bit_of_a_weight(rng: np.random.Generator) -> Run:
    return _run(rng, growth=1e4)


@silent_data_corruption.fires_on
def _a_bit_of_a_gradient(rng: np.random.Generator) -> Run:
    return _run(rng, pull=1e6)


@silent_data_corruption.quiet_on
def _a_checkpoint_is_loaded(rng: np.random.Generator) -> Run:
    return _run(rng, growth=10, all_of_them=True)


@silent_data_corruption.quiet_on
def _a_bad_batch(rng: np.random.Generator) -> Run:
    return _run(rng, pull=1e4, all_of_them=True)
