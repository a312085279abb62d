"""In a part of the model gradients stay the same for so long that updates become whole steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.adam import ages_at, matrices, moments
from stabdiag.analysis.adaptive import adaptive
from stabdiag.analysis.aftermath import followed, known_curve
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.episodes import longest_stretch
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.incomparable import asked
from stabdiag.analysis.robust import median
from stabdiag.analysis.step_size import decoupled_decay, schedule
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

LEAST = 4
"""Records that make a stretch."""

REACH = 60
"""Steps within which the loss shows what such updates did."""


@signature(
    "adam-correlated-update",
    title="In a part of the model updates have become whole steps",
    needs=("optimizer.step", "optimizer.cosine", "optimizer.rms"),
    explains=("lr-divergence", "update-ratio-high", "loss-spike", "loss-divergence", "nonfinite-origin"),
    causes=("optimizer-epsilon", "learning-rate-too-high", "stale-second-moment"),
)
def adam_correlated_update(
    run: Run,
    *,
    long: float = 0.5,
    alike: float = 0.6,
    right: float = 2.0,
    rest: float = 0.42,
    lasting: float = 20.0,
    full: float = 0.8,
    same: float = 0.9,
) -> Iterator[Finding]:
    """What it means: Adam, and what averages gradients like it, counts on noise that differs from step to
    step and mostly cancels. Where gradients have become so small, or batches so large, that each coordinate
    keeps its sign, the update is a whole step in every coordinate at once (a learning rate; 1/(1 - momentum)
    of them in RMSprop), and no longer follows the slope.

    How it is detected: for `lasting` steps or more, four records or more, after the warm-up and 50 steps of
    the state, the update of a weight matrix is above `long` of a whole step in rms (noise gives 0.229, a
    constant gradient 1), the cosine of gradient and first moment is above `alike` (noise: 0.436 at β1 0.9),
    and RMS_t below `right`, so that the second moment is not stale; while the update of the median matrix is
    below `rest`. A warning where the loss meanwhile rises, for three steps or more, by 4 robust deviations
    and a twentieth of the progress, critical where the run ends worse for it; and where the update is above
    `full` and the cosine above `same`, whatever the loss does, but for a model that acts; else info. Not
    reproduced at small scale: calibrated on the exact values above. Outside of GANs, in which all matrices
    agree, no matrix of the healthy runs passed `full` and `same`, nor had a warning any of 95 healthy runs of
    42,000 steps.

    Not judged are optimizers whose steps are nearly whole ones whatever the gradients do: without momentum,
    with a short one, and NAdam; and where weight decay has undone each update before `lasting` steps are
    over, so that they add up to nothing.

    Look-alikes: with all data in one batch every matrix does so, in health. A stale second moment has RMS_t
    above 2 with it. Biases and gains see constant gradients often. The values of a policy are a long way
    off, and the layer that puts them out goes there straight.

    Fixes: a smaller epsilon or none, a lower rate for the layers concerned, a smaller batch.

    Reference: Molybog et al. 2023 (A theory on Adam instability in large-scale machine learning, arXiv
    2304.09871).

    Facts: update_rms, cosine, rms, rest (update of the median matrix), matrices, lr.
    """
    optimizer = adaptive(run)
    step = optimizer.averages(ages_at(run, run.table("optimizer.step").steps))
    if step is None:
        raise NotEvaluable(f"updates of {optimizer.name} are as long for noise as for gradients of one way")
    rates = schedule(run)
    if decoupled_decay(run) * rates.peak * lasting > 1:
        raise NotEvaluable(f"weight decay has undone each update before {figure(lasting)} steps are over")
    seen = moments(run, "step", "cosine", "rms", above=("step", long * step, LEAST))
    warm = seen.steps > rates.warmup
    if warm.sum() < LEAST or len(matrices(run, "step")) < 2:
        raise NotEvaluable("too few steps with a settled state, or too few matrices, were recorded")
    if not seen.sites:
        return
    others = median(moments(run, "step")["step"], axis=1) / step
    updates = seen["step"] / step
    whole = (updates > long) & (seen["cosine"] > alike) & (seen["rms"] < right)
    whole &= ((others < rest) & warm)[:, None]
    curve = known_curve(run)
    best = None
    for i in np.flatnonzero(whole.sum(axis=0) >= LEAST):
        first, length = longest_stretch(whole[:, i])
        if length >= LEAST and seen.steps[first + length - 1] - seen.steps[first] >= lasting:
            best = min(best, (first, first + length - 1)) if best else (first, first + length - 1)
    if best is None:
        return
    part = slice(best[0], best[1] + 1)
    share = whole[part].mean(axis=0)
    sites = telling(seen.names, np.where(share >= 0.5, share * median(updates[part], axis=0), np.nan))
    columns = [seen.names.index(name) for name in sites]
    onset, last = int(seen.steps[best[0]]), int(seen.steps[best[1]])
    rise = followed(curve, onset, max(REACH, last - onset)) if curve is not None else None
    bad = rise is not None and rise.bad
    update = float(np.nanmedian(updates[part][:, columns]))
    facts = {
        "update_rms": update,
        "cosine": float(np.nanmedian(seen["cosine"][part][:, columns])),
        "rms": float(np.nanmedian(seen["rms"][part][:, columns])),
        "rest": float(np.nanmedian(others[part])),
        "matrices": float(np.sum(share >= 0.5)),
    }
    # A policy's values are a long way off, and the layer that puts them out goes there straight.
    acts = bool(asked(run))
    in_step = update > full and facts["cosine"] > same and not acts
    severity = Severity.warning if bad or in_step else Severity.info
    if bad and rise is not None and rise.lost and curve and curve.harmed:
        severity = Severity.critical
    rate = rates.at(onset)
    unit = "learning rates" if step == 1 else f"of whole steps, {figure(step)} learning rates long,"
    yield Finding(
        severity=severity,
        confidence=0.8 if severity else 0.5,
        sites=sites,
        onset_step=onset,
        peak_step=int(seen.steps[best[0] + int(np.nanargmax(updates[part][:, columns[0]]))]),
        last_step=last,
        message=f"{optimizer.name}'s updates of {sites[0]} are {figure(update)} {unit} in rms since step "
        f"{onset}, where the median matrix has {figure(facts['rest'])}: its gradients keep their sign"
        + (f"; the loss rises by {figure(rise.z)} robust deviations." if bad and rise else "."),
        value=update,
        threshold=long,
        evidence=(
            Evidence("optimizer.step", sites, threshold=long * step, band=(0.17 * step, 0.39 * step)),
            Evidence("optimizer.cosine", sites, threshold=alike),
        ),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _run(
    rng: np.random.Generator, step: float, cosine: float, rms: float, rise: float, others: float = 0.25
) -> Run:
    steps = np.arange(0, 500, 5)
    on = (steps >= 300)[:, None] & np.array([True, True, False, False, False])
    noise = np.exp(0.05 * rng.standard_normal(on.shape))
    loss = 2.0 + 2.8 * np.exp(-np.arange(500) / 60) + 0.05 * rng.standard_normal(500)
    loss[320:350] += rise
    series = {
        "optimizer.step": np.where(on, step, others) * noise,
        "optimizer.cosine": np.minimum(np.where(on, cosine, 0.44) * noise, 1.0),
        "optimizer.rms": np.where(on, rms, 1.0) * noise,
        "run.loss": loss,
    }
    return run_of(series, sites={"optimizer": weights("optimizer", 5)}, steps={"optimizer": steps})


@adam_correlated_update.quiet_on
def _values_of_a_policy_a_long_way_off(rng: np.random.Generator) -> Run:
    run = _run(rng, step=1.2, cosine=0.99, rms=1.0, rise=0.0)
    acting = Event("acting", 0.0, data={"calls": 500, "steps": 100})
    return Run(run.info, run.kinds, [*run.events, acting])


@adam_correlated_update.fires_on
def _first_layers_in_step(rng: np.random.Generator) -> Run:
    return _run(rng, step=0.9, cosine=0.9, rms=1.0, rise=1.0)


@adam_correlated_update.fires_on
def _one_way_for_good(rng: np.random.Generator) -> Run:
    return _run(rng, step=1.0, cosine=1.0, rms=1.0, rise=0.0)


@adam_correlated_update.quiet_on
def _decay_undoes_each_step_at_once(rng: np.random.Generator) -> Run:
    run = _run(rng, step=1.0, cosine=1.0, rms=1.0, rise=1.0)
    optimizer = Event("optimizer", 0.0, data={"name": "AdamW", "groups": [{"lr": 0.1, "weight_decay": 1.0}]})
    rate = run_of({"run.lr": np.full(500, 0.1), "run.loss": run.table("run.loss").first()})
    return Run(run.info, {**run.kinds, "run": rate.kinds["run"]}, [*run.events, optimizer])


@adam_correlated_update.quiet_on
def _without_consequence(rng: np.random.Generator) -> Run:
    return _run(rng, step=0.6, cosine=0.75, rms=1.0, rise=0.0)


@adam_correlated_update.quiet_on
def _all_data_in_one_batch(rng: np.random.Generator) -> Run:
    return _run(rng, step=0.95, cosine=0.95, rms=1.0, rise=1.0, others=0.9)


@adam_correlated_update.quiet_on
def _stale_instead(rng: np.random.Generator) -> Run:
    return _run(rng, step=0.9, cosine=0.9, rms=4.0, rise=1.0)
