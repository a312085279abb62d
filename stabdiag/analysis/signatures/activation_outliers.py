"""A few values of an output are orders of magnitude above the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.analysis.robust import Flags, baseline
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Floats, MissingSeries, Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

WINDOW, LEAST = 32, 4
COARSE = 0.7
TOGETHER = 32
"""Sites that are looked at at once."""
FLOOR = 0.1
"""Least scale of the logarithm of a peak ratio: a tenth, the noise of the largest of a batch's values."""


@signature(
    "activation-outliers",
    title="A few values of an output are orders of magnitude above the rest",
    needs=("output.absmax", "output.rms"),
    explains=(
        "attention-logit-growth",
        "attention-entropy-collapse",
        "exploding-activation",
        "loss-spike",
        "loss-divergence",
        "nonfinite-origin",
    ),
    causes=("hardware-corruption", "learning-rate-too-high", "weight-decay-too-low"),
)
def activation_outliers(
    run: Run, *, jump: float = 4.0, rise: float = 10.0, massive: float = 50.0, large: float = 100.0
) -> Iterator[Finding]:
    """What it means: single channels or tokens outgrow the others. What is large at the first token serves
    as a sink, and is healthy; what appears from one step to the next is a damaged weight.

    How it is detected: the largest absolute value of an output over its rms jumps, from one record to the
    next, by a factor of `jump` over what was usual of it, and the value itself by `rise`; both stay there
    for three records at least. It is a warning where the loss jumps with it, beyond its noise, and info
    otherwise. The site is the first in forward order. Also info: a value above `large` that is `massive`
    times the rms.

    Look-alikes: massive activations at the first token or at delimiters, up to 100,000 times the others:
    they grow over hundreds of steps, and are no fault in float32 or bfloat16. One unusual batch. Logits of
    a classifier that becomes sure.

    Fixes: go back before the jump, and look for the damaged weight; weight decay; a lower learning rate;
    keep the projection behind the outlier out of 8-bit formats.

    Calibrated on: a row of a matrix times 1e3 in a small transformer (27 times the rms where 5.8 was
    usual), times 1e5 in an autoencoder (20, 3.8), a channel times 30 in an encoder (16, 3.6). No finding
    above info in the 49 of 61 healthy runs that have these series, 22,620 steps: fewer than 0.13 in 1,000,
    at 95 %.

    Reference: Sun et al. 2024 (arXiv 2402.17762); Dettmers et al. 2022 (arXiv 2208.07339); Fishman et al.
    2024 (arXiv 2409.12517).

    Facts: absmax, absmax_before, peak_ratio (absmax over rms), peak_ratio_before, modules (affected).
    """
    table, sizes = run.table("output.absmax"), run.table("output.rms")
    rows = np.isfinite(table.values).any(axis=1)
    if rows.sum() < LEAST + 4:
        raise NotEvaluable(f"outputs were recorded at only {int(rows.sum())} steps")
    absmax, rms = (values if rows.all() else values[rows] for values in (table.values, sizes.values))
    forward = np.argsort([site.order for site in table.sites], kind="stable")
    outputs = _Outputs(table.steps[rows], table.names, forward.tolist(), absmax, rms)
    found = _jumped(outputs, jump, rise)
    if found:
        yield _told(run, outputs, found, jump)
        return
    yield from _massive(outputs, massive, large)


@dataclass(frozen=True)
class _Outputs:
    """`absmax` and `rms`, [steps, sites], at the steps at which any was measured; `forward` are the sites in
    the order of the pass."""

    steps: NDArray[np.int64]
    names: tuple[str, ...]
    forward: list[int]
    absmax: Floats
    rms: Floats

    def ratio(self, sites: int | slice) -> Floats:
        """Of the largest to the rms, for a few sites: that of all may be more than the memory holds."""
        return np.asarray(self.absmax[:, sites] / self.rms[:, sites])


Jump = tuple[int, int, float, float]
"""Row and site of a jump, and what ratio and size were usual before it."""


def _jumped(outputs: _Outputs, jump: float, rise: float) -> list[Jump]:
    """By time, then in forward order."""
    # A coarse look at all sites, and a close one at those few that may have jumped.
    coarse: set[int] = set()
    for begin in range(0, len(outputs.names), TOGETHER):
        ratio = outputs.ratio(slice(begin, begin + TOGETHER))
        may = begin + np.flatnonzero(_may_jump(ratio, jump**COARSE))
        coarse.update(may[_may_jump(outputs.absmax[:, may], rise**COARSE)].tolist())
    found = []
    for site in (i for i in outputs.forward if i in coarse):
        with np.errstate(invalid="ignore", divide="ignore"):
            logs = np.log(outputs.ratio(site).astype(np.float64))
            large = np.log(outputs.absmax[:, site].astype(np.float64))
        usual = baseline(logs, z=np.log(jump) / FLOOR, window=WINDOW, least=LEAST, floor=FLOOR)
        of_size = baseline(large, z=np.log(rise) / FLOOR, window=WINDOW, least=LEAST, floor=FLOOR)
        with np.errstate(invalid="ignore"):
            hit = (logs > usual.center + np.log(jump)) & usual.flagged
            hit &= (large > of_size.center + np.log(rise)) & of_size.flagged
        stays = hit[:-2] & hit[1:-1] & hit[2:]
        if stays.any():
            row = int(np.argmax(stays))
            found.append((row, site, float(np.exp(usual.center[row])), float(np.exp(of_size.center[row]))))
    return sorted(found, key=lambda jumped: jumped[0])


def _may_jump(values: Floats, times: float) -> Flags:
    """[sites]: whether three records in a row ever lie above `times` the least of the eight before."""
    nothing = np.full((8 - LEAST, values.shape[1]), np.inf, values.dtype)
    padded = np.concatenate([nothing, values])
    two = np.fmin(padded[:-1], padded[1:])
    four = np.fmin(two[:-2], two[2:])
    least = np.fmin(four[:-4], four[4:])
    later = values[LEAST:]
    held = np.minimum(np.minimum(later[:-2], later[1:-1]), later[2:])
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray((held > times * least[: len(held)]).any(axis=0))


def _told(run: Run, outputs: _Outputs, found: list[Jump], jump: float) -> Finding:
    row, at, usual, before = found[0]
    steps, absmax, ratio = outputs.steps, outputs.absmax[:, at], outputs.ratio(at)
    onset = int(steps[row])
    bad = _loss_jumps(run, int(steps[row - 1]), onset)
    last = row + int(np.flatnonzero(ratio[row:] > jump * usual)[-1])
    peak = row + int(np.nanargmax(absmax[row : last + 1]))
    sites = tuple(outputs.names[i] for _, i, _, _ in found[:5])
    return Finding(
        severity=Severity.warning if bad else Severity.info,
        confidence=0.8 if bad else 0.5,
        sites=sites,
        onset_step=onset,
        peak_step=int(steps[peak]),
        last_step=int(steps[last]),
        message=f"The largest output of {sites[0]} jumps from {figure(before)} to {figure(absmax[row])} "
        f"at step {onset}, {figure(ratio[row])} times its rms where {figure(usual)} was usual, and stays "
        f"there{'; the loss jumps with it' if bad else ''}.",
        value=float(ratio[row]),
        threshold=jump * usual,
        evidence=(Evidence("output.absmax", sites, threshold=10 * before, log=True),),
        facts={
            "absmax": float(absmax[peak]),
            "absmax_before": before,
            "peak_ratio": float(ratio[row]),
            "peak_ratio_before": usual,
            "modules": float(len(found)),
            "harmed": float(bad),
        },
    )


def _loss_jumps(run: Run, before: int, step: int) -> bool:
    """Whether the loss between the record before and shortly after rose beyond its noise."""
    try:
        curve = loss_curve(run)
    except (NotEvaluable, MissingSeries):
        return False
    first, last = np.searchsorted(curve.steps, [before, step + 3])
    earlier = curve.level[max(first - 1, 0)] if first else np.nan
    inside = curve.values[first:last]
    if not inside.size or not np.isfinite(earlier):
        return False
    top = float(np.max(np.nan_to_num(inside, nan=np.inf)))
    return bool(top - earlier > max(5 * curve.noise, 0.05 * abs(earlier)))


def _massive(outputs: _Outputs, massive: float, large: float) -> Iterator[Finding]:
    with np.errstate(invalid="ignore"):
        at_last = (outputs.absmax[-3:] > large) & (outputs.absmax[-3:] / outputs.rms[-3:] > massive)
        lasting = [i for i in outputs.forward if at_last[:, i].all()]
        hits = [(outputs.absmax[:, i] > large) & (outputs.ratio(i) > massive) for i in lasting]
    if not lasting:
        return
    since = [0 if hit.all() else int(np.flatnonzero(~hit)[-1]) + 1 for hit in hits]
    at, onset = lasting[int(np.argmin(since))], min(since)
    steps, absmax, ratio = outputs.steps, outputs.absmax[:, at], outputs.ratio(at)
    yield Finding(
        severity=Severity.info,
        confidence=0.5,
        sites=tuple(outputs.names[i] for i in lasting[:5]),
        onset_step=int(steps[onset]),
        peak_step=int(steps[onset + int(np.nanargmax(absmax[onset:]))]),
        last_step=int(steps[-1]),
        message=f"The largest output of {outputs.names[at]} is {figure(absmax[-1])}, {figure(ratio[-1])} "
        f"times its rms: a massive activation, in {len(lasting)} of {len(outputs.names)} modules.",
        value=float(ratio[-1]),
        threshold=massive,
        evidence=(Evidence("output.absmax", (outputs.names[at],), threshold=large, log=True),),
    )


def _run(absmax: np.ndarray, rms: np.ndarray, loss: np.ndarray) -> Run:
    sites = [Site("output", f"blocks.{i}", "Block", order=i) for i in range(absmax.shape[1])]
    series = {"output.absmax": absmax, "output.rms": rms, "run.loss": loss}
    return run_of(series, sites={"output": sites}, steps={"output": np.arange(0, 400, 10)})


def _noise(rng: np.random.Generator) -> np.ndarray:
    return np.asarray(np.exp(0.1 * rng.standard_normal((40, 4))))


def _falls(rng: np.random.Generator) -> np.ndarray:
    return np.asarray(2 + 2 * np.exp(-np.arange(400) / 60) + 0.02 * rng.standard_normal(400))


@activation_outliers.fires_on
def _a_row_of_a_weight_is_damaged(rng: np.random.Generator) -> Run:
    absmax, rms, loss = 4 * _noise(rng), np.ones((40, 4)), _falls(rng)
    absmax[20:, 1:] *= 50
    rms[20:, 1:] *= 6
    loss[195:230] += 0.8
    return _run(absmax, rms, loss)


@activation_outliers.quiet_on
def _massive_at_the_first_token(rng: np.random.Generator) -> Run:
    absmax = 4 * _noise(rng) * np.exp(np.linspace(0, 6, 40))[:, None]
    return _run(absmax, np.ones((40, 4)), _falls(rng))


@activation_outliers.quiet_on
def _one_unusual_batch(rng: np.random.Generator) -> Run:
    absmax, loss = 4 * _noise(rng), _falls(rng)
    absmax[20] *= 50
    loss[200] += 2
    return _run(absmax, np.ones((40, 4)), loss)
