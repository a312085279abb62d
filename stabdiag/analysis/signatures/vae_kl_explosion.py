"""The divergence of a variational autoencoder explodes through its variance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.aftermath import aftermath
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import harmed
from stabdiag.analysis.robust import Doubles
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

OVERFLOW = 88.0
"""Log variance at which the variance overflows float32."""


@signature(
    "vae-kl-explosion",
    title="The divergence of a variational autoencoder explodes through its variance",
    needs=("latent.kl_dim", "latent.max_log_variance"),
    explains=(
        "exploding-activation",
        "exploding-gradient",
        "nonfinite-origin",
        "loss-divergence",
        "loss-spike",
        "noise-dominated",
    ),
    causes=("bad-init-scale", "learning-rate-too-high", "kl-weight-too-high"),
)
def vae_kl_explosion(
    run: Run, *, log_variance: float = 5.0, nats: float = 10.0, jump: float = 10.0
) -> Iterator[Finding]:
    """What it means: the variance is the exponential of what the encoder puts out: a few units too much,
    and the divergence, and every gradient, is dominated by a handful of samples, or overflows.

    How it is detected: the largest log variance is above `log_variance` (a standard deviation of 12 where the
    prior has 1), or the divergence a dimension is above `nats` and `jump` times what it was 10 steps before,
    and variances as large as the largest can make half of it (v - 1 - ln v, halved). It is critical where the
    loss suffers, or the log variance has come to half of what float32 can take the exponential of, a warning
    where the loss rose for a while, else info.

    Look-alikes: with a divergence that is not yet weighed, means and narrow posteriors grow to several nats
    a dimension: their log variance is negative. A variance of zero has an infinite divergence as well.

    Fixes: initialise the layer of the log variance at zero; clamp it to [-10, 10]; warm the learning rate
    up; clip the gradient norm.

    Calibrated on: autoencoders whose log variance is initialised 20 to 200 times too wide (9 to overflow;
    60 times in another one 7.6), and healthy ones, which stay below 1. No finding above info in the 5 of 61
    healthy runs that have these series, 2,000 steps: fewer than 1.5 in 1,000, at 95 %.

    Reference: Kingma and Welling 2014 (arXiv 1312.6114); Child 2021 (arXiv 2011.10650).

    The module that makes the log variance is known by an output that has the very same maximum.

    Facts: max_log_variance, kl_dim (nats a dimension, then), latents (affected), harmed.
    """
    logs, kl = run.table("latent.max_log_variance"), run.table("latent.kl_dim")
    lost = np.zeros(logs.values.shape, bool)
    if "latent.nonfinite" in run:
        lost = run.table("latent.nonfinite").values > 0
    rows = np.flatnonzero(np.isfinite(logs.values).any(axis=1) | lost.any(axis=1))
    if not len(rows):
        raise NotEvaluable("latent variables were measured at no step")
    steps, level = logs.steps[rows], logs.values[rows].astype(np.float64)
    size = kl.values[rows].astype(np.float64)
    before = size[np.maximum(np.searchsorted(steps, steps - 10), 0)]
    with np.errstate(invalid="ignore", over="ignore"):
        wide = level > log_variance
        # The divergence that a variance as large as the largest makes: the rest has another reason.
        share = 0.5 * (np.exp(level) - 1.0 - level)
        grown = (size > nats) & (size > jump * before) & (level > 0) & (share >= 0.5 * size)
    flagged = wide | grown
    # What is lost is told by the first non-finite value; here only where the variance led to it.
    if not flagged.any():
        return
    at = np.flatnonzero(flagged.any(axis=1))
    onset = int(steps[at[0]])
    peak = int(at[np.argmax(np.nan_to_num(np.where(flagged, size, -np.inf), nan=np.inf)[at].max(axis=1))])
    which = np.flatnonzero(flagged.any(axis=0))
    column = int(which[np.argmax(flagged[at[0], which])])
    names = tuple(logs.names[i] for i in dict.fromkeys([column, *which.tolist()]))
    maker = _maker(run, steps, level[:, column])
    sites = tuple(dict.fromkeys([*([maker] if maker else []), *names]))
    top = float(np.nanmax(np.where(flagged, level, np.nan)))
    most = float(np.fmax.reduce(size[peak]))
    bad = harmed(run)
    rose = aftermath(run, onset)
    grave = bad or top > OVERFLOW / 2 or bool(lost.any())
    yield Finding(
        severity=Severity.critical
        if grave
        else Severity.warning
        if rose is None or rose.bad
        else Severity.info,
        confidence=0.9 if bad else 0.7,
        sites=sites[:5],
        onset_step=onset,
        peak_step=int(steps[peak]),
        last_step=int(steps[at[-1]]),
        message=f"The largest log variance {'from' if maker else 'of'} {sites[0]} is {figure(top)}, and its "
        f"divergence reaches {figure(most)} nat a dimension at step {steps[peak]}.",
        value=top if wide.any() else most,
        threshold=log_variance if wide.any() else nats,
        evidence=(
            Evidence("latent.max_log_variance", names[:5], threshold=log_variance),
            Evidence("latent.kl_dim", names[:5], threshold=nats, log=True),
        ),
        facts={
            "max_log_variance": top,
            "kl_dim": most,
            "latents": float(len(names)),
            "harmed": float(bad),
        },
    )


def _maker(run: Run, steps: NDArray[np.int64], level: Doubles) -> str | None:
    """The innermost module whose largest output is that log variance, at all steps at which both were
    recorded, three or more."""
    if "output.max" not in run:
        return None
    table = run.table("output.max")
    _, ours, theirs = np.intersect1d(steps, table.steps, return_indices=True)
    known = np.isfinite(level[ours])
    ours, theirs = ours[known], theirs[known]
    if len(ours) < 3:
        return None
    same = np.isclose(table.values[theirs], level[ours, None], rtol=1e-4).all(axis=0)
    found = np.flatnonzero(same)
    return table.names[min(found, key=lambda at: table.sites[at].order)] if len(found) else None


def _run(rng: np.random.Generator, level: np.ndarray, kl_dim: np.ndarray) -> Run:
    series = {
        "latent.max_log_variance": level + 0.1 * rng.standard_normal(len(level)),
        "latent.kl_dim": kl_dim,
    }
    sites = {"latent": [Site("latent", "encoder.mu", order=1)]}
    return run_of(series, sites=sites, steps={"latent": np.arange(0, 10 * len(level), 10)})


@vae_kl_explosion.fires_on
def _a_layer_that_is_initialised_too_large(rng: np.random.Generator) -> Run:
    level = 12 * np.exp(-np.arange(40) / 3)
    return _run(rng, level, 0.5 + 0.5 * np.exp(level) / 10)


@vae_kl_explosion.fires_on
def _grows_in_a_few_steps(rng: np.random.Generator) -> Run:
    level = np.where(np.arange(40) < 20, 0.5, 6.0)
    return _run(rng, level, np.where(np.arange(40) < 20, 1.0, 60.0))


@vae_kl_explosion.quiet_on
def _divergence_that_is_not_weighed_yet(rng: np.random.Generator) -> Run:
    return _run(rng, np.full(40, -2.0), 20 * (1 - np.exp(-np.arange(40) / 10)) + 0.5)


@vae_kl_explosion.quiet_on
def _a_variance_of_zero(rng: np.random.Generator) -> Run:
    return _run(rng, np.full(40, 0.6), np.where(np.arange(40) < 20, 0.2, np.inf))


@vae_kl_explosion.quiet_on
def _wide_but_bounded(rng: np.random.Generator) -> Run:
    return _run(rng, np.full(40, 2.5), np.full(40, 2.0))
