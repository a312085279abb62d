"""The dynamic loss scale falls and falls, or steps are withheld again and again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import history
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of

CALM = 10
"""Steps in a row that are not withheld: then the scale has found its level for the first time."""


@signature(
    "loss-scale-thrash",
    title="The gradient scaler withholds steps again and again",
    needs=("run.skipped", "run.loss_scale"),
    explains=(
        "nonfinite-origin",
        "update-ratio-low",
        "loss-plateau",
        "lr-starvation",
    ),
    causes=("precision-overflow", "unsafe-operation", "learning-rate-too-high", "corrupt-batch"),
)
def loss_scale_thrash(
    run: Run, *, skips: float = 3.0, share: float = 0.02, low: float = 128.0, lost: float = 1.0
) -> Iterator[Finding]:
    """What it means: scaled gradients overflow float16 at scales that held before. Each such step is thrown
    away; below a scale of 1 gradients begin to vanish instead, and a scaler that only falls freezes the
    weights without a word.

    How it is detected: steps that were withheld although the scale had not grown since the last one, after
    the first calibration (10 steps in a row that went through): `skips` of them within 20 steps, or more
    than `share` of all steps. A warning; critical where the scale ends below `lost`, or no step goes through
    any more. Also a scale that has fallen below `low` to a thousandth of what it had been: a warning.

    Calibrated on float16 scalers with growth every 20 steps: infinite gradients in every 5th step (found at
    the third of them), healthy calibration and growth (1 withheld step per growth: none counts);
    0 alarms in 600 steps of 2 healthy runs.

    Look-alikes: the first steps calibrate, from 65,536 downward; after each growth one step may be withheld.
    Both are how it works.

    Fixes: bfloat16, which needs no scale; lower the learning rate; compute softmax, logits or the loss in
    float32; skip bad batches; watch for a scale below 1.

    Reference: Micikevicius et al. 2018 (arXiv 1710.03740); Zhang et al. 2022 (OPT, arXiv 2205.01068).

    Facts: withheld, unearned (withheld without growth), scale_start, scale_end, share.
    """
    withheld = history(run, "run.skipped").finite()
    scale = history(run, "run.loss_scale").finite()
    if not len(scale) or not len(withheld):
        raise NotEvaluable("no gradient scaler was seen")
    skipped = withheld.steps[withheld.values > 0]
    settled = _settled(withheld.steps, withheld.values > 0)
    unearned = _unearned(skipped[skipped >= settled], scale.steps, scale.values)
    end, top = float(scale.values[-1]), float(scale.values.max())
    stuck = len(withheld) >= 20 and bool((withheld.values[-20:] > 0).all())
    often = len(unearned) > share * len(withheld) and len(unearned) >= skips
    close = unearned[int(skips) - 1 :] - unearned[: len(unearned) - int(skips) + 1]
    dense = np.flatnonzero(close <= 20) if len(unearned) >= skips else np.empty(0, np.int64)
    fallen = end < low and end < top / 1000
    if not (stuck or often or len(dense) or fallen):
        return
    onset = int(unearned[dense[0]] if len(dense) else unearned[0] if len(unearned) else scale.steps[0])
    frozen = stuck or end < lost
    yield Finding(
        severity=Severity.critical if frozen else Severity.warning,
        confidence=0.9,
        sites=("run",),
        onset_step=onset,
        peak_step=int(scale.steps[int(np.argmin(scale.values))]) if not len(skipped) else int(skipped[-1]),
        last_step=int(max(skipped[-1] if len(skipped) else onset, onset)),
        message=f"The gradient scaler withheld {len(skipped)} steps, {len(unearned)} of them although "
        "its scale "
        f"had not grown; the scale went from {figure(float(scale.values[0]))} to {figure(end)}.",
        value=len(unearned) / len(withheld),
        threshold=share,
        evidence=(
            Evidence("run.loss_scale", ("run",), threshold=low, log=True),
            Evidence("run.skipped", ("run",)),
        ),
        facts={
            "withheld": float(len(skipped)),
            "unearned": float(len(unearned)),
            "scale_start": float(scale.values[0]),
            "scale_end": end,
            "share": len(skipped) / len(withheld),
        },
    )


def _settled(steps: NDArray[np.int64], skipped: NDArray[np.bool_]) -> int:
    """The first step after which `CALM` in a row went through; 50 where none ever did."""
    through = np.convolve(~skipped, np.ones(CALM), "valid") == CALM if len(skipped) >= CALM else np.zeros(0)
    first = np.flatnonzero(through)
    return int(steps[first[0]]) if len(first) and first[0] < 50 else 50


def _unearned(
    skipped: NDArray[np.int64], steps: NDArray[np.int64], scale: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Those of `skipped` before which the scale had not grown since the one before."""
    kept = []
    before = -1
    for step in skipped.tolist():
        low, high = np.searchsorted(steps, [before + 1, step + 1])
        since = scale[low:high]
        if len(since) < 2 or not (np.diff(since) > 0).any():
            kept.append(step)
        before = step
    return np.array(kept, np.int64)


def _run(skipped: np.ndarray, growth: int = 20) -> Run:
    scale, level, good = np.empty(len(skipped)), 65536.0, 0
    for step, bad in enumerate(skipped):
        scale[step] = level
        good = 0 if bad else good + 1
        level = level / 2 if bad else level * 2 if good == growth else level
        good = 0 if good == growth else good
    return run_of(
        {"run.skipped": skipped.astype(float), "run.loss_scale": scale, "run.loss": np.ones(len(skipped))}
    )


@loss_scale_thrash.fires_on
def _overflows_every_fifth_step(rng: np.random.Generator) -> Run:
    return _run(np.arange(300) % 5 == 4)


@loss_scale_thrash.fires_on
def _overflows_from_a_step_on(rng: np.random.Generator) -> Run:
    return _run(np.arange(300) >= int(rng.integers(100, 200)))


@loss_scale_thrash.quiet_on
def _calibrates_and_grows(rng: np.random.Generator) -> Run:
    return _run((np.arange(300) < 5) | (np.arange(300) % 21 == 9))


@loss_scale_thrash.quiet_on
def _one_bad_step(rng: np.random.Generator) -> Run:
    return _run(np.arange(300) == int(rng.integers(50, 250)), growth=2000)
