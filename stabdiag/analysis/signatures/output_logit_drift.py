"""The output logits drift away, all together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import suffers
from stabdiag.analysis.depth import evenly
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.robust import spread
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

BLOCKS = 8
SPACING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Of the formats in which logits are rounded coarsely: largest relative error of rounding."""


@signature(
    "output-logit-drift",
    title="The output logits drift away, all together",
    needs=("logits.log_z", "logits.mean"),
    explains=("loss-divergence", "loss-spike", "nonfinite-origin", "exploding-gradient"),
    causes=("unbounded-output-logits", "learning-rate-too-high", "weight-decay-too-low"),
)
def output_logit_drift(
    run: Run, *, drift: float = 1.0, least: float = 200.0, rounding: float = 0.5, noise: float = 4.0
) -> Iterator[Finding]:
    """What it means: a softmax does not change when all logits move together, so nothing in the loss holds
    them: log Z, or the mean logit, walks off until the numbers it is computed in are too coarse for it.

    How it is detected: two ways. Drift: over the last third of the run, `least` steps at the least, log Z
    or the size of the mean logit rises by more than `drift` nats and `noise` times the scatter about its
    course, in at least six of the seven steps between eighths; a warning where the loss rises or suffers
    meanwhile, info otherwise. Rounding: of logits that are held in 16 bits, log Z or the mean is so large
    that rounding alone moves a logit by `rounding` nats: 128 in bfloat16, 1,024 in float16. That is a
    warning; critical where the loss suffers.

    Look-alikes: log Z rises as a model becomes sure, and begins at the logarithm of the number of classes:
    5 to 7 is usual without a z-loss. A steady offset is harmless in float32.

    Fixes: a z-loss of 1e-4 · log² Z; logits and loss in float32; weight decay on the head and the last
    gain.

    Calibrated on: small transformers whose head grows by 2 % a step (16 nat in 200 steps), and healthy ones
    and CNNs, whose log Z rises by up to 1.4 nat in 200 steps as they become sure: info. No finding above
    info in the 19 of 61 healthy runs that have these series, 5,520 steps: fewer than 0.54 in 1,000, at 95
    %.

    Reference: Chowdhery et al. 2022 (arXiv 2204.02311); Wortsman et al. 2023 (arXiv 2309.14322).

    Facts: log_z and mean_logit (last), drift (nats over the last third), rounding_error (nats), harmed.
    """
    table, means = run.table("logits.log_z"), run.table("logits.mean")
    log_z = np.abs(table.values.astype(np.float64))
    mean = np.abs(means.values.astype(np.float64))
    known = np.isfinite(log_z).any(axis=1)
    if known.sum() < 2 * BLOCKS:
        raise NotEvaluable(f"logits were recorded at only {int(known.sum())} steps")
    yield from _rounded(run, table.names, table.steps, log_z, mean, rounding) or _drifts(
        run, table.names, table.steps, {"log_z": log_z, "mean": mean}, drift, least, noise
    )


def _rounded(
    run: Run, names: tuple[str, ...], steps: np.ndarray, log_z: np.ndarray, mean: np.ndarray, limit: float
) -> list[Finding]:
    formats = {s.name: s.dtype.removeprefix("torch.") for s in run.sites("output")}
    error = np.array([SPACING.get(formats.get(name, ""), 0.0) for name in names])
    off = np.fmax(log_z, mean) * error
    rows = np.flatnonzero((off > limit).any(axis=1))
    if len(rows) < 2:
        return []
    at = int(np.nanargmax(off[rows[-1]]))
    onset, value = int(steps[rows[0]]), float(off[rows[-1], at])
    size = figure(np.fmax(log_z, mean)[rows[-1], at])
    bad = suffers(run, onset)
    finding = Finding(
        severity=Severity.critical if bad else Severity.warning,
        confidence=0.85,
        sites=(names[at],),
        onset_step=onset,
        peak_step=int(steps[rows[np.argmax(np.nanmax(off[rows], axis=1))]]),
        last_step=int(steps[rows[-1]]),
        message=f"The logits of {names[at]} have wandered to {size}, where "
        f"{formats[names[at]]} rounds them to {figure(value)} nat.",
        value=value,
        threshold=limit,
        evidence=(Evidence("logits.mean", (names[at],)), Evidence("logits.log_z", (names[at],))),
        facts={"log_z": float(log_z[rows[-1], at]), "mean_logit": float(mean[rows[-1], at]),
               "rounding_error": value, "harmed": float(bad)},
    )  # fmt: skip
    return [finding]


def _drifts(
    run: Run,
    names: tuple[str, ...],
    steps: np.ndarray,
    series: dict[str, np.ndarray],
    drift: float,
    least: float,
    noise: float,
) -> list[Finding]:
    """The largest of the drifts, as one finding."""
    late = steps >= steps[-1] - max((steps[-1] - steps[0]) / 3, least)
    if steps[late][-1] - steps[late][0] < 0.9 * least:
        return []
    found = []
    for statistic, values in series.items():
        for at, name in enumerate(names):
            rows = np.flatnonzero(late & np.isfinite(values[:, at]))
            if len(rows) >= 2 * BLOCKS:
                rows = rows[evenly(len(rows))]
                rise = _steady_rise(values[rows, at], noise)
                if rise > drift:
                    found.append((rise, statistic, at, name, rows))
    if not found:
        return []
    rise, statistic, at, name, rows = max(found, key=lambda one: one[0])
    onset, last = int(steps[rows[_departs(series[statistic][rows, at], rise)]]), int(steps[rows[-1]])
    bad = suffers(run, onset)
    value = float(series[statistic][rows[-1], at])
    what = "log Z" if statistic == "log_z" else "the mean logit"
    finding = Finding(
        severity=Severity.warning if bad else Severity.info,
        confidence=0.75 if bad else 0.4,
        sites=(name,),
        onset_step=onset,
        peak_step=last,
        last_step=last,
        message=f"{what[0].upper()}{what[1:]} of {name} moves by {figure(rise)} nat between step {onset} "
        f"and step {last}, to {figure(value)}, "
        f"{'while the loss suffers' if bad else 'and the loss does not suffer'}.",
        value=rise,
        threshold=drift,
        evidence=(Evidence(f"logits.{statistic}", (name,)),),
        facts={
            "log_z": float(series["log_z"][rows[-1], at]),
            "mean_logit": float(series["mean"][rows[-1], at]),
            "drift": rise,
            "harmed": float(bad),
        },
    )
    return [finding]


def _departs(values: np.ndarray, rise: float) -> int:
    """The first position from which on `values` stay a tenth of their `rise` above where they began."""
    start = float(np.median(values[: max(len(values) // BLOCKS, 1)]))
    below = np.flatnonzero(values <= start + 0.1 * rise)
    return min(int(below[-1]) + 1 if below.size else 0, len(values) - 1)


def _steady_rise(values: np.ndarray, noise: float) -> float:
    """By how much `values` rise from their first eighth to the last, 0 where they do not do so steadily."""
    parts = np.array_split(values, BLOCKS)
    middles = np.array([np.median(part) for part in parts])
    scatter = spread(np.concatenate([part - np.median(part) for part in parts]))
    rise = float(middles[-1] - middles[0])
    steady = int((np.diff(middles) > 0).sum()) >= BLOCKS - 2
    return rise if steady and rise > noise * scatter else 0.0


def _run(log_z: np.ndarray, mean: np.ndarray, loss: np.ndarray, dtype: str = "float32") -> Run:
    series = {"logits.log_z": log_z, "logits.mean": mean, "run.loss": loss, "output.rms": np.ones(len(log_z))}
    return run_of(
        series,
        sites={"logits": [Site("logits", "head")], "output": [Site("output", "head", dtype=dtype, order=9)]},
        steps={"logits": np.arange(0, 1000, 10), "output": np.arange(0, 1000, 10)},
    )


@output_logit_drift.fires_on
def _drifts_as_the_loss_creeps_up(rng: np.random.Generator) -> Run:
    log_z = 6 + np.clip(np.arange(100) - 50, 0, None) * 0.1 + 0.05 * rng.standard_normal(100)
    loss = 3.2 + 1.6 * np.exp(-np.arange(1000) / 80) + np.clip(np.arange(1000) - 500, 0, None) * 0.002
    return _run(log_z, np.zeros(100), loss + 0.02 * rng.standard_normal(1000))


@output_logit_drift.fires_on
def _too_large_for_bfloat16(rng: np.random.Generator) -> Run:
    mean = -5.0 * np.arange(100) + 0.05 * rng.standard_normal(100)
    loss = 3.2 + 1.6 * np.exp(-np.arange(1000) / 80) + 0.02 * rng.standard_normal(1000)
    return _run(mean + 6, mean, loss, "bfloat16")


@output_logit_drift.quiet_on
def _becomes_sure(rng: np.random.Generator) -> Run:
    log_z = 4.85 + 2.5 * np.log1p(np.arange(100) / 10) + 0.05 * rng.standard_normal(100)
    loss = 3.2 + 1.6 * np.exp(-np.arange(1000) / 200) + 0.02 * rng.standard_normal(1000)
    return _run(log_z, np.zeros(100), loss)


@output_logit_drift.quiet_on
def _steady_offset(rng: np.random.Generator) -> Run:
    mean = -90 + 0.5 * rng.standard_normal(100)
    loss = 3.2 + 1.6 * np.exp(-np.arange(1000) / 200) + 0.02 * rng.standard_normal(1000)
    return _run(mean + 6, mean, loss)
