"""What a model had learned before is destroyed in the first steps, or never used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.analysis.pretrained import pretrained
from stabdiag.analysis.step_size import schedule
from stabdiag.analysis.updates import updates
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import MissingSeries, Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "finetune-degeneration",
    title="What a model had learned before is destroyed in the first steps",
    needs=("run.loss",),
    explains=(
        "update-ratio-high",
        "attention-logit-growth",
        "attention-entropy-collapse",
        "residual-stream-growth",
        "exploding-activation",
        "exploding-gradient",
        "dead-units",
        "loss-divergence",
        "loss-spike",
        "loss-plateau",
        "vanishing-gradient",
    ),
    causes=("learning-rate-too-high", "missing-warmup", "optimizer-state-lost"),
)
def finetune_degeneration(
    run: Run,
    *,
    rise: float = 0.1,
    first: float = 30.0,
    ratio: float = 0.05,
    replaced: float = 0.3,
    vanished: float = 0.01,
) -> Iterator[Finding]:
    """What it means: the first steps of a fine-tuning are so large that the weights that were loaded are
    lost, and it goes on from something worse than a good initialisation; or no gradient reaches them.

    How it is detected: only in a run that did not begin with fresh weights: the gains of normalization layers
    differ, the first loss is below that of guessing, or matrices hold what no initialization draws. Within
    the `first` steps a step changes the weights, in the median of the matrices, by more than the share
    `replaced`; or the loss, as the median of 3 steps, rises by more than `rise` of its first value and beyond
    its noise, and the update ratio is above `ratio`, where it was recorded: a warning; critical where the
    loss ends above its start. Or it makes no progress in 100 steps while the gradient norm falls below
    `vanished` of its first value: a warning.

    Look-alikes: a new head begins at chance, and its loss may rise a little by its first steps. The loss on
    the old data rises in any fine-tuning. A resumed run without its optimizer state jumps likewise.

    Fixes: start again from the loaded weights (a lower learning rate now does not bring them back) with a
    learning rate of a third or a tenth, warmed up over the first tenth of the steps.

    Calibrated on: fine-tunings of transformers, CNNs and MLPs: learning rates that keep what was learned
    have a longest step of 0.007 to 0.03 of the weights, those that destroy it 0.5 to 4.3. No finding above
    info in the 6 of 61 healthy runs that have these series, 1,320 steps: fewer than 2.3 in 1,000, at 95 %.

    Reference: Mosbach et al. 2020 (arXiv 2006.04884); Zhang et al. 2020 (arXiv 2006.05987).

    Facts: loss_first, loss_peak, update_ratio (median of the matrices, largest of that time), harmed (1
    where the loss ends above its start), lr.
    """
    loaded = pretrained(run)
    if loaded is None:
        raise NotEvaluable("the run began with fresh weights, as far as can be told")
    curve = loss_curve(run, least=10)
    if curve.several:
        raise NotEvaluable("several optimizers train, whose losses may be opposed")
    yield from _destroyed(run, curve, loaded, rise, int(first), ratio, replaced) or _never_used(
        run, curve, loaded, vanished
    )


def _destroyed(
    run: Run, curve: LossCurve, loaded: str, rise: float, first: int, ratio: float, replaced: float
) -> list[Finding]:
    begin = curve.values[: first + 2]
    begin = np.where(np.isfinite(begin), begin, np.inf)
    smooth = np.array([np.median(begin[i : i + 3]) for i in range(len(begin) - 2)])
    start = float(begin[0])
    above = np.flatnonzero(smooth - start > max(rise * abs(start), 3 * curve.noise))
    if not np.isfinite(start):
        return []
    longest = _longest_update(run, first)
    largest = None if longest is None else longest[1]
    thrown = largest is not None and largest > replaced
    if not thrown and (not above.size or (largest is not None and largest < ratio)):
        return []
    peak = int(np.argmax(smooth))
    top = float(smooth[peak])
    bad = not curve.end < start + curve.margin
    onset = longest[0] if thrown and longest is not None else int(curve.steps[above[0]])
    facts = {"loss_first": start, "loss_peak": min(top, 3e38), "harmed": float(bad)}
    rate = schedule(run).rate.peak(0, first)
    facts |= {"update_ratio": largest} if largest is not None else {}
    facts |= {"lr": rate[1]} if rate is not None else {}
    told = f"; a step changed the weights by up to {figure(100 * largest)} %" if largest is not None else ""
    finding = Finding(
        severity=Severity.critical if bad else Severity.warning,
        confidence=0.85 if largest is not None else 0.6,
        sites=("run",),
        onset_step=onset,
        peak_step=max(int(curve.steps[peak]), onset),
        last_step=max(int(curve.steps[peak]), onset),
        message=f"A model that had been trained before ({loaded}) loses it: its loss goes from "
        f"{figure(start)} to {figure(top)} within {peak + 1} steps{told}.",
        value=largest if thrown else facts["loss_peak"] - start,
        threshold=replaced if thrown else rise * abs(start),
        evidence=(Evidence("run.loss", ("run",), threshold=start * (1 + rise)),),
        facts=facts,
    )
    return [finding]


def _longest_update(run: Run, first: int) -> tuple[int, float] | None:
    """The step and the median update ratio of the longest of the `first` steps, without matrices that began
    at zero, as those of adapters do."""
    try:
        taken = updates(run)
    except MissingSeries:
        return None
    early = (taken.steps <= first) & np.isfinite(taken.middle)
    if not early.any():
        return None
    at = int(np.argmax(np.where(early, taken.middle, -np.inf)))
    return int(taken.steps[at]), float(taken.middle[at])


def _never_used(run: Run, curve: LossCurve, loaded: str, vanished: float) -> list[Finding]:
    norms = history(run, "run.grad_norm").finite()
    if curve.made_progress or len(curve.values) < 100 or len(norms) < 20:
        return []
    early, late = float(np.median(norms.values[:5])), float(np.median(norms.values[-len(norms) // 5 :]))
    if early <= 0 or late >= vanished * early:
        return []
    small = np.flatnonzero(norms.values >= vanished * early)
    onset = int(norms.steps[min(int(small[-1]) + 1, len(norms) - 1)])
    last = max(int(curve.steps[-1]), onset)
    finding = Finding(
        severity=Severity.warning,
        confidence=0.7,
        sites=("run",),
        onset_step=onset,
        peak_step=onset,
        last_step=last,
        message=f"A model that had been trained before ({loaded}) makes no progress, and its gradient norm "
        f"has fallen from {figure(early)} to {figure(late)}.",
        value=late / early,
        threshold=vanished,
        evidence=(Evidence("run.grad_norm", ("run",), threshold=vanished * early, log=True),),
        facts={"loss_first": curve.start, "loss_peak": float(np.fmax.reduce(curve.level)), "harmed": 1.0},
    )
    return [finding]


def _run(rng: np.random.Generator, loss: np.ndarray, *, uneven: float, ratio: float = 0.4) -> Run:
    gains = [Site("normalization", f"blocks.{i}.ln", "LayerNorm", order=i) for i in range(2)]
    matrices = [Site("update", f"blocks.{i}.fc.weight", "Linear", (64, 64), order=i) for i in range(3)]
    steps = np.arange(len(loss))
    ratios = ratio * np.exp(-steps / 10)[:, None] * np.exp(0.1 * rng.standard_normal((len(loss), 3)))
    series = {
        "run.loss": loss + 0.02 * rng.standard_normal(len(loss)),
        "normalization.gain": np.full((len(loss), 2), uneven),
        "update.ratio": ratios + 1e-3,
    }
    return run_of(series, sites={"normalization": gains, "update": matrices})


def _rising() -> np.ndarray:
    return np.asarray(3.0 + 2.5 * np.exp(-(((np.arange(200) - 8) / 12) ** 2)) - 0.001 * np.arange(200))


@finetune_degeneration.fires_on
def _loaded_weights_are_lost(rng: np.random.Generator) -> Run:
    return _run(rng, _rising(), uneven=1.6)


@finetune_degeneration.quiet_on
def _the_same_from_fresh_weights(rng: np.random.Generator) -> Run:
    return _run(rng, _rising(), uneven=1.0)


@finetune_degeneration.quiet_on
def _falls_from_the_first_step(rng: np.random.Generator) -> Run:
    return _run(rng, 2.0 + np.exp(-np.arange(200) / 40), uneven=1.6, ratio=0.005)


@finetune_degeneration.quiet_on
def _rises_a_little_by_small_steps(rng: np.random.Generator) -> Run:
    return _run(rng, 3.0 + 0.2 * _rising() / 3.0, uneven=1.6, ratio=0.004)
