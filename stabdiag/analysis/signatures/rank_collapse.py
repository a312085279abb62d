"""The tokens of a sequence become one and the same with depth."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import rises, stalled, suffers, while_finite
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.robust import Flags, median
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run, Table
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

RECURRENT = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
"""Modules that hand a state on from one token to the next."""

LAST = 3
"""Records that have to agree: while only the frequencies of tokens are learned, all of them look alike."""


@signature(
    "rank-collapse",
    title="The tokens of a sequence become one and the same with depth",
    needs=("tokens.cosine", "tokens.spread"),
    explains=("attention-uniform", "vanishing-gradient", "loss-plateau"),
    causes=("missing-residual", "bad-init-scale", "unbounded-attention-logits", "learning-rate-too-high"),
)
def rank_collapse(
    run: Run, *, alike: float = 0.6, apart: float = 0.3, spread: float = 0.3, identical: float = 0.1
) -> Iterator[Finding]:
    """What it means: attention averages, layer upon layer, and what is not carried past it is averaged
    away: in the end all tokens have the same representation, and the model cannot tell what stands where.

    How it is detected: the mean cosine between the tokens of a sequence is above `alike` in the last layer
    that still holds tokens, while it is below `apart` in the first; and the share of a channel's mean square
    that differs between tokens, in the median over channels, is below `spread` there, and below half of the
    first layer's; in the median of the last three records. A warning where the loss suffers, critical where
    the spread is then below `identical`. A model that predicts each token cannot do so from tokens that much
    alike: there it suffices that it was so at the first record, or that the second half of the run brought
    nothing. Otherwise it is info. Tokens that became alike while the model trained are told of only if the
    loss rose from there on. The site is the first layer from which on tokens stay alike.

    Look-alikes: while a model learns the frequencies of tokens, its last layer says the same of all.
    Trained language models point into a narrow cone, by a few channels that are large at every token: the
    spread of the median channel does not see these. A classifier of sequences pools its tokens. A batch of
    one repeated text. Convolutions over time hold their channels in the place of tokens, and are left out.
    The states of a recurrent network follow from one another, and are alike in any run of constant
    predictions, without depth: no finding where tokens are alike from such a layer on and no attention
    comes before it.

    Fixes: a residual connection around attention and feed-forward layer; a smaller initialisation of what
    they add; normalisation before, not after, the addition.

    Calibrated on: transformers of six blocks without residual connections (cosine 0.99 to 1.00, spread
    0.002 to 0.08) and with them (cosine up to 0.68; 0.8 with a spread of 0.1 in passing, while frequencies
    are learned). No finding above info in the 25 of 61 healthy runs that have these series, 6,970 steps:
    fewer than 0.43 in 1,000, at 95 %.

    Reference: Dong et al. 2021 (arXiv 2103.03404); Noci et al. 2022 (arXiv 2206.03126).

    Facts: cosine and spread (of the last layer), cosine_first, rank (of the last layer's tokens), layers
    (affected), harmed.
    """
    table, part = run.table("tokens.cosine"), run.table("tokens.spread")
    rows = np.flatnonzero(np.isfinite(table.values).any(axis=1))
    if len(rows) < LAST:
        raise NotEvaluable(f"tokens were compared at only {len(rows)} steps")
    order = _hidden(run, table)
    types = [table.sites[i].module_type for i in order]
    if sum("Conv1d" in kind for kind in types) > sum("Linear" in kind for kind in types):
        raise NotEvaluable("convolutions over time hold channels, where a sequence holds its tokens")
    if len(order) < 3:
        raise NotEvaluable("fewer than three layers hold sequences of tokens")
    steps, cosine = table.steps[rows], table.values[rows][:, order].astype(np.float64)
    varied = part.values[rows][:, order].astype(np.float64)
    late_cosine, late_spread = median(cosine[-LAST:], axis=0), median(varied[-LAST:], axis=0)
    varied_less = late_spread < min(spread, 0.5 * float(late_spread[0]))
    collapsed: Flags = np.asarray((late_cosine > alike) & varied_less)
    if not (late_cosine[0] < apart and collapsed[-1]):
        return
    first = int(np.flatnonzero(~collapsed)[-1]) + 1
    if _by_recurrence(run, table.sites[order[first]]):
        raise NotEvaluable("a recurrence carries its state from token to token: alike, but not by depth")
    names = tuple(table.names[i] for i in order[first:])
    above = (cosine[:, -1] > alike) & (cosine[:, 0] < apart) & (varied[:, -1] < spread)
    since = int(np.flatnonzero(~above)[-1]) + 1 if not above.all() else 0
    # Before the first comparison nothing is known: what it shows has been so from the start.
    onset = int(steps[since]) if since and since < len(steps) else 0
    lost = bool(late_spread[-1] < identical)
    if onset and not rises(run, onset):
        return  # tokens become alike where nothing but their frequencies is learned: it is no more than that
    each = lost and _predicts_each(run, table.sites[order[-1]])
    always = float(varied[0, -1]) < identical
    bad = suffers(while_finite(run), onset) or (each and (always or stalled(run)))
    value = float(late_cosine[-1])
    facts = {"cosine": value, "spread": float(late_spread[-1]), "cosine_first": float(late_cosine[0]),
             "layers": float(len(names)), "harmed": float(bad)}  # fmt: skip
    if "tokens.rank" in run:
        facts["rank"] = float(np.nanmedian(run.table("tokens.rank").values[rows[-LAST:], order[-1]]))
    severity = Severity.critical if lost else Severity.warning
    yield Finding(
        severity=severity if bad else Severity.info,
        confidence=0.85 if bad else 0.5,
        sites=names[:5],
        onset_step=onset,
        peak_step=max(int(steps[int(np.nanargmax(cosine[:, -1]))]), onset),
        last_step=int(steps[-1]),
        message=f"The tokens of a sequence become alike from {names[0]} on: their mean cosine is "
        f"{figure(value)} in {table.names[order[-1]]}, {figure(late_cosine[0])} in {table.names[order[0]]}"
        f"{'; each has to be predicted from it' if each else '; the loss suffers' if bad else ''}.",
        value=value,
        threshold=alike,
        evidence=(Evidence("tokens.cosine", (table.names[order[0]], *names[:4]), threshold=alike),),
        facts=facts,
    )


def _predicts_each(run: Run, last: Site) -> bool:
    """Whether there is a prediction for each token: as many rows of logits as tokens."""
    tokens = last.shape[0] * last.shape[1] if len(last.shape) == 3 else 0
    logits = {site.name for site in run.sites("logits")}
    shapes = [site.shape for site in run.sites("output") if site.name in logits]
    return tokens > 0 and any(shape and math.prod(shape[:-1]) == tokens for shape in shapes)


def _by_recurrence(run: Run, first: Site) -> bool:
    """Whether tokens became alike in, or after, a recurrent layer, with no attention before that."""
    attention = [site.order for site in run.sites("attention")]
    recurrent = [site.order for site in run.sites("output") if site.module_type in RECURRENT]
    return any(at <= first.order for at in recurrent) and not any(at <= first.order for at in attention)


def _hidden(run: Run, table: Table) -> list[int]:
    """Columns in forward order, without the logits and what only contains or returns them."""
    logits = {site.name for site in run.sites("logits")}
    last = max((site.order for site in table.sites if site.name in logits), default=None)
    chosen = [
        i for i, site in enumerate(table.sites)
        if last is None or (site.order < last and site.name not in logits)
    ]  # fmt: skip
    measured = set(np.flatnonzero(np.isfinite(table.values).any(axis=0)).tolist())
    return sorted(measured.intersection(chosen), key=lambda i: table.sites[i].order)


def _run(cosine: np.ndarray, spread: np.ndarray, loss: np.ndarray, kind: str = "Block") -> Run:
    sites = [Site("tokens", f"blocks.{i}", kind, order=i) for i in range(cosine.shape[1])]
    series = {"tokens.cosine": cosine, "tokens.spread": spread, "run.loss": loss}
    return run_of(series, sites={"tokens": sites}, steps={"tokens": np.arange(30, 330, 30)})


def _stuck(rng: np.random.Generator) -> np.ndarray:
    return np.asarray(4.36 + 0.5 * np.exp(-np.arange(331) / 10) + 0.02 * rng.standard_normal(331))


@rank_collapse.fires_on
def _no_residual_connections(rng: np.random.Generator) -> Run:
    cosine = 0.1 + 0.14 * np.arange(6) + 0.02 * rng.standard_normal((10, 6))
    return _run(cosine, 1.0 - cosine, _stuck(rng))


@rank_collapse.quiet_on
def _a_narrow_cone(rng: np.random.Generator) -> Run:
    cosine = np.clip(0.1 + 0.14 * np.arange(6), 0, 0.9) + 0.02 * rng.standard_normal((10, 6))
    return _run(cosine, np.full((10, 6), 0.9), _stuck(rng))


@rank_collapse.quiet_on
def _alike_with_a_good_loss(rng: np.random.Generator) -> Run:
    cosine = 0.1 + 0.14 * np.arange(6) + 0.02 * rng.standard_normal((10, 6))
    loss = 0.2 + 2 * np.exp(-np.arange(331) / 60) + 0.02 * rng.standard_normal(331)
    return _run(cosine, 1.0 - cosine, loss)


@rank_collapse.quiet_on
def _channels_of_convolutions_over_time(rng: np.random.Generator) -> Run:
    cosine = 0.1 + 0.14 * np.arange(6) + 0.02 * rng.standard_normal((10, 6))
    return _run(cosine, 1.0 - cosine, _stuck(rng), "ParametrizedConv1d")


@rank_collapse.quiet_on
def _states_of_a_recurrence(rng: np.random.Generator) -> Run:
    cosine = np.array([0.01, 0.02, 0.98]) + 0.005 * rng.standard_normal((10, 3))
    run = _run(cosine, 1.0 - cosine, _stuck(rng))
    outputs = [Site("output", "encoder", "Embedding", order=0), Site("output", "rnn", "LSTM", order=2)]
    series = {"output.rms": np.ones((10, 2))}
    kinds = {**run.kinds, **run_of(series, sites={"output": outputs}).kinds}
    return Run(run.info, kinds, run.events)


@rank_collapse.quiet_on
def _alike_from_the_input_on(rng: np.random.Generator) -> Run:
    return _run(np.full((10, 6), 0.8), np.full((10, 6), 0.2), _stuck(rng))
