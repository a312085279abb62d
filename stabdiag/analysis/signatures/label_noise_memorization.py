"""Wrong labels are being learned by heart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluations import evaluations
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "label-noise-memorization",
    title="Wrong labels are being learned by heart",
    needs=("run.loss", "evaluation.loss", "targets.surprised", "targets.agreement"),
    explains=("overfitting",),
    causes=("label-noise",),
)
def label_noise_memorization(
    run: Run, *, surprised: float = 0.02, agreement: float = 0.45, worse: float = 0.02
) -> Iterator[Finding]:
    """What it means: a part of the labels contradicts what the rest teaches. A model first learns the rest,
    then these one by one, and from then on gets worse on everything else.

    How it is detected: evaluations have become worse by `worse` while training improves (as in overfitting);
    around the best one, more than `surprised` of the training rows had labels that the model found less
    likely by 2 nats than its own uncertainty allows; the labels of at least `agreement` of the rows were its
    first choice, in the evaluation too, so that most can be learned; and since then those surprising rows
    have become fewer.

    Calibrated on MLPs with 1,024 samples: 5, 20 and 40 % wrong labels surprise in 2.6, 5.1 and 2.8 % of the
    rows at the best evaluation, clean ones in 0.3 to 0.7 %, labels drawn from a softmax of temperature 1 in
    1.0 %. 0 alarms in 11,500 steps of 24 healthy runs.

    Look-alikes: labels that are uncertain by nature cannot be told from wrong ones. Language models are
    surprised often, and rarely right: they are left out by `agreement`. Hard classes surprise as a class.

    Fixes: look at the samples with the largest loss; relabel or leave out; label smoothing; stop early.

    Reference: Zhang et al. 2017 (arXiv 1611.03530); Arpit et al. 2017 (arXiv 1706.05394).

    Facts: surprised, agreement (both at the best evaluation), surprised_end, agreement_end, best_step.
    """
    curve, evaluated = loss_curve(run, least=20), evaluations(run)
    if curve.several or not evaluated.overfits(curve, worse):
        return
    onset = int(evaluated.steps[evaluated.best_at])
    reach = max(20, run.steps // 20)
    shares, right = history(run, "targets.surprised"), history(run, "targets.agreement")
    around = shares.within(onset - reach, onset + reach).finite()
    chosen = right.within(onset - reach, onset + reach).finite()
    late, late_right = shares.within(run.steps - reach, run.steps).finite(), right.finite()
    elsewhere = history(run, "evaluation.agreement", evaluated.site).within(onset, onset).finite()
    if not len(around) or not len(chosen) or not len(late):
        return
    if len(elsewhere) and elsewhere.values[0] < 0.9 * agreement:
        return
    share, agreed, now = (float(np.mean(h.values)) for h in (around, chosen, late))
    if share < surprised or agreed < agreement or now > 0.75 * share:
        return
    name = run.table("targets.surprised").names[0]
    end = float(np.mean(late_right.values[-len(late) :]))
    yield Finding(
        severity=Severity.warning,
        confidence=0.7,
        sites=(name,),
        onset_step=onset,
        peak_step=onset,
        last_step=int(late.steps[-1]),
        message=f"When the evaluation was best, at step {onset}, {share:.1%} of the labels contradicted "
        "a sure "
        f"prediction; since then the model has learned them (now {now:.1%}, {figure(100 * end)} % agree) and "
        "the evaluation gets worse.",
        value=share,
        threshold=surprised,
        evidence=(
            Evidence("targets.surprised", (name,), threshold=surprised),
            Evidence("evaluation.loss", (evaluated.site,)),
        ),
        facts={
            "surprised": share,
            "agreement": agreed,
            "surprised_end": now,
            "agreement_end": end,
            "best_step": float(onset),
        },
    )


def _run(rng: np.random.Generator, peak: float, right: float) -> Run:
    step = np.arange(400)
    turn = np.arange(20)
    share = np.clip(peak * np.exp(-np.abs(step - 120) / 60) + 0.002 * rng.standard_normal(400), 0, 1)
    series = {
        "run.loss": 2.3 * np.exp(-step / 120) + 0.01 * rng.standard_normal(400),
        "targets.surprised": share,
        "targets.agreement": right + (1 - right) * step / 400,
        "evaluation.loss": 1.5 + np.exp(-turn / 2) + 0.08 * np.maximum(turn - 5, 0) + 0.005 * rng.random(20),
    }
    sites = {kind: [Site(kind, "cross-entropy")] for kind in ("targets", "evaluation")}
    return run_of(series, sites=sites, steps={"evaluation": np.arange(20, 401, 20).clip(max=399)})


@label_noise_memorization.fires_on
def _a_fifth_is_wrong(rng: np.random.Generator) -> Run:
    return _run(rng, 0.055, 0.6)


@label_noise_memorization.quiet_on
def _overfits_clean_labels(rng: np.random.Generator) -> Run:
    return _run(rng, 0.007, 0.7)


@label_noise_memorization.quiet_on
def _a_language_model(rng: np.random.Generator) -> Run:
    return _run(rng, 0.06, 0.1)
