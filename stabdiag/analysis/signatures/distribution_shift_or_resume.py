"""From one step to the next the data are different ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import improves
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.evaluations import evaluations
from stabdiag.analysis.history import History, history
from stabdiag.analysis.leap import leap
from stabdiag.analysis.level_shift import SPAN, Shift, level_shift, noise_of, resolution
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.relearning import relearning
from stabdiag.analysis.robust import median, spread
from stabdiag.analysis.sorted_data import ALIKE, SortedData, sorted_data
from stabdiag.analysis.step_size import ratio_near, schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import MissingSeries, Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

LARGE = 0.25
"""Share of the progress that is a loss even where it is made good later."""
REACH = 20
"""Steps after a jump of the loss within which outputs have to be recorded to tell where it came from."""


class _Moved(NamedTuple):
    """A statistic of an input, and how its level changed."""

    input: str
    statistic: str
    shift: Shift


@signature(
    "distribution-shift-or-resume",
    title="The data change from one step to the next",
    needs=("run.loss",),
    explains=(
        "loss-divergence",
        "loss-spike",
        "loss-plateau",
        "exploding-gradient",
        "update-ratio-high",
        "overfitting",
    ),
    causes=("sorted-data", "distribution-shift", "repeated-data", "benign-transient"),
)
def distribution_shift_or_resume(
    run: Run,
    *,
    z: float = 6.0,
    input_z: float = 10.0,
    lasting: float = 30.0,
    sharp: float = 0.7,
    long: float = 0.05,
    leap: float = 0.1,
) -> Iterator[Finding]:
    """What it means: another source, a new mixture, a curriculum, a sampler that began anew. What the
    optimizer remembers belongs to the old data, and the model begins to forget these.

    How it is detected: the level of the loss (median of 25 steps) rises by more than `z` of its own noise,
    there and in all of the run, and a tenth of the progress, `sharp` of it at one step, stays up for
    `lasting` steps and rises no further. A jump of the learning rate there, updates that were longer than
    healthy ones before it (ratio above `long`), or one layer's outputs that grew tenfold (thirtyfold with
    another input) where those before it did not, explain it otherwise. So for a leap of the loss by more than
    `z` of its deviations then (4 of its logarithm), a quarter of all progress and three times any rise
    before, of which a quarter to 1.25 is left at each of the next three steps, and after five a tenth or
    more, but no more than before: what has to be learned anew, where a bad batch would be over. Or a
    statistic of a floating input, which is no recurrent state that the model put out, changes its level by
    more than `input_z` deviations, or the loss falls as abruptly as it else rises, and the next evaluation is
    worse by `leap` of the progress. A warning where the loss stays above what it was, or rose by a quarter of
    the progress, or evaluations got worse at once; a change of the input alone is info. And where the targets
    of a batch vary by less than half of what all do, in the mean of twelve or more and by 4 standard errors:
    of labels the share of pairs that differ, of values the variance, where each sample has one target. That
    is a warning where labels vary by less than a quarter, or the mean loss of the second half is above 0.7 of
    what a constant answer costs, else info.

    Calibrated on a transformer that goes from a two-token pattern to text (loss 4e-4 to 5, found at its
    step), a CNN whose images become brighter (found by the input, evaluation 1.8 to 6.9) an MLP whose inputs
    move as far without harm (info); 0 alarms in 32,300 steps of 74 healthy runs.

    Look-alikes: a divergence goes on rising. One bad batch is over at the next step. Evaluations on other
    data move without training. A lower learning rate makes the loss fall abruptly, and evaluations with it.

    Fixes: mix the new data in over hundreds of steps; warm the learning rate up again; restore the state
    of sampler, schedule and optimizer on resume; a smaller beta2.

    Reference: Zeng et al. 2022 (GLM-130B, arXiv 2210.02414).

    Facts: before, after, z, end (of the loss); input_shift (deviations), evaluation_rise where known; of
    sorted data: mixed (share), variety (of a batch), variety_seen (of all).
    """
    curve = loss_curve(run, least=4 * SPAN)
    kept = np.isfinite(curve.values)
    loss = History(curve.steps[kept], curve.values[kept])
    if curve.several or curve.lost_from is not None:
        return
    if (order := sorted_data(run)) is not None:
        yield _in_order(run, order)
        if order.grave:
            return  # each turn to another kind is a shift, which that explains
    noise = max(curve.noise, 1e-3 * abs(curve.best), resolution(loss.values))
    moved, jump = _input(run, input_z), level_shift(loss, noise, z=z, sharp=sharp, up=True)
    # Where the input is larger so is what the first layer makes of it.
    far = 10.0 if moved is None else 30.0
    if jump is not None and not _unexplained(run, curve, jump, z, lasting, long, far):
        jump = None
    if jump is None:
        least = LARGE * max(curve.start - curve.best, 0.0)
        jump = relearning(loss, z=z, least=max(least, noise))
        if jump is not None and _explained(run, jump.step, long, far):
            jump = None
    if jump is None and moved is None:
        jump = level_shift(loss, noise, z=z, sharp=sharp)
        if (
            jump is None
            or jump.height > 0
            or _leap(run, jump.step) < leap
            or _explained(run, jump.step, long, far)
        ):
            return
    yield _finding(run, curve, loss, jump, moved, leap, z)


def _in_order(run: Run, order: SortedData) -> Finding:
    site = run.table("targets.variety").names[0]
    mixed = order.own / order.whole
    return Finding(
        severity=Severity.warning if order.grave else Severity.info,
        confidence=0.9,
        sites=(site,),
        onset_step=order.since,
        peak_step=order.since,
        last_step=run.steps - 1,
        message=f"The targets of a batch vary by {mixed:.0%} of what all targets vary by, where batches that "
        "are drawn at random have 100% in the mean: the data come in an order.",
        value=mixed,
        threshold=ALIKE,
        evidence=(Evidence("targets.variety", (site,)), Evidence("run.loss", ("run",))),
        facts={"mixed": mixed, "variety": order.own, "variety_seen": order.whole},
    )


def _unexplained(
    run: Run, curve: LossCurve, jump: Shift, z: float, lasting: float, long: float, far: float
) -> bool:
    """Whether a rise is one of the data: large, lasting, no divergence, and not made by the step size."""
    progress = max(curve.start - jump.before, 0.0)
    later = curve.values[jump.at + SPAN :]
    # The noise of all the run may be that of its end, where the loss is far lower.
    sides = curve.values[max(jump.at - SPAN, 0) : jump.at], curve.values[jump.at : jump.at + SPAN]
    error = 1.25 * max(spread(side) for side in sides) / math.sqrt(SPAN)
    if (
        jump.height < max(z * error, 0.1 * progress)
        or jump.before > curve.start + curve.margin
        or not len(later)
    ):
        return False
    end = float(median(later[-SPAN:]))
    stays = (curve.level[jump.at :] > jump.before + 0.25 * jump.height).sum() >= lasting
    rises_on = end > jump.after + max(3 * curve.noise, 0.1 * jump.height)
    return bool(stays and not rises_on) and not _explained(run, jump.step, long, far)


def _explained(run: Run, step: int, long: float, far: float) -> bool:
    if leap(run, step, within=REACH, far=far, near=3.0) is not None:
        return True  # the model changed inside: other data would reach the layers before that one as well
    near = ratio_near(run, step - 1)
    return schedule(run).changes(step) or (near is not None and near[1] > long)


def _input(run: Run, z: float) -> _Moved | None:
    """The statistic of an input that moved most."""
    found = []
    carried = {event.data.get("input") for event in run.events_of("carried")}
    for site in run.sites("batch"):
        if site.name in carried:
            continue  # a state of the model's own
        for statistic in ("mean", "rms"):
            series = history(run, f"batch.{statistic}", site.name).finite()
            shift = level_shift(series, noise_of(series), z=z, sharp=0.8)
            if shift is not None:
                found.append(_Moved(site.name, statistic, shift))
    return max(found, key=lambda entry: entry.shift.deviations, default=None)


def _leap(run: Run, step: int) -> float:
    """By how much the first evaluation after `step` is worse than the last one before, as a share of the
    evaluations' progress; 0 where it is not known."""
    try:
        evaluated = evaluations(run)
    except (NotEvaluable, MissingSeries):
        return 0.0
    after = int(np.searchsorted(evaluated.steps, step + 1))
    if not 0 < after < len(evaluated.steps):
        return 0.0
    # Steps may lie between the change and an evaluation: the next one counts as well.
    worst = float(evaluated.values[after : after + 2].max()) - float(evaluated.values[after - 1])
    # Where they get worse from one to the next, that is overfitting, and the loss falls at each epoch.
    if worst < 0.5 * (float(evaluated.values[after:].max()) - evaluated.best):
        return 0.0
    return worst / evaluated.progress if worst > 4 * evaluated.noise and evaluated.progress > 0 else 0.0


def _finding(
    run: Run,
    curve: LossCurve,
    loss: History,
    jump: Shift | None,
    moved: _Moved | None,
    leap: float,
    z: float,
) -> Finding:
    onset = jump.step if jump is not None else moved.shift.step if moved is not None else 0
    together = moved is not None and abs(moved.shift.step - onset) <= 2
    rise, told = _leap(run, onset), []
    facts: dict[str, float] = {}
    lasts = fell = False
    if jump is not None:
        end = float(np.median(loss.values[-SPAN:]))
        large = LARGE * max(curve.start - jump.before, 0.0)
        stays = end > jump.before + max(0.25 * jump.height, 3 * curve.noise)
        fell = jump.height > 0 and improves(run, onset)
        lasts = jump.height > 0 and (stays or jump.height > large)
        facts |= {"before": jump.before, "after": jump.after, "z": jump.deviations, "end": end}
        told.append(f"the loss steps from {figure(jump.before)} to {figure(jump.after)}")
    if moved is not None and together:
        shift = moved.shift
        facts["input_shift"] = shift.deviations
        told.append(
            f"the {moved.statistic} of the input {moved.input} goes from {figure(shift.before)} to "
            f"{figure(shift.after)}"
        )
    if rise > leap:
        facts["evaluation_rise"] = rise
        told.append(f"the next evaluation is worse by {rise:.0%} of all progress")
    words = ", ".join(told)
    site = moved.input if moved is not None and together else "run"
    evidence = [Evidence("run.loss", ("run",))]
    if moved is not None and together:
        evidence.insert(0, Evidence(f"batch.{moved.statistic}", (moved.input,)))
    return Finding(
        severity=Severity.warning if lasts or rise > leap else Severity.info,
        confidence=0.9 if len(told) > 1 else 0.65,
        sites=(site,),
        onset_step=onset,
        peak_step=onset,
        last_step=int(loss.steps[-1]),
        message=f"At step {onset} {words}{', and it stays so' * (not fell)}; the step size gives no reason.",
        value=jump.deviations if jump is not None else facts.get("input_shift"),
        threshold=z,
        evidence=tuple(evidence),
        facts=facts,
    )


def _falling(rng: np.random.Generator, count: int = 400) -> np.ndarray:
    return 1.0 + 2.0 * np.exp(-np.arange(count) / 40) + 0.03 * rng.standard_normal(count)


@distribution_shift_or_resume.fires_on
def _another_source(rng: np.random.Generator) -> Run:
    loss, mean = _falling(rng), 0.02 * rng.standard_normal(400)
    loss[220:] += 1.0 + 0.4 * np.exp(-np.arange(180) / 30)
    mean[220:] += 0.5
    return run_of({"run.loss": loss, "batch.mean": mean}, sites={"batch": [Site("batch", "image")]})


@distribution_shift_or_resume.fires_on
def _another_text(rng: np.random.Generator) -> Run:
    loss = _falling(rng)
    loss[150:] += 0.8
    return run_of({"run.loss": loss, "run.lr": np.full(400, 1e-3)})


@distribution_shift_or_resume.fires_on
def _easier_data_and_a_worse_evaluation(rng: np.random.Generator) -> Run:
    loss = _falling(rng)
    loss[210:] -= 0.6
    evaluated = 1.1 + 2.0 * np.exp(-np.arange(20) / 2) + 0.005 * rng.standard_normal(20)
    evaluated[11:] += 2.0
    return run_of(
        {"run.loss": loss, "evaluation.loss": evaluated},
        sites={"evaluation": [Site("evaluation", "cross-entropy")]},
        steps={"evaluation": np.arange(20, 401, 20).clip(max=399)},
    )


@distribution_shift_or_resume.quiet_on
def _the_rate_jumped(rng: np.random.Generator) -> Run:
    loss = _falling(rng)
    loss[150:] += 0.8
    return run_of({"run.loss": loss, "run.lr": np.where(np.arange(400) < 150, 1e-3, 1e-2)})


@distribution_shift_or_resume.quiet_on
def _one_bad_batch(rng: np.random.Generator) -> Run:
    loss = _falling(rng)
    loss[250] += 3.0
    return run_of({"run.loss": loss})


@distribution_shift_or_resume.quiet_on
def _a_divergence(rng: np.random.Generator) -> Run:
    loss = _falling(rng)
    loss[250:] += 0.02 * np.arange(150)
    return run_of({"run.loss": loss})


@distribution_shift_or_resume.quiet_on
def _it_dawns_on_the_model(rng: np.random.Generator) -> Run:
    loss = _falling(rng)
    loss[250:] -= 0.7
    return run_of({"run.loss": loss})
