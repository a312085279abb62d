"""Batches that come again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.evaluations import evaluations
from stabdiag.analysis.losscurve import LossCurve, loss_curve
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import MissingSeries, Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

CHANCE = 2.0**-24
"""That two different batches have the same fingerprint."""


@dataclass(frozen=True)
class _Repeats:
    """Of `steps`, [n], with a known batch: `lag`, in records, to the last record of the same one, 0 where it
    is new, and how many `distinct` batches there were."""

    steps: NDArray[np.int64]
    lag: NDArray[np.int64]
    distinct: int

    @property
    def share(self) -> float:
        """Of the records whose batch was recorded before, without those expected by chance."""
        count = len(self.lag)
        return max(float((self.lag > 0).mean()) - 0.5 * (count - 1) * CHANCE, 0.0)

    @property
    def dense(self) -> bool:
        """Whether nearly all steps were recorded, so that lags are those of training."""
        return len(self.steps) > 0.8 * (int(self.steps[-1] - self.steps[0]) + 1)

    @property
    def early(self) -> float:
        """Share of the records that come again long before all batches have been seen; 0 where steps are
        missing."""
        if not self.dense:
            return 0.0
        return float(((self.lag > 0) & (self.lag <= self.distinct // 2)).mean())


@signature(
    "data-repetition",
    title="The same batches come again",
    needs=("batch.fingerprint",),
    explains=("overfitting", "label-noise-memorization"),
    causes=("repeated-data", "too-little-data"),
)
def data_repetition(
    run: Run, *, share: float = 0.05, within: float = 0.2, passes: float = 16.0, worse: float = 0.02
) -> Iterator[Finding]:
    """What it means: the model trains on batches that it has seen before. It learns them by heart, and the
    training loss no longer tells what it can do.

    How it is detected: by the fingerprints of all inputs of a batch together, for more than `share` of the
    recorded steps. Info by itself: data sets are read many times over. A warning where more than `within`
    of the steps repeat a batch before half of the others have had their turn, as workers with equal seeds
    and samplers that start anew make them; where evaluations have become `worse` meanwhile; or where a set
    of batches was passed through more than `passes` times and holds fewer targets than the model has
    parameters, and the loss has fallen by half.

    Calibrated on transformers that repeat 4, 16 (warnings) and 64 batches (6 passes, no harm: info), and an
    MLP that passes 25 times through 1,024 samples in the same order; 0 alarms in 32,300 steps of 74
    healthy runs. Equal fingerprints of different batches are one chance in sixteen million a pair.

    Look-alikes: batches that hold a NaN or an infinity are left out, as those that are nothing else look
    the same. Batches that are shuffled anew in each epoch are never the same twice, however often their
    samples are. Training on one batch, whole or to test the code, repeats by design, and is info.

    Fixes: restore the sampler's state on resume; a seed for each worker; reshuffle each epoch; more data;
    stop early.

    Reference: Muennighoff et al. 2023 (arXiv 2305.16264): up to 4 passes cost nearly nothing.

    Facts: repeated (share), distinct, passes, early (share), lag (the commonest, in steps), first_repeat.
    """
    found = _repeats(run)
    again = np.flatnonzero(found.lag > 0)
    if found.share <= share or len(again) < 3:
        return
    # Where most of the recorded steps repeat one, the recorded batches are about all that there are.
    passed = (run.steps if found.share > 0.5 else len(found.lag)) / found.distinct
    lags = found.steps[again] - found.steps[again - found.lag[again]]
    lag = int(np.median(lags))
    unfair = found.distinct >= 4 and found.early > within
    harm = _harm(run, found, passed, passes, worse)
    because = (
        f"{found.early:.0%} of the steps repeat a batch before half of the others have come"
        if unfair
        else harm
    )
    site = run.sites("batch")[0].name
    first = int(found.steps[again[0]])
    yield Finding(
        severity=Severity.warning if because else Severity.info,
        confidence=0.9,
        sites=(site,),
        onset_step=first,
        peak_step=first,
        last_step=int(found.steps[again[-1]]),
        message=f"{found.share:.0%} of the recorded steps train on a batch that was there before, the "
        f"first at step {first}; {found.distinct} batches differ, and each came {figure(passed)} times"
        + (f". {because[0].upper()}{because[1:]}." if because else "."),
        value=found.share,
        threshold=share,
        evidence=(Evidence("batch.fingerprint", (site,)),),
        facts={
            "repeated": found.share,
            "distinct": float(found.distinct),
            "passes": passed,
            "early": found.early,
            "lag": float(lag),
            "first_repeat": float(first),
        },
    )


def _repeats(run: Run) -> _Repeats:
    table = run.table("batch.fingerprint")
    known = ~np.isnan(table.values).all(axis=1) if table.values.size else np.zeros(len(table.steps), bool)
    known &= ~np.isin(table.steps, _nonfinite_steps(run))
    # Inputs that were absent count as equal to themselves.
    rows = np.nan_to_num(table.values[known].astype(np.float64), nan=-1.0, posinf=-1.0, neginf=-1.0)
    if len(rows) < 12:
        raise NotEvaluable(f"the batches of only {len(rows)} steps are known, 12 are needed")
    # One number for all inputs of a batch: exact below 2^53 for two, and as good as a fingerprint for more.
    joint = rows @ (2.0**24 + 1) ** np.arange(rows.shape[1]).clip(max=8) if rows.shape[1] > 1 else rows[:, 0]
    _, which, counts = np.unique(joint, return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    same = which[order][1:] == which[order][:-1]
    lag = np.zeros(len(rows), np.int64)
    lag[order[1:][same]] = (order[1:] - order[:-1])[same]
    return _Repeats(table.steps[known], lag, len(counts))


def _nonfinite_steps(run: Run) -> NDArray[np.int64]:
    """Steps whose batch held a NaN or an infinity: two that are all NaN look the same."""
    if "batch.nonfinite" not in run:
        return np.empty(0, np.int64)
    table = run.table("batch.nonfinite")
    return table.steps[(np.nan_to_num(table.values, nan=0.0) > 0).any(axis=1)]


def _harm(run: Run, found: _Repeats, passed: float, passes: float, worse: float) -> str:
    """What the repetition has done, in words; empty where nothing is known of it."""
    if found.distinct < 2:
        return ""
    try:
        curve = loss_curve(run, least=20)
    except (NotEvaluable, MissingSeries):
        return ""
    try:
        evaluated = evaluations(run)
    except (NotEvaluable, MissingSeries):
        return _by_heart(run, found, curve) if passed > passes else ""
    if not evaluated.overfits(curve, worse):
        return ""
    return f"evaluations have become worse since step {evaluated.steps[evaluated.best_at]}"


def _by_heart(run: Run, found: _Repeats, curve: LossCurve) -> str:
    counts: np.ndarray = next(
        (run.table(s).first() for s in ("run.tokens", "run.samples") if s in run and _any(run, s)),
        np.empty(0),
    )
    parameters = run.fact("model", "trainable")
    fell = curve.progress > 0.5 * abs(curve.start)
    if not len(counts) or not isinstance(parameters, int | float) or not fell:
        return ""
    targets = float(np.nanmedian(counts)) * found.distinct
    if targets >= parameters:
        return ""
    return f"{figure(float(parameters))} parameters learn {figure(targets)} targets by heart"


def _any(run: Run, series: str) -> bool:
    return bool((run.table(series).first() > 0).any())


def _run(prints: np.ndarray, loss: np.ndarray) -> Run:
    return run_of(
        {"batch.fingerprint": prints, "run.loss": loss, "run.samples": np.full(len(loss), 64.0)},
        sites={"batch": [Site("batch", "input", order=0)]},
        events=[Event("model", 0.0, data={"trainable": 100_000})],
    )


def _falling(rng: np.random.Generator, floor: float) -> np.ndarray:
    return floor + (4.8 - floor) * np.exp(-np.arange(400) / 60) + 0.02 * rng.standard_normal(400)


@data_repetition.fires_on
def _sixteen_batches(rng: np.random.Generator) -> Run:
    return _run(rng.integers(0, 2**24, 16)[np.arange(400) % 16], _falling(rng, 0.1))


@data_repetition.fires_on
def _workers_of_one_seed(rng: np.random.Generator) -> Run:
    return _run(np.repeat(rng.integers(0, 2**24, 100), 4), _falling(rng, 2.0))


@data_repetition.quiet_on
def _fresh_data(rng: np.random.Generator) -> Run:
    return _run(rng.integers(0, 2**24, 400), _falling(rng, 2.0))


@data_repetition.quiet_on
def _one_batch_that_is_all(rng: np.random.Generator) -> Run:
    return _run(np.full(400, 77), _falling(rng, 0.1))


@data_repetition.quiet_on
def _four_epochs(rng: np.random.Generator) -> Run:
    return _run(rng.integers(0, 2**24, 100)[np.arange(400) % 100], _falling(rng, 1.0))
