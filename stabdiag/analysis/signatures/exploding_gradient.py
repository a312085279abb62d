"""Gradients grow by orders of magnitude."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.aftermath import HABIT, aftermath
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import layers, telling
from stabdiag.analysis.episodes import Episode, episodes
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.losscurve import harmed, several_optimizers
from stabdiag.analysis.robust import Doubles, baseline, median, slope
from stabdiag.analysis.step_size import schedule
from stabdiag.analysis.updates import skipped_steps
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

MANY = 8.0
"""Robust deviations that the tails of healthy gradient norms hardly pass; recurrent nets do."""

STAYS = 12
"""Steps at most of which a gradient is large that has grown, rather than been large here and there."""


@signature(
    "exploding-gradient",
    title="Gradients grow by orders of magnitude",
    needs=("run.grad_norm",),
    explains=(
        "nonfinite-origin",
        "loss-divergence",
        "loss-spike",
        "dead-units",
        "loss-plateau",
        "context-blind-plateau",
        "saturated-units",
        "adam-eps-dominated",
    ),
    causes=(
        "learning-rate-too-high",
        "recurrent-instability",
        "bad-init-scale",
        "missing-normalization",
        "missing-warmup",
        "missing-residual",
        "unnormalized-input",
        "corrupt-batch",
        "out-of-distribution-batch",
        "gradients-not-zeroed",
    ),
)
def exploding_gradient(
    run: Run, *, factor: float = 100.0, extreme: float = 1000.0, sensitivity: float = 300.0, dex: float = 0.3
) -> Iterator[Finding]:
    """What it means: the gradient is so large that a step throws the weights far off; clipping hides
    it, but then the direction of a few elements decides.

    How it is detected: the norm over all parameters is `factor` times the median of its last 256 usual
    values, or of a tenth of its first ones, for 3 steps or more, or `extreme` times once (early on: times its
    first values). Or at the first steps norm(gradient) x norm(weight) of a tensor is more than `sensitivity`
    times the loss: the loss is then as curved as a polynomial of that degree, as in a recurrence that
    multiplies. Or the norms grow by more than `dex` decades a layer toward the input, over at least 4 layers,
    while the loss suffers.

    What is told is a warning where the median of the next 12 norms is ten times the usual, or the loss rises
    for it, and it had not come and gone three times before; critical where the run is harmed, else info.

    Look-alikes: gradient norms are heavy-tailed, most in recurrent nets, and a single tenfold jump is
    nothing. Steps that a gradient scaler withheld do not count. A level alone is not harm: a summed
    loss has large gradients.

    Fixes: clip to 1.2 times the usual norm; lower the learning rate; initialise recurrences
    orthogonally or use gates; normalise; shorten backpropagation through time.

    Reference: Pascanu et al. 2013 (arXiv 1211.5063); Takase et al. 2023 (arXiv 2312.16903).

    Facts: grad_norm, usual_norm, factor, lr; sensitivity; dex_per_layer.
    """
    table = run.table("run.grad_norm")
    norms = table.first().astype(np.float64) if table.sites else np.empty(0)
    known = np.isfinite(norms) & (norms > 0) & ~np.isin(table.steps, skipped_steps(run))
    steps, norms = table.steps[known], norms[known]
    if not len(norms):
        raise NotEvaluable("no gradient norm was recorded")
    logs = np.log10(norms)
    usual, allowed = _usual(logs, float(np.log10(factor)))
    jumps = np.nan_to_num(logs - usual - allowed)
    found = [
        e
        for e in episodes(jumps > np.log10(factor), jumps)
        if e.count >= 3 or jumps[e.peak] > np.log10(extreme)
    ]
    if found:
        yield _grown(run, steps, norms, usual, found, factor)
    elif (curved := _curved(run, sensitivity)) is not None:
        yield curved
    elif (deep := _toward_input(run, dex)) is not None:
        yield deep


def _usual(logs: Doubles, jump: float) -> tuple[Doubles, Doubles]:
    """log10 of the usual norm before each step, at least a tenth of what it was in the first 24: in a task
    that is solved a hard sample brings back what all had. And what is allowed beside: while too few are known
    the first 3 are the usual ones, and transients are allowed ten times more."""
    center = baseline(logs, z=MANY, window=256, least=24, floor=jump / MANY).center
    unknown = np.isnan(center)
    center = np.fmax(center, np.median(logs[:24]) - 1.0)
    return np.where(unknown, np.median(logs[:3]), center), unknown.astype(np.float64)


def _grown(
    run: Run, steps: np.ndarray, norms: Doubles, usual: Doubles, found: list[Episode], factor: float
) -> Finding:
    worst = max(found, key=lambda e: norms[e.peak])
    peak, onset = int(steps[worst.peak]), int(steps[found[0].first])
    middle = float(10 ** usual[worst.peak])
    bad = harmed(run)
    rate = schedule(run).at(onset)
    after = aftermath(run, onset)
    # What comes and goes, or often did and left the loss where it was, is the tail of its distribution.
    lasting = [e for e in found if e.count >= 3 and _stays(norms[e.first :], 10 ** usual[e.first])]
    tail = len(found) > HABIT and not bad
    sustained = (bool(lasting) and not tail) or (after is not None and after.bad)
    facts = {
        "grad_norm": float(norms[worst.peak]),
        "usual_norm": middle,
        "factor": float(norms[worst.peak] / middle),
    }
    sites = _fastest(run, onset, peak)
    where = f", most in {sites[0]}" if sites else ""
    return Finding(
        severity=Severity.critical if bad else Severity.warning if sustained else Severity.info,
        confidence=0.9 if sustained else 0.7,
        sites=sites or ("run",),
        onset_step=onset,
        peak_step=peak,
        last_step=int(steps[found[-1].last]),
        message=f"The gradient norm reaches {figure(norms[worst.peak])} at step {peak}, "
        f"{figure(facts['factor'])} times its usual {figure(middle)}{where}.",
        value=facts["factor"],
        threshold=factor,
        evidence=(
            Evidence("run.grad_norm", ("run",), threshold=middle * factor, log=True),
            *([Evidence("grad.norm", sites, log=True)] if sites else []),
        ),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _stays(norms: Doubles, usual: float) -> bool:
    """Whether most of the next steps are far above the usual, and not the highest alone."""
    return bool(np.median(norms[:STAYS]) > 10 * usual)


def _fastest(run: Run, onset: int, peak: int) -> tuple[str, ...]:
    """The parameters whose gradient grew most from before the onset to the peak."""
    if "grad.norm" not in run:
        return ()
    table = run.table("grad.norm")
    before = run.window(max(onset - 64, 0), onset - 1).table("grad.norm").values
    now = table.values[table.steps == peak]
    if not len(before) or not len(now):
        return ()
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = now[0] / median(before, axis=0)
    return telling(table.names, np.where(np.isfinite(growth), growth, np.nan))


def _curved(run: Run, sensitivity: float) -> Finding | None:
    """At the first 3 steps: the relative change of the loss over that of a weight."""
    if not {"grad.norm", "weight.norm", "run.loss"} <= set(run.series) or several_optimizers(run):
        return None
    grads, norms = run.table("grad.norm"), run.table("weight.norm")
    names = [name for name in grads.names if name in set(norms.names)]
    loss = run.table("run.loss").first()[:1]
    if not names or not loss.size or not len(norms.steps) or norms.steps[0] > 2 or loss[0] == 0:
        return None
    by_name = dict(zip(norms.names, norms.values[0], strict=True))
    with np.errstate(invalid="ignore", over="ignore"):
        curvature = grads.values[0] * np.array([by_name.get(n, np.nan) for n in grads.names]) / abs(loss[0])
    curvature = np.where(np.isfinite(curvature), curvature, np.nan)
    if not (curvature > sensitivity).any():
        return None
    sites, value = (
        telling(grads.names, np.where(curvature > sensitivity, curvature, np.nan)),
        float(np.nanmax(curvature)),
    )
    return Finding(
        severity=Severity.critical if harmed(run) else Severity.warning,
        confidence=0.8,
        sites=sites,
        onset_step=int(grads.steps[0]),
        peak_step=int(grads.steps[0]),
        last_step=int(grads.steps[0]),
        message=f"At the first step a change of {sites[0]} by 1 % would change the loss "
        f"by {figure(value)} %.",
        value=value,
        threshold=sensitivity,
        evidence=(Evidence("grad.norm", sites, log=True), Evidence("run.grad_norm", ("run",), log=True)),
        facts={"sensitivity": value, "grad_norm": float(run.table("run.grad_norm").first()[0])},
    )


def _toward_input(run: Run, dex: float) -> Finding | None:
    if "grad.norm" not in run or several_optimizers(run):
        return None
    table = run.table("grad.norm")
    deep = layers(table.sites)
    if len(deep) < 4 or len(table.steps) < 3:
        return None
    values = table.values[:20][:, deep]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(median(np.where(np.isfinite(values), values, np.nan), axis=0))
    logs = np.where(np.isfinite(logs), logs, np.nan)
    per_layer = -slope(logs)
    if not (per_layer > dex and np.isfinite(logs).sum() >= 4 and harmed(run)):
        return None
    sites = tuple(table.names[i] for i in deep[:3])
    return Finding(
        severity=Severity.warning,
        confidence=0.7,
        sites=sites,
        onset_step=int(table.steps[0]),
        peak_step=int(table.steps[0]),
        last_step=int(table.steps[min(len(table.steps), 20) - 1]),
        message=f"Gradients grow {figure(10**per_layer)}-fold a layer toward the input, "
        f"over {len(deep)} layers.",
        value=per_layer,
        threshold=dex,
        evidence=(Evidence("grad.norm", (*sites, table.names[deep[-1]]), log=True),),
        facts={"dex_per_layer": per_layer, "layers": float(len(deep))},
    )


@exploding_gradient.fires_on
def _from_step_200(rng: np.random.Generator) -> Run:
    norms = np.exp(0.3 * rng.standard_normal((300, 6)))
    norms[200:] *= np.exp(np.arange(100) / 8)[:, None] * np.array([3.0, 2, 1, 1, 1, 1])
    return run_of(
        {"run.grad_norm": np.linalg.norm(norms, axis=1), "grad.norm": norms},
        sites={"grad": weights("grad", 6)},
    )


@exploding_gradient.fires_on
def _recurrence_at_the_start(rng: np.random.Generator) -> Run:
    grad = np.array([1e3, 4e11, 1e4]) * rng.uniform(0.5, 2, (2, 3))
    return run_of(
        {
            "run.loss": np.array([1.7e9, np.inf]),
            "run.grad_norm": np.linalg.norm(grad, axis=1),
            "grad.norm": grad,
            "weight.norm": np.full((2, 3), 13.0),
        },
        sites={"grad": weights("grad", 3), "weight": weights("weight", 3)},
    )


@exploding_gradient.quiet_on
def _heavy_tails(rng: np.random.Generator) -> Run:
    return run_of({"run.grad_norm": np.exp(0.5 * rng.standard_t(4, 600))})


@exploding_gradient.quiet_on
def _three_steps_of_which_none_stays_up(rng: np.random.Generator) -> Run:
    norms = np.exp(0.3 * rng.standard_normal(800))
    norms[[400, 402, 404]] *= 300
    return run_of({"run.grad_norm": norms})


@exploding_gradient.quiet_on
def _large_where_the_scaler_skips(rng: np.random.Generator) -> Run:
    norms = np.exp(0.3 * rng.standard_normal(200))
    norms[[0, 1, 90]], norms[91:94] = np.inf, 1e6
    skipped = (norms > 1e5).astype(float)
    return run_of({"run.grad_norm": norms, "run.skipped": skipped})
