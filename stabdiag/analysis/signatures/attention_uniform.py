"""Attention looks at all keys alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.attention import Layers, attention_layers
from stabdiag.analysis.blocks import blocks
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import suffers, while_finite
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.guessing import constant_answer
from stabdiag.analysis.history import history
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Floats, Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "attention-uniform",
    title="Attention looks at all keys alike",
    needs=("attention.entropy_ratio",),
    explains=("vanishing-gradient", "loss-plateau"),
    causes=("learning-rate-too-low", "bad-init-scale", "missing-residual", "detached-graph",
            "parameters-not-optimized"),
)  # fmt: skip
def attention_uniform(
    run: Run, *, uniform: float = 0.99, persists: float = 200.0, used: float = 0.9
) -> Iterator[Finding]:
    """What it means: every head of a layer averages over all keys: the layer might as well have none.

    How it is detected: the entropy over its maximum is at least `uniform` in all heads of a layer, in the
    median of the last three records and at nine of ten since the start or since it became so, for
    `persists` steps at least and three fifths of the run. A warning where that holds in all layers and the
    loss suffers, or where others have come below `used` meanwhile and the loss suffers; otherwise info.

    Where the loss is that of the best answer that ignores the input, nothing is said: an average over the
    keys tells of them still, and a model that has it alone does better. What keeps it from that keeps
    attention from learning too.

    Look-alikes: keys that are all alike cannot be told apart (rank-collapse). All attention begins uniform,
    at an initialisation of standard deviation 0.02, and stays so for as long as the frequencies of the tokens
    are learned. Layers that pool are uniform by design. A model that was trained before may have learned so;
    where it keeps its loss it does not suffer.

    Fixes: give queries and keys a scale at which the dot product has a variance near 1; a higher learning
    rate; look whether their gradient arrives.

    Calibrated on: small transformers with queries held near zero (0.998 in the layer), and healthy ones on
    data that need no attention, which keep 0.998 in all layers with a good loss. No finding above info in
    the 80 of 222 healthy runs that have these series, 23,083 steps: fewer than 0.13 in 1,000, at 95 %.

    Reference: Noci et al. 2022 (arXiv 2206.03126); Zhai et al. 2023 (arXiv 2303.06296).

    Facts: entropy_ratio (least of the heads, in the median of the last three records), layers (affected),
    of, harmed.
    """
    if _ignores_the_input(run):
        raise NotEvaluable("the loss is that of an answer that ignores the input: nothing could be learned")
    table = attention_layers(run, "attention.entropy_ratio")
    if len(table.steps) < 3 or table.steps[-1] - table.steps[0] < persists:
        raise NotEvaluable(f"attention was recorded over less than {persists:.0f} steps")
    least = _least_of_heads(table)
    rows = np.isfinite(least).any(axis=1)
    least, steps = least if rows.all() else least[rows], table.steps[rows]
    if len(steps) < 3:
        raise NotEvaluable("all heads of a layer were measured at fewer than three steps")
    since = [_since(least[:, i] >= np.float64(uniform)) for i in range(least.shape[1])]
    last = np.median(least[-3:].astype(np.float64), axis=0)
    needed = max(persists, 0.6 * run.steps)
    flat = [
        i for i, at in enumerate(since)
        if at is not None and last[i] >= uniform and steps[-1] - steps[at] >= needed
    ]  # fmt: skip
    if not flat:
        return
    onset = int(steps[min(at for i in flat if (at := since[i]) is not None)])
    bad, others = suffers(while_finite(run), onset), bool((last < used).any())
    all_of_them = len(flat) == len(table.names)
    names = tuple(table.names[i] for i in flat)
    value = float(max(last[flat]))
    yield Finding(
        severity=Severity.warning if bad and (all_of_them or others) else Severity.info,
        confidence=0.8 if bad else 0.5,
        sites=names[:5],
        onset_step=onset,
        peak_step=int(steps[-1]),
        last_step=int(steps[-1]),
        message=f"All heads of {names[0]} spread over all keys alike (entropy {figure(value)} of the largest "
        f"possible), in {len(flat)} of {len(table.names)} layers, since step {onset}.",
        value=value,
        threshold=uniform,
        evidence=(Evidence("attention.entropy_ratio", names[:5], threshold=uniform),),
        facts={
            "entropy_ratio": value,
            "layers": float(len(flat)),
            "of": float(len(table.names)),
            "harmed": float(bad),
        },
    )


def _ignores_the_input(run: Run) -> bool:
    answer = constant_answer(run)[0]
    losses = history(run, "run.loss").finite().values
    return len(losses) > 0 and float(np.median(losses[-len(losses) // 4 :])) > 0.97 * answer


def _least_of_heads(table: Layers) -> Floats:
    """[steps, layers]; -inf where a head was not measured."""
    by_owner = np.argsort(table.owner, kind="stable")
    begin = np.searchsorted(table.owner[by_owner], np.arange(len(table.names)))
    least = np.empty(table.values.shape, np.float32)
    for rows in blocks(*table.of_heads.shape):
        heads = table.of_heads[rows][:, by_owner]
        least[rows] = np.minimum.reduceat(np.where(np.isnan(heads), -np.inf, heads), begin, axis=1)
    return least


def _since(high: np.ndarray) -> int | None:
    """The first position of `high` from which on nine of ten are."""
    share = np.cumsum(high[::-1])[::-1] / np.arange(len(high), 0, -1)
    at = np.flatnonzero(high & (share >= 0.9))
    return int(at[0]) if at.size else None


def _run(entropy: np.ndarray, loss: np.ndarray, *events: Event) -> Run:
    sites = [Site("attention", f"blocks.{i}.attn", "Attention", order=i) for i in range(entropy.shape[1])]
    series = {"attention.entropy_ratio": entropy, "run.loss": loss}
    return run_of(
        series, sites={"attention": sites}, steps={"attention": np.arange(0, 600, 10)}, events=events
    )


@attention_uniform.fires_on
def _never_used(rng: np.random.Generator) -> Run:
    loss = np.r_[np.linspace(4.85, 4.3, 80), np.full(520, 4.3)] + 0.02 * rng.standard_normal(600)
    return _run(1 - 0.002 * rng.random((60, 3)), loss)


@attention_uniform.quiet_on
def _trained_before_and_keeps_its_loss(rng: np.random.Generator) -> Run:
    loss = Event("loss", 0.0, data={"function": "cross-entropy", "classes": 256})
    return _run(1 - 0.002 * rng.random((60, 3)), 2.5 + 0.05 * rng.standard_normal(600), loss)


@attention_uniform.quiet_on
def _only_at_the_start(rng: np.random.Generator) -> Run:
    course = np.clip(1.1 - 0.01 * np.arange(60), 0.5, 0.999)[:, None] - 0.001 * rng.random((60, 3))
    loss = 3.2 + 1.6 * np.exp(-np.arange(600) / 80) + 0.02 * rng.standard_normal(600)
    return _run(course, loss)


@attention_uniform.quiet_on
def _a_layer_that_pools(rng: np.random.Generator) -> Run:
    entropy = 0.7 + 0.05 * rng.random((60, 3))
    entropy[:, 0] = 0.999
    loss = 3.2 + 1.6 * np.exp(-np.arange(600) / 80) + 0.02 * rng.standard_normal(600)
    return _run(entropy, loss)
