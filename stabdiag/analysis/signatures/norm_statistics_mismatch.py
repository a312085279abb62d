"""Normalization does something else in evaluation than in training, or nothing at all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.robust import Doubles, median
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

SAMPLING = 1.22
"""Root mean square difference, times the square root of the number of items, between an output that is
normalized by the statistics of a batch and one by those of the population: sqrt(1 + 1/2) of a normal
distribution."""
LAST = 3
SETTLED = 50
"""Steps after which running statistics can be expected to follow."""


@signature(
    "norm-statistics-mismatch",
    title="Normalization does something else in evaluation than in training",
    needs=("normalization.headroom",),
    explains=("overfitting",),
    causes=("batchnorm-statistics", "batch-too-small", "bad-init-scale"),
)
def norm_statistics_mismatch(
    run: Run,
    *,
    mismatch: float = 0.5,
    few: float = 16.0,
    fewest: float = 3.0,
    headroom: float = 1.0,
) -> Iterator[Finding]:
    """What it means: batch normalization uses the statistics of the batch while it trains and running ones
    in evaluation. Where these lag behind, or the batch is too small to have any, what was trained is not
    what is evaluated. A normalization whose variance is no larger than its eps does not normalize.

    How it is detected: three ways, in the last three records after the first quarter. Lag: what a batch
    normalization puts out differs, in the median channel, from what evaluation would make of the same
    input. What the number of items explains by chance is taken off (squares: 1.5 / items), and the rest of
    all layers comes to more than `mismatch` standard deviations, as a root of the sum of squares: a
    warning. Tiny batch: fewer than `fewest` values of a channel make any statistics worthless, which is a
    warning; fewer than `few` are info. Eps: the median variance over eps is below `headroom`: a warning;
    below 100 times that it is info.

    Look-alikes: running statistics need 1 / momentum steps to follow: the first of them are not judged.
    Small batches differ from the population by chance. Dropout makes the loss of evaluation lower. Weights
    that still move fast have statistics that move.

    Fixes: momentum 0.1, or statistics computed anew over 50 batches before evaluation; group or layer
    normalization; statistics over all devices; batches of 16 and more.

    Calibrated on: CNNs and MLPs, by the gap between the losses in the two modes: at 0.75 to 0.93 standard
    deviations it is 0.7 to 0.98 nat (momentum 1e-3), at 0.56 it is 0.64, at 0.38 to 0.49 it is 0.03 to
    0.35, below 0.2 none. Momentum 0.1 leaves 0. No finding above info in the 33 of 61 healthy runs that
    have these series, 11,120 steps: fewer than 0.27 in 1,000, at 95 %.

    Reference: Ioffe and Szegedy 2015 (arXiv 1502.03167); Wu and He 2018 (arXiv 1803.08494).

    Facts: mismatch (of all layers together), variance_ratio (running over batch), values (of a channel),
    headroom (least), layers (affected).
    """
    table = run.table("normalization.headroom")
    rows = np.flatnonzero(np.isfinite(table.values).any(axis=1))
    late = table.steps[rows] >= max(SETTLED, run.steps // 4)
    if not late.any():
        raise NotEvaluable("normalization was not measured after the first quarter of the run")
    last = min(int(late.sum()), LAST)
    steps = table.steps[rows]
    found = _lag(run, rows, steps, mismatch, last)
    found = found or _tiny(run, rows, steps, few, fewest) or _no_headroom(run, rows, steps, headroom, last)
    if found is not None:
        yield found


def _column(run: Run, statistic: str, rows: np.ndarray) -> Doubles:
    """[rows, sites], NaN where it was not recorded."""
    if f"normalization.{statistic}" not in run:
        return np.full((len(rows), len(run.sites("normalization"))), np.nan)
    values: Doubles = run.table(f"normalization.{statistic}").values[rows].astype(np.float64)
    return values


def _lag(run: Run, rows: np.ndarray, steps: np.ndarray, limit: float, last: int) -> Finding | None:
    off, items = _column(run, "mismatch", rows), _column(run, "items", rows)
    layers = np.isfinite(off[-last:]).any(axis=0)
    if not layers.any():
        return None
    chance = SAMPLING / np.sqrt(items)
    excess = np.sqrt(np.maximum(np.where(np.isfinite(off), off, np.nan) ** 2 - chance**2, 0.0))[:, layers]
    now = median(excess[-last:], axis=0)
    # What a layer distorts, the next ones get: independent distortions add up as squares.
    together = np.sqrt(np.nansum(excess**2, axis=1))
    value = float(np.median(together[-last:]))
    if value <= limit or not (now > 0).any():
        return None
    names = np.array([site.name for site in run.sites("normalization")])[layers]
    below = np.flatnonzero(together <= limit)
    since = min(int(below[-1]) + 1 if below.size else 0, len(steps) - 1)
    sites = telling(names.tolist(), np.where(now > 0, now, np.nan))
    ratio = _column(run, "variance_ratio", rows)[-last:, layers]
    ratio_now = float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else float("nan")
    said = f"; the running variance is {figure(ratio_now)} times that of the batch" if ratio_now > 0 else ""
    facts = {"mismatch": value, "layers": float((now > 0).sum())}
    return Finding(
        severity=Severity.warning,
        confidence=0.85,
        sites=sites,
        onset_step=int(steps[since]),
        peak_step=int(steps[since + int(np.argmax(together[since:]))]),
        last_step=int(steps[-1]),
        message=f"Evaluation would move what {len(now)} batch normalizations put out by {figure(value)} "
        f"standard deviations from what training makes of it, most of all that of {sites[0]}{said}.",
        value=value,
        threshold=limit,
        evidence=(Evidence("normalization.mismatch", sites),),
        facts=facts | ({"variance_ratio": ratio_now} if ratio_now > 0 else {}),
    )


def _tiny(run: Run, rows: np.ndarray, steps: np.ndarray, few: float, fewest: float) -> Finding | None:
    values = _column(run, "values", rows)
    known = np.isfinite(values).any(axis=0)
    if not known.any():
        return None
    usual = np.full(values.shape[1], np.inf)
    usual[known] = median(values[:, known], axis=0)
    at = int(np.argmin(usual))
    if usual[at] >= few:
        return None
    names = np.array([site.name for site in run.sites("normalization")])
    sites = tuple(names[usual < few].tolist()[:5])
    return Finding(
        severity=Severity.warning if usual[at] < fewest else Severity.info,
        confidence=0.7,
        sites=sites,
        onset_step=int(steps[0]),
        peak_step=int(steps[0]),
        last_step=int(steps[-1]),
        message=f"Each channel of {sites[0]} is normalized by the statistics of {figure(usual[at])} values; "
        "of 2 values only the sign of their difference is left.",
        value=float(usual[at]),
        threshold=few,
        evidence=(Evidence("normalization.values", sites, threshold=few),),
        facts={"values": float(usual[at]), "layers": float((usual < few).sum())},
    )


def _no_headroom(run: Run, rows: np.ndarray, steps: np.ndarray, limit: float, last: int) -> Finding | None:
    room = _column(run, "headroom", rows)
    known = np.isfinite(room[-last:]).any(axis=0)
    now = np.full(room.shape[1], np.inf)
    now[known] = median(room[-last:, known], axis=0)
    low = now < 100 * limit
    if not low.any():
        return None
    names = [site.name for site in run.sites("normalization")]
    sites = telling(names, np.where(low, -now, np.nan))
    at = names.index(sites[0])
    above = np.flatnonzero(room[:, at] >= 100 * limit)
    since = min(int(above[-1]) + 1 if above.size else 0, len(steps) - 1)
    return Finding(
        severity=Severity.warning if now[at] < limit else Severity.info,
        confidence=0.7,
        sites=sites,
        onset_step=int(steps[since]),
        peak_step=int(steps[since + int(np.argmin(np.fmin(room[since:, at], np.inf)))]),
        last_step=int(steps[-1]),
        message=f"The variance that {sites[0]} divides by is {figure(now[at])} times its eps: it "
        f"{'hardly normalizes' if now[at] < limit else 'normalizes a little less than it should'}.",
        value=float(now[at]),
        threshold=limit,
        evidence=(Evidence("normalization.headroom", sites, threshold=limit, log=True),),
        facts={"headroom": float(now[at]), "layers": float(low.sum())},
    )


def _run(rng: np.random.Generator, mismatch: np.ndarray, *, items: float = 64.0, room: float = 1e4) -> Run:
    sites = [Site("normalization", f"layers.{i}.norm", "BatchNorm1d", order=i) for i in range(3)]
    noise = np.exp(0.1 * rng.standard_normal((30, 3)))
    series = {
        "normalization.mismatch": mismatch[:, None] * noise,
        "normalization.variance_ratio": np.ones((30, 3)),
        "normalization.headroom": room * noise,
        "normalization.values": np.full((30, 3), items),
        "normalization.items": np.full((30, 3), items),
    }
    return run_of(series, sites={"normalization": sites}, steps={"normalization": np.arange(0, 300, 10)})


@norm_statistics_mismatch.fires_on
def _running_statistics_lag(rng: np.random.Generator) -> Run:
    return _run(rng, np.linspace(2.0, 1.2, 30))


@norm_statistics_mismatch.fires_on
def _batches_of_two(rng: np.random.Generator) -> Run:
    return _run(rng, np.full(30, 0.9), items=2.0)


@norm_statistics_mismatch.fires_on
def _nothing_but_eps(rng: np.random.Generator) -> Run:
    return _run(rng, np.full(30, 0.1), room=0.1)


@norm_statistics_mismatch.quiet_on
def _lag_of_the_first_steps(rng: np.random.Generator) -> Run:
    return _run(rng, 0.15 + 2.0 * np.exp(-np.arange(30)))


@norm_statistics_mismatch.quiet_on
def _batches_of_four(rng: np.random.Generator) -> Run:
    return _run(rng, np.full(30, 0.55), items=4.0)
