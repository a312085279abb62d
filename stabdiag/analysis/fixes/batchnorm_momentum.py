from __future__ import annotations

import numpy as np

from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run

ANEW = (
    "for module in model.modules():  # before evaluation\n"
    "    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):\n"
    "        module.reset_running_stats()\n"
    "        module.momentum = None  # the mean of all that follow\n"
    "model.train()\n"
    "with torch.no_grad():\n"
    "    for batch in itertools.islice(training_batches, 50):\n"
    "        model(batch)"
)


@fix("batchnorm-momentum", title="Let the running statistics of batch normalization follow")
def batchnorm_momentum(run: Run, finding: Finding) -> Change | None:
    """Sets the momentum of batch normalization to 0.1, or to 0.01 in long runs, where it is lower; else its
    statistics are to be computed anew before evaluation.

    It costs nothing, or 50 batches without gradients. It worked when `normalization.mismatch` is below 0.2
    and the loss of an evaluation on training data is that of training.
    """
    named = {site.name for site in run.sites("normalization") if "BatchNorm" in site.module_type}
    if not named:
        return None
    off = finding.facts.get("mismatch")
    momentum = 0.1 if run.steps < 1000 else 0.01
    told = f": evaluation moves their outputs by {figure(off)} standard deviations" if off is not None else ""
    known = _momenta(run)
    lower = {name for name in named if known.get(name, 0.0) < 0.9 * momentum}
    if not lower:
        least = figure(min(known[name] for name in named))
        return Change(
            f"statistics of the {len(named)} batch normalizations that are computed anew over 50 batches of "
            f"training data before evaluation; a momentum of {least} follows fast enough{told}",
            ANEW,
        )
    now = {figure(known[name]) for name in lower if known.get(name)}
    instead = f" in place of {now.pop()}" if len(now) == 1 else ""
    return Change(
        f"a momentum of {momentum:g}{instead} for the {len(lower)} batch normalizations{told}",
        "for module in model.modules():\n"
        "    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):\n"
        f"        module.momentum = max(module.momentum or 0.0, {momentum:g})\n"
        "# or, before evaluation: module.reset_running_stats(), module.momentum = None, then 50 batches of\n"
        "# training data in training mode under torch.no_grad()",
    )


def _momenta(run: Run) -> dict[str, float]:
    """The momentum of each batch normalization, as it was last recorded."""
    if "normalization.momentum" not in run:
        return {}
    table = run.table("normalization.momentum")
    columns = zip(table.names, table.values.T, strict=True)
    return {name: float(seen[-1]) for name, column in columns if (seen := column[np.isfinite(column)]).size}
