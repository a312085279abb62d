"""Activations grow by orders of magnitude, or to the limit of their number format."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import harmed
from stabdiag.analysis.robust import median
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

LARGEST = {"float16": 65504.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
"""Of the formats whose range training can reach; float32 and bfloat16 go to 3e38."""


@signature(
    "exploding-activation",
    title="Activations grow by orders of magnitude",
    needs=("output.absmax",),
    explains=(
        "exploding-gradient",
        "nonfinite-origin",
        "loss-divergence",
        "loss-spike",
        "dead-units",
    ),
    causes=(
        "learning-rate-too-high",
        "missing-normalization",
        "bad-init-scale",
        "recurrent-instability",
        "precision-overflow",
        "hardware-corruption",
        "gradients-not-zeroed",
        "out-of-distribution-batch",
    ),
)
def exploding_activation(run: Run, *, growth: float = 100.0, range_share: float = 0.1) -> Iterator[Finding]:
    """What it means: the values inside the model outgrow what the layers after them, or the number
    format, can take.

    How it is detected: the largest absolute output of a module is, at three records in a row,
    `growth` times what it was at 5 % of the run (at the first record after step 20, at the latest of
    the first 100 steps), and the loss suffers; without harm it is info. Or a 16-bit or 8-bit output
    reaches `range_share` of the largest number of its format.

    Look-alikes: a level is no harm in float32: a small transformer with a residual stream of rms 60 had
    the best loss. Logits grow as a classifier becomes sure. A few huge channels at the first token are
    healthy. A single batch of large values shows in the batch first. A value that is infinite at once, as
    the logarithm of zero, has not grown.

    Fixes: lower the learning rate, or warm it up; normalise the output of the block; scale the
    initialisation of residual branches by 1 / sqrt(2 layers); bfloat16 in place of float16.

    Reference: Takase et al. 2023 (arXiv 2312.16903); Rybakov et al. 2024 (arXiv 2410.16682).

    Facts: absmax, absmax_before, growth, lr; format_largest where the range is what counts.
    """
    table = run.table("output.absmax")
    if len(table.steps) < 2:
        raise NotEvaluable(f"outputs of only {len(table.steps)} steps were recorded")
    tight = np.array([range_share * _largest(site) for site in table.sites])
    with np.errstate(invalid="ignore"):
        near = (table.values > tight).any(axis=1)
    if near.any():
        at = int(np.argmax(near))
        share = table.values[at] / (tight / range_share)
        yield _near_the_limit(run, table.names, int(table.steps[at]), share, tight, range_share)
        return
    yield from _grown(run, growth)


def _largest(site: Site) -> float:
    return LARGEST.get(site.dtype.removeprefix("torch."), np.inf)


def _near_the_limit(
    run: Run, names: tuple[str, ...], step: int, share: np.ndarray, tight: np.ndarray, allowed: float
) -> Finding:
    share = np.where(np.isfinite(tight), share, np.nan)
    sites = telling(names, share)
    worst = int(np.nanargmax(share))
    limit = float(tight[worst] / allowed)
    values = run.table("output.absmax").column(names[worst])
    peak = int(np.nanargmax(values))
    return Finding(
        severity=Severity.critical if harmed(run) else Severity.warning,
        confidence=0.85,
        sites=sites,
        onset_step=step,
        peak_step=int(run.table("output.absmax").steps[peak]),
        last_step=int(run.table("output.absmax").steps[-1]),
        message=f"The output of {sites[0]} reaches {figure(values[peak])}; "
        f"its number format ends at {figure(limit)}.",
        value=float(values[peak]),
        threshold=float(tight[worst]),
        evidence=(Evidence("output.absmax", sites, threshold=float(tight[worst]), log=True),),
        facts={"absmax": float(values[peak]), "format_largest": limit},
    )


def _grown(run: Run, growth: float) -> Iterator[Finding]:
    table = run.table("output.absmax")
    wanted = int(np.clip(run.steps // 20, 20, 100))
    base = int(np.searchsorted(table.steps, wanted))
    # A run that fails at once has no records so late: its first one must do.
    base = base if base < len(table.steps) - 3 and wanted < run.steps else 0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        before = median(table.values[base : base + 3] if base else table.values[:1], axis=0)
        above = table.values / before.astype(np.float32) > growth
    above[:base] = False
    rows = above[2:] & above[1:-1] & above[:-2] if base else above[1:]
    # What is infinite at once, a logarithm of zero, has not grown.
    most = np.fmax.reduce(np.where(np.isfinite(table.values[base:]), table.values[base:], np.nan))
    hit = rows.any(axis=0) & (before > 0) & (most > growth * before)
    if not hit.any():
        return
    first = np.where(hit, np.argmax(rows, axis=0) + (0 if base else 1), len(table.steps))
    start = int(first.min())
    tail = table.values[start:]
    finite = np.where(np.isfinite(tail), tail, np.nan)
    rate = np.where(hit, np.nanmax(np.where(np.isnan(finite), 0, finite), axis=0) / before, np.nan)
    # The most telling is the earliest, and among those of one step the one nearest to the input.
    order = sorted(np.flatnonzero(hit), key=lambda i: (first[i], table.sites[i].order, -rate[i]))
    sites, at = tuple(table.names[i] for i in order[:5]), int(order[0])
    column = finite[:, at]
    peak = start + int(np.nanargmax(column)) if np.isfinite(column).any() else start
    bad = harmed(run)
    lr = schedule(run).at(int(table.steps[start]))
    facts = {
        "absmax": float(table.values[peak, at]),
        "absmax_before": float(before[at]),
        "growth": float(rate[at]),
    }
    yield Finding(
        severity=Severity.critical
        if bad and rate[at] > growth**2
        else Severity.warning
        if bad
        else Severity.info,
        confidence=0.85 if bad else 0.5,
        sites=sites,
        onset_step=int(table.steps[start]),
        peak_step=int(table.steps[peak]),
        last_step=int(table.steps[np.flatnonzero(above.any(axis=1))[-1]]),
        message=f"The output of {sites[0]} grows from {figure(before[at])} to {figure(facts['absmax'])}, "
        f"in {int(hit.sum())} of {len(hit)} modules by more than {figure(growth)} times.",
        value=float(rate[at]),
        threshold=growth,
        evidence=(Evidence("output.absmax", sites, threshold=float(before[at]) * growth, log=True),),
        facts=facts if lr is None else {**facts, "lr": lr},
    )


def _outputs(dtype: str = "float32") -> list[Site]:
    return [Site("output", f"blocks.{i}", "Block", dtype=dtype, order=i) for i in range(4)]


EVERY = {"output": np.arange(0, 400, 10)}


@exploding_activation.fires_on
def _grows_as_the_loss_diverges(rng: np.random.Generator) -> Run:
    values = 3.0 * np.exp(0.1 * rng.standard_normal((40, 4)))
    values[20:, 1:] *= np.exp(np.arange(20) / 2)[:, None]
    loss = 2 + 2 * np.exp(-np.arange(400) / 40) + np.maximum(0, np.arange(400) - 200) * 0.05
    return run_of({"output.absmax": values, "run.loss": loss}, sites={"output": _outputs()}, steps=EVERY)


@exploding_activation.fires_on
def _reaches_the_range_of_float16(rng: np.random.Generator) -> Run:
    values = np.exp(np.linspace(0, 10, 40))[:, None] * rng.uniform(0.9, 1.1, (40, 4))
    return run_of({"output.absmax": values}, sites={"output": _outputs("float16")}, steps=EVERY)


@exploding_activation.quiet_on
def _large_but_steady(rng: np.random.Generator) -> Run:
    values = 60.0 * (1 - np.exp(-np.arange(1, 41) / 3))[:, None] * np.exp(0.1 * rng.standard_normal((40, 4)))
    return run_of({"output.absmax": values}, sites={"output": _outputs()}, steps=EVERY)


@exploding_activation.quiet_on
def _one_large_batch(rng: np.random.Generator) -> Run:
    values = np.exp(0.1 * rng.standard_normal((40, 4)))
    values[25] *= 1000
    return run_of({"output.absmax": values}, sites={"output": _outputs()}, steps=EVERY)


@exploding_activation.quiet_on
def _grows_while_the_loss_falls(rng: np.random.Generator) -> Run:
    values = np.exp(np.linspace(0, 9, 40))[:, None] * np.exp(0.1 * rng.standard_normal((40, 4)))
    loss = 2 + 2 * np.exp(-np.arange(400) / 100) + 0.02 * rng.standard_normal(400)
    return run_of({"output.absmax": values, "run.loss": loss}, sites={"output": _outputs()}, steps=EVERY)


@exploding_activation.quiet_on
def _infinite_at_once(rng: np.random.Generator) -> Run:
    values = 3.0 * np.exp(0.1 * rng.standard_normal((40, 4)))
    values[20:, 2] = np.inf
    loss = np.where(np.arange(400) < 200, 2 + 2 * np.exp(-np.arange(400) / 100), np.inf)
    return run_of({"output.absmax": values, "run.loss": loss}, sites={"output": _outputs()}, steps=EVERY)
