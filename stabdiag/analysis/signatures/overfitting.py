"""Training improves on what it has seen, and gets worse on what it has not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluations import evaluations
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "overfitting",
    title="The evaluation gets worse while training improves",
    needs=("run.loss", "evaluation.loss"),
    causes=("repeated-data", "too-little-data", "label-noise"),
)
def overfitting(run: Run, *, worse: float = 0.02, harmful: float = 0.05) -> Iterator[Finding]:
    """What it means: the model learns its training data by heart. From the best evaluation on, further
    steps cost quality, and the best checkpoint lies behind.

    How it is detected: each of the last three evaluations lies above the best one, by `worse` of it, by
    three times that share of the progress and by more than the evaluations scatter, while the level of the
    training loss has gone on falling; the rise did not come all at once. A warning where the rise is
    `harmful` of the progress or more.

    Calibrated on small transformers that repeat 4, 16 and 64 batches (best at steps 80 and 160; with 64 not
    within 400 steps) and MLPs on 1,024 samples; 0 alarms in 11,500 steps of 24 healthy runs.

    Look-alikes: augmentation and dropout make the training loss the higher one; a gap that does not grow is
    none. An evaluation that rises with the training loss is a divergence. Small evaluation sets scatter.

    Fixes: keep the best checkpoint and stop; more or more varied data; weight decay, dropout.

    Reference: Prechelt, Early stopping - but when?, 1998; Zhang et al. 2021 (AUTOTRAINER).

    Facts: best_step, best, end, rise, train_at_best, train_end.
    """
    curve, evaluated = loss_curve(run, least=20), evaluations(run)
    constant = history(run, "targets.constant").finite()
    # An evaluation that never was better than a constant answer has nothing to lose: its data differ.
    learned = not len(constant) or evaluated.best < 0.95 * float(constant.values[-1])
    if curve.several or not learned or not evaluated.overfits(curve, worse):
        return
    bad = evaluated.rise > harmful * max(evaluated.progress, 0.0) + worse * abs(evaluated.best)
    best_at = evaluated.best_at
    onset = int(evaluated.steps[best_at])
    at = int(np.clip(np.searchsorted(curve.steps, onset), 0, len(curve.steps) - 1))
    peak = best_at + int(np.argmax(evaluated.values[best_at:]))
    end = float(evaluated.values[-1])
    yield Finding(
        severity=Severity.warning if bad else Severity.info,
        confidence=0.9 if bad else 0.6,
        sites=(evaluated.site,),
        onset_step=onset,
        peak_step=int(evaluated.steps[peak]),
        last_step=int(evaluated.steps[-1]),
        message=f"The evaluation was best at step {onset} ({figure(evaluated.best)}) and has risen to "
        f"{figure(end)}, while the training loss fell from {figure(float(curve.level[at]))} to "
        f"{figure(curve.end)}.",
        value=end,
        threshold=evaluated.best * (1 + worse) if evaluated.best > 0 else evaluated.best,
        evidence=(Evidence("evaluation.loss", (evaluated.site,)), Evidence("run.loss", ("run",))),
        facts={
            "best_step": float(onset),
            "best": evaluated.best,
            "end": end,
            "rise": evaluated.rise,
            "train_at_best": float(curve.level[at]),
            "train_end": curve.end,
        },
    )


def _run(rng: np.random.Generator, evaluated: np.ndarray, floor: float) -> Run:
    loss = floor + (4.8 - floor) * np.exp(-np.arange(400) / 100) + 0.02 * rng.standard_normal(400)
    return run_of(
        {"run.loss": loss, "evaluation.loss": evaluated + 0.01 * rng.standard_normal(20)},
        sites={"evaluation": [Site("evaluation", "cross-entropy")]},
        steps={"evaluation": np.arange(20, 401, 20).clip(max=399)},
    )


@overfitting.fires_on
def _learns_by_heart(rng: np.random.Generator) -> Run:
    turn = np.arange(20)
    return _run(rng, 3.5 + 1.3 * np.exp(-turn / 2) + 0.3 * np.maximum(turn - 5, 0), 0.05)


@overfitting.quiet_on
def _both_level_off(rng: np.random.Generator) -> Run:
    return _run(rng, 2.3 + 2.4 * np.exp(-np.arange(20) / 4), 2.2)


@overfitting.quiet_on
def _a_gap_that_does_not_grow(rng: np.random.Generator) -> Run:
    return _run(rng, 1.5 + 3.0 * np.exp(-np.arange(20) / 3), 0.5)
