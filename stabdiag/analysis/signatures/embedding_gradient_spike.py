"""The gradient of an embedding outgrows that of all other weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.aftermath import aftermath
from stabdiag.analysis.blocks import blocks
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.episodes import episodes
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import WINDOW
from stabdiag.analysis.leap import NEAR, growth
from stabdiag.analysis.losscurve import harmed
from stabdiag.analysis.robust import spread
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

FLOOR = 0.05
"""Least deviation of the logarithm of a gradient norm."""

MOST = 256
"""Steps of which the usual is worked out: those with the largest share."""


@signature(
    "embedding-gradient-spike",
    title="The gradient of an embedding outgrows that of all other weights",
    needs=("grad.norm",),
    explains=(
        "adam-stale-second-moment",
        "lr-divergence",
        "update-ratio-high",
        "exploding-gradient",
        "loss-spike",
        "loss-divergence",
        "loss-scale-thrash",
    ),
    causes=("out-of-distribution-batch", "corrupt-batch", "stale-second-moment", "precision-overflow"),
)
def embedding_gradient_spike(
    run: Run, *, z: float = 6.0, share: float = 0.6, odds: float = 4.0
) -> Iterator[Finding]:
    """What it means: a few tokens, rare ones or one that fills the batch, pull on their rows of the table
    harder than everything else together. In large language models this comes a few steps before a collapse.

    How it is detected: the norm of an embedding's gradient lies more than `z` robust deviations above the
    median of the 64 recorded before, in the logarithm, and its square makes up more than `share` of that of
    all gradients, `odds` times its usual odds. It is a warning where the loss then rises, for three steps or
    more, by 4 robust deviations and a twentieth of the progress, critical where the run ends worse for it,
    else info; and info where an output has grown tenfold by then, as that enlarges the gradient of all that
    comes before it. In healthy small transformers the share is 0.04 to 0.30, and 0.47 at most. The deviation
    alone is passed 6.6 times in 1,000 healthy steps, the three together with the loss in none of 8,000.

    Look-alikes: a tied embedding has half of the gradient always, which the odds allow for. One hard batch,
    after which the loss is as before, is info here. Positional tables are embeddings, too.

    Fixes: shrink the gradient of the embedding to a tenth; skip the batch; clip by the run's own norms.

    Reference: Zeng et al. 2022 (GLM-130B, arXiv 2210.02414).

    Facts: share, share_before, z, growth (of the norm), loss_z, lr.
    """
    table = run.table("grad.norm")
    tables = [i for i, site in enumerate(table.sites) if "Embedding" in site.module_type and site.trainable]
    if not tables:
        raise NotEvaluable("the model has no embedding")
    if len(table.steps) < 48:
        raise NotEvaluable(f"gradients of only {len(table.steps)} steps were recorded")
    total = np.empty(len(table.steps))
    for rows in blocks(*table.values.shape):
        squares = table.values[rows].astype(np.float64) ** 2
        total[rows] = np.where(np.isfinite(squares), squares, 0.0).sum(axis=1)
    for i in tables:
        found = _spike(table.values[:, i].astype(np.float64) ** 2, total, z, share, odds)
        if found:
            yield _finding(run, table.sites[i], table.steps, found, z)


def _spike(
    square: NDArray[np.float64], total: NDArray[np.float64], z: float, share: float, odds: float
) -> list[tuple[int, dict[str, float]]]:
    """Positions and facts of the steps that pass all three, in order."""
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(total > 0, square / total, np.nan)
        logs = 0.5 * np.log(np.where(square > 0, square, np.nan))
    high = np.flatnonzero((part > share) & (np.arange(len(part)) >= max(24, len(part) // 50)))
    high = np.sort(high[np.argsort(-logs[high], kind="stable")][:MOST])
    flagged, found = np.zeros(len(part), dtype=bool), []
    for at in high:
        before = np.flatnonzero(~flagged[:at] & np.isfinite(logs[:at]))[-WINDOW:]
        if len(before) < 24:
            continue
        usual, scale = float(np.median(logs[before])), max(spread(logs[before]), FLOOR)
        deviation, was = float(logs[at] - usual) / scale, float(np.median(part[before]))
        flagged[at] = deviation > z
        if flagged[at] and part[at] * (1 - was) > odds * was * (1 - part[at]):
            facts = {"share": float(part[at]), "share_before": was, "z": deviation}
            found.append((int(at), facts | {"growth": float(np.exp(logs[at] - usual))}))
    return found


def _finding(
    run: Run, site: Site, steps: NDArray[np.int64], found: list[tuple[int, dict[str, float]]], z: float
) -> Finding:
    marks = np.zeros(len(steps), dtype=bool)
    marks[[at for at, _ in found]] = True
    told = []
    for episode in episodes(marks, np.zeros(len(steps))):
        rise = aftermath(run, int(steps[episode.first]) + 1)
        told.append((episode, rise, rise.z if rise is not None and rise.bad else 0.0))
    episode, rise, height = max(told, key=lambda entry: entry[2])
    # Whatever enlarges an output enlarges all gradients before it, that of the embedding the most.
    passed_on = growth(run, int(steps[episode.first])) > NEAR
    severity = Severity.warning if height and not passed_on else Severity.info
    if severity and rise is not None and rise.lost and harmed(run):
        severity = Severity.critical
    at, facts = max((f for f in found if episode.first <= f[0] <= episode.last), key=lambda f: f[1]["growth"])
    facts = {**facts, "loss_z": rise.z if rise is not None else 0.0}
    rate = schedule(run).at(int(steps[episode.first]))
    many = f", the most telling of {len(told)} times" if len(told) > 1 else ""
    return Finding(
        severity=severity,
        confidence=0.85 if severity else 0.5,
        sites=(site.name,),
        onset_step=int(steps[episode.first]),
        peak_step=int(steps[at]),
        last_step=int(steps[episode.last]),
        message=f"The gradient of {site.name} grows {figure(facts['growth'])}-fold at step {steps[at]}, to "
        f"{facts['share']:.0%} of all (usually {facts['share_before']:.0%}){many}.",
        value=facts["share"],
        threshold=z,
        evidence=(Evidence("grad.norm", (site.name,), log=True), Evidence("run.loss", ("run",))),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _run(
    rng: np.random.Generator,
    factor: float,
    rise: float,
    whole: bool = False,
    usual: float = 0.3,
    noise: float = 0.15,
    outputs: float = 1.0,
) -> Run:
    sites = [Site("grad", "tokens.weight", "Embedding", (128, 48), order=0)]
    sites += [Site("grad", f"layers.{i}.weight", "Linear", (48, 48), order=i + 1) for i in range(4)]
    norms = np.r_[usual, np.full(4, 0.5)] * np.exp(noise * rng.standard_normal((400, 5)))
    norms[250:253, slice(None) if whole else 0] *= factor
    loss = 2.0 + 2.8 * np.exp(-np.arange(400) / 60) + 0.05 * rng.standard_normal(400)
    loss[251:265] += rise
    absmax = np.ones((400, 5))
    absmax[250:, 2] = outputs
    return run_of({"grad.norm": norms, "run.loss": loss, "output.absmax": absmax}, sites={"grad": sites})


@embedding_gradient_spike.fires_on
def _rare_token_fills_the_batch(rng: np.random.Generator) -> Run:
    return _run(rng, factor=25.0, rise=1.5)


@embedding_gradient_spike.quiet_on
def _without_consequence(rng: np.random.Generator) -> Run:
    return _run(rng, factor=25.0, rise=0.0)


@embedding_gradient_spike.quiet_on
def _a_layer_above_it_enlarges_what_comes_back(rng: np.random.Generator) -> Run:
    return _run(rng, factor=25.0, rise=1.5, outputs=300.0)


@embedding_gradient_spike.quiet_on
def _all_gradients_grow(rng: np.random.Generator) -> Run:
    return _run(rng, factor=25.0, rise=1.5, whole=True)


@embedding_gradient_spike.quiet_on
def _tied_to_the_head(rng: np.random.Generator) -> Run:
    return _run(rng, factor=1.7, rise=1.5, usual=1.4, noise=0.03)
