from __future__ import annotations

import math

import numpy as np

from stabdiag.analysis.anatomy import activation_slope, gradient_slope
from stabdiag.analysis.case import Case, figure, ramp
from stabdiag.analysis.catalogue import Weight, cause
from stabdiag.analysis.gain import WIDE, wide_weights
from stabdiag.analysis.history import history
from stabdiag.analysis.initial import never_initialized, stuck_at_zero
from stabdiag.analysis.pretrained import pretrained
from stabdiag.analysis.robust import median
from stabdiag.analysis.similarities import of_similarities
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@cause(
    "bad-init-scale",
    title="The weights start at the wrong scale",
    fixes=("rescale-init", "add-normalization", "add-warmup"),
)
def bad_init_scale(run: Run, finding: Finding) -> Weight | None:
    """The initial weights make signals grow or fade from layer to layer, or the first logits too large.

    It is there at step 0, before any update: the loss is above that of a uniform guess, ln(classes),
    or the activations or gradients change by a factor of 30 and more through the depth, or one weight
    began with a gain (rms times the root of its fan-in) of 10 and more. What begins later has another
    cause: usually the learning rate. Weights that were trained before have the scale that training gave
    them; only a new layer among them counts.

    Reference: He et al., Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852; Glorot and
    Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010
    """
    case = Case()
    wide, fresh = wide_weights(run), pretrained(run) is None
    if (empty := never_initialized(run)) is not None:
        case.speaks_for(
            0.97 if empty.fatal else 0.8,
            f"{empty.sites[0].name} held {empty.what} before the first step: its memory was never written to "
            "(`to_empty` without an initialization)",
        )
    if finding.facts.get("zeros") and (stuck := stuck_at_zero(run)):
        case.speaks_for(
            0.9,
            f"{stuck[0].name} began as zeros, as all did that it is multiplied with, and their gradients are "
            "each other's products: they are zero for ever",
        )
    if not (fresh or wide):
        return case.weight()
    loss, classes = history(run, "run.loss").at(0), run.fact("loss", "classes")
    if loss is not None and isinstance(classes, int) and classes > 1 and not of_similarities(run):
        guess = math.log(classes)
        excess = loss - guess
        case.speaks_for(
            0.8 * ramp(excess, 0.3, 3.0),
            f"the loss of step 0 was {figure(loss)}, where guessing among {classes} classes costs "
            f"{figure(guess)}",
        )
        if abs(excess) < 0.1:
            case.speaks_against(0.3, f"the first loss was that of a uniform guess ({figure(guess)})")
    for name, slope in (
        ("activations", activation_slope(run, 0, 0)),
        ("gradients", gradient_slope(run, 0, 0)),
    ):
        if slope is not None and fresh:
            span = 10 ** abs(slope.per_layer * (slope.layers - 1))
            direction = "grow" if slope.per_layer > 0 else "shrink"
            case.speaks_for(
                0.75 * slope.straightness * ramp(span, 30, 1e4),
                f"the {name} {direction} {figure(span)}-fold from the first to the last of {slope.layers} "
                "layers at step 0",
            )
    if wide:
        widest = max(wide, key=lambda gain: gain.value)
        case.speaks_for(
            0.85 * ramp(widest.value, WIDE / 2, 2 * WIDE),
            f"{widest.site.name} began so wide that it multiplies a signal by {figure(widest.value)}, where "
            "usual initializations do by 0.5 to 1.7",
        )
    _by_one_layer(case, run, finding)
    case.speaks_against(
        0.8 * ramp(finding.onset_step + 1, 10, 100), f"it began only at step {finding.onset_step}"
    )
    return case.weight()


def _by_one_layer(case: Case, run: Run, finding: Finding) -> None:
    """One layer that has been out of line with its likes since before the first update."""
    facts = finding.facts
    of, layers = facts.get("of", 0.0), facts.get("layers", facts.get("layers_affected", 0.0))
    if finding.onset_step > 1 or not 0 < layers < of:
        return
    if finding.signature == "saturated-units":
        case.speaks_for(
            0.6, f"it was so at the first step, and the other {of - layers:.0f} such layers were not"
        )
    if finding.signature == "attention-uniform":
        ours, others = _largest_logits(run, finding)
        case.speaks_for(
            0.7 * ramp(others / max(ours, 1e-12), 10, 100),
            f"its largest logit was {figure(ours)} at the first step, that of the others {figure(others)}",
        )


def _largest_logits(run: Run, finding: Finding) -> tuple[float, float]:
    """Of the first record: of the layers that the finding names, and of the others."""
    if "attention.max_logit" not in run:
        return 1.0, 1.0
    table = run.table("attention.max_logit")
    named = np.array([any(name.startswith(site) for site in finding.sites) for name in table.names])
    first = np.abs(table.values[:1])
    if not named.any() or named.all() or not np.isfinite(first).any():
        return 1.0, 1.0
    ours, others = first[0, named], median(first[0, ~named], axis=0)
    return float(np.fmax.reduce(ours)), float(others)
