"""Epsilon outweighs the gradients, and the steps shrink."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.adam import UNSETTLED, ages_at, matrices, moments
from stabdiag.analysis.adaptive import adaptive, epsilon
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.episodes import longest_stretch
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.analysis.robust import median
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

LEAST, FEW = 5, 3
"""Records that make a stretch of 20 steps, and of 100."""

HEALTHY = (0.74, 1.7)
"""Where updates lie in health, over those that noise makes: Adam's within 0.17 to 0.39 learning rates."""


@signature(
    "adam-eps-dominated",
    title="Epsilon outweighs the gradients, and the steps shrink",
    needs=("optimizer.eps_share", "optimizer.step"),
    explains=("update-ratio-low", "loss-plateau", "lr-starvation", "context-blind-plateau"),
    causes=("optimizer-epsilon",),
)
def adam_eps_dominated(
    run: Run, *, share: float = 0.5, short: float = 0.437, most: float = 0.5, spent: float = 1e-3
) -> Iterator[Finding]:
    """What it means: an adaptive optimizer divides by sqrt(v) + ε. Where sqrt(v) is below ε the division no
    longer brings all gradients to one size, and what is left is gradient descent with tiny steps.

    How it is detected: in a weight matrix the share of coordinates with sqrt(v) < ε is above `share`, and the
    update is below `short` of what the optimizer makes of gradients that are noise (in learning rates, in
    rms: sqrt((1 - β1) / (1 + β1)), 0.229 for Adam, where its healthy updates lie between 0.17 and 0.39; at
    first 0.59 for NAdam, 1 for Adafactor and for RMSprop without momentum, 1/√t for Adagrad); at all recorded
    steps of a stretch of 20 steps and five records, or of 100 and three. Matrices whose gradient is exactly
    zero, and those whose silent rows alone make up that share, are left out. It is a warning where `most` of
    the weight matrices, by number of elements, are so, before the loss has come down to `spent` of where it
    began; else info. Of 7,650 healthy steps none had an update below 0.1 with such a share. In small
    transformers it begins at ε 1e-2 (update 0.056, loss 3.85 for 3.52); 1e-3 is felt (0.142, 3.58) and is not
    told. No alarm in 89 healthy runs of 40,000 steps, nor in 88 with RMSprop, NAdam, Adafactor and others, of
    31,600 steps.

    Look-alikes: long runs at a constant rate with β2 0.999 sink to 0.10 in health; after a blow-up the
    second moment is huge, and the update small with ε far below it. A run that fits its data to the last
    digit ends here, with no gradient left.

    Fixes: ε 1e-12 to 1e-15, with the moments in float32; a loss that is not scaled down (a mean taken
    twice). Adafactor in torch takes ε₁ from the type of the weights, which is 0.0078 in bfloat16.

    Reference: Wortsman et al. 2023 (arXiv 2309.14322); OLMo 2 (arXiv 2501.00656).

    Facts: eps_share, update_rms, epsilon, grad_rms, matrices (share of elements).
    """
    optimizer = adaptive(run)
    seen = moments(run, "eps_share", "step", above=("eps_share", share, FEW))
    table = run.table("optimizer.step")
    whole = sum(max(table.sites[i].size, 1) for i in matrices(run, "step"))
    if len(seen.steps) < FEW or not whole:
        raise NotEvaluable("too few steps with a settled state of the optimizer were recorded")
    if not seen.sites:
        return
    usual = optimizer.noise(ages_at(run, seen.steps))
    sizes = np.array([max(site.size, 1) for site in seen.sites], dtype=np.float64)
    silent = _silent(run, seen.steps, seen.sites)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rows without a gradient stand still; those that have one keep their usual step.
        moving = seen["step"] / np.sqrt(np.maximum(1.0 - silent, 1e-6))
        dominated = (seen["eps_share"] > share) & (moving < short * usual[:, None]) & (seen["step"] > 0)
    weight = (dominated * sizes).sum(axis=1) / whole
    severity, (first, length) = Severity.warning, _stretch(seen.steps, weight > most)
    if not length:
        severity, (first, length) = Severity.info, _stretch(seen.steps, weight > 0)
    if not length:
        return
    part = slice(first, first + length)
    bad = median(np.where(dominated[part], seen["eps_share"][part], np.nan), axis=0)
    sites = telling(seen.names, bad * np.sqrt(sizes))
    held = [i for i, name in enumerate(seen.names) if name in sites]
    update = float(np.nanmedian(seen["step"][part][:, held]))
    if severity and _is_spent(run, int(seen.steps[first]), spent):
        severity = Severity.info
    eps, covered, noise = epsilon(run), float(np.median(weight[part])), float(np.median(usual[part]))
    facts = {
        "eps_share": float(np.nanmedian(seen["eps_share"][part][:, held])),
        "update_rms": update,
        "matrices": covered,
        **({} if eps is None else {"epsilon": eps}),
        **_gradient(run, seen.steps[part], sites),
    }
    yield Finding(
        severity=severity,
        confidence=0.9 if severity else 0.6,
        sites=sites,
        onset_step=_begun(run, int(seen.steps[first]), sites, share),
        peak_step=int(seen.steps[first + int(np.argmax(weight[part]))]),
        last_step=int(seen.steps[first + length - 1]),
        message=f"Updates of {optimizer.name} are only {figure(update)} learning rates, where "
        f"{figure(noise)} is usual, in "
        f"{100 * covered:.0f} % of the weights: epsilon{f' ({figure(eps)})' if eps else ''} is larger "
        "than their "
        "gradients.",
        value=update,
        threshold=short * noise,
        evidence=(
            Evidence("optimizer.eps_share", sites, threshold=share),
            Evidence(
                "optimizer.step",
                sites,
                threshold=short * noise,
                band=(HEALTHY[0] * noise, HEALTHY[1] * noise),
                log=True,
            ),
        ),
        facts=facts,
    )


def _stretch(steps: NDArray[np.int64], flagged: NDArray[np.bool_]) -> tuple[int, int]:
    """The longest stretch of 20 steps and five records, or of 100 and three, as position and length; of
    length 0 if there is none."""
    first, length = longest_stretch(flagged)
    lasts = length >= FEW and steps[first + length - 1] - steps[first] >= (20 if length >= LEAST else 100)
    return (first, length) if lasts else (0, 0)


def _begun(run: Run, judged: int, sites: tuple[str, ...], share: float) -> int:
    """Since when the share was that large, given that it was at step `judged`: the steps of a young state are
    not judged, but tell when it began."""
    table = run.table("optimizer.eps_share")
    columns = [table.names.index(name) for name in sites]
    young = ages_at(run, table.steps) <= UNSETTLED
    begun = judged
    for row in range(int(np.searchsorted(table.steps, judged)) - 1, -1, -1):
        if not young[row] or not median(table.values[row, columns], axis=0) > share:
            break
        begun = int(table.steps[row])
    return begun


def _silent(run: Run, steps: NDArray[np.int64], sites: tuple[Site, ...]) -> NDArray[np.float64]:
    """The share of rows without a gradient, [steps, sites]; 0 where it is not known."""
    shares = np.zeros((len(steps), len(sites)))
    if "grad.dead" not in run:
        return shares
    table = run.table("grad.dead")
    at = np.maximum(np.searchsorted(table.steps, steps, side="right") - 1, 0)
    for i, site in enumerate(sites):
        if site.name in table.names and len(table.steps):
            shares[:, i] = np.nan_to_num(table.column(site.name)[at], nan=0.0)
    return shares


def _is_spent(run: Run, step: int, share: float) -> bool:
    """Whether the loss had come down to a trifle of where it began by then."""
    if "run.loss" not in run:
        return False
    try:
        curve = loss_curve(run)
    except NotEvaluable:
        return False
    lowest = float(np.fmin.reduce(np.where(np.isfinite(curve.values), curve.values, np.nan)))
    at = int(np.searchsorted(curve.steps, step))
    level = float(curve.level[min(at, len(curve.level) - 1)])
    return lowest >= 0 and level < share * curve.start


def _gradient(run: Run, steps: NDArray[np.int64], sites: tuple[str, ...]) -> dict[str, float]:
    """The root mean square of the gradients there."""
    if "grad.norm" not in run:
        return {}
    table = run.window(int(steps[0]), int(steps[-1])).table("grad.norm")
    known = {site.name: site for site in table.sites}
    found = [
        float(np.nanmedian(table.column(name)) / max(known[name].size, 1) ** 0.5)
        for name in sites
        if name in known and np.isfinite(table.column(name)).any()
    ]
    return {"grad_rms": float(np.median(found))} if found else {}


def _run(
    rng: np.random.Generator,
    eps_share: float,
    step: float,
    matrices: int = 4,
    loss: float = 0.1,
    name: str = "AdamW",
    usual: float = 0.25,
) -> Run:
    steps = np.arange(0, 400, 5)
    noise = np.exp(0.1 * rng.standard_normal((len(steps), 4)))
    shares, updates = np.full((len(steps), 4), 0.001), usual * noise
    shares[:, :matrices], updates[:, :matrices] = eps_share, step * noise[:, :matrices]
    groups = [{"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-3}]
    series = {
        "optimizer.eps_share": shares,
        "optimizer.step": updates,
        "run.loss": 2.0 * np.exp(-np.arange(400) * loss),
    }
    return run_of(
        series,
        sites={"optimizer": weights("optimizer", 4)},
        steps={"optimizer": steps},
        events=[Event("optimizer", 0.0, data={"name": name, "groups": groups})],
    )


@adam_eps_dominated.fires_on
def _epsilon_of_a_hundredth(rng: np.random.Generator) -> Run:
    return _run(rng, 0.98, 0.03, loss=1e-3)


@adam_eps_dominated.fires_on
def _most_of_the_weights(rng: np.random.Generator) -> Run:
    return _run(rng, 0.8, 0.05, matrices=3, loss=1e-3)


@adam_eps_dominated.fires_on
def _gradients_that_are_not_averaged(rng: np.random.Generator) -> Run:
    return _run(rng, 0.98, 0.2, loss=1e-3, name="RMSprop", usual=1.0)


@adam_eps_dominated.quiet_on
def _one_matrix(rng: np.random.Generator) -> Run:
    return _run(rng, 0.98, 0.03, matrices=1, loss=1e-3)


@adam_eps_dominated.quiet_on
def _small_steps_with_a_large_second_moment(rng: np.random.Generator) -> Run:
    return _run(rng, 0.0, 0.05, loss=1e-3)


@adam_eps_dominated.quiet_on
def _nothing_left_to_learn(rng: np.random.Generator) -> Run:
    return _run(rng, 0.98, 0.03, loss=0.5)
