"""The loss rises and does not come back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.episodes import longest_stretch
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import NEVER_NEGATIVE, LossCurve, loss_curve
from stabdiag.analysis.robust import Doubles, median
from stabdiag.analysis.step_size import schedule
from stabdiag.analysis.unbounded_game import unbounded_players
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@dataclass(frozen=True)
class Rise:
    """Positions of where it began, was worst and was last seen; `needed` is the least loss that
    counts as risen. `impossible` where it falls below what such a loss can be."""

    onset: int
    peak: int
    last: int
    needed: float
    severity: Severity
    words: str
    impossible: bool = False


@signature(
    "loss-divergence",
    title="The loss rises and does not come back",
    needs=("run.loss",),
    explains=("loss-plateau",),
    causes=(
        "learning-rate-too-high",
        "missing-warmup",
        "schedule-bug",
        "gradients-not-zeroed",
        "bad-init-scale",
        "stale-second-moment",
        "precision-overflow",
        "unnormalized-input",
        "wrong-loss",
        "wrong-targets",
        "unbounded-output-logits",
    ),
)
def loss_divergence(
    run: Run,
    *,
    lost: float = 0.5,
    rise: float = 0.1,
    regained: float = 0.5,
    settle: float = 50.0,
    stakes: float = 30.0,
) -> Iterator[Finding]:
    """What it means: the run has lost what it had learned, or was thrown, early, into a region that is
    worse than its start and from which it hardly learns.

    How it is detected: the level of the loss (a trailing median) lies above its own best by more than
    noise explains (8 noise / sqrt(window)), by more than `lost` of the progress made so far, on the
    linear or the logarithmic scale, and by more than `rise` of the first loss, until the end or for
    more than `settle` steps. Or the loss becomes non-finite after such a rise. Or an early peak rises
    high above the start and the run later regains less than `regained` of that height. Or a loss that
    cannot be negative, such as a cross-entropy, falls ten times as far below zero as it began away from
    it. Or, of two optimizers with losses of their own that are written by hand, as a Wasserstein critic's,
    the absolute loss of one, negative at times, and its gradient norm are, in the median of the last third
    of the records, `stakes` times what they were in the first 20 steps, its norm is above its medians over
    each of the first four eighths of the records, and so has the norm of another grown, after 1,000 steps or
    more: a warning. Nothing else depends on the unit or the sign of the loss.

    Look-alikes: a jump that comes back within `settle` steps is a loss-spike; a loss that is suddenly
    non-finite without a rise is nonfinite-origin; a catapult, an early peak after which the loss falls
    well below its start, is healthy. The opposed losses of several optimizers rise by design: only a
    hundredfold level, or growth of loss and gradients together, counts there. A critic that is held finds its
    slope and keeps it: with a penalty loss and norm fall to 0.04 and 0.3 of their beginning; with clipped
    weights the norm grows a hundredfold in 400 steps and ends at 20. One that is not held grows 300-fold in
    2,100 steps and goes on.

    Fixes: go back to a checkpoint before the rise and continue with a tenth to a third of the learning
    rate, warmed up again. Lowering the rate without going back rarely helps. A critic
    wants a gradient penalty or spectral normalization.

    Reference: Wortsman et al. 2023 (arXiv 2309.14322); Chowdhery et al. 2022 (PaLM, arXiv 2204.02311).

    Facts: loss_start, loss_before (best level before the rise), loss_peak, loss_end, noise, and lr at
    the onset; impossible (1 where it is negative and cannot be); for a player loss_growth and
    grad_norm_growth instead of noise and lr.
    """
    curve = loss_curve(run, least=3)
    found = (
        _lost(curve, lost)
        or _bottomless(run, curve)
        or _risen(curve, lost, rise, int(settle))
        or _thrown(curve, regained)
    )
    if found is None:
        yield from _raised_stakes(run, stakes)
        return
    onset = int(curve.steps[found.onset])
    before = float(np.nanmin([curve.start, *curve.level[: found.onset + 1]]))
    facts = {
        "loss_start": curve.start,
        "loss_before": before,
        "loss_peak": float(curve.values[found.peak]),
        "loss_end": curve.end,
        "noise": curve.noise,
    } | ({"impossible": 1.0} if found.impossible else {})
    rate = schedule(run).at(onset)
    yield Finding(
        severity=found.severity,
        confidence=0.95 if found.severity == Severity.critical else 0.8,
        sites=("run",),
        onset_step=onset,
        peak_step=int(curve.steps[found.peak]),
        last_step=int(curve.steps[found.last]),
        message=f"The loss {found.words}."
        if found.impossible
        else f"The loss rises from {figure(before)} at step {onset} {found.words}.",
        value=float(curve.values[found.peak]),
        threshold=found.needed,
        evidence=(Evidence("run.loss", ("run",), threshold=found.needed),),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _raised_stakes(run: Run, fold: float) -> Iterator[Finding]:
    """The players of a game whose losses and gradients grow without end."""
    players = unbounded_players(run, fold)
    if not players:
        return
    first, names = players[0], tuple(player.name for player in players)
    losses = history(run, "side.loss", first.name).finite()
    peak = int(np.argmax(np.abs(losses.values)))
    before, after = first.norm
    yield Finding(
        severity=Severity.warning,
        confidence=0.8,
        sites=names,
        onset_step=first.onset,
        peak_step=int(losses.steps[peak]),
        last_step=int(losses.steps[-1]),
        message=f"The loss of {first.name} has grown from ±{figure(first.loss[0])} to "
        f"±{figure(first.loss[1])} and its gradient norm from {figure(before)} to {figure(after)}, and "
        "nothing holds them: a steeper critic wins more, and does not tell more.",
        value=after / before,
        threshold=fold,
        evidence=(Evidence("side.loss", names), Evidence("side.grad_norm", names, log=True)),
        facts={
            "loss_start": first.loss[0],
            "loss_before": first.loss[0],
            "loss_peak": float(np.abs(losses.values[peak])),
            "loss_end": first.loss[1],
            "loss_growth": first.loss[1] / first.loss[0],
            "grad_norm_growth": after / before,
        },
    )


def _lost(curve: LossCurve, lost: float) -> Rise | None:
    """Non-finite to the end, after a rise."""
    if not curve.lost_from:
        return None
    before = curve.values[: curve.lost_from]
    recent = np.where(np.isfinite(before), before, -np.inf)[-10:]
    peak = len(before) - len(recent) + int(np.argmax(recent))
    base = float(np.nanmin([curve.start, *curve.level[: max(peak - 1, 1)]]))
    needed = base + max(3.0 * curve.scatter, lost * max(curve.start - base, abs(curve.start)))
    if curve.values[peak] <= needed:
        return None
    words = f"to {figure(curve.values[peak])} and is not finite from step {curve.steps[curve.lost_from]} on"
    onset = _onset(curve, base, needed, peak)
    return Rise(onset, peak, len(curve.values) - 1, needed, Severity.critical, words)


def _bottomless(run: Run, curve: LossCurve) -> Rise | None:
    """A loss that cannot be negative falls without end: it is being maximized."""
    function = run.fact("loss", "function")
    needed = -10.0 * abs(curve.start) - curve.margin
    if function not in NEVER_NEGATIVE or curve.several or not curve.end < needed:
        return None
    onset = int(np.flatnonzero(curve.values < 0)[0])
    words = f"falls to {figure(curve.end)} since step {curve.steps[onset]}, and no {function} can be negative"
    last = len(curve.values) - 1
    return Rise(onset, last, last, needed, Severity.critical, words, impossible=True)


def _risen(curve: LossCurve, lost: float, rise: float, settle: int) -> Rise | None:
    """A level that stays above the best one."""
    level, quiet = curve.level, max(20, len(curve.level) // 50)
    if len(level) <= quiet:
        return None
    full = np.where(np.arange(len(level)) >= curve.window - 1, level, np.inf)
    best = np.minimum(np.fmin.accumulate(full), curve.start)
    height = np.nan_to_num(level - best, nan=0.0, posinf=0.0)
    needed = np.maximum(curve.margin, np.maximum(lost * (curve.start - best), rise * abs(curve.start)))
    if curve.several:
        needed = np.full_like(needed, 100.0 * float(median(np.abs(level))))
    elif np.nanmin(curve.values, initial=np.inf) > 0:
        needed = np.where(_lost_decades(level, best, curve.start, lost), 0.0, needed)
        needed = np.maximum(needed, np.maximum(curve.margin, rise * (curve.start - best)))
    high = (height > needed) & (np.arange(len(level)) >= quiet)
    first, length = longest_stretch(high)
    tail = len(high) - int(np.flatnonzero(~high)[-1]) - 1 if not high.all() else len(high)
    if tail >= max(10, curve.window // 2):
        first, length = len(high) - tail, tail
    elif length <= settle:
        return None
    last = first + length - 1
    peak = first + int(
        np.nanargmax(np.where(np.isfinite(curve.values), curve.values, np.nan)[first : last + 1])
    )
    ends = last == len(high) - 1
    grave = ends and (length >= settle or curve.end > curve.start + curve.margin)
    words = f"to {figure(level[last])}" if ends else f"to {figure(curve.values[peak])} and stays high"
    words += f" for {int(curve.steps[last] - curve.steps[first]) + 1} steps" + (
        " up to the end" if ends else ""
    )
    onset = _onset(curve, float(best[first]), float(best[first] + needed[first]), first)
    severity = Severity.critical if grave else Severity.warning
    return Rise(onset, peak, last, float(best[first] + needed[first]), severity, words)


def _lost_decades(level: Doubles, best: Doubles, start: float, lost: float) -> Doubles:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(level / best) > np.maximum(lost * np.log(start / best), np.log(2.0)))


def _thrown(curve: LossCurve, regained: float) -> Rise | None:
    """An early peak far above the start, after which little is learned."""
    early = np.where(np.isfinite(curve.values), curve.values, -np.inf)[: max(50, len(curve.values) // 10)]
    if curve.several or len(curve.values) < 2 * len(early):
        return None
    peak = int(np.argmax(early))
    height, gain = early[peak] - curve.start, curve.start - curve.end
    needed = max(8.0 * curve.noise, 0.2 * abs(curve.start))
    if (early > curve.start + needed).sum() < 3 or gain > min(regained * height, 0.4 * abs(curve.start)):
        return None
    severity = Severity.critical if not curve.made_progress else Severity.warning
    words = f"to {figure(early[peak])} at step {curve.steps[peak]} and then only comes to {figure(curve.end)}"
    onset = _onset(curve, curve.start, curve.start + needed, int(np.argmax(early > curve.start + needed)))
    return Rise(onset, peak, len(curve.values) - 1, curve.start + needed, severity, words)


def _onset(curve: LossCurve, base: float, needed: float, top: int) -> int:
    """The first position of the rise that leads to `top`: since then the loss was above `base` by more
    than noise, and by a tenth of what is `needed`."""
    tolerance = max(curve.scatter, 0.1 * (needed - base))
    with np.errstate(invalid="ignore"):
        low = np.flatnonzero(curve.values[: top + 1] <= base + tolerance)
    return min(int(low[-1]) + 1, top) if len(low) else 0


@loss_divergence.fires_on
def _climbs_back(rng: np.random.Generator) -> Run:
    steps = np.arange(400)
    loss = 2.0 + 2.8 * np.exp(-steps / 40) + np.where(steps < 250, 0.0, 0.03 * (steps - 250))
    return run_of({"run.loss": loss + 0.05 * rng.standard_normal(400)})


@loss_divergence.fires_on
def _explodes_at_once(rng: np.random.Generator) -> Run:
    loss = np.concatenate([[0.49, 0.8, 27.0, 1e5, 1e9, 1e20], np.full(10, np.inf)])
    return run_of({"run.loss": loss * rng.uniform(0.9, 1.1)})


@loss_divergence.fires_on
def _lands_in_a_bad_region(rng: np.random.Generator) -> Run:
    steps = np.arange(300)
    loss = 4.3 + 8.0 * np.exp(-np.abs(steps - 3) / 2) + 0.05 * rng.standard_normal(300)
    return run_of({"run.loss": np.where(steps == 0, 4.86, loss)})


@loss_divergence.fires_on
def _maximized_by_a_wrong_sign(rng: np.random.Generator) -> Run:
    loss = -1.6 - 0.5 * np.arange(300.0) ** 1.5 + 0.1 * rng.standard_normal(300)
    return run_of({"run.loss": loss}, events=[Event("loss", 0.0, 0, 0, {"function": "cross-entropy"})])


def _game(rng: np.random.Generator, loss: np.ndarray, norm: np.ndarray) -> Run:
    """Two players, [n], of which every step of 1,500 is known."""
    noise = np.exp(0.2 * rng.standard_normal((len(loss), 2)))
    signs = np.where(rng.random((len(loss), 2)) < 0.7, -1.0, 1.0)
    losses = np.column_stack([loss, loss]) * noise * signs
    series = {
        "run.loss": losses[:, 0],
        "side.loss": losses,
        "side.grad_norm": np.column_stack([norm, 2 * norm]) * noise,
    }
    sides = [Site("side", name, "Adam", order=i) for i, name in enumerate(("Critic", "Generator"))]
    turns = [Event("optimizer", 0.0, data={"name": "Adam"}) for _ in sides]
    return run_of(series, sites={"side": sides}, events=turns)


@loss_divergence.fires_on
def _a_critic_without_bounds(rng: np.random.Generator) -> Run:
    steps = np.arange(1500)
    return _game(rng, 0.05 + 0.05 * steps, 0.3 + 0.1 * steps)


@loss_divergence.quiet_on
def _a_critic_that_finds_its_slope(rng: np.random.Generator) -> Run:
    course = 1 - np.exp(-np.arange(1500) / 100)
    return _game(rng, 0.05 + 2.0 * course * np.exp(-np.arange(1500) / 200), 0.05 + 3.0 * course)


@loss_divergence.quiet_on
def _catapult(rng: np.random.Generator) -> Run:
    steps = np.arange(300)
    loss = 0.5 * np.exp(-steps / 60) + 17.0 * np.exp(-((steps - 3.0) ** 2)) + 0.01 * rng.random(300)
    return run_of({"run.loss": loss})


@loss_divergence.quiet_on
def _noisy_and_negative(rng: np.random.Generator) -> Run:
    loss = -2.0 + 2.5 * np.exp(-np.arange(500) / 80) + 0.5 * rng.standard_normal(500)
    return run_of({"run.loss": loss})
