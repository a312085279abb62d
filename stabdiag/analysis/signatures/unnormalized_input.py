"""Inputs at a scale that the first layer is not made for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.batches import usual_scale
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.consequence import while_finite
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.history import history
from stabdiag.analysis.losscurve import harmed
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "unnormalized-input",
    title="The inputs are far from zero mean and unit scale",
    needs=("batch.rms",),
    explains=(
        "bad-initialization",
        "exploding-activation",
        "exploding-gradient",
        "vanishing-gradient",
        "dead-units",
        "saturated-units",
        "update-ratio-high",
        "lr-divergence",
        "loss-divergence",
        "loss-plateau",
        "context-blind-plateau",
        "nonfinite-origin",
        "vae-kl-explosion",
    ),
    causes=("unnormalized-input",),
)
def unnormalized_input(
    run: Run, *, large: float = 10.0, small: float = 0.03, offset: float = 5.0, excess: float = 0.5
) -> Iterator[Finding]:
    """What it means: pixels of 0 to 255, raw prices, times since 1970. The first activations and gradients
    are as many times too large, or nearly the same for all samples.

    How it is detected: a floating input whose rms is above `large` or below `small` in the median batch, or
    whose mean is `offset` times its deviation, from the first batch on. That alone is info: a normalization
    layer in front makes up for it. A warning where it shows: the first loss is above that of the best
    constant answer by `excess` of it, or the run is harmed, or more than half of the outputs of the first
    layer with a bounded activation are saturated from the start.

    Calibrated on MLPs and CNNs with inputs of 1, 10, 100 and 255 times the usual: an MLP without
    normalization starts at twice the loss of a guess at a factor of 30 and at 6 times at 100, and is told as
    info at 10; a CNN with BatchNorm learns as well as ever (info). 0 alarms in 32,300 steps of 74 healthy
    runs.

    Look-alikes: one batch out of range is a bad batch. Masks, positions and time steps are inputs too, and
    their scale is harmless.

    Fixes: subtract the mean and divide by the deviation of the training data; a normalization layer first.

    Reference: LeCun et al., Efficient BackProp, 1998, section 4.3.

    Facts: rms, mean, loss_start and loss_constant where known.
    """
    scale = usual_scale(run)
    if scale is None:
        raise NotEvaluable("no floating input was recorded")
    name, rms, mean = scale
    deviation = float(np.sqrt(max(rms**2 - mean**2, 0.0)))
    far = rms > large or rms < small or (abs(mean) > offset * deviation and rms > 1)
    early = history(run, "batch.rms", name).finite()
    if rms == 0 or not far or not 1 / 3 < float(np.median(early.values[:5])) / rms < 3:
        return
    facts = {"rms": rms, "mean": mean}
    consequence, start = "", _start(run)
    if start is not None:
        facts |= {"loss_start": start[0], "loss_constant": start[1]}
        if start[0] > (1 + excess) * start[1] > 0:
            consequence = (
                f"; the first loss is {figure(start[0])} where a constant answer costs {figure(start[1])}"
            )
    # What is too small is learned slowly; it makes no value that is not finite.
    before = run if rms > 1 else while_finite(run)
    if not consequence and harmed(before):
        consequence = "; the loss suffers"
    if not consequence and rms > large and (flat := _saturated(run)) is not None:
        layer, share = flat
        consequence = f"; {share:.0%} of the outputs of {layer}, the first of its kind, are saturated by it"
    if not consequence and before is not run:
        return
    yield Finding(
        severity=Severity.warning if consequence else Severity.info,
        confidence=0.8 if consequence else 0.5,
        sites=(name,),
        onset_step=int(early.steps[0]),
        peak_step=int(early.steps[0]),
        last_step=int(early.steps[-1]),
        message=f"The input {name} has an rms of {figure(rms)} and a mean of {figure(mean)}, where 1 and "
        f"0 are meant{consequence}.",
        value=rms,
        threshold=large if rms > 1 else small,
        evidence=(Evidence("batch.rms", (name,), threshold=large if rms > 1 else small, log=True),),
        facts=facts,
    )


def _saturated(run: Run) -> tuple[str, float] | None:
    """The first layer with a bounded activation, and the share of its outputs that were at the ends of it in
    the first records; None unless most were."""
    if "saturation.share" not in run:
        return None
    table = run.table("saturation.share")
    if not len(table.sites):
        return None
    first = min(range(len(table.sites)), key=lambda i: table.sites[i].order)
    early = table.values[:5, first]
    share = float(np.median(early[np.isfinite(early)])) if np.isfinite(early).any() else 0.0
    return (table.names[first], share) if share > 0.5 else None


def _start(run: Run) -> tuple[float, float] | None:
    """The first loss, and what a constant answer costs."""
    loss, constant = history(run, "targets.loss").finite(), history(run, "targets.constant").finite()
    if not len(loss) or not len(constant) or loss.steps[0] > 5:
        return None
    return float(loss.values[0]), float(constant.values[-1])


def _run(rng: np.random.Generator, rms: float, start: float) -> Run:
    loss = 0.5 + (start - 0.5) * np.exp(-np.arange(200) / 30) + 0.02 * rng.standard_normal(200)
    series = {
        "run.loss": loss,
        "targets.loss": loss,
        "targets.constant": np.full(200, 2.3),
        "batch.rms": rms * (1 + 0.01 * rng.standard_normal(200)),
        "batch.mean": 0.3 * rms * (1 + 0.01 * rng.standard_normal(200)),
    }
    return run_of(
        series, sites={"batch": [Site("batch", "image")], "targets": [Site("targets", "cross-entropy")]}
    )


@unnormalized_input.fires_on
def _pixels(rng: np.random.Generator) -> Run:
    return _run(rng, 147.0, 60.0)


@unnormalized_input.fires_on
def _saturates_the_first_layer_of_a_training_that_falls(rng: np.random.Generator) -> Run:
    series = {
        "run.loss": 1e3 * np.exp(-np.arange(60) / 20) + rng.random(60),
        "batch.rms": np.full(60, 579.0),
        "batch.mean": np.full(60, 505.0),
        "saturation.share": np.tile([0.7, 0.1], (60, 1)),
    }
    layers = [Site("saturation", f"net.{i}", "Linear", order=i) for i in range(2)]
    return run_of(series, sites={"batch": [Site("batch", "x")], "saturation": layers})


@unnormalized_input.quiet_on
def _small_beside_a_loss_that_is_no_number_from_the_start(rng: np.random.Generator) -> Run:
    series = {
        "run.loss": np.array([np.inf]),
        "batch.rms": np.array([0.026]),
        "batch.mean": np.array([0.008]),
    }
    return run_of(series, sites={"batch": [Site("batch", "x")]})


@unnormalized_input.quiet_on
def _made_up_for_by_a_normalization(rng: np.random.Generator) -> Run:
    return _run(rng, 147.0, 2.4)


@unnormalized_input.quiet_on
def _unit_scale(rng: np.random.Generator) -> Run:
    return _run(rng, 1.0, 5.0)
