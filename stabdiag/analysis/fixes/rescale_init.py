from __future__ import annotations

import math

from stabdiag.analysis.anatomy import activation_slope, gradient_slope
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.gain import Gain, wide_weights
from stabdiag.analysis.history import history
from stabdiag.analysis.initial import Uninitialized, never_initialized
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("rescale-init", title="Initialize the weights at the scale that keeps the signal")
def rescale_init(run: Run, finding: Finding) -> Change:
    """Draws weights with a variance of 2/fan-in before a rectifier, and 1/fan-in elsewhere.

    It costs a restart. It worked when the rms of the outputs is within a factor of 3 from the first to
    the last layer at step 0, and the first loss of a classifier is near ln(classes). Transformers use a
    standard deviation of 0.02, divided by √(2·layers) for projections back into the residual stream.
    """
    if (empty := never_initialized(run)) is not None:
        return _write_to_all(empty)
    if wide := wide_weights(run):
        return _narrow(wide)
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
    return Change(
        f"initialize with the gain of the activation and the fan-in of the layer: {reason}",
        "def initialize(module):\n"
        "    if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):\n"
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


def _write_to_all(empty: Uninitialized) -> Change:
    modules = dict.fromkeys(site.module for site in empty.sites)
    named = ", ".join(list(modules)[:3]) + (f" and {len(modules) - 3} more" if len(modules) > 3 else "")
    return Change(
        f"initialize every module that has parameters of its own after to_empty: {named} held {empty.what}",
        'model.to_empty(device="cuda")\n'
        "for module in model.modules():\n"
        "    if any(True for _ in module.parameters(recurse=False)):\n"
        "        module.reset_parameters()  # an error here names the module that has none",
    )
