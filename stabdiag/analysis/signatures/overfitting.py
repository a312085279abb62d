"""Training improves on what it has seen, and gets worse on what it has not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.evaluations import Evaluations, evaluations
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.signatures.data_repetition import data_repetition
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import MissingSeries, Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "overfitting",
    title="The evaluation gets worse while training improves",
    needs=("run.loss", "evaluation.loss"),
    causes=("repeated-data", "too-little-data", "label-noise", "wrong-targets"),
)
def overfitting(
    run: Run, *, worse: float = 0.02, harmful: float = 0.05, solved: float = 0.1, gap: float = 1 / 3
) -> Iterator[Finding]:
    """What it means: the model learns its training data by heart. From the best evaluation on, further
    steps cost quality, and the best checkpoint lies behind. Or, where evaluations were never any good, it is
    trained on something that it does not have when it is evaluated.

    How it is detected: each of the last three evaluations lies above the best one, by `worse` of it, by three
    times that share of the progress and by more than the evaluations scatter, while the level of the training
    loss has gone on falling; the rise did not come all at once. A warning where the rise is `harmful` of the
    progress or more. Info where none of the second half of eight evaluations or more, of the loss that is
    trained on, was better than those before, by more than they scatter, while the training loss fell by `gap`
    of its progress and is further below them than it fell. Or the level of the training loss has fallen below
    `solved` of what the best answer costs that ignores the input, while none of three evaluations or more of
    the same loss was better than that answer, or better than the first by `worse`: a warning where it was
    below half of it by the second evaluation and batches do not come again, else info, as it may have been
    learned by heart.

    Calibrated on small transformers that repeat 4, 16 and 64 batches (best at steps 80 and 160; with 64 not
    within 400 steps) and MLPs on 1,024 samples; 0 alarms in 11,500 steps of 24 healthy runs. A decoder that
    reads its targets unshifted trains to 0.0006 and is evaluated at 3.9 to 4.4, where a constant answer costs
    2.65.

    Look-alikes: augmentation and dropout make the training loss the higher one; a gap that does not grow is
    none. Evaluations on other data than the training's (another domain, another numbering of the classes)
    may never be better than a constant answer either. An evaluation that rises with the training loss is a
    divergence. Small evaluation sets scatter.

    Fixes: look for targets among the inputs, a missing shift or mask. Where evaluations were good once:
    keep the best checkpoint and stop; more or more varied data; weight decay, dropout.

    Reference: Prechelt, Early stopping - but when?, 1998; Zhang et al. 2021 (AUTOTRAINER).

    Facts: best_step, best, end, rise, train_at_best, train_end; constant where evaluations never were better.
    """
    curve, evaluated = loss_curve(run, least=20), evaluations(run, least=3)
    constant = history(run, "targets.constant").finite()
    # An evaluation that never was better than a constant answer has nothing to lose: its data differ.
    learned = not len(constant) or evaluated.best < 0.95 * float(constant.values[-1])
    if curve.several:
        return
    if not learned:
        usual = float(np.median(constant.values))
        severity = _untaught(run, curve, evaluated, usual, solved, worse)
        if severity is not None:
            yield _unavailable(curve, evaluated, usual, severity)
    if not learned or not evaluated.overfits(curve, worse):
        if learned and (half := _left_behind(run, curve, evaluated, gap)) is not None:
            yield _gap(curve, evaluated, half)
        return
    bad = evaluated.rise > harmful * max(evaluated.progress, 0.0) + worse * abs(evaluated.best)
    best_at = evaluated.best_at
    onset = int(evaluated.steps[best_at])
    train_at_best = _level_at(curve, onset)
    peak = best_at + int(np.argmax(evaluated.values[best_at:]))
    end = float(evaluated.values[-1])
    yield Finding(
        severity=Severity.warning if bad else Severity.info,
        confidence=0.9 if bad else 0.6,
        sites=(evaluated.site,),
        onset_step=onset,
        peak_step=int(evaluated.steps[peak]),
        last_step=int(evaluated.steps[-1]),
        message=f"The evaluation was best at step {onset} ({figure(evaluated.best)}) and has risen to "
        f"{figure(end)}, while the training loss fell from {figure(train_at_best)} to "
        f"{figure(curve.end)}.",
        value=end,
        threshold=evaluated.best * (1 + worse) if evaluated.best > 0 else evaluated.best,
        evidence=(Evidence("evaluation.loss", (evaluated.site,)), Evidence("run.loss", ("run",))),
        facts=_facts(curve, evaluated),
    )


def _left_behind(run: Run, curve: LossCurve, evaluated: Evaluations, gap: float) -> int | None:
    """The evaluation, half-way through eight or more, from which on none was better than the best before it,
    while training went on; None where one was, or where training did not."""
    half = len(evaluated.values) // 2
    if half < 4 or evaluated.site != run.fact("loss", "function"):
        return None
    late = evaluated.values[half:]
    fell = _level_at(curve, int(evaluated.steps[half])) - curve.end
    stays = late.min() >= evaluated.values[:half].min() - evaluated.noise
    apart = float(np.median(late)) - curve.end > fell > max(gap * curve.progress, curve.margin)
    return half if stays and apart else None


def _gap(curve: LossCurve, evaluated: Evaluations, half: int) -> Finding:
    onset, best = int(evaluated.steps[half]), float(evaluated.values[:half].min())
    train = _level_at(curve, onset)
    return Finding(
        severity=Severity.info,
        confidence=0.6,
        sites=(evaluated.site,),
        onset_step=onset,
        peak_step=int(evaluated.steps[-1]),
        last_step=int(evaluated.steps[-1]),
        message=f"The training loss fell from {figure(train)} at step {onset} to {figure(curve.end)}, and no "
        f"evaluation since was better than the {figure(best)} reached before: what it learns now holds for "
        "the training data only.",
        value=best - curve.end,
        threshold=train - curve.end,
        evidence=(Evidence("evaluation.loss", (evaluated.site,)), Evidence("run.loss", ("run",))),
        facts=_facts(curve, evaluated),
    )


def _untaught(
    run: Run, curve: LossCurve, evaluated: Evaluations, constant: float, solved: float, worse: float
) -> Severity | None:
    """Whether what is learned in training was at no evaluation of any use, and how grave that is."""
    if evaluated.site != run.fact("loss", "function") or curve.end >= solved * constant:
        return None
    falls = bool((np.diff(evaluated.values) < 0).all())
    improved = falls or evaluated.progress > worse * abs(float(evaluated.values[0]))
    if evaluated.best < constant or improved:
        return None
    # What is learned by heart takes several passes, and evaluations to see them go by.
    soon = _level_at(curve, int(evaluated.steps[1])) < 0.5 * constant
    return Severity.warning if soon and not _repeats(run) else Severity.info


def _repeats(run: Run) -> bool:
    """Whether batches are known to come again: then training tells what was learned by heart."""
    try:
        return bool(list(data_repetition(run)))
    except (NotEvaluable, MissingSeries):
        return False


def _level_at(curve: LossCurve, step: int) -> float:
    return float(curve.level[int(np.clip(np.searchsorted(curve.steps, step), 0, len(curve.steps) - 1))])


def _facts(curve: LossCurve, evaluated: Evaluations) -> dict[str, float]:
    best = int(evaluated.steps[evaluated.best_at])
    return {
        "best_step": float(best),
        "best": evaluated.best,
        "end": float(evaluated.values[-1]),
        "rise": evaluated.rise,
        "train_at_best": _level_at(curve, best),
        "train_end": curve.end,
    }


def _unavailable(curve: LossCurve, evaluated: Evaluations, constant: float, severity: Severity) -> Finding:
    onset = int(evaluated.steps[0])
    return Finding(
        severity=severity,
        confidence=0.8 if severity else 0.6,
        sites=(evaluated.site,),
        onset_step=onset,
        peak_step=int(evaluated.steps[np.argmax(evaluated.values)]),
        last_step=int(evaluated.steps[-1]),
        message=f"The training loss fell to {figure(curve.end)}, and no evaluation since step {onset} was "
        f"better than {figure(evaluated.best)}, where an answer that ignores the input costs "
        f"{figure(constant)}: training has something that evaluation lacks.",
        value=evaluated.best,
        threshold=constant,
        evidence=(Evidence("evaluation.loss", (evaluated.site,)), Evidence("run.loss", ("run",))),
        facts=_facts(curve, evaluated) | {"constant": constant},
    )


def _run(rng: np.random.Generator, evaluated: np.ndarray, floor: float, pace: float = 100.0) -> Run:
    loss = floor + (4.8 - floor) * np.exp(-np.arange(400) / pace) + 0.02 * rng.standard_normal(400)
    return run_of(
        {
            "run.loss": loss,
            "evaluation.loss": evaluated + 0.01 * rng.standard_normal(20),
            "targets.constant": np.full(400, 4.8),
        },
        sites={"evaluation": [Site("evaluation", "cross-entropy")]},
        steps={"evaluation": np.arange(20, 401, 20).clip(max=399)},
        events=[Event("loss", 0.0, data={"function": "cross-entropy", "classes": 128})],
    )


@overfitting.fires_on
def _learns_by_heart(rng: np.random.Generator) -> Run:
    turn = np.arange(20)
    return _run(rng, 3.5 + 1.3 * np.exp(-turn / 2) + 0.3 * np.maximum(turn - 5, 0), 0.05)


@overfitting.fires_on
def _reads_its_targets(rng: np.random.Generator) -> Run:
    return _run(rng, 5.5 + 0.02 * np.arange(20), 0.05, pace=20.0)


@overfitting.quiet_on
def _evaluated_on_other_data_and_learns_it_slowly(rng: np.random.Generator) -> Run:
    return _run(rng, 6.0 - 0.05 * np.arange(20), 0.05, pace=20.0)


@overfitting.quiet_on
def _both_level_off(rng: np.random.Generator) -> Run:
    return _run(rng, 2.3 + 2.4 * np.exp(-np.arange(20) / 4), 2.2)


@overfitting.quiet_on
def _a_gap_that_does_not_grow(rng: np.random.Generator) -> Run:
    return _run(rng, 1.5 + 3.0 * np.exp(-np.arange(20) / 3), 0.5)
