"""Units that never answer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.anatomy import RECTIFIERS
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import layers
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import outputs, weights
from stabdiag.analysis.losscurve import harmed
from stabdiag.analysis.robust import forward_filled
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run, Table
from stabdiag.core.synthetic import run_of

FEW = 8
"""Rows below which a layer's share of dead ones says nothing: output layers of a few units."""


@signature(
    "dead-units",
    title="Units that never answer",
    needs=("grad.norm",),
    explains=(
        "vanishing-gradient",
        "unreachable-parameters",
        "loss-plateau",
        "update-ratio-low",
        "vae-posterior-collapse",
        "adam-eps-dominated",
        "context-blind-plateau",
        "rank-collapse",
        "norm-statistics-mismatch",
    ),
    causes=(
        "dying-relu",
        "learning-rate-too-high",
        "bad-init-scale",
        "unnormalized-input",
        "weight-decay-too-high",
    ),
)
def dead_units(
    run: Run, *, dead: float = 0.5, nearly_all: float = 0.9, silent: float = 0.999
) -> Iterator[Finding]:
    """What it means: units whose output is constant for every input receive no gradient and never
    recover; a whole layer of them cuts off all before it.

    How it is detected: the share of rows of a weight matrix whose gradient was exactly zero on all of
    the last 2,048 samples or more, at its last records: above `dead` with a loss that suffers, or above
    `nearly_all`. Or an activation module (ReLU and its kind) whose output is zero to more than `silent`
    at the last records. Critical where a layer is dead as a whole and the loss suffers.

    Look-alikes: silence on one batch misleads: the deepest ReLU layers of a healthy MLP are silent to
    26 to 47 % on a batch of 64, and to 94 % in a run with the best loss. Embedding rows that are not in
    the batch, output layers of a few units and sparse activations are no dead units.

    Fixes: go back and lower the learning rate; LeakyReLU or GELU; normalise the input or the layer; He
    initialisation with zero biases; no weight decay on biases; re-initialise the dead units.

    Reference: Sokar et al. 2023 (arXiv 2302.12902); Zhang et al. 2021 (AUTOTRAINER).

    Facts: dead_share, layers_affected, harmed (1 where the loss suffers).
    """
    if "grad.dead" not in run and "output.zeros" not in run:
        raise NotEvaluable("neither grad.dead nor output.zeros was recorded")
    bad = harmed(run)
    yield from _silent_modules(run, silent, bad) or _dead_rows(run, dead if bad else nearly_all, bad, silent)


def _silent_modules(run: Run, silent: float, bad: bool) -> list[Finding]:
    if "output.zeros" not in run:
        return []
    table = run.table("output.zeros")
    chosen = [i for i, site in enumerate(table.sites) if site.module_type in RECTIFIERS]
    shares, names = table.values[:, chosen], tuple(table.names[i] for i in chosen)
    return _report(table, shares, names, "output.zeros", silent, bad, whole=True)


def _dead_rows(run: Run, threshold: float, bad: bool, silent: float) -> list[Finding]:
    if "grad.dead" not in run:
        return []
    table = run.table("grad.dead")
    chosen = layers(table.sites)
    # The last matrix is the output layer: its rows are targets, of which some may never occur.
    chosen = [i for i in chosen[:-1] if not table.sites[i].shape or table.sites[i].shape[0] >= FEW]
    chosen = [i for i in chosen if _gets_gradient(run, i)]
    recorded = ~np.isnan(table.values).all(axis=1)
    kept = Table(table.series, table.steps[recorded], table.sites, table.values[recorded])
    names = tuple(table.names[i] for i in chosen)
    shares = kept.values[:, chosen]
    whole = bool(len(shares) and (np.nan_to_num(shares[-1]) > silent).any())
    return _report(kept, shares, names, "grad.dead", threshold, bad, whole=whole)


def _gets_gradient(run: Run, index: int) -> bool:
    """Whether it ever had one: a tensor of zeros throughout is cut off, not dead."""
    norms = run.table("grad.norm").values[:, index]
    return bool((norms[np.isfinite(norms)] > 0).any())


def _report(
    table: Table,
    shares: np.ndarray,
    names: tuple[str, ...],
    series: str,
    threshold: float,
    bad: bool,
    *,
    whole: bool,
) -> list[Finding]:
    """One finding over the places that are above the threshold at their last 3 records."""
    if len(shares) < 3 or not names:
        return []
    filled = forward_filled(shares)
    with np.errstate(invalid="ignore"):
        above = filled > threshold
    now = np.flatnonzero(above[-3:].all(axis=0))
    if not now.size:
        return []
    since = np.array([int(np.flatnonzero(~above[:, i])[-1]) + 1 if not above[:, i].all() else 0 for i in now])
    ranked = now[np.lexsort((now, since, -filled[-1, now]))]
    value, onset = float(filled[-1, ranked[0]]), int(since.min())
    sites = tuple(names[i] for i in ranked[:5])
    what = (
        "outputs are zero" if series == "output.zeros" else "units had no gradient on the last 2,048 samples"
    )
    more = f", and in {now.size - 1} other layers" if now.size > 1 else ""
    harm = "; the loss suffers" if bad else ""
    finding = Finding(
        severity=Severity.critical if bad and whole else Severity.warning,
        confidence=0.9 if bad else 0.6,
        sites=sites,
        onset_step=int(table.steps[onset]),
        peak_step=int(table.steps[int(np.nanargmax(filled[:, ranked[0]]))]),
        last_step=int(table.steps[-1]),
        message=f"{value:.0%} of {sites[0]}'s {what}{more}, since step {table.steps[onset]}{harm}.",
        value=value,
        threshold=threshold,
        evidence=(Evidence(series, sites, threshold=threshold),),
        facts={"dead_share": value, "layers_affected": float(now.size), "harmed": float(bad)},
    )
    return [finding]


def _stuck(rng: np.random.Generator, count: int) -> np.ndarray:
    return 2.3 + 0.02 * rng.standard_normal(count)


def _died(rng: np.random.Generator, share: float, *, stuck: bool) -> Run:
    records = np.arange(0, 300, 10)
    dead = np.clip(0.05 + 0.02 * rng.random((300, 4)), 0, 1)
    dead[100:, 1:3] = share
    dead[np.setdiff1d(np.arange(300), records)] = np.nan
    fell = 0.3 + 2 * np.exp(-np.arange(300) / 50) + 0.02 * rng.standard_normal(300)
    loss = _stuck(rng, 300) if stuck else fell
    norms = np.ones((300, 4))
    return run_of(
        {"grad.norm": norms, "grad.dead": dead, "run.loss": loss}, sites={"grad": weights("grad", 4)}
    )


@dead_units.fires_on
def _most_died_and_the_loss_is_stuck(rng: np.random.Generator) -> Run:
    return _died(rng, 0.7, stuck=True)


@dead_units.fires_on
def _layer_of_zeros(rng: np.random.Generator) -> Run:
    zeros = np.column_stack([np.full(40, 0.5), np.ones(40)])
    return run_of(
        {"grad.norm": np.ones((400, 2)), "output.zeros": zeros, "run.loss": _stuck(rng, 400)},
        sites={"output": outputs(2, "ReLU")},
        steps={"output": np.arange(0, 400, 10)},
    )


@dead_units.quiet_on
def _many_silent_with_the_best_loss(rng: np.random.Generator) -> Run:
    return _died(rng, 0.8, stuck=False)


@dead_units.quiet_on
def _sparse_activations(rng: np.random.Generator) -> Run:
    zeros = 0.95 + 0.02 * rng.random((60, 3))
    return run_of(
        {"grad.norm": np.ones((60, 3)), "output.zeros": zeros}, sites={"output": outputs(3, "ReLU")}
    )
