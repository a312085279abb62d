"""Steps that are too long for the curvature throw the loss up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.analysis.overshoot import LongSteps, began_elsewhere, long_steps, sharpness, turning
from stabdiag.analysis.signatures.loss_divergence import loss_divergence
from stabdiag.analysis.step_size import schedule
from stabdiag.analysis.updates import updates
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

EARLY = 100
"""Steps in which a run can be thrown away before it has begun to learn."""


@signature(
    "lr-divergence",
    title="Steps that are too long throw the loss up",
    needs=("run.loss",),
    explains=(
        "update-ratio-high",
        "loss-divergence",
        "loss-spike",
        "loss-plateau",
        "context-blind-plateau",
        "edge-of-stability",
        "oscillating-plateau",
        "weight-norm-drift",
        "exploding-activation",
        "exploding-gradient",
        "vanishing-gradient",
        "nonfinite-origin",
        "dead-units",
        "saturated-units",
        "residual-stream-growth",
        "attention-logit-growth",
        "attention-entropy-collapse",
        "output-logit-drift",
        "rank-collapse",
        "loss-scale-thrash",
        "finetune-degeneration",
        "moe-router-collapse",
        "vae-kl-explosion",
        "vae-posterior-collapse",
    ),
    causes=(
        "learning-rate-too-high",
        "missing-warmup",
        "schedule-bug",
        "bad-init-scale",
        "batch-too-small",
    ),
)
def lr_divergence(
    run: Run,
    *,
    ratio: float = 0.1,
    sharp: float = 1.2,
    against: float = 0.3,
    thrown: float = 0.15,
    grown: float = 3.0,
    learned: float = 0.25,
) -> Iterator[Finding]:
    """What it means: each step overshoots the valley that it was to descend into. The loss leaves for good,
    or lands in a bad region from which it hardly learns.

    How it is detected: the loss rises and does not come back (as loss-divergence has it), and the steps
    that led there were too long. That is: the median over the weight matrices of norm(change of a step) /
    norm(weight) was above `ratio`, twice or more, in the 20 steps before it or the ten after, or above half
    of that in the 50 before; or the curvature was above `sharp` times what the optimizer is stable at; or
    gradients in a row pointed against each other, with a median cosine below -`against`. It begins with the
    first of these steps, which is before the loss shows it. Critical where the loss is lost. Or, in
    silence, it never gets anywhere: at three of the first 100 steps or more that median was above `thrown`,
    after which the norms had grown `grown`-fold in the median, and the loss has not come down by `learned`
    of where it began: a warning. Calibrated on small transformers at Adam rates of 0.1 to 1 and tanh
    networks at SGD rates of 0.5 to 4 (all found), and on 144 healthy runs of 68,000 steps: no alarm.
    Healthy warm-ups reach a ratio of 0.13 and a growth of 1.8 in 20 steps; those that failed 0.25 and 3.7.

    Look-alikes: a catapult, an early peak from which the loss falls well below its start, is healthy. A
    corrupt batch, or gradients that grow layer by layer before the first update, came first, and are left
    to their own signatures. After a blow-up the ratio looks normal again, as the weights are huge.

    Fixes: go back to before the rise and go on with a tenth to a third of the rate, warmed up again.
    Lowering the rate alone leaves the weights where they are: 4.30 nat against 3.54 with going back, and
    3.18 undisturbed.

    Reference: Wortsman et al. 2023 (arXiv 2309.14322); Gilmer et al. 2021 (arXiv 2110.04369).

    Facts: update_ratio, sharpness_ratio and grad_cosine where known, lr, loss_before, loss_peak.
    """
    if not {"update.ratio", "curvature.sharpness_ratio", "run.grad_cosine"} & set(run.series):
        raise NotEvaluable("neither updates nor curvature nor gradients in a row were recorded")
    rises = [rise for rise in loss_divergence(run) if "impossible" not in rise.facts]
    if not rises:
        yield from _thrown(run, thrown, grown, learned)
    for rise in rises:
        onset = rise.onset_step
        if began_elsewhere(run, onset):
            return
        long = long_steps(run, onset, ratio, ahead=10) or long_steps(run, onset, ratio / 2, reach=50)
        curved, cosine = sharpness(run, onset), turning(run, onset)
        words, facts = [], {}
        if long is not None:
            words.append(
                f"steps changed the weights by up to {figure(100 * long.ratio)} % (step {long.peak})"
            )
            facts["update_ratio"] = long.ratio
        if curved is not None and curved[1] > sharp:
            words.append(f"the curvature was {figure(curved[1])} times what the optimizer is stable at")
            facts["sharpness_ratio"] = curved[1]
        if cosine is not None and cosine < -against:
            words.append(f"gradients in a row pointed against each other (cosine {figure(cosine)})")
            facts["grad_cosine"] = cosine
        if words:
            yield _finding(run, rise, long, words, facts, ratio)


def _thrown(run: Run, thrown: float, grown: float, learned: float) -> Iterator[Finding]:
    """The first steps have thrown the weights somewhere from where little is learned."""
    if "update.ratio" not in run or "weight.norm" not in run:
        return
    taken, curve = updates(run), loss_curve(run)
    early = np.flatnonzero((taken.steps < EARLY) & (taken.middle > thrown))
    if len(early) < 3 or not taken.names or curve.several or run.steps < taken.steps[early[-1]] + 50:
        return
    growth = _growth(run, taken.names, int(taken.steps[early[-1]]))
    share = curve.progress / max(abs(curve.start), 1e-30)
    if growth < grown or share > learned:
        return
    first, last = int(taken.steps[early[0]]), int(taken.steps[early[-1]])
    peak = int(early[np.argmax(taken.middle[early])])
    sites = telling(taken.names, taken.ratio[peak])
    rate = schedule(run).at(last)
    facts = {
        "update_ratio": float(taken.middle[peak]),
        "weight_growth": growth,
        "loss_before": curve.start,
        "loss_peak": float(np.fmax.reduce(curve.level)),
    }
    yield Finding(
        severity=Severity.warning,
        confidence=0.85,
        sites=sites,
        onset_step=first,
        peak_step=int(taken.steps[peak]),
        last_step=max(last, int(taken.steps[peak])),
        message=f"Within {last + 1} steps, which changed the weights by up to "
        f"{figure(100 * facts['update_ratio'])} "
        f"%, their norms have grown {figure(growth)}-fold; the loss has only come from "
        f"{figure(curve.start)} to "
        f"{figure(curve.best)}.",
        value=facts["update_ratio"],
        threshold=thrown,
        evidence=(
            Evidence("update.ratio", sites, threshold=thrown, log=True),
            Evidence("weight.norm", sites, log=True),
            Evidence("run.loss", ("run",)),
        ),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _growth(run: Run, names: tuple[str, ...], step: int) -> float:
    """The largest norm of the median matrix up to shortly after `step`, over its first."""
    table = run.window(0, step + 20).table("weight.norm")
    columns = [i for i, name in enumerate(table.names) if name in names]
    norms = table.values[:, columns].astype(np.float64)
    norms = norms[np.isfinite(norms).all(axis=1)]
    if not columns or not len(norms):
        return 1.0
    return float(np.max(np.median(norms / np.maximum(norms[0], 1e-30), axis=1)))


def _finding(
    run: Run, rise: Finding, long: LongSteps | None, words: list[str], facts: dict[str, float], ratio: float
) -> Finding:
    onset = min(rise.onset_step, long.first if long else rise.onset_step)
    rate = schedule(run).at(rise.onset_step)
    if rate is not None:
        facts["lr"] = rate
    sites = long.sites if long else ("run",)
    return Finding(
        severity=rise.severity,
        confidence=min(0.98, 0.8 + 0.09 * len(words)),
        sites=sites,
        onset_step=onset,
        peak_step=max(rise.peak_step, onset),
        last_step=rise.last_step,
        message=f"From step {onset} on {', and '.join(words)}; the loss rises from "
        f"{figure(rise.facts['loss_before'])} to {figure(rise.facts['loss_peak'])}.",
        value=facts.get("update_ratio", facts.get("sharpness_ratio", facts.get("grad_cosine"))),
        threshold=ratio if long else None,
        evidence=(
            *([Evidence("update.ratio", sites, threshold=ratio, log=True)] if long else []),
            Evidence("run.loss", ("run",)),
            *(
                [Evidence("curvature.sharpness_ratio", ("run",), threshold=1.0)]
                if "sharpness_ratio" in facts
                else []
            ),
            *([Evidence("run.grad_cosine", ("run",), threshold=0.0)] if "grad_cosine" in facts else []),
        ),
        facts={**facts, **{key: rise.facts[key] for key in ("loss_before", "loss_peak")}},
    )


def _bad_region(rng: np.random.Generator) -> np.ndarray:
    steps = np.arange(300)
    loss = 4.3 + 8.0 * np.exp(-np.abs(steps - 4) / 2) + 0.05 * rng.standard_normal(300)
    return np.where(steps == 0, 4.86, loss)


def _ratios(rng: np.random.Generator, middle: np.ndarray) -> np.ndarray:
    return middle[:, None] * np.exp(0.2 * rng.standard_normal((len(middle), 5)))


@lr_divergence.fires_on
def _lands_in_a_bad_region(rng: np.random.Generator) -> Run:
    ratio = _ratios(rng, 0.02 + 2.0 * np.exp(-np.arange(300) / 10))
    series = {"run.loss": _bad_region(rng), "update.ratio": ratio, "run.lr": np.full(300, 0.3)}
    return run_of(series, sites={"update": weights("update", 5)})


@lr_divergence.fires_on
def _beyond_the_edge(rng: np.random.Generator) -> Run:
    loss = 0.3 + 0.5 * np.exp(-np.arange(400) / 50) + 0.01 * rng.standard_normal(400)
    loss[250:] += 0.02 * np.arange(150)
    series = {"run.loss": loss, "curvature.sharpness_ratio": np.linspace(0.4, 1.8, 8)}
    return run_of(series, sites={"curvature": ["run"]}, steps={"curvature": np.arange(8) * 50})


@lr_divergence.fires_on
def _thrown_in_silence(rng: np.random.Generator) -> Run:
    norm = 4.0 * (1.0 + 5.0 * np.minimum(np.arange(300) / 10, 1.0))
    series = {
        "run.loss": 4.5 + 0.3 * np.exp(-np.arange(300) / 20) + 0.03 * rng.standard_normal(300),
        "update.ratio": _ratios(rng, 0.02 + 0.4 * np.exp(-np.arange(300) / 10)),
        "weight.norm": _ratios(rng, norm),
    }
    return run_of(series, sites={kind: weights(kind, 5) for kind in ("update", "weight")})


@lr_divergence.quiet_on
def _the_same_rise_with_short_steps(rng: np.random.Generator) -> Run:
    ratio = _ratios(rng, np.full(300, 0.004))
    return run_of(
        {"run.loss": _bad_region(rng), "update.ratio": ratio}, sites={"update": weights("update", 5)}
    )


@lr_divergence.quiet_on
def _long_steps_and_a_good_loss(rng: np.random.Generator) -> Run:
    ratio = _ratios(rng, 0.02 + 0.15 * np.exp(-np.arange(300) / 20))
    loss = 2.0 + 2.8 * np.exp(-np.arange(300) / 60) + 0.05 * rng.standard_normal(300)
    return run_of({"run.loss": loss, "update.ratio": ratio}, sites={"update": weights("update", 5)})
