"""The wider a layer, the more of its output each step replaces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.robust import Doubles
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

EARLY = 20
"""Steps in which all updates of a matrix still point one way, so that its inputs see their sum."""


@signature(
    "width-misparametrization",
    title="The wider a layer, the more of its output each step replaces",
    needs=("update.ratio", "run.loss"),
    explains=(
        "lr-divergence",
        "update-ratio-high",
        "exploding-activation",
        "loss-spike",
        "loss-divergence",
        "loss-plateau",
        "dead-units",
    ),
    causes=("learning-rate-too-high", "bad-init-scale"),
)
def width_misparametrization(
    run: Run,
    *,
    slope: float = 0.5,
    replaced: float = 3.0,
    fine: float = 1.0,
    coarse: float = 0.15,
    spread: float = 8.0,
    rise: float = 0.1,
) -> Iterator[Finding]:
    """What it means: one learning rate cannot be right for all widths in this parametrization. The wide
    layers are thrown about while the narrow ones learn as they should; a rate tuned at one width fails at
    another.

    How it is detected: early updates of a matrix are aligned with its inputs, so that one changes the
    output by up to norm(ΔW)/norm(W) · sqrt(fan-in), in outputs of the fresh layer. That is independent of
    the width under μP, and grows with it under standard initialization and Adam. From the first 20 steps,
    or the warm-up: over layers whose fan-in differs `spread`-fold or more, it grows with at least the power
    `slope` of the fan-in, is above `replaced` in the widest, and below `fine` in the narrowest, of whose
    weights a step changes less than `coarse`. It is a
    warning where the loss of these steps, or the hundred after, rises above its start by `rise` of it and
    by noise for three steps; else info. A run has one width a layer. Whether steps transfer between widths
    is seen only by training several for a few steps each (a coordinate check); where layers hardly differ
    this signature is skipped. Calibrated on ReLU networks of width 512 to 8,192 with Adam at 1e-2, and on
    31 healthy runs of 14,000 steps: no alarm.

    Look-alikes: a rate that is too high for narrow layers as well is lr-divergence. Matrices that began at
    zero have no scale yet. Embeddings see one row at a time: they have no fan-in.

    Fixes: μP: for Adam a rate of each hidden matrix in proportion to 1 / fan-in, and initialization and
    output multipliers to match; else a lower rate for the wide layers.

    Reference: Yang et al. 2022 (μP, arXiv 2203.03466); Yang, Simon and Bernstein 2023 (arXiv 2310.17813).

    Facts: slope, replaced_widest, replaced_narrowest, widest, narrowest (fan-in), lr.
    """
    curve = loss_curve(run)
    names, width, change = _effects(run)
    known = np.isfinite(change) & (change > 0)
    names, width, change = (
        tuple(n for n, k in zip(names, known, strict=True) if k),
        width[known],
        change[known],
    )
    if len(change) < 3 or width.max() < spread * width.min():
        raise NotEvaluable(
            "the layers hardly differ in width: train several widths for a few steps to see how updates scale"
        )
    power = float(np.polyfit(np.log(width), np.log(change), 1)[0])
    widest, narrowest = width >= 0.5 * width.max(), width <= 2.0 * width.min()
    high, low = float(np.median(change[widest])), float(np.median(change[narrowest]))
    if power < slope or high < replaced or low > fine:
        return
    if float(np.median(change[narrowest] / np.sqrt(width[narrowest]))) > coarse:
        return  # the rate is too high for all of them
    bad = _rises(curve, rise)
    plan = schedule(run)
    step = int(run.table("update.ratio").steps[0])
    sites = telling(names, np.where(widest, change, np.nan))
    facts = {
        "slope": power,
        "replaced_widest": high,
        "replaced_narrowest": low,
        "widest": float(width.max()),
        "narrowest": float(width.min()),
    }
    yield Finding(
        severity=Severity.warning if bad and not curve.several else Severity.info,
        confidence=0.75 if bad else 0.5,
        sites=sites,
        onset_step=step,
        peak_step=step,
        last_step=int(min(curve.steps[-1], EARLY)),
        message=f"One early step can change the output of {sites[0]} (fan-in "
        f"{figure(float(width.max()))}) by "
        f"{figure(high)} times itself, and that of layers with fan-in {figure(float(width.min()))} by "
        f"{figure(low)}" + (": the loss rises." if bad else "."),
        value=high,
        threshold=replaced,
        evidence=(Evidence("update.ratio", sites, log=True), Evidence("run.loss", ("run",))),
        facts=facts if not plan.peak else {**facts, "lr": plan.peak},
    )


def _effects(run: Run) -> tuple[tuple[str, ...], Doubles, Doubles]:
    """Names of the hidden matrices, their fan-in, and by how much of it a step can change their output: the
    largest of the medians of three early updates in a row.
    """
    end = max(EARLY, schedule(run).warmup)
    table = run.window(0, end).table("update.ratio")
    kept = [i for i, site in enumerate(table.sites) if _hidden(site)]
    width = np.array([_fan_in(table.sites[i]) for i in kept], dtype=np.float64)
    ratio = np.where(np.isfinite(table.values), table.values, np.nan)[:, kept].astype(np.float64)
    if len(ratio) < 3 or not kept:
        raise NotEvaluable("too few early updates of weight matrices were recorded")
    three = np.median([ratio[i : len(ratio) - 2 + i] for i in range(3)], axis=0)
    largest = np.max(np.nan_to_num(three, nan=-np.inf), axis=0)
    return tuple(table.sites[i].name for i in kept), width, largest * np.sqrt(width)


def _hidden(site: Site) -> bool:
    return len(site.shape) >= 2 and site.trainable and "Embedding" not in site.module_type


def _fan_in(site: Site) -> int:
    return math.prod(site.shape[1:])


def _rises(curve: LossCurve, rise: float) -> bool:
    early = np.nan_to_num(curve.values[1 : EARLY + 100], nan=np.inf)
    if len(early) < 3:
        return False
    lasting = np.max(np.min([early[i : len(early) - 2 + i] for i in range(3)], axis=0))
    return bool(lasting - curve.start > max(rise * abs(curve.start), 3.0 * curve.noise))


def _run(rng: np.random.Generator, rate: float, power: float, top: float, widths: tuple[int, ...]) -> Run:
    sites = [
        Site("update", f"layers.{i}.weight", "Linear", (64, w), order=i) for i, w in enumerate((64, *widths))
    ]
    fan_in = np.array([64, *widths], dtype=np.float64)
    # Under Adam norm(ΔW)/norm(W) is lr · sqrt(fan-in) for a fresh matrix of variance 1 / fan-in.
    ratio = rate * np.sqrt(fan_in) * (fan_in / 64) ** (power - 1)
    ratios = ratio * np.exp(0.1 * rng.standard_normal((200, len(sites))))
    steps = np.arange(200)
    loss = (
        2.0
        + 0.3 * np.exp(-steps / 50)
        + top * np.exp(-((steps - 8) ** 2) / 50)
        + 0.03 * rng.standard_normal(200)
    )
    return run_of({"update.ratio": ratios, "run.loss": loss}, sites={"update": sites})


@width_misparametrization.fires_on
def _wide_layers_are_thrown_about(rng: np.random.Generator) -> Run:
    return _run(rng, 3e-3, 1.0, 3.0, (256, 1024, 4096))


@width_misparametrization.quiet_on
def _rates_divided_by_the_width(rng: np.random.Generator) -> Run:
    return _run(rng, 3e-3, 0.0, 3.0, (256, 1024, 4096))


@width_misparametrization.quiet_on
def _narrow_enough_for_the_rate(rng: np.random.Generator) -> Run:
    return _run(rng, 3e-4, 1.0, 0.0, (256, 1024, 4096))


@width_misparametrization.quiet_on
def _too_high_for_two_inputs_as_well(rng: np.random.Generator) -> Run:
    run = _run(rng, 0.1, 1.0, 3.0, (256, 256))
    first, *others = run.sites("update")
    sites = {"update": [replace(first, shape=(64, 2)), *others]}
    ratio = run.table("update.ratio").values.copy()
    ratio[:, 0] = 0.4
    return run_of({"update.ratio": ratio, "run.loss": run.table("run.loss").first()}, sites=sites)


@width_misparametrization.quiet_on
def _too_high_for_all(rng: np.random.Generator) -> Run:
    return _run(rng, 0.1, 1.0, 3.0, (256, 1024, 4096))
