from __future__ import annotations

import math
from collections.abc import Sequence

from stabdiag.analysis.anatomy import activation_slope, gradient_slope
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.gain import Gain, wide_weights
from stabdiag.analysis.history import history
from stabdiag.analysis.initial import Uninitialized, never_initialized, stuck_at_zero
from stabdiag.analysis.pretrained import pretrained
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run
from stabdiag.core.site import Site


@fix("rescale-init", title="Initialize the weights at the scale that keeps the signal")
def rescale_init(run: Run, finding: Finding) -> Change | None:
    """Draws weights with a variance of 2/fan-in before a rectifier, and 1/fan-in elsewhere.

    It costs a restart. It worked when the rms of the outputs is within a factor of 3 from the first to
    the last layer at step 0, and the first loss of a classifier is near ln(classes). Transformers use a
    standard deviation of 0.02, divided by √(2·layers) for projections back into the residual stream.
    Weights that were trained before, or are not trained at all, are never drawn again.
    """
    loaded = pretrained(run) is not None
    if (empty := never_initialized(run)) is not None:
        return _write_to_all(empty, loaded)
    if finding.facts.get("zeros") and (stuck := stuck_at_zero(run)):
        return _one_factor(stuck)
    wide = wide_weights(run)
    if trained := [gain for gain in wide if gain.site.trainable]:
        return _narrow(trained)
    if wide or loaded:
        return None
    slope, backward = activation_slope(run, 0, 0), gradient_slope(run, 0, 0)
    loss = history(run, "run.loss").at(0)
    classes = run.fact("loss", "classes")
    told = []
    if slope is not None and abs(slope.per_layer) > 0.1:
        told.append(f"activations change by a factor of {figure(10**slope.per_layer)} a layer at step 0")
    if backward is not None and abs(backward.per_layer) > 0.1 and backward.straightness > 0.5:
        told.append(
            f"gradients change by a factor of {figure(10**-backward.per_layer)} a layer toward the input"
        )
    if loss is not None and isinstance(classes, int) and classes > 1 and loss > math.log(classes) + 0.3:
        told.append(
            f"the first loss was {figure(loss)} where ln({classes}) = {figure(math.log(classes))} is right"
        )
    reason = " and ".join(told) or f"it began at step {finding.onset_step}"
    some_frozen = any(not site.trainable for site in run.sites("initial"))
    return Change(
        f"initialize with the gain of the activation and the fan-in of the layer: {reason}",
        "def initialize(module):\n"
        "    if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))"
        f"{' and module.weight.requires_grad' if some_frozen else ''}:\n"
        '        torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")\n'
        "        if module.bias is not None:\n"
        "            torch.nn.init.zeros_(module.bias)\n"
        "\n"
        "model.apply(initialize)",
    )


def _narrow(wide: list[Gain]) -> Change:
    modules = list(dict.fromkeys(gain.site.module for gain in wide))
    widest = max(wide, key=lambda gain: gain.value)
    more = f" and {len(modules) - 1} more" if len(modules) > 1 else ""
    return Change(
        f"draw the weights of {modules[0]}{more} with a variance of 1/fan-in: {widest.site.name} multiplied "
        f"a signal by {figure(widest.value)} before the first step",
        f"for name in {modules[:8]!r}:\n"
        "    for weight in model.get_submodule(name).parameters(recurse=False):\n"
        "        if weight.dim() > 1:\n"
        "            torch.nn.init.xavier_normal_(weight)",
    )


def _one_factor(stuck: Sequence[Site]) -> Change:
    # Of a product of low rank the factor with fewer rows is the one next to the input.
    names = [site.name for site in stuck if site.shape[0] < site.shape[1]] or [s.name for s in stuck[::2]]
    return Change(
        f"draw one factor of each product at random and leave the other at zero: {names[0]} and what it is "
        "multiplied with both began at zero, where neither has a gradient",
        f"for name in {names!r}:\n    torch.nn.init.kaiming_uniform_(model.get_parameter(name), a=5**0.5)",
    )


def _write_to_all(empty: Uninitialized, loaded: bool) -> Change:
    modules = dict.fromkeys(site.module for site in empty.sites)
    named = ", ".join(list(modules)[:3]) + (f" and {len(modules) - 3} more" if len(modules) > 3 else "")
    if loaded:
        return Change(
            f"initialize what the checkpoint did not hold: {named} held {empty.what}",
            f"for name in {list(modules)!r}:\n    model.get_submodule(name).reset_parameters()",
        )
    return Change(
        f"initialize every module that has parameters of its own after to_empty: {named} held {empty.what}",
        'model.to_empty(device="cuda")\n'
        "for module in model.modules():\n"
        "    if any(True for _ in module.parameters(recurse=False)):\n"
        "        module.reset_parameters()  # an error here names the module that has none",
    )
