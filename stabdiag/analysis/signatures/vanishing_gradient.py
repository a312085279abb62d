"""Gradients shrink exponentially toward the input, or all of them to nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import while_finite
from stabdiag.analysis.depth import evenly, layers, telling
from stabdiag.analysis.episodes import mostly_to_the_end
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.losscurve import harmed
from stabdiag.analysis.lost_gradient import LostGradient, lost_gradient
from stabdiag.analysis.robust import Doubles, median, slope
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

SMALLEST = 1e-45  # of float32
UNDERFLOW = 1e-20  # a gradient norm whose square float32 hardly holds


@signature(
    "vanishing-gradient",
    title="Gradients shrink exponentially toward the input",
    needs=("grad.norm",),
    explains=(
        "loss-plateau",
        "update-ratio-low",
        "frozen-parameters",
        "adam-eps-dominated",
        "context-blind-plateau",
        "lr-starvation",
    ),
    causes=(
        "saturating-activation",
        "missing-residual",
        "missing-normalization",
        "bad-init-scale",
        "dying-relu",
        "recurrent-instability",
    ),
)
def vanishing_gradient(
    run: Run,
    *,
    ratio: float = 1e-3,
    persists: float = 100.0,
    frozen: float = 1e-5,
    hopeless: float = 1e-6,
    fallen: float = 1e-4,
    kept: float = 0.8,
) -> Iterator[Finding]:
    """What it means: the layers near the input get next to no signal from the loss: they do not learn,
    or, under Adam, move by amplified rounding noise.

    How it is detected: the root mean square gradient of the weight matrices, in forward order. The one
    of the first layers is below `ratio` of that of the last at nine of ten steps, over at least
    `persists` steps and up to the end, and the Theil-Sen slope over the depth agrees. It is a warning
    where the first layer changes by less than `frozen` of its weight a step, or the loss has suffered,
    or the ratio is below `hopeless`; otherwise info.

    Or the gradient norm over all parameters has fallen to `fallen` of its first level and stays there, for
    `persists` steps and up to the end, while the loss, by medians of 25 steps, was never below `kept` of
    where it began: it no longer depends on the parameters. That is a warning.

    Look-alikes: the ratio at the start alone misleads: a tanh net of 12 layers begins at 0.009 and
    trains well. Adam moves weights whatever the size of their gradient. Converged models have small
    gradients everywhere, at a ratio near 1, and a loss that fell with them. An exact zero in one layer is a
    cut graph or dead units.

    Fixes: residual connections, normalisation, ReLU or GELU, an initialisation that keeps the variance.

    Reference: Glorot and Bengio 2010; Pascanu et al. 2013 (arXiv 1211.5063).

    Facts: gradient_ratio (first over last), dex_per_layer, layers, update_ratio (of the first layer); or
    gradient_left (share of the first level).
    """
    lost = lost_gradient(run, fallen, kept, persists)
    if lost is not None:
        yield _of_all(run, lost, fallen)
        return
    table = run.table("grad.norm")
    deep = [i for i in layers(table.sites) if table.sites[i].optimized]
    if len(deep) < 3:
        raise NotEvaluable(f"a depth of at least 3 weight matrices is needed, there are {len(deep)}")
    if len(table.steps) < 10:
        raise NotEvaluable(f"only {len(table.steps)} steps were recorded")
    rows = evenly(len(table.steps))
    steps = table.steps[rows]
    norms = table.values[rows][:, deep].astype(np.float64)
    norms[~np.isfinite(norms)] = np.nan
    deep, norms = _reached(deep, norms)
    if len(deep) < 3:
        return
    sizes = np.sqrt([max(table.sites[i].size, 1) for i in deep])
    logs = np.log10(np.maximum(norms / sizes, SMALLEST))
    quarter = max(1, len(deep) // 4)
    fall = median(logs[:, :quarter], axis=1) - median(logs[:, -quarter:], axis=1)
    since = mostly_to_the_end(fall < np.log10(ratio))
    if since is None or steps[-1] - steps[since] < persists:
        return
    per_layer = slope(median(logs[since:], axis=0))
    if not per_layer * (len(deep) - 1) > -np.log10(ratio) / 2:
        return
    names = tuple(table.names[i] for i in deep)
    value = float(10 ** np.nanmedian(fall[since:]))
    moved = _change(run, names[0], int(steps[since]))
    bad = harmed(while_finite(run))
    stuck = moved is not None and moved < frozen
    facts = {"gradient_ratio": value, "dex_per_layer": per_layer, "layers": float(len(deep))}
    words = (
        f", which changes by only {figure(moved)} of its weight a step" if stuck and moved is not None else ""
    )
    yield Finding(
        severity=Severity.critical
        if bad and value < hopeless
        else Severity.warning
        if bad or stuck or value < hopeless
        else Severity.info,
        confidence=0.9 if stuck or value < hopeless else 0.6,
        sites=names[:quarter],
        onset_step=int(steps[since]),
        peak_step=int(steps[since + int(np.nanargmin(fall[since:]))]),
        last_step=int(steps[-1]),
        message=f"Gradients shrink {figure(10**per_layer)}-fold a layer toward the input: "
        f"over {len(deep)} layers "
        f"to {figure(value)} of the last one's in {names[0]}{words}.",
        value=value,
        threshold=ratio,
        evidence=(Evidence("grad.norm", (names[0], names[len(names) // 2], names[-1]), log=True),),
        facts=facts if moved is None else {**facts, "update_ratio": moved},
    )


def _of_all(run: Run, lost: LostGradient, fallen: float) -> Finding:
    table = run.table("grad.norm")
    first = np.nan_to_num(table.values[:10], nan=0.0, posinf=0.0).max(axis=0, initial=0.0)
    names = telling(table.names, first)
    return Finding(
        severity=Severity.warning,
        confidence=0.9,
        sites=names,
        onset_step=lost.falls,
        peak_step=lost.low,
        last_step=lost.last,
        message=f"The gradient norm of all parameters falls from {figure(lost.norm)} to "
        f"{figure(lost.norm * lost.share)} since step {lost.falls}, and the loss, {figure(lost.began)} at "
        f"first, was never below {figure(lost.lowest)}: it hardly depends on the parameters any more.",
        value=lost.share,
        threshold=fallen,
        evidence=(Evidence("grad.norm", names, log=True), Evidence("run.loss", ("run",))),
        facts={"gradient_left": lost.share},
    )


def _reached(deep: list[int], norms: Doubles) -> tuple[list[int], Doubles]:
    """Without the layers whose gradient is never above zero: a cut graph, not a fading one. They
    stay where the gradient of the first layer after them is about to underflow."""
    some = np.nanmax(np.where(np.isnan(norms), 0.0, norms), axis=0, initial=0.0) > 0
    if not some.any():
        return [], norms[:, :0]
    first = int(np.argmax(some))
    if np.nanmedian(norms[:, first]) < UNDERFLOW:
        some[:first] = True
    return [i for i, kept in zip(deep, some, strict=True) if kept], norms[:, some]


def _change(run: Run, name: str, since: int) -> float | None:
    """The median update ratio of a parameter from a step on."""
    if "update.ratio" not in run:
        return None
    table = run.window(since, run.steps).table("update.ratio")
    if name not in table.names:
        return None
    values = table.column(name)
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


@vanishing_gradient.fires_on
def _sigmoids(rng: np.random.Generator) -> Run:
    norms = 10 ** (-0.87 * np.arange(12)[::-1] + 0.1 * rng.standard_normal((200, 12)))
    ratio = np.where(np.arange(12) < 4, 1e-7, 1e-3) * np.ones((200, 1))
    return run_of(
        {"grad.norm": norms, "update.ratio": ratio},
        sites={"grad": weights("grad", 12), "update": weights("update", 12)},
    )


@vanishing_gradient.fires_on
def _no_progress(rng: np.random.Generator) -> Run:
    norms = 10 ** (-0.5 * np.arange(12)[::-1] + 0.1 * rng.standard_normal((200, 12)))
    loss = 2.3 + 0.02 * rng.standard_normal(200)
    return run_of({"grad.norm": norms, "run.loss": loss}, sites={"grad": weights("grad", 12)})


@vanishing_gradient.fires_on
def _of_all_parameters(rng: np.random.Generator) -> Run:
    fall = np.maximum(-8.0, -np.arange(400) / 20)[:, None]
    norms = 10 ** (fall + 0.1 * rng.standard_normal((400, 12)))
    loss = 11.8 + rng.standard_normal(400)
    return run_of({"grad.norm": norms, "run.loss": loss}, sites={"grad": weights("grad", 12)})


@vanishing_gradient.quiet_on
def _with_the_loss(rng: np.random.Generator) -> Run:
    fall = np.maximum(-8.0, -np.arange(400) / 20)[:, None]
    norms = 10 ** (fall + 0.1 * rng.standard_normal((400, 12)))
    loss = 2.0 + 9.8 * np.exp(-np.arange(400) / 20)
    return run_of({"grad.norm": norms, "run.loss": loss}, sites={"grad": weights("grad", 12)})


@vanishing_gradient.quiet_on
def _only_at_the_start(rng: np.random.Generator) -> Run:
    fall = np.maximum(0.0, 0.4 - np.arange(300) / 200)[:, None] * np.arange(12)[::-1]
    norms = 10 ** (-fall + 0.1 * rng.standard_normal((300, 12)))
    return run_of({"grad.norm": norms}, sites={"grad": weights("grad", 12)})


@vanishing_gradient.quiet_on
def _converged(rng: np.random.Generator) -> Run:
    norms = 1e-9 * np.exp(0.3 * rng.standard_normal((300, 12)))
    return run_of({"grad.norm": norms}, sites={"grad": weights("grad", 12)})


@vanishing_gradient.quiet_on
def _every_other_step(rng: np.random.Generator) -> Run:
    fall = np.where(np.arange(300) % 2, 0.8, 0.0)[:, None] * np.arange(12)[::-1]
    norms = 10 ** (-fall + 0.1 * rng.standard_normal((300, 12)))
    return run_of({"grad.norm": norms}, sites={"grad": weights("grad", 12)})
