"""Weights grow or shrink without end, and take the effective step size with them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.aftermath import known_curve
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import evenly, telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.history import History, history
from stabdiag.analysis.losscurve import harmed
from stabdiag.analysis.norm_drift import Drift, beyond_updates, decayed, growing, shrinking
from stabdiag.analysis.robust import Doubles, forward_filled, median
from stabdiag.analysis.step_size import decoupled_decay, schedule, weight_decay
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of


@signature(
    "weight-norm-drift",
    title="Weights grow or shrink without end",
    needs=("weight.norm",),
    explains=(
        "update-ratio-low",
        "output-logit-drift",
        "loss-plateau",
        "loss-divergence",
        "vanishing-gradient",
        "edge-of-stability",
        "norm-statistics-mismatch",
    ),
    causes=(
        "weights-overwritten",
        "weight-decay-too-low",
        "weight-decay-too-high",
        "unbounded-attention-logits",
        "learning-rate-too-high",
    ),
)
def weight_norm_drift(
    run: Run,
    *,
    growth: float = 3.0,
    shrunk: float = 0.2,
    starved: float = 0.01,
    most: float = 0.5,
    unaided: float = 1.5,
    dominated: float = 0.33,
    fallen: float = 0.75,
    forgets: float = 0.03,
) -> Iterator[Finding]:
    """What it means: nothing holds the weights at their scale. Growing ones make each step smaller in
    proportion, and logits larger; shrinking ones take the signal with them.

    How it is detected: the norm of a weight matrix grows more than `growth`-fold within a tenth of the run,
    after its first tenth, and not from one step to the next: info. A warning where that has a consequence:
    the update ratio of these matrices has fallen to `starved` of what it was, or the output's logits, by the
    normalizer of their softmax or by their mean, have grown by 2 nat and more in the same time while the run
    got worse; and, from `unaided`-fold on, where its growth in three intervals between records and more was
    beyond three times what the updates recorded there amount to: something else writes to it, and will not
    stop. Or norms have fallen to `shrunk` of where they began in the share `most` of all matrices, and the
    run ends worse than it had been, or has learned nothing, or weights are the mean of the updates of the
    last 1/(lr·λ) steps, which are no more than the share `forgets` of the run: a warning. So it is where
    decay makes the share `dominated` of a step and more, in the median, which is 1 to 5 % in health, and half
    of all norms end below `fallen` of their first. Calibrated on small transformers with weight decay 0
    (grows 1.2-fold in a tenth at 1e-2, which is benign) to 50 (shrinks to 0.1 and is lost), and on 140
    healthy runs of 67,000 steps: no alarm.

    Look-alikes: weights before a normalization may have any scale: without weight decay, with 0.1 and with
    1 the same transformer ended at norms of 45, 38 and 15 and losses of 3.30, 3.31 and 3.40. Matrices that
    begin at zero grow at first. After a blow-up (lr-divergence) weights are large at once.

    Fixes: weight decay of 0.01 to 0.1 on matrices, none on gains and biases; where they shrink, less of it.

    Reference: Wang & Aitchison 2024 (decay as the memory of an average, arXiv 2405.13698); Kosson et al. 2023
    (Rotational equilibrium, arXiv 2305.17212); Defazio 2025 (arXiv 2506.02285).

    Facts: growth (factor in a tenth of the run, or since the start), unaided (factor beyond what updates
    account for, where that is told), norm_start, norm_end, decay_sum (Σ
    lr·λ), update_ratio_left, harmed.
    """
    table = run.table("weight.norm")
    chosen = [i for i, site in enumerate(table.sites) if len(site.shape) != 1 and site.trainable]
    if not chosen or len(table.steps) < 8 or run.steps < 100:
        raise NotEvaluable("the norms of weight matrices were recorded at too few steps")
    rows = evenly(len(table.steps))
    steps, norms = table.steps[rows], table.values[rows][:, chosen].astype(np.float64)
    norms = forward_filled(np.where(np.isfinite(norms) & (norms > 0), norms, np.nan))
    names = tuple(table.sites[i].name for i in chosen)
    bad = harmed(run)
    drift = shrinking(steps, norms, shrunk, most)
    # It may have shrunk in any step since it was last seen.
    lost = drift is not None and (bad or _stuck(run, int(steps[max(drift.at - 1, 0)])))
    if drift is not None and not lost and _memory(run) > forgets * run.steps:
        drift = None
    drift = (
        drift
        or decayed(run, steps, norms, dominated, fallen)
        or beyond_updates(run, steps, names, norms, unaided)
        or growing(run, steps, norms, growth)
    )
    if drift is None:
        return
    sites = telling(names, drift.change if drift.grows else -drift.change)
    least = unaided if drift.unaided else growth if drift.grows else fallen if drift.decay else shrunk
    sites = tuple(s for s in sites if abs(drift.change[names.index(s)]) > abs(np.log(least)))
    left = _ratio_left(run, sites, int(steps[drift.at]))
    swollen = _swollen(run, int(steps[drift.at]))
    consequence = left < starved or (swollen > 2.0 and bad) if drift.grows and not drift.unaided else True
    yield _finding(
        run, drift, sites, (steps, norms[:, [names.index(s) for s in sites]]), consequence, left, bad
    )


def _stuck(run: Run, step: int) -> bool:
    """Whether `step` is in the first quarter, and less than a tenth of the progress was made after it."""
    curve = known_curve(run)
    if curve is None or step > run.steps / 4:
        return False
    late = curve.level[np.searchsorted(curve.steps, step + curve.window) :]
    return bool(len(late)) and float(late[0] - np.fmin.reduce(late)) < 0.1 * max(curve.progress, curve.margin)


def _memory(run: Run) -> float:
    """1/(lr·λ): over how many steps decoupled weight decay lets weights remember their updates; infinite
    where nothing decays, or decay goes into the gradient."""
    rates = schedule(run).rate.values
    taken = decoupled_decay(run) * (float(np.nanmedian(rates)) if len(rates) else 0.0)
    return 1.0 / taken if taken > 0 else float("inf")


def _ratio_left(run: Run, sites: tuple[str, ...], step: int) -> float:
    """The update ratio at the end over that before the drift, where the learning rate fell no more; 1 where
    it is not known.
    """
    if "update.ratio" not in run:
        return 1.0
    table = run.table("update.ratio")
    columns = [table.names.index(name) for name in sites if name in table.names]
    before, now = (
        table.values[table.steps <= step][:, columns],
        table.values[-max(len(table.steps) // 20, 3) :][:, columns],
    )
    rates = schedule(run)
    usual, end = rates.at(step), rates.at(run.steps)
    known = np.isfinite(before).any() and np.isfinite(now).any()
    if not known:
        return 1.0
    kept = float(median(now) / max(float(median(before)), 1e-30))
    return kept * usual / end if usual and end else kept


def _swollen(run: Run, step: int) -> float:
    """By how much the size of the logits has grown since, in nats: of their mean, or of the logarithm of the
    softmax's normalizer."""
    grown = [0.0]
    for series in ("logits.log_z", "logits.mean"):
        seen = history(run, series).finite()
        size = History(seen.steps, np.abs(seen.values))
        before, after = size.usual(step), size.within(run.steps - run.steps // 10, run.steps).values
        if before is not None and len(after):
            grown.append(float(np.median(after)) - before)
    return max(grown)


def _finding(
    run: Run,
    drift: Drift,
    sites: tuple[str, ...],
    seen: tuple[NDArray[np.int64], Doubles],
    consequence: bool,
    left: float,
    bad: bool,
) -> Finding:
    steps, norms = seen
    start, end = float(median(norms[drift.at if drift.grows else 0])), float(median(norms[-1]))
    factor = float(np.exp(np.fmax.reduce(drift.change) if drift.grows else median(drift.change)))
    rates = schedule(run).rate
    facts = {
        "growth": factor,
        "norm_start": start,
        "norm_end": end,
        "update_ratio_left": left,
        "harmed": float(bad),
        "decay_sum": float((weight_decay(run) or 0.0) * rates.values.sum()) if len(rates) else 0.0,
    }
    if drift.unaided:
        facts["unaided"] = factor
    onset = int(steps[drift.at])
    words = (
        f"grows {figure(factor)}-fold beyond what the optimizer's steps can have done"
        if drift.unaided
        else f"grows {figure(factor)}-fold within a tenth of the run"
        if drift.grows
        else f"has shrunk to {figure(factor)} of what it was"
    )
    then = ""
    if drift.unaided:
        then = ": something else writes to it"
    elif consequence and drift.grows:
        then = (
            f", and a step changes it by {figure(left)} of what it did"
            if left < 0.01
            else ", and the output with it"
        )
    elif drift.decay:
        then = f", and decay makes {drift.decay:.0%} of a step"
    elif consequence:
        then = ", and the loss is lost with it"
    return Finding(
        severity=Severity.warning if consequence else Severity.info,
        confidence=0.8 if consequence else 0.5,
        sites=sites,
        onset_step=onset,
        peak_step=int(steps[-1]),
        last_step=int(steps[-1]),
        message=f"The norm of {sites[0]} {words}, from step {onset} on{then}.",
        value=factor,
        evidence=(Evidence("weight.norm", sites, log=True), Evidence("run.loss", ("run",))),
        facts=facts,
    )


def _run(
    rng: np.random.Generator, norm: np.ndarray, ratio: np.ndarray, end: float = 2.0, decay: float = 0.1
) -> Run:
    steps = np.arange(0, 600, 6)
    noise = np.exp(0.02 * rng.standard_normal((100, 4)))
    loss = np.where(np.arange(600) < 200, 4.5 - 0.01 * np.arange(600), end) + 0.05 * rng.standard_normal(600)
    series = {"weight.norm": norm[:, None] * noise, "update.ratio": ratio[:, None] * noise, "run.loss": loss,
              "run.lr": np.full(600, 1e-3)}  # fmt: skip
    sites = {"weight": weights("weight", 4), "update": weights("update", 4)}
    optimizer = Event("optimizer", 0.0, data={"name": "AdamW", "groups": [{"weight_decay": decay}]})
    return run_of(series, sites=sites, steps={"weight": steps, "update": steps}, events=[optimizer])


@weight_norm_drift.fires_on
def _grows_until_steps_are_nothing(rng: np.random.Generator) -> Run:
    norm = 4.0 * np.exp(np.maximum(np.arange(100) - 30, 0) * 0.12)
    return _run(rng, norm, 0.02 / norm)


@weight_norm_drift.fires_on
def _decays_away(rng: np.random.Generator) -> Run:
    return _run(rng, 4.0 * np.exp(-np.arange(100) * 0.05), np.full(100, 5e-3), end=4.4)


@weight_norm_drift.fires_on
def _remembers_a_few_batches(rng: np.random.Generator) -> Run:
    return _run(rng, 4.0 * np.exp(-np.arange(100) * 0.05), np.full(100, 5e-3), decay=100.0)


@weight_norm_drift.fires_on
def _grows_though_the_steps_are_small(rng: np.random.Generator) -> Run:
    return _run(rng, 4.0 * np.exp(np.clip(np.arange(100) - 30, 0, 6) * 0.15), np.full(100, 1e-3))


@weight_norm_drift.quiet_on
def _is_set_anew_once(rng: np.random.Generator) -> Run:
    return _run(rng, np.where(np.arange(100) < 50, 4.0, 9.0), np.full(100, 1e-3))


@weight_norm_drift.quiet_on
def _grows_to_an_equilibrium(rng: np.random.Generator) -> Run:
    norm = 4.0 + 20.0 * (1 - np.exp(-np.arange(100) / 30))
    return _run(rng, norm, 0.02 / norm)


@weight_norm_drift.quiet_on
def _shrinks_and_learns(rng: np.random.Generator) -> Run:
    return _run(rng, 4.0 * np.exp(-np.arange(100) * 0.05), np.full(100, 5e-3))
