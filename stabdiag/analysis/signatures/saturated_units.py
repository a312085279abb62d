"""Units at the flat ends of their activation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import improves, suffers
from stabdiag.analysis.depth import evenly
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.gain import wide_weights
from stabdiag.analysis.robust import forward_filled
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

START, LASTING = 10, 100
"""Steps: what began within the first of them was so from the start; what lasted as long as the second
stays."""


@signature(
    "saturated-units",
    title="Units at the flat ends of their activation",
    needs=("saturation.share",),
    explains=(
        "vanishing-gradient",
        "loss-plateau",
        "update-ratio-low",
        "context-blind-plateau",
        "rank-collapse",
        "adam-eps-dominated",
    ),
    causes=(
        "saturating-activation",
        "bad-init-scale",
        "learning-rate-too-high",
        "unnormalized-input",
        "wrong-loss",
    ),
)
def saturated_units(run: Run, *, saturated: float = 0.5, nearly_all: float = 0.9) -> Iterator[Finding]:
    """What it means: sigmoids or tanhs whose input is so large that their slope is next to nothing: they
    pass on a sign, and no gradient.

    How it is detected: the share of a layer's outputs at which the slope is below a hundredth of the steepest
    (a tanh beyond ±0.995) is above `saturated` at the last three records. It is a warning where the loss
    suffers, critical where the share is then above `nearly_all` in a layer. A layer that was above
    `nearly_all` from the first steps on, and for a hundred of them, cuts off what is before it: a warning as
    well; above `saturated` does where its weight began with a gain of 10 and more. Otherwise it is info. The
    layer nearest to the output counts only together with another one, or where its weight began so.

    Look-alikes: gates are meant to open and close. A tanh at the output of a generator is saturated where
    the picture is black or white. A layer that is sure of itself at the end of a training that went well.

    Fixes: scale the initialisation by 1 / sqrt(fan-in); normalise the input, or the layer before; lower the
    learning rate; GELU in place of the bounded function.

    Calibrated on: tanh networks: healthy ones have a share of 0.00 (0.25 with inputs of 255), one that is
    initialised 10 times too wide 0.58 (and learns), 30 times 0.86, at a learning rate of 0.1 0.91; a layer
    that is 200 times too wide 0.97. No finding above info in the 9 of 61 healthy runs that have these
    series, 3,800 steps: fewer than 0.79 in 1,000, at 95 %.

    Reference: Glorot and Bengio 2010; Zhang et al. 2021 (AUTOTRAINER).

    Facts: saturated_share (of the worst layer), saturated_units (share of its units that are so on most
    samples), layers_affected, of, harmed.
    """
    table = run.table("saturation.share")
    known = ~np.isnan(table.values).all(axis=1) if len(table.sites) else np.zeros(0, bool)
    if known.sum() < 3:
        raise NotEvaluable(f"it was measured at only {int(known.sum())} steps")
    order = np.argsort([site.order for site in table.sites], kind="stable")
    rows = np.flatnonzero(known)
    rows = rows[evenly(len(rows))]
    steps, filled = table.steps[rows], forward_filled(table.values[rows][:, order])
    names = tuple(table.names[i] for i in order)
    with np.errstate(invalid="ignore"):
        above = filled > saturated
    now = np.flatnonzero(above[-3:].all(axis=0))
    wide = _begin_wide(run, [table.sites[i].order for i in order])
    if not now.size or (len(names) > 1 and now.tolist() == [len(names) - 1] and not wide[-1]):
        return
    since = np.array([int(np.flatnonzero(~above[:, i])[-1]) + 1 if not above[:, i].all() else 0 for i in now])
    ranked = now[np.lexsort((now, since))]
    worst = int(now[np.argmax(filled[-1, now])])
    value, onset = float(filled[-1, worst]), int(steps[since.min()])
    lasts = onset <= START and steps[-1] - onset >= LASTING
    cut = lasts and (wide[worst] or (value > nearly_all and worst != len(names) - 1))
    bad = suffers(run, onset) and not improves(run, onset)
    units = float("nan")
    if "saturation.units" in run:
        column = run.table("saturation.units").column(names[worst])
        column = column[np.isfinite(column)]
        units = float(column[-1]) if column.size else units
    sites = tuple(names[i] for i in ranked[:5])
    facts = {"saturated_share": value, "layers_affected": float(now.size), "of": float(len(names)),
             "harmed": float(bad)}  # fmt: skip
    severity = Severity.critical if value > nearly_all else Severity.warning
    yield Finding(
        severity=severity if bad else Severity.warning if cut else Severity.info,
        confidence=0.85 if bad else 0.6,
        sites=sites,
        onset_step=onset,
        peak_step=int(steps[int(np.nanargmax(filled[:, worst]))]),
        last_step=int(steps[-1]),
        message=f"{value:.0%} of the outputs of {names[worst]} lie where its slope is next to nothing, in "
        f"{now.size} of {len(names)} such layers, since step {onset}{'; the loss suffers' if bad else ''}.",
        value=value,
        threshold=saturated,
        evidence=(Evidence("saturation.share", sites, threshold=saturated, band=(0.0, 0.2)),),
        facts=facts if np.isnan(units) else {**facts, "saturated_units": units},
    )


def _begin_wide(run: Run, orders: Sequence[int]) -> list[bool]:
    """Whether the layers at these places of the forward pass, or those before them, began with a weight that
    drives any activation to its ends."""
    wide = {gain.site.order for gain in wide_weights(run)}
    return [not wide.isdisjoint((order - 1, order)) for order in orders]


def _run(share: np.ndarray, loss: np.ndarray, kind: str = "Tanh") -> Run:
    sites = [Site("saturation", f"layers.{i}", kind, order=i) for i in range(share.shape[1])]
    series = {"saturation.share": share, "saturation.units": share, "run.loss": loss}
    return run_of(
        series, sites={"saturation": sites}, steps={"saturation": np.arange(0, 10 * len(share), 10)}
    )


@saturated_units.fires_on
def _most_are_and_nothing_is_learned(rng: np.random.Generator) -> Run:
    share = np.clip(0.05 + 0.1 * np.arange(40), 0, 0.95)[:, None] * np.ones(4) - 0.05 * rng.random((40, 4))
    return _run(share, 2.3 + 0.02 * rng.standard_normal(400))


@saturated_units.fires_on
def _half_of_them_by_a_weight_that_began_too_wide(rng: np.random.Generator) -> Run:
    sites = [Site("saturation", f"layers.{i}", "Linear", order=i) for i in range(4)]
    started = [Site("initial", f"{site.name}.weight", "Linear", (64, 64), order=site.order) for site in sites]
    share = 0.05 * rng.random((40, 4))
    share[:, 1] += 0.7
    return run_of(
        {
            "saturation.share": share,
            "initial.rms": np.array([[0.07, 7.0, 0.07, 0.07]]),
            "run.loss": 0.1 + 2.2 * np.exp(-np.arange(400) / 100) + 0.02 * rng.standard_normal(400),
        },
        sites={"saturation": sites, "initial": started},
        steps={"saturation": np.arange(0, 400, 10)},
    )


@saturated_units.quiet_on
def _sure_at_the_end(rng: np.random.Generator) -> Run:
    share = np.clip(0.02 * np.arange(40), 0, 0.7)[:, None] * np.ones(4) - 0.05 * rng.random((40, 4))
    return _run(share, 0.1 + 2.2 * np.exp(-np.arange(400) / 100) + 0.02 * rng.standard_normal(400))


@saturated_units.quiet_on
def _the_output_of_a_generator(rng: np.random.Generator) -> Run:
    share = 0.05 + 0.02 * rng.random((40, 4))
    share[:, -1] = 0.8
    return _run(share, 2.3 + 0.02 * rng.standard_normal(400))
