"""Updates or gradients that the number format cannot hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import evenly, layers, telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import outputs, weights
from stabdiag.analysis.history import history
from stabdiag.analysis.robust import median
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run, Table
from stabdiag.core.synthetic import run_of

SMALLEST = 2.0**-24
"""Of float16, and the distance between its numbers below 6e-5."""


@signature(
    "low-precision-loss",
    title="Updates or gradients vanish in the number format",
    needs=("run.loss",),
    explains=(
        "adam-correlated-update",
        "adam-stale-second-moment",
        "update-ratio-low",
        "loss-plateau",
        "context-blind-plateau",
        "vanishing-gradient",
    ),
    causes=("low-precision-weights", "precision-underflow", "learning-rate-too-low"),
)
def low_precision_loss(
    run: Run, *, swallowed: float = 0.5, underflow: float = 0.05, steady: float = 0.5, faint: float = 5.0
) -> Iterator[Finding]:
    """What it means: a 16-bit weight moves only in steps of its last digit, and an update of less than half
    of that is rounded away; a gradient below the smallest number of its format is zero. The loss shows
    nothing of it for thousands of steps.

    How it is detected: after an optimizer step more than `swallowed` of the coordinates of a weight matrix in
    less than 32 bits are what they were, in the median of the recorded steps whose learning rate is at least
    `steady` of its peak, coordinates without a gradient left out. Or, where outputs are float16 and no
    gradient scaler is used, more than `underflow` of the gradients' values would be zero in float16, or at
    `swallowed` of these outputs the gradient's rms is below `faint` times the smallest float16.

    Calibrated on bfloat16 transformers under Adam: 14, 60 and 89 % are unchanged at learning rates of 1e-3,
    1e-4 and 1e-5, in float32 below 0.01 %. An update is lost below 2^-9 of the weight.

    Look-alikes: with 32-bit master weights the optimizer's copy moves, and is the one to look at. Stochastic
    rounding leaves most coordinates alone, and is right in the mean. At the end of a schedule all updates
    are small. Rows of an embedding that are not in the batch do not move.

    Fixes: 32-bit master weights with autocast; stochastic rounding or compensated summation; a loss scale
    for float16.

    Reference: Micikevicius et al. 2018 (arXiv 1710.03740); Zamirai et al. 2020 (arXiv 2010.06192).

    Facts: unchanged (median share of the worst), layers_affected, underflow, lr.
    """
    narrow = "update.unchanged" in run
    scaled = len(history(run, "run.loss_scale").finite()) > 0
    halves = set() if scaled else _half_outputs(run)
    gradients = "distribution_grad.underflow_fp16" in run or "output_grad.rms" in run
    if not narrow and not (gradients and halves):
        raise NotEvaluable("no weight has less than 32 bits, and no float16 gradient was recorded")
    if narrow:
        yield from _swallowed(run, swallowed, steady)
    if halves and (found := _underflown(run, underflow, halves) or _faint(run, swallowed, faint, halves)):
        yield found


def _half_outputs(run: Run) -> set[str]:
    return {s.name for s in run.sites("output") if "float16" in s.dtype and "bfloat16" not in s.dtype}


def _swallowed(run: Run, threshold: float, steady: float) -> Iterator[Finding]:
    table = run.table("update.unchanged")
    chosen = [i for i in layers(table.sites) if table.sites[i].trainable]
    rates = schedule(run)
    kept = np.arange(len(table.steps))
    if rates.peak > 0:
        at = np.clip(np.searchsorted(rates.rate.steps, table.steps, side="right") - 1, 0, None)
        high = rates.rate.values[at] >= steady * rates.peak
        kept = np.flatnonzero(high & (table.steps > 0))
    whole, table = table, _rows(table, kept[evenly(len(kept))])
    if not chosen or not len(table.steps):
        return
    shares, names = table.values[:, chosen].astype(np.float64), table.names
    if "grad.dead" in run:
        dead = run.table("grad.dead")
        known = {name: i for i, name in enumerate(dead.names)}
        last = median(dead.values[-3:], axis=0) if len(dead.steps) else np.zeros(len(dead.names))
        still = np.array([last[known[names[i]]] if names[i] in known else 0.0 for i in chosen])
        still = np.nan_to_num(still)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(still < 1, (shares - still) / (1 - still), np.nan)
    typical = median(shares, axis=0)
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(typical > threshold)
    if not len(bad):
        return
    sites = telling([names[chosen[i]] for i in bad], typical[bad])
    worst = float(typical[bad].max())
    rate = rates.peak
    # While the rate rises, even more is lost: it began before the rate was what it is judged at.
    with np.errstate(invalid="ignore"):
        lost = (whole.values[:, [chosen[i] for i in bad]] > threshold).any(axis=1) & (whole.steps > 0)
    onset = int(min(whole.steps[lost].min(initial=table.steps[0]), table.steps[0]))
    more = f", and of {len(bad) - 1} other layers" if len(bad) > 1 else ""
    yield Finding(
        severity=Severity.warning,
        confidence=0.9,
        sites=sites,
        onset_step=onset,
        peak_step=int(table.steps[0]),
        last_step=int(table.steps[-1]),
        message=f"{worst:.0%} of the coordinates of {sites[0]}{more} are the same after a step as before: "
        f"{_dtype(run, sites[0])} rounds their updates away.",
        value=worst,
        threshold=threshold,
        evidence=(Evidence("update.unchanged", sites, threshold=threshold),),
        facts={"unchanged": worst, "layers_affected": float(len(bad)), "lr": rate},
    )


def _dtype(run: Run, name: str) -> str:
    types = (s.dtype for kind in ("update", "weight") for s in run.sites(kind) if s.name == name)
    return next((t.removeprefix("torch.") for t in types if t), "the format")


def _rows(table: Table, kept: np.ndarray) -> Table:
    return replace(table, steps=table.steps[kept], values=table.values[kept])


def _underflown(run: Run, threshold: float, halves: set[str]) -> Finding | None:
    if "distribution_grad.underflow_fp16" not in run:
        return None
    table = run.table("distribution_grad.underflow_fp16")
    chosen = [i for i, name in enumerate(table.names) if name in halves]
    if not chosen or not len(table.steps):
        return None
    typical = median(table.values[:, chosen], axis=0)
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(typical > threshold)
    if not len(bad):
        return None
    sites = telling([table.names[chosen[i]] for i in bad], typical[bad])
    worst = float(typical[bad].max())
    return Finding(
        severity=Severity.warning,
        confidence=0.8,
        sites=sites,
        onset_step=int(table.steps[0]),
        peak_step=int(table.steps[0]),
        last_step=int(table.steps[-1]),
        message=f"{worst:.0%} of the gradients at {sites[0]} are below the smallest float16, and no gradient "
        "scaler lifts them.",
        value=worst,
        threshold=threshold,
        evidence=(Evidence("distribution_grad.underflow_fp16", sites, threshold=threshold),),
        facts={"underflow": worst, "layers_affected": float(len(bad))},
    )


def _faint(run: Run, most: float, times: float, halves: set[str]) -> Finding | None:
    """Gradients at float16 outputs of the size of what that format rounds to."""
    if "output_grad.rms" not in run:
        return None
    table = run.table("output_grad.rms")
    chosen = [i for i, name in enumerate(table.names) if name in halves]
    typical = median(table.values[:, chosen], axis=0) if chosen and len(table.steps) >= 3 else np.empty(0)
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(typical < times * SMALLEST)
    if len(bad) <= most * np.isfinite(typical).sum() or not len(bad):
        return None
    sites = telling([table.names[chosen[i]] for i in bad], -typical[bad])
    size = float(np.median(typical[bad]))
    return Finding(
        severity=Severity.warning,
        confidence=0.8,
        sites=sites,
        onset_step=0,
        peak_step=int(table.steps[0]),
        last_step=int(table.steps[-1]),
        message=f"The gradients at {len(bad)} of {len(chosen)} float16 outputs, such as {sites[0]}, are of "
        f"size {figure(size)} in rms, where the format rounds by {figure(SMALLEST)}, and no gradient scaler "
        "lifts them.",
        value=size,
        threshold=times * SMALLEST,
        evidence=(Evidence("output_grad.rms", sites, threshold=times * SMALLEST, log=True),),
        facts={"underflow": len(bad) / len(chosen), "layers_affected": float(len(bad))},
    )


def _weights(rng: np.random.Generator, share: float) -> Run:
    sites = [replace(site, dtype="bfloat16") for site in weights("update", 4)]
    unchanged = np.clip(share + 0.02 * rng.standard_normal((40, 4)), 0, 1)
    series = {"run.loss": np.ones(400), "run.lr": np.full(400, 1e-5), "update.unchanged": unchanged}
    return run_of(series, sites={"update": sites}, steps={"update": np.arange(0, 400, 10)})


def _halves(rng: np.random.Generator, size: float) -> Run:
    halves = [replace(site, dtype="float16") for site in outputs(3)]
    rms = size * np.exp(0.3 * rng.standard_normal((40, 3)))
    return run_of(
        {"run.loss": np.ones(400), "output.rms": np.ones((40, 3)), "output_grad.rms": rms},
        sites={"output": halves, "output_grad": [replace(site, kind="output_grad") for site in halves]},
        steps={"output": np.arange(0, 400, 10), "output_grad": np.arange(0, 400, 10)},
    )


@low_precision_loss.fires_on
def _weights_of_sixteen_bits(rng: np.random.Generator) -> Run:
    return _weights(rng, 0.89)


@low_precision_loss.fires_on
def _gradients_of_sixteen_bits(rng: np.random.Generator) -> Run:
    halves = [replace(site, dtype="float16") for site in outputs(3)]
    grads = [replace(site, kind="distribution_grad") for site in halves]
    share = np.tile([0.3, 0.1, 0.0], (8, 1)) + 0.01 * rng.random((8, 3))
    return run_of(
        {"run.loss": np.ones(400), "output.rms": np.ones((40, 3)), "distribution_grad.underflow_fp16": share},
        sites={"output": halves, "distribution_grad": grads},
        steps={"output": np.arange(0, 400, 10), "distribution_grad": np.arange(0, 400, 50)},
    )


@low_precision_loss.fires_on
def _gradients_too_small_for_sixteen_bits(rng: np.random.Generator) -> Run:
    return _halves(rng, 1e-7)


@low_precision_loss.quiet_on
def _gradients_that_sixteen_bits_hold(rng: np.random.Generator) -> Run:
    return _halves(rng, 1e-5)


@low_precision_loss.quiet_on
def _a_larger_rate(rng: np.random.Generator) -> Run:
    return _weights(rng, 0.14)
