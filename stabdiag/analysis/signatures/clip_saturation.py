"""The gradient is clipped at nearly every step, so that the limit is the learning rate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.aftermath import still_falling
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import stuck
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.analysis.step_size import schedule
from stabdiag.analysis.updates import updates
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

ACTIVE = 0.99
"""Norm after clipping over norm before it, below which it was clipped."""


@signature(
    "clip-saturation",
    title="The gradient is clipped at nearly every step",
    needs=("run.grad_norm", "run.clipped_grad_norm"),
    explains=("update-ratio-low", "loss-plateau", "context-blind-plateau", "lr-starvation"),
    causes=("clip-too-tight", "gradients-not-zeroed"),
)
def clip_saturation(
    run: Run,
    *,
    share: float = 0.8,
    factor: float = 0.3,
    slow: float = 2e-3,
    scaled: float = 1.0,
    agreeing: float = 0.5,
) -> Iterator[Finding]:
    """What it means: the limit was made for smaller gradients. Every step has the same length, learning
    rate times limit, whatever the gradient says, and a spike is clipped no more than any other step.

    How it is detected: of the last 200 recorded steps after the warm-up more than `share` were clipped, to
    less than `factor` of their norm in the median. Nothing is told of an optimizer that may divide by the
    size of its gradients, to which the factor is nothing: any but torch's SGD. With that one info, and a
    warning where the steps are short and it costs time: the median over the weight matrices of norm(change) /
    norm(weight) is below `slow`, and the loss still falls at the end, by a twentieth of the progress over its
    last half; or has hardly moved, at steps a tenth of that. Or where gradients in a row still agree, with a
    median cosine above `agreeing` from the warm-up to the end, and the loss fell as much over the second
    quarter of the run: a longer step would have gone the same way, and farther. And a warning, with any
    optimizer, where the factor, times the root of the loss scale, is below `scaled` in nine of ten steps:
    then the gradients were clipped before they were unscaled. Calibrated on SGD with momentum in small
    transformers, of gradients of 1 to 2 at limits of 0.1 (info; 2.70 nat) and 0.01 (warning; 4.20), and on 88
    healthy runs of 41,000 steps: no alarm. The cosine was 0.55 in a recurrent network at a tenth of its
    gradients' norm (0.12 for 0.04) and 0.0 in a transformer that clips at half of it.

    Look-alikes: Adam with permanent clipping loses 0.00 to 0.04 nat. Recurrent networks under SGD are
    trained with a large rate and a low limit on purpose: there the steps are long enough. Gradients that
    have grown are exploding-gradient.

    Fixes: a limit of 1.2 to 1.5 times the usual norm, or one that follows it; with a GradScaler, unscale
    first.

    Reference: Kumar et al. 2025 (ZClip, arXiv 2504.02507); PyTorch, automatic mixed precision examples.

    Facts: clipped (share), clip_factor (median), grad_norm (median), clip_norm (median), unscaled;
    update_ratio and grad_cosine where known.
    """
    before, after = history(run, "run.grad_norm"), history(run, "run.clipped_grad_norm")
    known = np.isfinite(before.values) & np.isfinite(after.values) & (before.values > 0)
    measured, known = known, known & (before.steps >= max(schedule(run).warmup, 20))
    steps, norm, left = before.steps[known][-200:], before.values[known][-200:], after.values[known][-200:]
    if len(steps) < 50:
        raise NotEvaluable(f"only {len(steps)} steps after the warm-up were recorded with a gradient norm")
    ratio = left / norm
    clipped, middle = float(np.mean(ratio < ACTIVE)), float(np.median(ratio))
    if clipped <= share or middle >= factor:
        return
    adaptive = "SGD" not in str(run.fact("optimizer", "name") or "")
    update = _update_ratio(run, int(steps[0]))
    scale = history(run, "run.loss_scale").at(int(steps[-1])) or 1.0
    factors = after.values[measured] / before.values[measured]
    unscaled = scale > 1 and _grows_with_the_scale(run, before.steps[measured], factors, scaled)
    if adaptive and not unscaled:
        return
    cosine = _agreement(run)
    short = (
        update is not None and update < slow and (_falls(run, 1.0) or (update < 0.1 * slow and stuck(run, 0)))
    )
    astray = cosine is not None and cosine > agreeing and _falls(run, 0.5)
    starving = not adaptive and (short or astray)
    why = ""
    if unscaled:
        why = f" The loss scale is {figure(scale)}: it was clipped before it was unscaled."
    elif short and update is not None:
        why = f" A step changes the weights by only {figure(100 * update)} %."
    elif astray and cosine is not None:
        why = f" Gradients in a row agree (cosine {figure(cosine)}): longer steps would have gone farther."
    yield Finding(
        severity=Severity.warning if starving or unscaled else Severity.info,
        confidence=0.85 if starving or unscaled else 0.6,
        sites=("run",),
        onset_step=_since(before.steps[measured], factors),
        peak_step=int(steps[int(np.argmin(ratio))]),
        last_step=int(steps[-1]),
        message=f"{clipped:.0%} of the steps are clipped, from a norm of {figure(float(np.median(norm)))} to "
        f"{figure(float(np.median(left)))}.{why}",
        value=middle,
        threshold=factor,
        evidence=(
            Evidence("run.grad_norm", ("run",), log=True),
            Evidence("run.clipped_grad_norm", ("run",), log=True),
        ),
        facts={
            "clipped": clipped,
            "clip_factor": middle,
            "grad_norm": float(np.median(norm)),
            "clip_norm": float(np.median(left)),
            "unscaled": float(unscaled),
            **({} if update is None else {"update_ratio": update}),
            **({} if cosine is None else {"grad_cosine": cosine}),
        },
    )


def _grows_with_the_scale(
    run: Run, steps: NDArray[np.int64], factors: NDArray[np.float64], scaled: float
) -> bool:
    """Whether gradients were so long as only a loss scale makes them: at the highest scales as well, to which
    the norm of what was unscaled is nothing."""
    table = history(run, "run.loss_scale").finite()
    at = np.searchsorted(table.steps, steps, side="right") - 1
    scales = np.where(at >= 0, table.values[np.maximum(at, 0)], 1.0)
    return float(np.quantile(factors * np.sqrt(np.maximum(scales, 1.0)), 0.9)) < scaled


def _update_ratio(run: Run, since: int) -> float | None:
    if "update.ratio" not in run:
        return None
    taken = updates(run)
    late = taken.middle[(taken.steps >= since) & np.isfinite(taken.middle)]
    return float(np.median(late)) if len(late) else None


def _agreement(run: Run) -> float | None:
    """The median cosine of gradients in a row after the warm-up, None where too few are known."""
    known = history(run, "run.grad_cosine").finite().within(max(schedule(run).warmup, 20), run.steps)
    return float(np.median(known.values)) if len(known) >= 16 else None


def _falls(run: Run, part: float) -> bool:
    """Whether the loss was still falling when `part` of the run was done, by a twentieth of the progress."""
    if "run.loss" not in run:
        return False
    try:
        curve = loss_curve(run, least=50)
    except NotEvaluable:
        return False
    return not curve.several and still_falling(curve, int(part * curve.steps[-1])) > 0.05


def _since(steps: NDArray[np.int64], ratio: NDArray[np.float64]) -> int:
    """The first step after the last ten in a row of which most were not clipped."""
    idle = np.convolve(ratio >= ACTIVE, np.ones(10), "valid") > 5
    last = np.flatnonzero(idle)
    return int(steps[min(int(last[-1]) + 10 if last.size else 0, len(steps) - 1)])


def _run(
    rng: np.random.Generator,
    limit: float,
    ratio: float,
    events: list[Event],
    scale: float = 1.0,
    cosine: float = 0.1,
    fallen: float = 1.0,
) -> Run:
    norm = scale * np.exp(0.3 * rng.standard_normal(400))
    slowly = ratio < 1e-3 or cosine > 0.5
    falling = 4.8 - 0.002 * np.arange(400) + 0.05 * rng.standard_normal(400)
    series = {
        "run.loss": falling if slowly else 2.0 + 0.05 * rng.standard_normal(400),
        "run.grad_norm": norm,
        "run.clipped_grad_norm": np.minimum(norm, limit),
        "update.ratio": ratio * np.exp(0.2 * rng.standard_normal((400, 5))),
        "run.loss_scale": scale * np.geomspace(fallen, 1.0, 400),
        "run.grad_cosine": cosine + 0.05 * rng.standard_normal(400),
    }
    return run_of(series, sites={"update": weights("update", 5)}, events=events)


SGD = Event("optimizer", 0.0, data={"name": "SGD", "groups": [{"lr": 0.1, "momentum": 0.9}]})
ADAM = Event("optimizer", 0.0, data={"name": "Adam", "groups": [{"lr": 1e-3, "betas": [0.9, 0.999]}]})


@clip_saturation.fires_on
def _sgd_with_a_limit_of_a_hundredth(rng: np.random.Generator) -> Run:
    return _run(rng, 0.01, 2e-4, [SGD])


@clip_saturation.fires_on
def _clipped_before_it_was_unscaled(rng: np.random.Generator) -> Run:
    return _run(rng, 1.0, 3e-3, [ADAM], scale=65536.0)


@clip_saturation.fires_on
def _all_gradients_point_the_same_way(rng: np.random.Generator) -> Run:
    return _run(rng, 0.01, 6e-3, [SGD], cosine=0.7)


@clip_saturation.quiet_on
def _adam_does_not_mind(rng: np.random.Generator) -> Run:
    return _run(rng, 0.01, 3e-3, [ADAM])


@clip_saturation.quiet_on
def _a_loss_scale_that_fell_and_a_norm_that_did_not(rng: np.random.Generator) -> Run:
    return _run(rng, 1.0, 3e-3, [ADAM], scale=6.0, fallen=1e4)


@clip_saturation.quiet_on
def _low_limit_and_large_rate(rng: np.random.Generator) -> Run:
    return _run(rng, 0.01, 6e-3, [SGD])


@clip_saturation.quiet_on
def _short_steps_are_enough(rng: np.random.Generator) -> Run:
    return _run(rng, 0.01, 1.5e-3, [SGD])


@clip_saturation.quiet_on
def _clips_half_of_the_steps(rng: np.random.Generator) -> Run:
    return _run(rng, 1.0, 2e-4, [SGD])
