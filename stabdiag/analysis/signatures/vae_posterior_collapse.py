"""The latent variables carry nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "vae-posterior-collapse",
    title="The latent variables carry nothing",
    needs=("latent.kl", "latent.active"),
    explains=("loss-plateau", "vanishing-gradient", "update-ratio-low"),
    causes=("kl-weight-too-high", "learning-rate-too-high"),
)
def vae_posterior_collapse(
    run: Run, *, bit: float = 0.7, active: float = 0.2, early: float = 0.1, persists: float = 50.0
) -> Iterator[Finding]:
    """What it means: the posterior of every sample is the prior: the decoder gets noise, and ignores it.

    How it is detected: the Kullback-Leibler divergence of an item, the sum over all dimensions, bounds what
    the latent variables say of it. It is below `bit` nats (one bit), with a share of active dimensions,
    above 0.05 nats, of at most `active`, from some step on to the end, which is past the first `early` of
    the run, over at least `persists` steps, and it does not rise by half within them. Critical below a
    tenth of `bit`.

    Look-alikes: dimensions that are not needed are switched off in every good model: with more than a bit
    in the others that is no collapse. In the first steps the divergence is small by the initialisation. The
    variance of the means calls dimensions active that say next to nothing.

    Fixes: a smaller weight of the divergence, or one that grows over the first tenth of the training; free
    bits of 0.5 to 2 nats a dimension; a weaker decoder. A weight that is too large in the end collapses it
    however slowly it grows.

    Calibrated on: autoencoders of 8 dimensions: weights of 1, 3 and 10 leave 9.8, 6.0 and 2.3 nats, 30 to
    100 leave 0.02 to 0.001, annealed or not. No finding above info in the 5 of 61 healthy runs that have
    these series, 2,000 steps: fewer than 1.5 in 1,000, at 95 %.

    Reference: Bowman et al. 2016 (arXiv 1511.06349); He et al. 2019 (arXiv 1901.05534); Burda et al. 2015
    (arXiv 1509.00519).

    Facts: kl (nats, last), kl_peak (largest before), active (share of dimensions), latents (affected), of.
    """
    table, used = run.table("latent.kl"), run.table("latent.active")
    rows = np.isfinite(table.values).any(axis=1) if len(table.sites) else np.zeros(0, bool)
    if rows.sum() < 5:
        raise NotEvaluable(f"latent variables were measured at only {int(rows.sum())} steps")
    steps, kl = table.steps[rows], table.values[rows].astype(np.float64)
    share = used.values[rows].astype(np.float64)
    begin = early * run.steps
    found = []
    for at, name in enumerate(table.names):
        low = (kl[:, at] < bit) & (share[:, at] <= active)
        clear = np.flatnonzero(~low)
        since = int(clear[-1]) + 1 if clear.size else 0
        since = max(since, int(np.searchsorted(steps, begin)))
        if since > len(steps) - 3 or steps[-1] - steps[since] < persists:
            continue
        half = (len(steps) - since) // 2
        before, after = np.median(kl[since : since + half, at]), np.median(kl[-half:, at])
        if after <= 1.5 * before or after < bit / 10:
            found.append((since, at, name, float(after)))
    if not found:
        return
    since, at, name, value = min(found)
    names = tuple(entry[2] for entry in found)
    peak = float(np.nanmax(kl[: since + 1, at]))
    all_of_them = len(found) == len(table.names)
    severity = Severity.critical if value < bit / 10 else Severity.warning
    yield Finding(
        severity=severity if all_of_them else Severity.info,
        confidence=0.9,
        sites=names[:5],
        onset_step=int(steps[since]),
        peak_step=int(steps[since + int(np.argmin(kl[since:, at]))]),
        last_step=int(steps[-1]),
        message=f"The posterior of {name} is {figure(value)} nat away from the prior, with "
        f"{share[-1, at]:.0%} of its dimensions active, since step {steps[since]}: less than a bit.",
        value=value,
        threshold=bit,
        evidence=(
            Evidence("latent.kl", names[:5], threshold=bit, log=True),
            Evidence("latent.active", names[:5]),
        ),
        facts={
            "kl": value,
            "kl_peak": peak,
            "active": float(share[-1, at]),
            "latents": float(len(found)),
            "of": float(len(table.names)),
        },
    )


def _run(rng: np.random.Generator, kl: np.ndarray, active: float) -> Run:
    noise = np.exp(0.05 * rng.standard_normal(len(kl)))
    series = {"latent.kl": kl * noise, "latent.active": np.full(len(kl), active)}
    sites = {"latent": [Site("latent", "encoder.mu", order=1)]}
    return run_of(series, sites=sites, steps={"latent": np.arange(0, 10 * len(kl), 10)})


@vae_posterior_collapse.fires_on
def _falls_to_nothing(rng: np.random.Generator) -> Run:
    return _run(rng, 0.01 + 3 * np.exp(-np.arange(40) / 3), 0.0)


@vae_posterior_collapse.quiet_on
def _begins_small(rng: np.random.Generator) -> Run:
    return _run(rng, 0.4 * np.exp(np.arange(40) / 12), 0.2)


@vae_posterior_collapse.quiet_on
def _many_dimensions_that_are_not_needed(rng: np.random.Generator) -> Run:
    return _run(rng, np.full(40, 8.0), 0.05)
