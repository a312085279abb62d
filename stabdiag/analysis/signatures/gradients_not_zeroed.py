"""Gradients of earlier steps are never cleared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import harmed
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of


@signature(
    "gradients-not-zeroed",
    title="Gradients of earlier steps are never cleared",
    needs=("run.grad_carryover",),
    explains=(
        "lr-divergence",
        "update-ratio-high",
        "weight-norm-drift",
        "exploding-activation",
        "exploding-gradient",
        "nonfinite-origin",
        "dead-units",
        "loss-divergence",
        "loss-spike",
        "loss-plateau",
    ),
    causes=("gradients-not-zeroed",),
)
def gradients_not_zeroed(
    run: Run, *, carried: float = 0.9, share: float = 0.7, least: float = 3.0
) -> Iterator[Finding]:
    """What it means: each step uses the sum of all gradients since the start, not its own.

    How it is detected: the gradients that the first backward pass after a step finds, over their norm
    at that step, is 1 where nobody cleared them and 0 where somebody did. It is at least `carried` at
    the share `share` of the steps at which it was measured, `least` or more. Where some parameters only are
    not cleared, it begins lower: their sum grows with the root of the steps, beside what is cleared. So it
    suffices that the later half does so, and no more than the rest of them was ever below a half. Critical
    where the loss suffers.

    Look-alikes: accumulation over micro-batches clears once a step, and reads 0. `zero_grad` after the
    step or before the backward pass are the same. Of two players, each of which clears its own, what the
    other left is found: it reads between 0 and 1, and goes nowhere.

    Fixes: call `optimizer.zero_grad(set_to_none=True)` once a step.

    Reference: PyTorch, torch.optim.Optimizer.zero_grad.

    Facts: grad_carryover (median), grad_growth (norm at the end over the start), harmed.
    """
    table = run.table("run.grad_carryover")
    values = table.first() if table.sites else np.empty(0, np.float32)
    known = np.flatnonzero(np.isfinite(values))
    if len(known) < least:
        raise NotEvaluable(f"it was measured at only {len(known)} steps")
    high = known[(values[known] >= carried) & (values[known] <= 1.0 / carried)]
    later = known[len(known) // 2 :]
    kept = len(known) >= 2 * least and np.mean(values[known] >= 0.5) >= share
    if len(high) < share * len(known) and not (kept and np.isin(later, high).mean() >= share):
        return
    bad, value = harmed(run), float(np.median(values[known]))
    growth = _growth(run)
    more = f", and their norm has grown {figure(growth)}-fold" if growth > 2 else ""
    yield Finding(
        severity=Severity.critical if bad else Severity.warning,
        confidence=0.95,
        sites=("run",),
        onset_step=int(table.steps[high[0]]),
        peak_step=int(table.steps[high[0]]),
        last_step=int(table.steps[high[-1]]),
        message=f"The gradients of each step are still there at the next one, at {len(high)} of {len(known)} "
        f"steps{more}: no zero_grad.",
        value=value,
        threshold=carried,
        evidence=(
            Evidence("run.grad_carryover", ("run",), threshold=carried),
            *([Evidence("run.grad_norm", ("run",), log=True)] if "run.grad_norm" in run else []),
        ),
        facts={"grad_carryover": value, "grad_growth": growth, "harmed": float(bad)},
    )


def _growth(run: Run) -> float:
    """The gradient norm of the last tenth over that of the first 3 steps; 1 where unknown."""
    if "run.grad_norm" not in run:
        return 1.0
    norms = run.table("run.grad_norm").first()
    norms = norms[np.isfinite(norms) & (norms > 0)]
    if len(norms) < 10:
        return 1.0
    return float(np.median(norms[-max(len(norms) // 10, 1) :]) / np.median(norms[:3]))


@gradients_not_zeroed.fires_on
def _never(rng: np.random.Generator) -> Run:
    carried = np.r_[np.nan, np.ones(99)]
    carried[rng.random(100) < 0.5] = np.nan
    norms = np.sqrt(np.arange(1, 101)) * np.exp(0.1 * rng.standard_normal(100))
    return run_of({"run.grad_carryover": carried, "run.grad_norm": norms})


@gradients_not_zeroed.fires_on
def _of_one_of_two_optimizers(rng: np.random.Generator) -> Run:
    summed = np.arange(1, 21) / 2.0
    return run_of({"run.grad_carryover": np.r_[np.nan, np.sqrt(summed / (summed + 1.0))]})


@gradients_not_zeroed.quiet_on
def _every_step(rng: np.random.Generator) -> Run:
    return run_of({"run.grad_carryover": np.r_[np.nan, np.where(rng.random(99) < 0.5, 0.0, np.nan)]})


@gradients_not_zeroed.quiet_on
def _some_parameters_only(rng: np.random.Generator) -> Run:
    return run_of({"run.grad_carryover": np.r_[np.nan, rng.uniform(0.1, 0.6, 99)]})


@gradients_not_zeroed.quiet_on
def _every_second_step(rng: np.random.Generator) -> Run:
    return run_of({"run.grad_carryover": np.r_[np.nan, np.arange(99) % 2 * rng.uniform(0.95, 1.0)]})
