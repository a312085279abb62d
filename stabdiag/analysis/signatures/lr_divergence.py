"""Steps that are too long for the curvature throw the loss up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.overshoot import LongSteps, began_elsewhere, long_steps, sharpness, turning
from stabdiag.analysis.signatures.loss_divergence import loss_divergence
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of


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
    run: Run, *, ratio: float = 0.1, sharp: float = 1.2, against: float = 0.3
) -> Iterator[Finding]:
    """What it means: each step overshoots the valley that it was to descend into. The loss leaves for good,
    or lands in a bad region from which it hardly learns.

    How it is detected: the loss rises and does not come back (as loss-divergence has it), and the steps
    that led there were too long. That is: in the 20 steps before, the median over the weight matrices of
    norm(change of a step) / norm(weight) was above `ratio`, twice or more; or the curvature was above
    `sharp` times what the optimizer is stable at; or gradients in a row pointed against each other, with a
    median cosine below -`against`. It begins with the first of these steps, which is before the loss shows
    it. Critical where the loss is lost. Calibrated on small transformers at Adam rates of 0.1 to 1 and tanh
    networks at SGD rates of 0.5 to 4 (all found), and on 34 healthy runs, at ten times the usual rate too:
    no alarm in 16,000 steps. The ratio alone reaches 0.12 in healthy warm-ups, so that it is asked for
    together with harm.

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
    for rise in loss_divergence(run):
        onset = rise.onset_step
        if began_elsewhere(run, onset):
            return
        long = long_steps(run, onset, ratio)
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
