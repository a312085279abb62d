"""Each step replaces a large part of the weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import improves
from stabdiag.analysis.depth import telling
from stabdiag.analysis.episodes import episodes
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.lone_update import Lone, against_the_start, lone_update
from stabdiag.analysis.losscurve import harmed, loss_curve
from stabdiag.analysis.robust import median
from stabdiag.analysis.step_size import schedule
from stabdiag.analysis.updates import updates
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

HEALTHY = 0.01
"""A median update ratio to aim at: healthy runs have 1.5e-3 to 3e-3 (MLP, CNN, LSTM) and up to 2e-2
(small transformers) once warm."""


THROWN = 100.0
"""Ratio of the first step under SGD at which no rate is to blame, but the gradient."""


@signature(
    "update-ratio-high",
    title="Each step replaces a large part of the weights",
    needs=("update.ratio",),
    explains=(
        "exploding-activation",
        "exploding-gradient",
        "nonfinite-origin",
        "dead-units",
        "loss-divergence",
        "loss-spike",
        "loss-plateau",
        "vanishing-gradient",
        "edge-of-stability",
        "oscillating-plateau",
        "weight-norm-drift",
        "attention-logit-growth",
        "attention-entropy-collapse",
        "residual-stream-growth",
        "saturated-units",
        "moe-router-collapse",
        "vae-posterior-collapse",
        "vae-kl-explosion",
        "rank-collapse",
        "output-logit-drift",
        "activation-outliers",
    ),
    causes=(
        "learning-rate-too-high",
        "missing-warmup",
        "schedule-bug",
        "gradients-not-zeroed",
        "bad-init-scale",
        "stale-second-moment",
    ),
)
def update_ratio_high(
    run: Run,
    *,
    high: float = 0.15,
    extreme: float = 0.5,
    records: float = 3.0,
    alone: float = 0.1,
    times: float = 10.0,
) -> Iterator[Finding]:
    """What it means: the step is too large for the weights: what was learned is overwritten.

    How it is detected: norm(change of a step) / norm(weight), the median over the weight matrices, is above
    `high` at `records` records in a row, or above `extreme` at one. Or that of one matrix is above `alone`
    and `times` the median of all, at `records` records in a row: a warning where it was replaced whole
    meanwhile, else info; not of SGD, whose steps are as uneven as the gradient. Vectors and matrices that
    began at zero, or far below the others, are left out; of weights that have shrunk the norm counts that
    they began with. It fires at the step itself, before the loss shows it. It is critical where the loss
    suffers, and had not been at its best long after. Within the first 20 steps alone, and with a loss that
    does not rise above its start by a tenth and by noise, or to three times it, it is info: the optimizer
    finds its scale. So it is within the first quarter of a run whose loss went on to fall.

    Calibrated for one matrix alone on 400 small trainings: 0.11 to 26 where one layer's rate was 30 to 300
    times that of the others, 0.08 at most in healthy ones (a small head under SGD).

    Look-alikes: Adam's first step without warm-up is the learning rate itself, 0.15 of the weight in a
    healthy small transformer; RMSprop's first steps are up to ten times the later ones. Small models run at
    ten times the 1e-3 of the rule of thumb. After a blow-up the ratio looks normal again, because the
    weights have become huge.

    Fixes: lower the learning rate by the factor by which the ratio is too high, and warm it up; where the
    loss has suffered, go back first.

    Reference: Wortsman et al. 2023 (arXiv 2309.14322).

    Facts: update_ratio (largest), healthy_ratio, lr (at that step), harmed; of one matrix others (the median
    of theirs, then) and replaced (the sum of its ratios).
    """
    taken = updates(run)
    if not len(taken.steps) or not taken.names:
        raise NotEvaluable("no update of a weight matrix was recorded")
    count = int(records)
    ratio = against_the_start(run, taken)
    usual = taken.middle if ratio is taken.ratio else median(ratio, axis=1)
    middle = np.nan_to_num(usual, nan=0.0)
    row = middle > high
    sustained = np.convolve(row, np.ones(count), "valid") >= count if len(row) >= count else np.zeros(0, bool)
    # What descends along the gradient itself moves as unevenly, and as far, as that.
    descends = "SGD" in str(run.fact("optimizer", "name") or "SGD")
    if descends and middle[0] > THROWN:
        return
    hits = np.flatnonzero(sustained).tolist() + np.flatnonzero(middle > extreme).tolist()
    if not hits:
        if not descends and (lone := lone_update(run, taken, ratio, alone, times, count)):
            yield _of_one(lone, alone)
        return
    start, end = _episode(run, taken.steps, row, middle, hits)
    above = np.flatnonzero(row[start : end + 1]) + start
    peak = int(above[np.argmax(middle[above])])
    worst = np.fmax.reduce(ratio[start : start + count], axis=0)
    sites = telling(taken.names, worst)
    bad = harmed(run) and not _bettered_after(run, int(taken.steps[above[-1]]))
    step = int(taken.steps[peak])
    passing = taken.steps[above[-1]] < run.steps / 4 and improves(run, step)
    settling = passing or (taken.steps[above[-1]] < 20 and not _loss_rises(run))
    facts = {"update_ratio": float(middle[peak]), "healthy_ratio": HEALTHY, "harmed": float(bad)}
    rate = schedule(run).at(step)
    yield Finding(
        severity=Severity.critical if bad else Severity.info if settling else Severity.warning,
        confidence=0.9 if bad or middle[peak] > extreme else 0.7,
        sites=sites,
        onset_step=int(taken.steps[start]),
        peak_step=step,
        last_step=int(taken.steps[above[-1]]),
        message=f"A step changes the weights by {figure(100 * middle[peak])} % "
        f"(median over {len(taken.names)} matrices, "
        f"step {step}), most in {sites[0]}; healthy is about {figure(100 * HEALTHY)} %.",
        value=float(middle[peak]),
        threshold=high,
        evidence=(Evidence("update.ratio", sites, threshold=high, band=(1e-3, 0.03), log=True),),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _of_one(lone: Lone, threshold: float) -> Finding:
    return Finding(
        severity=Severity.warning if lone.replaced > 1.0 else Severity.info,
        confidence=0.75,
        sites=lone.sites,
        onset_step=lone.onset,
        peak_step=lone.peak,
        last_step=lone.last,
        message=f"A step changes {lone.sites[0]} by {figure(100 * lone.ratio)} % at step {lone.peak}, where "
        f"it changes the other matrices by {figure(100 * lone.others)} %.",
        value=lone.ratio,
        threshold=threshold,
        evidence=(Evidence("update.ratio", lone.sites, threshold=threshold, band=(1e-3, 0.03), log=True),),
        facts={
            "update_ratio": lone.ratio,
            "healthy_ratio": HEALTHY,
            "others": lone.others,
            "replaced": lone.replaced,
        },
    )


def _episode(
    run: Run, steps: NDArray[np.int64], row: NDArray[np.bool_], middle: NDArray[np.float64], hits: list[int]
) -> tuple[int, int]:
    """The first hit and the last high position of the first episode; of a later one, where the first was no
    more than the optimizer finding its scale."""
    found = [e for e in episodes(row, middle) if any(e.first <= hit <= e.last for hit in hits)]
    later = [e for e in found if steps[e.last] >= 20]
    chosen = later[0] if later and not _loss_rises(run) else found[0]
    return min(hit for hit in hits if chosen.first <= hit <= chosen.last), chosen.last


def _bettered_after(run: Run, step: int) -> bool:
    """Whether the run was at its best long after `step`: what harmed it then came later."""
    if "run.loss" not in run:
        return False
    try:
        curve = loss_curve(run)
    except NotEvaluable:
        return False
    return curve.made_progress and int(curve.steps[curve.best_at]) > step + 2 * curve.window


def _loss_rises(run: Run) -> bool:
    """Whether the loss of the first 50 steps exceeds the first one by a tenth, and by noise; or by twice as
    much as it was or has come down since, for three steps: what scatters then is the blow-up itself."""
    if "run.loss" not in run:
        return True
    try:
        curve = loss_curve(run)
    except NotEvaluable:
        return True
    early = np.nan_to_num(curve.values[:50], nan=np.inf)
    if float(np.max(early)) - curve.start > max(0.1 * abs(curve.start), 3.0 * curve.scatter):
        return True
    lasting = np.max(np.minimum(np.minimum(early[:-2], early[1:-1]), early[2:]), initial=-np.inf)
    return bool(lasting - curve.start > 2.0 * max(abs(curve.start), curve.progress))


def _run(ratio: np.ndarray, optimizer: str = "SGD") -> Run:
    steps = np.r_[0:5, 10 : 10 * (len(ratio) - 4) : 10][: len(ratio)]
    return run_of(
        {"update.ratio": ratio},
        sites={"update": weights("update", 5)},
        steps={"update": steps},
        events=[Event("optimizer", 0.0, data={"name": optimizer, "groups": []})],
    )


@update_ratio_high.fires_on
def _from_the_start(rng: np.random.Generator) -> Run:
    falling = np.maximum(0.4 * np.exp(-np.arange(40) / 10), 0.02)
    return _run(falling[:, None] * np.exp(0.2 * rng.standard_normal((40, 5))))


@update_ratio_high.fires_on
def _jump_of_the_learning_rate(rng: np.random.Generator) -> Run:
    ratio = 0.01 * np.exp(0.2 * rng.standard_normal((40, 5)))
    ratio[20] *= 200
    return _run(ratio)


@update_ratio_high.fires_on
def _thrown_away_at_once(rng: np.random.Generator) -> Run:
    ratio = 0.01 + 4.0 * np.exp(-np.arange(40) / 1.0)
    thrown = 2.0 + np.where(np.arange(400) < 1, 0.0, 100.0) * np.exp(1.5 * rng.standard_normal(400))
    series = {"update.ratio": ratio[:, None] * np.exp(0.1 * rng.standard_normal((40, 5))), "run.loss": thrown}
    return run_of(series, sites={"update": weights("update", 5)}, steps={"update": np.r_[0:5, 10:360:10]})


def _apart(rng: np.random.Generator, matrix: int, times: float, optimizer: str = "AdamW") -> Run:
    """One of five matrices moves so many times faster than the others."""
    ratio = 0.005 * np.exp(0.3 * rng.standard_normal((60, 5)))
    ratio[:, matrix] *= times
    return _run(ratio, optimizer)


@update_ratio_high.fires_on
def _one_layer_alone(rng: np.random.Generator) -> Run:
    return _apart(rng, 2, 60.0)


@update_ratio_high.quiet_on
def _one_layer_alone_with_a_larger_gradient(rng: np.random.Generator) -> Run:
    return _apart(rng, 2, 60.0, "SGD")


@update_ratio_high.quiet_on
def _a_head_that_moves_faster(rng: np.random.Generator) -> Run:
    return _apart(rng, 4, 10.0)


@update_ratio_high.quiet_on
def _first_step_of_adam(rng: np.random.Generator) -> Run:
    falling = 0.01 + 0.16 * np.exp(-np.arange(40) / 1.5)
    return _run(falling[:, None] * np.exp(0.1 * rng.standard_normal((40, 5))))


@update_ratio_high.quiet_on
def _optimizer_finds_its_scale(rng: np.random.Generator) -> Run:
    ratio = (0.01 + 0.27 * np.exp(-np.arange(40) / 4))[:, None] * np.exp(0.1 * rng.standard_normal((40, 5)))
    falling = 2.0 + 2.0 * np.exp(-np.arange(400) / 40) + 0.02 * rng.standard_normal(400)
    steps = np.r_[0:5, 10:360:10]
    series = {"update.ratio": ratio, "run.loss": falling}
    return run_of(series, sites={"update": weights("update", 5)}, steps={"update": steps})
