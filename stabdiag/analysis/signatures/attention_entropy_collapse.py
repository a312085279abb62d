"""Attention looks at one key only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.attention import Layers, attention_layers, earlier, matching
from stabdiag.analysis.blocks import blocks
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import suffers
from stabdiag.analysis.step_size import schedule
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Floats, Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

REACH = 100
"""Steps within which a fall by half counts."""


@signature(
    "attention-entropy-collapse",
    title="Attention looks at one key only",
    needs=("attention.entropy_ratio",),
    explains=(
        "rank-collapse",
        "exploding-gradient",
        "vanishing-gradient",
        "loss-divergence",
        "loss-spike",
        "loss-plateau",
    ),
    causes=("unbounded-attention-logits", "learning-rate-too-high", "bad-init-scale", "missing-warmup"),
)
def attention_entropy_collapse(
    run: Run, *, collapsed: float = 0.1, narrow: float = 0.3, fall: float = 0.5, head: float = 0.05
) -> Iterator[Finding]:
    """What it means: the softmax of attention has become one-hot: nothing else is read, and no gradient
    comes back through the choice.

    How it is detected: the mean entropy of a layer's heads, over its maximum, is below `collapsed`, or has
    fallen by the share `fall` within 100 steps to below `narrow`; and the loss suffers. Critical where it
    is below `collapsed`. Without harm, or where single heads are below `head`, it is info. What goes to the
    first key alone does not count: a layer whose entropy over the other keys is above `narrow` has a sink.

    Look-alikes: heads that copy the token before are one-hot, and healthy; so are sinks at the first token.
    A task of copying is solved by one-hot layers. Short rows have little entropy to lose. Healthy small
    transformers keep their worst head above 0.4.

    Fixes: as for growing logits, from which it mostly comes: QK-clip, a lower learning rate, a longer
    warm-up, normalised queries and keys.

    Calibrated on: the same trainings as growing logits, and an initialisation of standard deviation 1 (0.02
    of the largest entropy). No finding above info in the 25 of 61 healthy runs that have these series,
    6,970 steps: fewer than 0.43 in 1,000, at 95 %.

    Reference: Zhai et al. 2023 (arXiv 2303.06296).

    Facts: entropy_ratio (least, of a layer), max_logit (then), layers (affected), harmed, lr.
    """
    table = attention_layers(run, "attention.entropy_ratio")
    ratio = _without_sinks(run, table, narrow)
    flagged, past = np.zeros(ratio.shape, bool), earlier(table.steps, REACH)
    for block in blocks(*ratio.shape):
        now, before = ratio[block].astype(np.float64), ratio[past[block]].astype(np.float64)
        flagged[block] = (now < collapsed) | ((now < narrow) & (now < (1 - fall) * before))
    if not flagged.any():
        yield from _single_heads(table, head)
        return
    rows = np.flatnonzero(flagged.any(axis=1))
    onset = int(table.steps[rows[0]])
    touched = np.flatnonzero(flagged.any(axis=0))
    first = np.argmax(flagged, axis=0)
    ranked = sorted(touched, key=lambda i: (first[i], ratio[first[i], i]))
    peak = int(np.argmin(np.min(ratio, axis=1, where=flagged, initial=np.inf)))
    worst = int(np.argmin(np.where(flagged[peak], ratio[peak], np.inf)))
    value, bad = float(ratio[peak, worst]), suffers(run, onset)
    hot = table.hottest(int(ranked[0]), int(first[ranked[0]]), largest=False)
    sites = tuple(dict.fromkeys((table.names[ranked[0]], *hot, *(table.names[i] for i in ranked[1:5]))))
    facts = {"entropy_ratio": value, "layers": float(len(touched)), "harmed": float(bad)}
    logit = float(matching(run, "attention.max_logit", table)[peak, worst])
    rate = schedule(run).at(onset)
    facts |= {"max_logit": logit} if np.isfinite(logit) else {}
    facts |= {"lr": rate} if rate is not None else {}
    severity = Severity.critical if value < collapsed else Severity.warning
    yield Finding(
        severity=severity if bad else Severity.info,
        confidence=0.9 if bad else 0.5,
        sites=sites,
        onset_step=onset,
        peak_step=int(table.steps[peak]),
        last_step=int(table.steps[rows[-1]]),
        message=f"The attention of {table.names[worst]} has {figure(value)} of its largest possible entropy "
        f"at step {table.steps[peak]}; it collapsed in {len(touched)} of {len(table.names)} layers, first at "
        f"step {onset}{'' if bad else ', and the loss does not suffer'}.",
        value=value,
        threshold=collapsed,
        evidence=(Evidence("attention.entropy_ratio", sites, threshold=collapsed, band=(0.4, 1.0)),),
        facts=facts,
    )


def _without_sinks(run: Run, table: Layers, narrow: float) -> Floats:
    """The ratios; NaN where the entropy is low for the first key's sake alone."""
    ratio = np.array(table.values)
    entropy = matching(run, "attention.entropy", table)
    rest = matching(run, "attention.entropy_rest", table)
    for rows in blocks(*ratio.shape):
        room = entropy[rows].astype(np.float64) / ratio[rows]  # ln of the keys, in the mean
        ratio[rows][rest[rows] > narrow * room] = np.nan
    return ratio


def _single_heads(table: Layers, head: float) -> Iterator[Finding]:
    low = table.of_heads < np.float64(head)
    rows = np.flatnonzero(low.any(axis=1))
    if not rows.size:
        return
    names = tuple(table.heads[i] for i in np.flatnonzero(low.any(axis=0)))
    least = np.min(table.of_heads, axis=1, where=low, initial=np.inf)
    peak = int(np.argmin(least))
    yield Finding(
        severity=Severity.info,
        confidence=0.5,
        sites=names[:5],
        onset_step=int(table.steps[rows[0]]),
        peak_step=int(table.steps[peak]),
        last_step=int(table.steps[rows[-1]]),
        message=f"{len(names)} of {len(table.heads)} heads attend to one key: entropy {figure(least[peak])} "
        f"of the largest possible in {names[0]}.",
        value=float(least[peak]),
        threshold=head,
        evidence=(Evidence("attention.entropy_ratio", names[:5], threshold=head),),
    )


def _run(entropy: np.ndarray, loss: np.ndarray) -> Run:
    sites = [Site("attention", f"blocks.{i}.attn", "Attention", order=i) for i in range(entropy.shape[1])]
    series = {"attention.entropy_ratio": entropy, "run.loss": loss}
    return run_of(series, sites={"attention": sites}, steps={"attention": np.arange(0, 400, 10)})


def _falling(rng: np.random.Generator) -> np.ndarray:
    course = np.clip(0.95 - 0.08 * np.clip(np.arange(40) - 5, 0, None), 0.03, 1)[:, None]
    return np.asarray(course * np.exp(0.05 * rng.standard_normal((40, 3))))


@attention_entropy_collapse.fires_on
def _collapses_and_the_loss_is_lost(rng: np.random.Generator) -> Run:
    loss = np.r_[np.linspace(4.85, 4.2, 100), np.full(300, 4.25)] + 0.02 * rng.standard_normal(400)
    return _run(_falling(rng), loss)


@attention_entropy_collapse.quiet_on
def _learns_to_copy(rng: np.random.Generator) -> Run:
    loss = 0.1 + 4.7 * np.exp(-np.arange(400) / 80) + 0.02 * rng.standard_normal(400)
    return _run(_falling(rng), loss)


@attention_entropy_collapse.quiet_on
def _one_head_of_many(rng: np.random.Generator) -> Run:
    heads = [Site("attention", f"attn[h{i}]", "Attention", order=0) for i in range(4)]
    values = np.full((40, 5), 0.7) * np.exp(0.05 * rng.standard_normal((40, 5)))
    values[10:, 2] = 0.02
    loss = np.full(400, 4.2) + 0.02 * rng.standard_normal(400)
    return run_of(
        {"attention.entropy_ratio": values, "run.loss": loss},
        sites={"attention": [Site("attention", "attn", "Attention", order=0), *heads]},
        steps={"attention": np.arange(0, 400, 10)},
    )
