"""The loss breaks away when the learning rate reaches its peak."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.overshoot import began_elsewhere, long_steps, sharpness
from stabdiag.analysis.signatures.loss_divergence import loss_divergence
from stabdiag.analysis.signatures.loss_spike import loss_spike
from stabdiag.analysis.step_size import Schedule, schedule
from stabdiag.core.finding import Evidence, Finding
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of


@signature(
    "warmup-end-instability",
    title="The loss breaks away when the learning rate reaches its peak",
    needs=("run.loss", "run.lr"),
    explains=(
        "lr-divergence",
        "update-ratio-high",
        "loss-divergence",
        "loss-spike",
        "loss-plateau",
        "context-blind-plateau",
        "edge-of-stability",
        "weight-norm-drift",
        "exploding-activation",
        "exploding-gradient",
        "nonfinite-origin",
        "dead-units",
        "residual-stream-growth",
        "attention-logit-growth",
        "attention-entropy-collapse",
        "output-logit-drift",
        "loss-scale-thrash",
    ),
    causes=("learning-rate-too-high", "missing-warmup", "stale-second-moment", "bad-init-scale"),
)
def warmup_end_instability(
    run: Run, *, warmup: float = 10.0, early: float = 0.5, late: float = 3.0, ratio: float = 0.05
) -> Iterator[Finding]:
    """What it means: the curvature that the warm-up was to lower is still too high for the peak of the
    learning rate. The run is fine at the rates before, and breaks at this one.

    How it is detected: the learning rate rises for `warmup` steps or more to its peak. Between `early` and
    `late` times that number, with the rate at half its peak or more, the loss rises for good (as
    loss-divergence has it) or for three steps or more (as loss-spike has it). And the steps were long: they
    changed the weight matrices by more than `ratio` in the median, or the curvature had reached what the
    optimizer is stable at, where either was recorded. As severe as that rise. Calibrated on small
    transformers warmed up over 40 steps to 0.03 (healthy), 0.06, 0.1 and 0.2, and on 144 healthy runs: no
    alarm in 68,000 steps. A ratio of 0.05 alone is passed by healthy warm-ups to 1e-2.

    Look-alikes: a run without warm-up is no fault by itself, and breaks, if it does, as lr-divergence. A
    corrupt batch in these steps is one high loss; a jump of the rate is schedule-jump.

    Fixes: a warm-up two to five times as long, or half the peak; a smaller beta2. To tell the two apart,
    try half the peak with the same warm-up: if it passes the rate at which this run broke, the rate was the
    cause.

    Reference: BigScience, chronicles of the 104B training, 2021; Gilmer et al. 2021 (arXiv 2110.04369).

    Facts: warmup_steps, lr, lr_peak, phase (of the warm-up), update_ratio and sharpness_ratio where known.
    """
    plan = schedule(run)
    if len(plan.rate) < 2 * warmup:
        raise NotEvaluable("the learning rate of too few steps was recorded")
    if plan.warmup < warmup or not _smooth(plan):
        return
    for rise in _rises(run, int(late * plan.warmup)):
        onset, rate = rise.onset_step, plan.at(rise.onset_step)
        timely = early * plan.warmup <= onset <= late * plan.warmup
        if not timely or rate is None or rate < 0.5 * plan.peak or began_elsewhere(run, onset):
            continue
        long, curved = long_steps(run, onset, ratio), sharpness(run, onset)
        seen = "update.ratio" in run or curved is not None
        sharp = curved is not None and curved[1] > 1.0
        if seen and long is None and not sharp:
            continue
        facts = {
            "warmup_steps": float(plan.warmup),
            "lr": rate,
            "lr_peak": plan.peak,
            "phase": onset / plan.warmup,
            **({"update_ratio": long.ratio} if long else {}),
            **({"sharpness_ratio": curved[1]} if curved is not None else {}),
        }
        yield _finding(plan, rise, max(long.first, plan.warmup // 2) if long else onset, seen, facts)
        return


def _smooth(plan: Schedule) -> bool:
    """Whether the peak was reached by a climb, and not by a jump."""
    return plan.rate.values[0] < 0.5 * plan.peak and plan.jump(0, plan.warmup + 1) is None


def _rises(run: Run, end: int) -> Iterator[Finding]:
    yield from loss_divergence(run)
    try:
        early = loss_spike(run.window(0, end + 100))
        yield from (spike for spike in early if spike.facts["steps_raised"] >= 3)
    except NotEvaluable:
        return


def _finding(plan: Schedule, rise: Finding, first: int, seen: bool, facts: dict[str, float]) -> Finding:
    onset = min(first, rise.onset_step)
    return Finding(
        severity=rise.severity,
        confidence=0.85 if seen else 0.5,
        sites=("run",),
        onset_step=onset,
        peak_step=max(rise.peak_step, onset),
        last_step=rise.last_step,
        message=f"The loss rises at step {rise.onset_step}, {figure(facts['phase'])} times the {plan.warmup} "
        f"steps of warm-up, with the learning rate at {figure(facts['lr'])} of a peak of "
        f"{figure(plan.peak)}.",
        value=facts["lr"],
        threshold=plan.peak,
        evidence=(Evidence("run.loss", ("run",)), Evidence("run.lr", ("run",))),
        facts=facts,
    )


def _run(rng: np.random.Generator, start: int, warm: int = 40, ratio: float = 0.15, high: int = 360) -> Run:
    steps = np.arange(400)
    loss = 2.0 + 2.8 * np.exp(-steps / 30) + 0.05 * rng.standard_normal(400)
    loss[start : start + high] += np.minimum(2.0, 0.2 * np.arange(len(loss[start : start + high])))
    rate = 0.1 * np.minimum(1.0, (steps + 1) / warm)
    ratios = (
        ratio * np.minimum(1.0, (steps + 1) / warm)[:, None] * np.exp(0.2 * rng.standard_normal((400, 5)))
    )
    series = {"run.loss": loss, "run.lr": rate, "update.ratio": ratios}
    return run_of(series, sites={"update": weights("update", 5)})


@warmup_end_instability.fires_on
def _breaks_at_the_peak(rng: np.random.Generator) -> Run:
    return _run(rng, start=60)


@warmup_end_instability.fires_on
def _breaks_on_the_way_up(rng: np.random.Generator) -> Run:
    return _run(rng, start=70, warm=100)


@warmup_end_instability.quiet_on
def _breaks_much_later(rng: np.random.Generator) -> Run:
    return _run(rng, start=250)


@warmup_end_instability.quiet_on
def _one_hard_batch(rng: np.random.Generator) -> Run:
    return _run(rng, start=60, high=1)


@warmup_end_instability.quiet_on
def _short_steps(rng: np.random.Generator) -> Run:
    return _run(rng, start=60, ratio=0.004)
