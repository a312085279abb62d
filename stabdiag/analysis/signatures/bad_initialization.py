"""The model starts at the wrong scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import outputs, weights
from stabdiag.analysis.gain import WIDE, Gain, wide_weights
from stabdiag.analysis.guessing import guessing
from stabdiag.analysis.initial import LINEAR, Uninitialized, never_initialized
from stabdiag.analysis.pretrained import pretrained
from stabdiag.analysis.similarities import of_similarities
from stabdiag.core.event import Event
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "bad-initialization",
    title="The model starts at the wrong scale",
    needs=("run.loss",),
    explains=(
        "update-ratio-high",
        "update-ratio-low",
        "exploding-activation",
        "exploding-gradient",
        "vanishing-gradient",
        "dead-units",
        "norm-statistics-mismatch",
        "nonfinite-origin",
        "loss-divergence",
        "loss-plateau",
        "attention-logit-growth",
        "attention-entropy-collapse",
        "saturated-units",
        "rank-collapse",
        "residual-stream-growth",
        "vae-kl-explosion",
        "context-blind-plateau",
        "activation-outliers",
    ),
    causes=("bad-init-scale", "unnormalized-input", "missing-normalization", "wrong-loss"),
)
def bad_initialization(
    run: Run, *, excess: float = 0.5, severe: float = 0.5, grows: float = 30.0, shrinks: float = 1e-3
) -> Iterator[Finding]:
    """What it means: before the first step the model is confidently wrong, or its activations explode
    or fade with the depth. At best the first steps are spent on undoing it.

    How it is detected: at step 0 only. Parameters hold values that are not finite, or beyond 1,000 in a
    linear layer and a million elsewhere, or denormal, or most matrices are zero: memory that no
    initialization wrote to, as `to_empty` leaves it; critical where values are wild. Or the cross-entropy, in
    the mean as torch's function has it, whatever the script makes of it, is more than `excess` nats above
    ln(classes), which a model without an opinion has; a warning from `severe` x ln(classes) above it. Or the
    rms of the outputs of the linear layers, the last one left out, changes steadily over 4 layers or more and
    by more than `grows` times in all, or to less than `shrinks`. Of a model that was trained before, which
    uneven gains, a good first loss or matrices that no draw gives tell, only new layers that begin too wide
    are spoken of. Logits that are similarities between samples have the scale of a temperature, and no
    such reference.

    Look-alikes: single matrices of zeros are meant (output layers, gates). A loss far below ln(classes) is
    a pre-trained model or a head that knows the class frequencies; on other data than it learned from a
    trained head is confidently wrong. A sum of several losses has no such
    reference. PyTorch's default initialisation lets activations shrink to the scale of the biases, which
    is harmless. Inputs in 0..255 do the same as large weights.

    Fixes: after `to_empty`, initialize every module that has parameters of its own; scale by fan-in (He,
    Xavier), N(0, 0.02) in transformers with residual branches divided by sqrt(2 layers); a zero or small
    output layer; normalise the input.

    Reference: Glorot and Bengio 2010; He et al. 2015 (arXiv 1502.01852); OLMo 2 (arXiv 2501.00656).

    Facts: loss_start, loss_expected, classes; rms_first, rms_last, growth, layers; uninitialized
    (number of parameters), absmax (of the first); gain (of the widest), layers (that begin so wide).
    """
    if (empty := never_initialized(run)) is not None:
        yield _never_written(empty)
        return
    wide, loaded = wide_weights(run), pretrained(run)
    if loaded is not None and not wide:
        raise NotEvaluable(f"the weights were trained before: {loaded}")
    loss = run.table("run.loss")
    if not len(loss.steps) or loss.steps[0] != 0:
        raise NotEvaluable("step 0 was not recorded")
    classes = run.fact("loss", "classes")
    if (guess := guessing(run)) is not None and loss.sites and not of_similarities(run):
        expected = math.log(classes)
        found = float(loss.first()[0]) * expected / guess
        if found - expected > excess:
            yield _confidently_wrong(run, found, expected, float(classes), excess, severe)
            return
    judged = "output.rms" in run and loaded is None
    steady = list(_over_the_depth(run, grows, shrinks)) if judged else []
    if wide and not steady:
        yield _too_wide(wide)
    yield from steady


def _never_written(empty: Uninitialized) -> Finding:
    names = tuple(site.name for site in empty.sites)
    reach = f" (up to {figure(empty.absmax)})" if math.isfinite(empty.absmax) else ""
    more = f" and {len(names) - 1} other parameters" if len(names) > 1 else ""
    return Finding(
        severity=Severity.critical if empty.fatal else Severity.warning,
        confidence=0.95 if empty.fatal else 0.8,
        sites=names[:5],
        onset_step=0,
        peak_step=0,
        last_step=0,
        message=f"Before the first step {names[0]}{more} held {empty.what}{reach}: they "
        "were never initialized.",
        value=empty.absmax,
        evidence=(Evidence("initial.absmax", names[:5], log=True),),
        facts={"uninitialized": float(len(names)), "absmax": empty.absmax},
    )


def _too_wide(wide: Sequence[Gain]) -> Finding:
    """Of no consequence by itself: what follows may normalise."""
    widest = max(wide, key=lambda gain: gain.value)
    names = tuple(gain.site.name for gain in wide)
    more = f", and those of {len(names) - 1} other layers," if len(names) > 1 else ""
    return Finding(
        severity=Severity.info,
        confidence=0.6,
        sites=names[:5],
        onset_step=0,
        peak_step=0,
        last_step=0,
        message=f"{widest.site.name}{more} begins so wide that it multiplies a signal by "
        f"{figure(widest.value)}; usual initializations do by 0.5 to 1.7.",
        value=widest.value,
        threshold=WIDE,
        evidence=(Evidence("initial.rms", names[:5], log=True),),
        facts={"gain": widest.value, "layers": float(len(names))},
    )


def _confidently_wrong(
    run: Run, found: float, expected: float, classes: float, excess: float, severe: float
) -> Finding:
    linear = [site for site in run.sites("output") if site.module_type in LINEAR]
    last = (max(linear, key=lambda site: site.order).name,) if linear else ("run",)
    sites = tuple(gain.site.module for gain in wide_weights(run))[:5] or last
    bad = found - expected > max(excess, severe * expected)
    return Finding(
        severity=Severity.warning if bad else Severity.info,
        confidence=0.9 if bad else 0.6,
        sites=sites,
        onset_step=0,
        peak_step=0,
        last_step=0,
        message=f"The loss starts at {figure(found)}; guessing one of {classes:,.0f} classes costs "
        f"{figure(expected)}.",
        value=found,
        threshold=expected + excess,
        evidence=(
            Evidence("run.loss", ("run",), threshold=expected + excess),
            *([Evidence("output.rms", sites, log=True)] if linear and "output.rms" in run else []),
        ),
        facts={"loss_start": found, "loss_expected": expected, "classes": classes},
    )


def _over_the_depth(run: Run, grows: float, shrinks: float) -> Iterator[Finding]:
    table = run.table("output.rms")
    order = sorted((s.order, i) for i, s in enumerate(table.sites) if s.module_type in LINEAR)
    deep = [i for _, i in order][:-1]
    if len(deep) < 4 or not len(table.steps) or table.steps[0] != 0:
        return
    rms = table.values[0, deep].astype(np.float64)
    if not (np.isfinite(rms) & (rms > 0)).all():
        return
    logs = np.log10(rms)
    total = float(logs[-1] - logs[0])
    # Steadily: hardly any step goes the other way, as it would from one kind of layer to the next.
    steady = abs(total) > 0.8 * float(np.abs(np.diff(logs)).sum())
    if not steady or math.log10(shrinks) < total < math.log10(grows):
        return
    names = tuple(table.names[i] for i in deep)
    change = 10**total
    word = "grow" if total > 0 else "shrink"
    sites = names[::-1][:3] if total > 0 else (*names[-2:], names[0])
    yield Finding(
        severity=Severity.warning,
        confidence=0.8,
        sites=sites,
        onset_step=0,
        peak_step=0,
        last_step=0,
        message=f"At step 0 the activations {word} from rms {figure(rms[0])} in {names[0]} to "
        f"{figure(rms[-1])} in {names[-1]}, over {len(deep)} layers.",
        value=change,
        threshold=grows if total > 0 else shrinks,
        evidence=(Evidence("output.rms", (names[0], names[len(names) // 2], names[-1]), log=True),),
        facts={
            "rms_first": float(rms[0]),
            "rms_last": float(rms[-1]),
            "growth": change,
            "layers": float(len(deep)),
        },
    )


def _loss(first: float, rng: np.random.Generator, classes: int = 128) -> Run:
    loss = 3.0 + (first - 3.0) * np.exp(-np.arange(100) / 20) + 0.02 * rng.standard_normal(100)
    return run_of(
        {"run.loss": loss},
        events=[Event("loss", 0.0, data={"function": "cross-entropy", "classes": classes})],
    )


@bad_initialization.fires_on
def _head_too_large(rng: np.random.Generator) -> Run:
    return _loss(17.9, rng)


@bad_initialization.fires_on
def _gain_of_three(rng: np.random.Generator) -> Run:
    rms = 3.0 ** np.arange(8) * rng.uniform(0.9, 1.1, (5, 8))
    return run_of({"run.loss": np.ones(5), "output.rms": rms}, sites={"output": outputs(8)})


def _begun_with(rms: np.ndarray, absmax: np.ndarray) -> Run:
    count = len(rms)
    sites = {"initial": weights("initial", count)}
    series = {"run.loss": np.ones(20), "initial.absmax": absmax[None], "initial.rms": rms[None]}
    return run_of({**series, "initial.nonfinite": ~np.isfinite(absmax[None])}, sites=sites)


@bad_initialization.fires_on
def _memory_that_nobody_wrote_to(rng: np.random.Generator) -> Run:
    absmax = 0.1 + 0.02 * rng.random(6)
    absmax[2:4] = [3e33, np.nan]
    return _begun_with(0.05 + 0.01 * rng.random(6), absmax)


@bad_initialization.quiet_on
def _two_gates_of_zeros(rng: np.random.Generator) -> Run:
    rms = 0.05 + 0.01 * rng.random(6)
    rms[[1, 4]] = 0.0
    return _begun_with(rms, 4 * rms)


@bad_initialization.quiet_on
def _a_trained_head_on_other_labels(rng: np.random.Generator) -> Run:
    run = _loss(17.9, rng)
    gains = run_of({"normalization.gain": np.full((1, 2), 1.06)})
    return Run(run.info, {**run.kinds, **gains.kinds}, run.events)


@bad_initialization.quiet_on
def _pretrained(rng: np.random.Generator) -> Run:
    return _loss(1.2, rng)


@bad_initialization.quiet_on
def _a_sum_over_the_batch(rng: np.random.Generator) -> Run:
    mean = 1.0 + 0.8 * np.exp(-np.arange(100) / 20) + 0.02 * rng.standard_normal(100)
    return run_of(
        {"run.loss": 32 * mean, "targets.loss": mean},
        sites={"targets": [Site("targets", "cross-entropy")]},
        events=[Event("loss", 0.0, data={"function": "cross-entropy", "classes": 6})],
    )


@bad_initialization.quiet_on
def _uniform_guess(rng: np.random.Generator) -> Run:
    return _loss(math.log(128) + 0.1, rng)


@bad_initialization.quiet_on
def _default_initialization(rng: np.random.Generator) -> Run:
    rms = np.maximum(0.58 * 0.41 ** np.arange(10), 0.05) * rng.uniform(0.95, 1.05, (5, 10))
    return run_of({"run.loss": np.ones(5), "output.rms": rms}, sites={"output": outputs(10)})
