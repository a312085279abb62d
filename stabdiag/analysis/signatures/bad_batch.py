"""One batch, or one sample of it, that does not fit what the model has learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.aftermath import aftermath
from stabdiag.analysis.batches import other_uses
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.guessing import constant_answer
from stabdiag.analysis.history import History, history
from stabdiag.analysis.lone_values import AFTER, has_heavy_tail, lone, upper_spread
from stabdiag.analysis.losscurve import loss_curve
from stabdiag.analysis.robust import logarithmic_z, spread
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

LISTED = 3
"""Bad batches that are told one by one; of more, one finding tells all."""


@dataclass(frozen=True)
class _Outlier:
    """A step of whose `series` the value lay `z` robust deviations above the usual, and its neighbours'
    did not."""

    step: int
    series: str
    z: float


IGNORES = 0.98
"""Of what an answer costs that ignores the input: a loss from there on has learned nothing."""


@signature(
    "bad-batch",
    title="One batch does not fit the others",
    needs=("run.loss",),
    explains=(
        "loss-spike",
        "loss-divergence",
        "exploding-gradient",
        "exploding-activation",
        "update-ratio-high",
    ),
    causes=("corrupt-batch", "out-of-distribution-batch", "label-noise", "benign-transient"),
)
def bad_batch(
    run: Run,
    *,
    z: float = 7.0,
    loud: float = 12.0,
    sample: float = 15.0,
    tail: float = 3.0,
    share: float = 0.1,
) -> Iterator[Finding]:
    """What it means: the data of one step are damaged or from elsewhere: labels that belong to other
    inputs, an unreadable file, degenerate text. One such step is a nuisance, with a large gradient it
    destroys what was learned.

    How it is detected: for a single recorded step, the next ones being usual again, and their gradients, the
    surprise (negative log-likelihood less the entropy of the prediction) lies more than `z` deviations above
    its last 64 usual values, or the loss more than `loud`. A deviation is robust, and that of the upper half
    where this is the wider one: a loss near zero has its tail above only. Single losses above 6 in more than
    `tail` steps of 1,000 are the run's own tails, unless most lie above 60, and their logarithms stand out
    too: a tail with a mean has nine values between these for each beyond. A warning where the batch is that
    loud, raises the loss by the share `share` of all that was learned, and is bad as a whole (its worst
    sample lies less than `sample` deviations from the others; or, where samples are not known, the logarithm
    of the loss is as loud) or leaves the loss higher than it was, and the loss before was below what an
    answer costs that ignores the input. Or one sample's loss lies `sample` deviations above what the worst of
    a batch usually has, and as far from its own batch: info. Surprise is zero in the mean whatever the batch,
    for a calibrated model, so hard batches do not raise it.

    Calibrated on small transformers, MLPs, CNNs and LSTMs: permuted labels 29 deviations of the loss,
    repeated text 20, noise 30, one permuted sequence of sixteen 21 of the worst sample; half permuted 17. No
    finding above info in 222 healthy runs of 83,963 steps, 161 of them with targets: fewer than 0.04 in
    1,000, at 95 %; nine lone samples in 400 steps of heavy-tailed values are one info.

    Look-alikes: a step of the optimizer that was too long raises the loss, or the gradient, of several
    batches. In the log of every tenth step a value is of one of ten batches or the mean of them: nothing is
    said there. Single samples unlike the others that come again and again are tails of the data. A rare but
    valid batch is harder, with its prediction unsure too. In the first steps all is surprise.

    Fixes: look at the batch, and at the sample; skip steps whose loss or gradient is far outside of the
    run's own history; clip.

    Reference: Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), section 5.1; OLMo 2 (arXiv 2501.00656).

    Facts: z, loss, loss_before, gradient (norm, over the usual), fingerprint, sample (index of the worst),
    outlying (deviations of that one from its batch),
    seen_at (step of the same batch before, -1 if none), loss_then, batches (found in all).
    """
    curve = loss_curve(run, least=48)
    apart = float(np.median(np.diff(curve.steps)))
    if apart > 1:
        raise NotEvaluable(f"the loss of one step in {apart:.0f} was recorded, which may be a mean over them")
    quiet = max(24, len(curve.values) // 50)
    start = int(curve.steps[min(quiet, len(curve.steps) - 1)])
    losses = History(curve.steps, curve.values)
    heavy = has_heavy_tail(losses, max(2.0, tail * len(curve.values) / 1000), loud)
    by_loss = [] if heavy else lone(losses, loud, 0.0, relative=0.003, skewed=True)
    by_surprise = lone(history(run, "targets.surprise"), z, 0.03, skewed=True)
    found: dict[int, _Outlier] = {}
    for step, value in by_loss:
        found[step] = _Outlier(step, "run.loss", value)
    for step, value in by_surprise:
        if step not in found:
            found[step] = _Outlier(step, "targets.surprise", value)
    for step, value in _samples(run, sample):
        if step not in found:
            found[step] = _Outlier(step, "targets.outlying", value)
    limits = {"run.loss": loud, "targets.surprise": z, "targets.outlying": sample}
    kept = [found[step] for step in sorted(found) if step >= start and not _thrown_off(run, step)]
    whole = [o for o in kept if o.series != "targets.outlying"]
    single = [o for o in kept if o.series == "targets.outlying"]
    for part in (whole, single):
        groups = [[o] for o in part] if len(part) <= LISTED else [part]
        for group in groups:
            harmful = share * max(curve.start - curve.best, 0.0)
            # Of many most: the tail of a task that is nearly solved has one of any kind.
            harms = [_as_a_whole(run, o.step, sample, loud) or _lasts(run, o.step) for o in group]
            grave = float(np.mean(harms)) > 0.5
            yield _finding(run, group, limits, harmful if grave else math.inf, len(part))


def _thrown_off(run: Run, step: int) -> bool:
    """Whether the gradient stays as unusual on the batches after `step`: then the model is not what it was,
    whichever batch it meets."""
    norm = history(run, "run.grad_norm").finite()
    at = int(np.searchsorted(norm.steps, step))
    after = norm.within(step + 1, step + AFTER).values
    past = norm.before(step - 1)
    if at == len(norm) or norm.steps[at] != step or len(past) < 8 or not len(after):
        return False
    usual, scale = float(np.median(past)), max(spread(past), upper_spread(past))
    lasting = float(after.max()) - usual
    return lasting > 6 * scale and lasting > 0.25 * (float(norm.values[at]) - usual)


def _as_a_whole(run: Run, step: int, sample: float, loud: float) -> bool:
    """Whether no single sample makes the batch of `step` what it is. Where the samples are not known, it has
    to stand out of the tail that the losses have: by their logarithms too."""
    apart = history(run, "targets.outlying").within(step, step).values
    if len(apart):  # not finite where all others are the same
        return bool(apart[0] < sample)
    loss = history(run, "run.loss")
    value = loss.within(step, step).finite().values
    return bool(len(value) and logarithmic_z(loss.before(step), float(value[0])) > loud)


def _lasts(run: Run, step: int) -> bool:
    after = aftermath(run, step + 1)
    return after is not None and after.bad


def _samples(run: Run, z: float) -> list[tuple[int, float]]:
    """Steps whose worst sample stands out of its batch and of the worst ones before."""
    outlying, worst = history(run, "targets.outlying"), history(run, "targets.max")
    within = dict(lone(outlying, z, 0.5))
    before = dict(lone(worst, z, 1e-6))
    return [(step, min(value, before[step])) for step, value in within.items() if step in before]


def _finding(
    run: Run, group: list[_Outlier], limits: Mapping[str, float], harmful: float, count: int
) -> Finding:
    """`limits`: series -> deviations above which a batch stands out. `harmful`: by how much one has to raise
    the loss to be more than worth knowing."""
    worst = max(group, key=lambda outlier: outlier.z)
    step, loss = worst.step, history(run, "run.loss")
    value, usual = loss.at(step), loss.usual(step)
    inputs = run.sites("batch")
    facts = {"z": worst.z, "batches": float(count)}
    facts |= {"loss": value} if value is not None else {}
    facts |= {"loss_before": usual} if usual is not None else {}
    norm = history(run, "run.grad_norm")
    if (jump := norm.jump(step)) is not None:
        facts["gradient"] = jump
    apart = history(run, "targets.outlying").within(step, step).finite()
    if len(apart):
        facts["outlying"] = float(apart.values[0])
    index = history(run, "targets.worst").within(step, step).finite()
    words = {
        "run.loss": f"raises the loss from {figure(usual or 0.0)} to {figure(value or 0.0)}",
        "targets.surprise": "has labels that the model finds far less likely than it should",
        "targets.outlying": "holds a sample unlike all others",
    }[worst.series]
    told = f"The batch of step {step} {words}, {figure(worst.z)} robust deviations."
    if len(index):
        facts["sample"] = float(index.values[0])
        told += f" Its worst sample is number {index.values[0]:.0f}."
    told += _identity(run, step, facts)
    if len(group) > 1:
        told += f" It is the worst of {len(group)} such batches."
    rise = max(
        (at - usual for o in group if (at := loss.at(o.step)) is not None and usual is not None), default=0.0
    )
    # To a model that ignores its input no batch is worse than another: it is the model that is unsteady.
    learned = usual is None or not usual >= IGNORES * constant_answer(run)[0]
    loud = worst.series != "targets.outlying" and (worst.z > limits["run.loss"] or len(group) > LISTED)
    site = inputs[0].name if inputs else "run"
    evidence = [Evidence(worst.series, (run.table(worst.series).names[0],))]
    if inputs and "batch.fingerprint" in run:
        evidence.insert(0, Evidence("batch.fingerprint", (site,)))
    return Finding(
        severity=Severity.warning if loud and rise > harmful and learned else Severity.info,
        confidence=float(np.clip(0.5 + worst.z / 60, 0.5, 0.95)),
        sites=(site,),
        onset_step=group[0].step,
        peak_step=step,
        last_step=group[-1].step,
        message=told,
        value=worst.z,
        threshold=limits[worst.series],
        evidence=tuple(evidence),
        facts=facts,
    )


def _identity(run: Run, step: int, facts: dict[str, float]) -> str:
    """The batch's fingerprint, and what it did at other times, in words and as facts."""
    prints = next(
        (history(run, "batch.fingerprint", s.name).within(step, step).finite() for s in run.sites("batch")),
        None,
    )
    if prints is None or not len(prints):
        return " Its fingerprint was not recorded."
    facts["fingerprint"] = float(prints.values[0])
    uses = other_uses(run, step)
    facts["seen_at"] = float(uses[0]) if uses else -1.0
    told = f" Its fingerprint is {int(prints.values[0]):06x}; "
    if not uses:
        return told + "no other recorded step had the same batch."
    then = history(run, "run.loss").at(uses[0])
    facts |= {"loss_then": then} if then is not None else {}
    return told + f"the same batch had a loss of {figure(then or 0.0)} at step {uses[0]}."


def _series(rng: np.random.Generator, count: int = 400) -> dict[str, np.ndarray]:
    loss = 2.0 + 2.8 * np.exp(-np.arange(count) / 60) + 0.05 * rng.standard_normal(count)
    return {
        "run.loss": loss,
        "run.grad_norm": 1.0 + 0.1 * rng.random(count),
        "targets.surprise": 0.1 * rng.standard_normal(count) - 0.2,
        "targets.worst": rng.integers(0, 16, count).astype(float),
        "targets.outlying": 3.0 + rng.gamma(2.0, 0.5, count),
        "targets.max": loss + 0.3 + 0.1 * rng.random(count),
        "batch.fingerprint": rng.integers(0, 2**24, count).astype(float),
    }


def _run(series: dict[str, np.ndarray]) -> Run:
    named = {"targets": [Site("targets", "cross-entropy")], "batch": [Site("batch", "input", order=0)]}
    return run_of(series, sites=named)


@bad_batch.fires_on
def _labels_permuted(rng: np.random.Generator) -> Run:
    series = _series(rng)
    series["run.loss"][250] += 3.0
    series["targets.surprise"][250] += 3.0
    series["run.grad_norm"][250] *= 8
    return _run(series)


@bad_batch.fires_on
def _tokens_of_noise_and_little_recorded(rng: np.random.Generator) -> Run:
    loss = _series(rng)["run.loss"]
    loss[200] += 4.0
    return run_of({"run.loss": loss})


@bad_batch.fires_on
def _a_missing_value_read_as_a_number_in_every_epoch(rng: np.random.Generator) -> Run:
    loss = _series(rng)["run.loss"]
    loss[40::50] += 3e6
    return run_of({"run.loss": loss})


@bad_batch.quiet_on
def _an_optimizer_that_overshot(rng: np.random.Generator) -> Run:
    series = _series(rng)
    series["run.loss"][250:260] += np.linspace(3.0, 1.5, 10)
    series["targets.surprise"][250:260] += np.linspace(3.0, 1.5, 10)
    return _run(series)


@bad_batch.quiet_on
def _a_loss_near_zero_has_its_tail_above(rng: np.random.Generator) -> Run:
    loss = np.minimum(rng.exponential(0.06, 400), 0.28)
    loss[[249, 250, 251]] = 0.01, 0.75, 0.01
    return run_of({"run.loss": loss})


@bad_batch.quiet_on
def _the_model_was_thrown_off(rng: np.random.Generator) -> Run:
    series = _series(rng)
    series["run.loss"][250:254] += [3.0, 0.4, 1.5, 1.2]
    series["targets.surprise"][250:254] += [3.0, 0.4, 1.5, 1.2]
    return _run(series)


@bad_batch.quiet_on
def _the_gradient_stays_unusual(rng: np.random.Generator) -> Run:
    series = _series(rng)
    series["run.loss"][250] += 3.0
    series["targets.surprise"][250] += 3.0
    series["run.grad_norm"][250:253] *= [200, 100, 20]
    return _run(series)


@bad_batch.quiet_on
def _samples_in_the_tails_of_the_data(rng: np.random.Generator) -> Run:
    series = _series(rng)
    series["targets.outlying"][60::40] = 200.0
    series["targets.max"][60::40] += 20.0
    return _run(series)


@bad_batch.quiet_on
def _a_hard_sample_of_a_task_that_is_nearly_solved(rng: np.random.Generator) -> Run:
    series = _series(rng)
    series["run.loss"] = np.exp(np.maximum(-np.arange(400) / 40, -6) + 2.0 * rng.standard_normal(400))
    series["run.loss"] = np.minimum(series["run.loss"], 1.0)
    series["targets.max"] = 16 * series["run.loss"]
    series["run.loss"][[250, 330]] = 2.0, 4.0
    series["targets.outlying"][[250, 330]] = 2e4, 5e4
    return _run(series)


@bad_batch.quiet_on
def _a_mean_of_ten_batches(rng: np.random.Generator) -> Run:
    loss = _series(rng)["run.loss"]
    loss[250] += 3.0
    return run_of({"run.loss": loss}, steps={"run": 10 * np.arange(1, 401)})


@bad_batch.quiet_on
def _heavy_tails(rng: np.random.Generator) -> Run:
    return run_of({"run.loss": _series(rng)["run.loss"] + 0.05 * rng.pareto(1.5, 400)})
