"""The logits of attention grow without end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.attention import Layers, attention_layers, earlier, matching
from stabdiag.analysis.blocks import blocks
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import improves, suffers
from stabdiag.analysis.robust import Doubles, Flags, median
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Floats, Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

REACH = 50
"""Steps within which a doubling counts."""

LATE = 3
"""Records, at the least, that say how it ends."""


@signature(
    "attention-logit-growth",
    title="The logits of attention grow without end",
    needs=("attention.max_logit",),
    explains=(
        "attention-entropy-collapse",
        "rank-collapse",
        "exploding-activation",
        "exploding-gradient",
        "vanishing-gradient",
        "nonfinite-origin",
        "loss-divergence",
        "loss-spike",
        "loss-plateau",
    ),
    causes=("unbounded-attention-logits", "learning-rate-too-high", "bad-init-scale", "missing-warmup"),
)
def attention_logit_growth(
    run: Run,
    *,
    high: float = 50.0,
    low_entropy: float = 0.3,
    extreme: float = 1000.0,
    one_hot: float = 0.15,
    blind: float = 0.05,
) -> Iterator[Finding]:
    """What it means: the largest q·k/√d outgrows what a softmax can use: each row attends to one key, the
    gradient of queries and keys vanishes, and small changes of a weight flip which key that is.

    How it is detected: the largest logit of a layer is above `high`, and has doubled within 50 steps or the
    layer's mean entropy is below `low_entropy` of its maximum. What the loss does decides the severity: info
    while it improves; a warning where it suffers, or where it does not improve and a layer is already beyond
    2 × `high`, below `low_entropy` and growing, or where over the last quarter of the records a layer is, in
    the median, beyond 2 × `high` and below `blind`: far past what reading a single key takes, and without a
    gradient that could lead back; critical where it suffers and the logit is above `extreme`, or above 2 ×
    `high` with an entropy below `one_hot`.

    Look-alikes: a level alone is no harm: a small transformer at learning rate 3e-2 sat at 150 with an
    entropy of 0.31 to 0.45, and ended with the best loss. Relative position biases and attention sinks make
    large fixed logits. A bad initialisation has them at step 0.

    Fixes: rescale queries and keys where the logit passes a limit (QK-clip); lower the learning rate, or
    warm it up for longer; normalise queries and keys; cap the logits.

    Calibrated on: a small transformer at learning rates of 3e-3 (largest logit 8 to 13), 3e-2 (150, the
    best loss) and 1e-1 (280 to 6,400), and queries that grow by 3 and 6 % a step, which it tells 80 to 90
    steps after that begins. No finding above info in the 80 of 222 healthy runs that have these
    series, 23,083 steps: fewer than 0.13 in 1,000, at 95 %; one at five times the usual rate reaches 175
    with an entropy of 0.07, while its loss goes down from 3.1 to 2.7.

    Reference: Wortsman et al. 2023 (arXiv 2309.14322); Dehghani et al. 2023 (arXiv 2302.05442); Kimi K2
    (arXiv 2507.20534); Rybakov et al. 2024 (arXiv 2410.16682).

    Facts: max_logit (largest), entropy_ratio (of the layer then), growth (over 50 steps), layers
    (affected), harmed, lr.
    """
    table = attention_layers(run, "attention.max_logit")
    entropy = matching(run, "attention.entropy_ratio", table)
    seen = _seen(table, entropy, high=high, low_entropy=low_entropy, extreme=extreme, one_hot=one_hot)
    flagged = seen.flagged
    if not flagged.any():
        return
    rows = np.flatnonzero(flagged.any(axis=1))
    onset = int(table.steps[rows[0]])
    peak = int(rows[np.argmax(seen.highest[rows])])
    worst = int(np.argmax(np.where(flagged[peak], table.values[peak], -np.inf)))
    value = float(table.values[peak, worst])
    bad = suffers(run, onset)
    severity = Severity.critical if bad and seen.terminal else Severity.warning
    ended = _ended(table, entropy, 2 * high, blind)
    if not bad and not ended.any() and not (seen.ahead and not improves(run, onset)):
        severity = Severity.info
    touched = np.flatnonzero(flagged.any(axis=0))
    first = np.argmax(flagged, axis=0)
    ranked = sorted(touched, key=lambda i: (first[i], -table.values[first[i], i]))
    hot = table.hottest(int(ranked[0]), int(first[ranked[0]]), largest=True)
    sites = tuple(dict.fromkeys((table.names[ranked[0]], *hot, *(table.names[i] for i in ranked[1:5]))))
    facts = {
        "max_logit": value,
        "growth": seen.growth,
        "layers": float(len(touched)),
        "harmed": float(bad),
    }
    spread = float(entropy[peak, worst])
    if np.isfinite(spread):
        facts["entropy_ratio"] = spread
    rate = schedule(run).at(onset)
    told = f", its entropy is {figure(spread)} of the most possible" if np.isfinite(spread) else ""
    yield Finding(
        severity=severity,
        confidence=0.9 if bad else 0.6,
        sites=sites,
        onset_step=onset,
        peak_step=int(table.steps[peak]),
        last_step=int(table.steps[rows[-1]]),
        message=f"The attention logits of {table.names[worst]} reach {figure(value)} at step "
        f"{table.steps[peak]}{told}; above {figure(high)} since step {onset} in {len(touched)} of "
        f"{len(table.names)} layers{'' if bad else ', and the loss does not suffer'}.",
        value=value,
        threshold=high,
        evidence=(
            Evidence("attention.max_logit", sites, threshold=high, log=True),
            *([Evidence("attention.entropy_ratio", sites)] if "attention.entropy_ratio" in run else []),
        ),
        facts=facts if rate is None else {**facts, "lr": rate},
    )


def _ended(table: Layers, entropy: Floats, high: float, blind: float) -> Flags:
    """[layers]: which are that large and that narrow in the median of the last quarter of the records."""
    late = slice(-max(len(table.steps) // 4, LATE), None)
    if len(table.steps) < 2 * LATE:
        return np.zeros(table.values.shape[1], bool)
    with np.errstate(invalid="ignore"):
        return (median(table.values[late], axis=0) > high) & (median(entropy[late], axis=0) < blind)


@dataclass(frozen=True)
class _Seen:
    """Where logits are `flagged` [steps, layers], and of these the `highest` of each step, the largest
    `growth`, whether one is `terminal`; `ahead` where one grows on though it is large and narrow."""

    flagged: Flags
    highest: Doubles
    growth: float
    terminal: bool
    ahead: bool


def _seen(
    table: Layers, entropy: Floats, *, high: float, low_entropy: float, extreme: float, one_hot: float
) -> _Seen:
    flagged, highest = np.zeros(table.values.shape, bool), np.full(len(table.steps), -np.inf)
    most, terminal, ahead = np.nan, False, False
    past = earlier(table.steps, REACH)
    for rows in blocks(*table.values.shape):
        logit, spread = _known(table.values[rows]), entropy[rows].astype(np.float64)
        growth, narrow = logit / np.maximum(_known(table.values[past[rows]]), 1e-9), spread < low_entropy
        flagged[rows] = hit = (logit > high) & ((growth >= 2.0) | narrow)
        highest[rows] = np.where(hit, logit, -np.inf).max(axis=1)
        most = np.fmax(most, np.fmax.reduce(growth[hit], initial=np.nan))
        terminal |= bool((hit & ((logit > extreme) | ((logit > 2 * high) & (spread < one_hot)))).any())
        ahead |= bool(((logit > 2 * high) & narrow & (growth >= 2.0)).any())
    return _Seen(flagged, highest, float(most), terminal, ahead)


def _known(logit: Floats) -> Doubles:
    return np.where(np.isnan(logit), -np.inf, logit.astype(np.float64))


def _run(logit: np.ndarray, entropy: np.ndarray, loss: np.ndarray) -> Run:
    sites = [Site("attention", f"blocks.{i}.attn", "Attention", order=i) for i in range(logit.shape[1])]
    series = {"attention.max_logit": logit, "attention.entropy_ratio": entropy, "run.loss": loss}
    return run_of(series, sites={"attention": sites}, steps={"attention": np.arange(0, 400, 10)})


def _noise(rng: np.random.Generator, layers: int = 3) -> np.ndarray:
    return np.asarray(np.exp(0.05 * rng.standard_normal((40, layers))))


@attention_logit_growth.fires_on
def _grows_and_the_loss_is_lost(rng: np.random.Generator) -> Run:
    growth = np.exp(np.clip(np.arange(40) - 8, 0, 14) / 2.2)[:, None]
    entropy = np.clip(0.95 - 0.06 * np.arange(40), 0.05, 1)[:, None] * np.ones(3)
    loss = np.r_[np.linspace(4.85, 4.2, 100), np.full(300, 4.25)] + 0.02 * rng.standard_normal(400)
    return _run(8.0 * growth * _noise(rng), entropy, loss)


@attention_logit_growth.fires_on
def _ends_at_single_keys_while_the_loss_falls(rng: np.random.Generator) -> Run:
    logit = 8 + 200 * (1 - np.exp(-np.arange(40) / 4))[:, None] * _noise(rng)
    loss = 3.2 + 1.6 * np.exp(-np.arange(400) / 80) + 0.02 * rng.standard_normal(400)
    return _run(logit, np.full((40, 3), 0.02), loss)


@attention_logit_growth.quiet_on
def _large_with_the_best_loss(rng: np.random.Generator) -> Run:
    logit = 8 + 142 * (1 - np.exp(-np.arange(40) / 4))[:, None] * _noise(rng)
    loss = 3.2 + 1.6 * np.exp(-np.arange(400) / 80) + 0.02 * rng.standard_normal(400)
    return _run(logit, np.full((40, 3), 0.35), loss)


@attention_logit_growth.quiet_on
def _large_and_steady_from_the_start(rng: np.random.Generator) -> Run:
    loss = np.full(400, 4.2) + 0.02 * rng.standard_normal(400)
    return _run(80 * _noise(rng), np.full((40, 3), 0.6), loss)
