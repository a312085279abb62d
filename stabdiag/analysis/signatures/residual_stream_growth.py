"""The scale of the hidden state grows without end."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import suffers
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.robust import median
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run, Table
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

NUMBER = re.compile(r"(?:^|(?<=\.))\d+(?=\.|$)")
LEAST_BLOCKS = 2


@signature(
    "residual-stream-growth",
    title="The scale of the hidden state grows without end",
    needs=("output.rms",),
    explains=(
        "exploding-activation",
        "activation-outliers",
        "output-logit-drift",
        "vanishing-gradient",
        "nonfinite-origin",
        "loss-divergence",
        "loss-spike",
        "loss-plateau",
    ),
    causes=("learning-rate-too-high", "bad-init-scale", "missing-normalization", "weight-decay-too-low"),
)
def residual_stream_growth(
    run: Run, *, growth: float = 100.0, doublings: float = 3.0, window: float = 100.0, least: float = 10.0
) -> Iterator[Finding]:
    """What it means: the blocks of a deep model add more and more to what they hand on. Norm layers divide
    it away again, so that each block's own contribution, and its gradient, shrink in proportion, and narrow
    number formats lose what is small beside it.

    How it is detected: the root mean square of the outputs of modules of one type that follow each other
    (blocks), against its value at 5 % of the run, 20 to 100 steps in, or at the first record where that
    already lies beyond an early failure. In a block it is at three records in a row `growth` times that, or
    it has doubled `doublings` times in as many `window`s of steps and is `least` times that. What the loss
    does decides the severity: info while it does not suffer; a warning where it does, or where a block is
    beyond `growth` times and has doubled once more in the last `window`; critical where it does and a block
    is beyond `growth` times.

    Look-alikes: growth with the square root of the depth is by design. A level is harmless in float32: a
    small transformer at learning rate 3e-2 has an rms of 50 to 60 where others have 1 to 2, and the best
    loss; at 1e-1 it has 300 to 550, and fails. The hidden state of any model grows in its first steps.

    Fixes: lower the learning rate; weight decay on the projections back into the stream; scale their
    initialisation by 1 / sqrt(2 layers); normalise what a block adds.

    Calibrated on: small transformers with a branch that grows by 6 % a step (from an rms of 1.1 to 4,650 in
    200 steps). No finding above info in the 43 of 61 healthy runs that have these series, 14,520 steps:
    fewer than 0.21 in 1,000, at 95 %.

    Reference: Takase et al. 2023 (arXiv 2312.16903); Rybakov et al. 2024 (arXiv 2410.16682).

    Facts: rms, rms_before, growth, blocks (affected), of, harmed, lr.
    """
    table = run.table("output.rms")
    blocks = _blocks(table)
    if len(blocks) < LEAST_BLOCKS:
        raise NotEvaluable("the model has no modules of one type that follow each other")
    values = table.values[:, blocks].astype(np.float64)
    rows = ~np.isnan(values).all(axis=1)
    steps, values = table.steps[rows], values[rows]
    if len(steps) < 6:
        raise NotEvaluable(f"the outputs of blocks were recorded at only {len(steps)} steps")
    wanted = int(np.clip(run.steps // 20, 20, 100))
    base = int(np.searchsorted(steps, wanted))
    base = base if base < len(steps) - 3 else 0
    before = median(values[base : base + 3] if base else values[:1], axis=0)
    ratio = np.where(before > 0, values / np.where(before > 0, before, 1.0), np.nan)
    ratio[:base] = np.nan
    huge = ratio > growth
    flagged = _three(huge) | (_doubling(steps, values, int(doublings), window) & (ratio > least))
    if not flagged.any():
        return
    first = np.where(flagged.any(axis=0), np.argmax(flagged, axis=0), len(steps))
    touched = np.flatnonzero(flagged.any(axis=0))
    ranked = sorted(touched, key=lambda i: (first[i], i))
    at, onset = ranked[0], int(steps[first[ranked[0]]])
    rest = np.nan_to_num(values[:, at], nan=-np.inf, posinf=-np.inf)
    peak = int(np.argmax(np.where(np.arange(len(steps)) >= first[at], rest, -np.inf)))
    top = float(np.nanmax(np.where(np.isfinite(ratio), ratio, np.nan)))
    bad = suffers(run, onset)
    sites = tuple(table.names[blocks[i]] for i in ranked[:5])
    facts = {"rms": float(values[peak, at]), "rms_before": float(before[at]), "growth": top,
             "blocks": float(len(touched)), "of": float(len(blocks)), "harmed": float(bad)}  # fmt: skip
    rate = schedule(run).at(onset)
    ahead = bool((_three(huge) & _doubling(steps, values, 1, window))[-1].any())
    severity = Severity.critical if bad and _three(huge).any() else Severity.warning
    yield Finding(
        severity=severity if bad or ahead else Severity.info,
        confidence=0.8 if bad else 0.5,
        sites=sites,
        onset_step=onset,
        peak_step=int(steps[peak]),
        last_step=int(steps[np.flatnonzero(flagged.any(axis=1))[-1]] if peak < first[at] else
                      max(steps[np.flatnonzero(flagged.any(axis=1))[-1]], steps[peak])),
        message=f"The hidden state after {sites[0]} grows from an rms of {figure(before[at])} to "
        f"{figure(facts['rms'])}, in {len(touched)} of {len(blocks)} blocks, since step {onset}"
        f"{'' if bad else ', and the loss does not suffer'}.",
        value=top,
        threshold=growth,
        evidence=(Evidence("output.rms", sites, threshold=float(before[at]) * growth, log=True),),
        facts=facts if rate is None else {**facts, "lr": rate},
    )  # fmt: skip


def _blocks(table: Table) -> list[int]:
    """Columns of the largest family of numbered modules of one type that hold others, in forward order."""
    families: dict[tuple[str, str], list[int]] = {}
    parents = {name.rpartition(".")[0] for name in table.names}
    for i, site in enumerate(table.sites):
        pattern = NUMBER.sub("*", site.name)
        # Only the last number may vary: the layers of one stack, not all layers inside them.
        if (
            pattern.count("*") == 1
            and pattern.endswith("*")
            and (site.name in parents or not site.module_type)
        ):
            families.setdefault((pattern, site.module_type), []).append(i)
    largest = max(families.values(), key=len, default=[])
    return sorted(largest, key=lambda i: table.sites[i].order)


def _three(hit: np.ndarray) -> np.ndarray:
    """Whether it and the two before it hold, [steps, blocks]."""
    late = np.zeros_like(hit)
    late[2:] = hit[2:] & hit[1:-1] & hit[:-2]
    return late


def _doubling(steps: np.ndarray, values: np.ndarray, times: int, window: float) -> np.ndarray:
    """Whether each of the last `times` windows of steps has doubled the value, [steps, blocks]."""
    held = np.ones(values.shape, bool)
    later = values
    for number in range(1, times + 1):
        at = np.searchsorted(steps, steps - number * window)
        known = steps - number * window >= steps[0]
        earlier = values[at]
        held &= (later > 2 * earlier) & known[:, None]
        later = earlier
    return held


EVERY = np.arange(0, 800, 10)


def _run(rms: np.ndarray, loss: np.ndarray) -> Run:
    sites = [Site("output", f"blocks.{i}", "", order=i) for i in range(rms.shape[1])]
    return run_of({"output.rms": rms, "run.loss": loss}, sites={"output": sites}, steps={"output": EVERY})


def _noise(rng: np.random.Generator) -> np.ndarray:
    return np.asarray(np.exp(0.05 * rng.standard_normal((80, 4))))


@residual_stream_growth.fires_on
def _grows_exponentially_and_the_loss_rises(rng: np.random.Generator) -> Run:
    rms = np.exp(np.clip(np.arange(80) - 30, 0, None) / 8)[:, None] * (1 + np.arange(4) / 4) * _noise(rng)
    loss = 2 + 2 * np.exp(-np.arange(800) / 60) + np.clip(np.arange(800) - 450, 0, None) * 0.01
    return _run(rms, loss + 0.02 * rng.standard_normal(800))


@residual_stream_growth.quiet_on
def _large_with_the_best_loss(rng: np.random.Generator) -> Run:
    rms = (1 + 60 * (1 - np.exp(-np.arange(80) / 10)))[:, None] * _noise(rng)
    loss = 2 + 2 * np.exp(-np.arange(800) / 100) + 0.02 * rng.standard_normal(800)
    return _run(rms, loss)


@residual_stream_growth.quiet_on
def _a_stuck_loss_with_a_steady_stream(rng: np.random.Generator) -> Run:
    return _run(40 * _noise(rng), 4.2 + 0.02 * rng.standard_normal(800))
