"""A value that training cannot have made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.losscurve import harmed
from stabdiag.analysis.overwritten import Overwrite, overwritten
from stabdiag.analysis.robust import Flags, median
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run, Table
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

LARGEST = float(np.finfo(np.float32).max)
USUAL = 32
"""Records that say what is usual of a gradient."""
SMALL_PART = 64
"""Of a normally distributed weight whole, which has its largest element at four or five deviations, the norm
holds the largest a sixteenth to a twenty-fifth as often as there are elements."""

Places = NDArray[np.int64]


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
        "attention-logit-growth",
        "attention-entropy-collapse",
        "activation-outliers",
        "residual-stream-growth",
        "adam-stale-second-moment",
        "saturated-units",
        "output-logit-drift",
        "vae-kl-explosion",
        "moe-router-collapse",
        "distribution-shift-or-resume",
    ),
    causes=("hardware-corruption", "weights-overwritten"),
)
def silent_data_corruption(
    run: Run, *, beyond: float = 10.0, alone: float = 300.0, others: float = 3.0
) -> Iterator[Finding]:
    """What it means: memory, an arithmetic unit or a link gave a wrong value and no error. Rarely it is a
    script that writes into weights.

    How it is detected: the largest element of one weight grew between two records by more than `beyond` times
    what all updates in between can have added: no element changes by more than the norm of the update. All
    but this tensor obey, and by its norm a small part of its elements grew: where a script scales a weight,
    all of them do. Or the gradient norm of one tensor is, in one step, `alone` times its usual while no other
    is above `others` times, its own module's other parameters included: a true gradient spike reaches all of
    a module, and what lies before it. An infinite gradient in a step that the gradient scaler withheld is an
    overflow of what it had scaled, for which it is there. Or something else than an optimizer wrote to
    parameters between two of its steps, by autograd's own count, and from that step on the loss is higher,
    which it had not been before: a warning, critical where that is not made good.

    Calibrated on flipped bits in MLPs: bit 30 of a weight and of a gradient (found at its step), bit 27 (not
    found, and harmless); in healthy runs the largest change of a weight was 2.3 times its bound, the largest
    lone gradient 18 times its usual: 0 alarms in 83,963 steps of 222 healthy runs.

    Look-alikes: weights that are loaded, reset or clipped by the script change together; where the loss bears
    it nothing is told. Embeddings of rare tokens have lone gradients, and are left out.

    Fixes: replay the step from the same state and batch: a hardware fault does not come again. Go back to
    before it; take the machine out if it repeats.

    Reference: Ma et al. 2025 (arXiv 2502.12340); Meta, The Llama 3 herd of models (arXiv 2407.21783), 3.3.4.

    Facts: multiple (of what training can do), before (last step at which all was well); of a write: written
    (parameters), share (of all elements), loss_before.
    """
    if "weight.absmax" not in run and "grad.norm" not in run:
        raise NotEvaluable("neither weight.absmax nor grad.norm was recorded")
    odd = [o for o in (_weight(run, beyond), _gradient(run, alone, others)) if o is not None]
    if (written := overwritten(run)) is not None:
        yield _written(run, written)
        odd = [o for o in odd if not o.before < written.step <= o.step]
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


def _written(run: Run, written: Overwrite) -> Finding:
    return Finding(
        severity=Severity.critical if written.lost and harmed(run) else Severity.warning,
        confidence=0.95,
        sites=written.names,
        onset_step=written.step,
        peak_step=written.step,
        last_step=written.step,
        message=written.words,
        evidence=(Evidence("run.loss", ("run",)),),
        facts={"written": float(written.many), "share": written.share, "loss_before": written.before},
    )


def _weight(run: Run, beyond: float) -> _Odd | None:
    """The first lone growth of a weight's largest element that its updates do not explain."""
    if "weight.absmax" not in run or "update.norm" not in run:
        return None
    table, change = run.table("weight.absmax"), run.table("update.norm")
    if len(table.steps) < 2 or len(table.sites) < 3 or not len(change.steps):
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        doubled = (table.values[1:] > 2 * table.values[:-1]) & (table.values[:-1] > 0)
    known = {name: i for i, name in enumerate(change.names)}
    doubled[:, [i for i, name in enumerate(table.names) if name not in known]] = False
    rows, columns = np.nonzero(doubled)
    rows += 1
    multiples = _multiples(table, change, rows, columns, np.array([known.get(n, 0) for n in table.names]))
    odd = multiples > 1
    alone = np.bincount(rows[odd], minlength=len(table.steps)) == 1
    found = np.flatnonzero((multiples > beyond) & alone[rows] & _of_few(run, table, rows, columns))
    if not found.size:
        return None
    row, which, most = int(rows[found[0]]), int(columns[found[0]]), float(multiples[found[0]])
    site, (old, new) = table.names[which], table.values[row - 1 : row + 1, which].tolist()
    before, step = int(table.steps[row - 1]), int(table.steps[row])
    return _Odd(
        site, before, step, "weight.absmax", most,
        f"The largest element of {site} went from {figure(old)} to {figure(new)} between steps "
        f"{before} and {step}, {figure(most)} times what the updates in between can have added; no "
        "other parameter did.",
    )  # fmt: skip


def _of_few(run: Run, table: Table, rows: Places, columns: Places) -> Flags:
    """Whether a small part of the elements of a weight can have made its norm grow, at each place."""
    if "weight.norm" not in run or run.table("weight.norm").values.shape != table.values.shape:
        return np.ones(len(rows), dtype=bool)
    norms = run.table("weight.norm").values
    before, after = (norms[at, columns].astype(np.float64) for at in (rows - 1, rows))
    largest = table.values[rows, columns].astype(np.float64)
    few = np.array([max(2.0, math.prod(table.sites[i].shape or ()) / SMALL_PART) for i in columns])
    with np.errstate(invalid="ignore", over="ignore"):
        return ~np.isfinite(after) | ~(after**2 > before**2 + few * largest**2)


def _multiples(
    table: Table, change: Table, rows: Places, columns: Places, of_change: Places
) -> NDArray[np.float64]:
    """By how much the growth of a weight's largest element before each place (row, column) exceeds all that
    the updates since the record before it can have added; `of_change[column]` is its place in `change`."""
    old, new = (table.values[at, columns].astype(np.float64) for at in (rows - 1, rows))
    # The largest update recorded so far bounds those that were not; the first ones are the largest.
    finite = np.where(np.isfinite(change.values), change.values, np.float32(0))
    largest = np.vstack([np.zeros(finite.shape[1], np.float32), np.maximum.accumulate(finite, axis=0)])
    last = np.searchsorted(change.steps, table.steps[rows], side="right")
    bound = largest[last, of_change[columns]] * np.diff(table.steps)[rows - 1]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        multiples = np.where((bound > 0) & np.isfinite(new), (new - old) / bound, 0.0)
    # In a run that diverges the norm of an update overflows.
    overflowed = (last > 0) & np.isposinf(change.values[last - 1, of_change[columns]])
    multiples[overflowed & (old > 100 * table.values[0, columns])] = 0.0
    return multiples


def _gradient(run: Run, alone: float, others: float) -> _Odd | None:
    """The first step at which one gradient alone was far above its usual."""
    if "grad.norm" not in run:
        return None
    table = run.table("grad.norm")
    kept = [i for i, site in enumerate(table.sites) if "Embedding" not in site.module_type]
    if len(table.steps) <= USUAL or len(kept) < 3:
        return None
    lost = _lost(run, table)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # Against the record before: cheap, and enough to find the few rows that are worth a median.
        near = (table.values[1:] > 0.1 * alone * table.values[:-1]) & (table.values[:-1] > 0)
    rows = np.flatnonzero(near.any(axis=1) | lost[1:].any(axis=1)) + 1
    for row in rows[rows >= USUAL].tolist():
        past = table.values[row - USUAL : row, kept].astype(np.float64)
        past[~np.isfinite(past)] = np.nan
        now = np.where(lost[row], LARGEST, table.values[row].astype(np.float64))[kept]
        usual = median(past, axis=0)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            multiple = np.nan_to_num(now / usual, nan=0.0, posinf=0.0)
        which = int(np.argmax(multiple))
        rest = float(np.delete(multiple, which).max())
        most = float(np.nanmax(past[:, which], initial=0.0))
        stays = row + 1 < len(table.steps) and table.values[row + 1, kept[which]] > 0.1 * now[which]
        if multiple[which] > alone and now[which] > 0.1 * alone * most and rest <= others and not stays:
            step, site = int(table.steps[row]), table.names[kept[which]]
            return _Odd(
                site, int(table.steps[row - 1]), step, "grad.norm", float(multiple[which]),
                f"The gradient of {site} alone was {figure(float(multiple[which]))} times its usual at step "
                f"{step}; that of no other parameter was above {figure(rest)} times.",
            )  # fmt: skip
    return None


def _lost(run: Run, table: Table) -> Flags:
    """[steps, sites]: where a gradient is not finite while another one of the same module is. What reaches
    one of them reaches the other."""
    if "grad.nonfinite" not in run or run.table("grad.nonfinite").names != table.names:
        return np.zeros(table.values.shape, dtype=bool)
    lost: Flags = run.table("grad.nonfinite").values > 0
    if "run.skipped" in run:
        skipped = run.table("run.skipped")
        lost[np.isin(table.steps, skipped.steps[skipped.first() > 0])] = False
    modules = [site.module for site in table.sites]
    rows = lost.any(axis=1)
    for row in np.flatnonzero(rows).tolist():
        well = {modules[i] for i in np.flatnonzero(np.isfinite(table.values[row]) & ~lost[row])}
        lost[row] &= np.array([module in well for module in modules])
    return lost


def _run(
    rng: np.random.Generator,
    growth: float = 1.0,
    pull: float = 1.0,
    *,
    all_of_them: bool = False,
    scaled: bool = False,
    stays: bool = False,
) -> Run:
    """A weight's largest element, or with `scaled` the whole, grows at step 40; its gradient is `pull` times
    as large there, or with `stays` from there on."""
    absmax = 0.3 + 0.001 * np.arange(60)[:, None] + 0.001 * rng.random((60, 5))
    length = 10 * absmax
    norm = 1.0 + 0.1 * rng.random((60, 5))
    column = slice(None) if all_of_them else 2
    absmax[40:, column] *= growth
    length[40:, column] = growth * length[40:, column] if scaled else np.hypot(length, absmax)[40:, column]
    norm[40 : None if stays else 41, column] *= pull
    series = {
        "run.loss": np.ones(60), "weight.absmax": absmax, "weight.norm": length, "grad.norm": norm,
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
def _the_script_scales_a_weight(rng: np.random.Generator) -> Run:
    return _run(rng, growth=1e4, scaled=True)


@silent_data_corruption.quiet_on
def _a_branch_opens(rng: np.random.Generator) -> Run:
    return _run(rng, pull=1e4, stays=True)


@silent_data_corruption.quiet_on
def _a_checkpoint_is_loaded(rng: np.random.Generator) -> Run:
    return _run(rng, growth=10, all_of_them=True)


def _overflown(rng: np.random.Generator) -> dict[str, np.ndarray]:
    norm = 1.0 + 0.1 * rng.random((60, 6))
    norm[40, 2] = np.inf
    return {"run.loss": np.ones(60), "grad.norm": norm, "grad.nonfinite": np.isinf(norm).astype(float)}


def _modules() -> dict[str, list[Site]]:
    names = [f"layers.{i}.{part}" for i in range(3) for part in ("weight", "bias")]
    return {"grad": [Site("grad", name, "Linear", order=i // 2) for i, name in enumerate(names)]}


@silent_data_corruption.fires_on
def _an_infinite_gradient(rng: np.random.Generator) -> Run:
    return run_of(_overflown(rng), sites=_modules())


@silent_data_corruption.quiet_on
def _an_overflow_that_the_scaler_withheld(rng: np.random.Generator) -> Run:
    return run_of({**_overflown(rng), "run.skipped": np.arange(60) == 40}, sites=_modules())


@silent_data_corruption.quiet_on
def _a_bad_batch(rng: np.random.Generator) -> Run:
    return _run(rng, pull=1e4, all_of_them=True)
