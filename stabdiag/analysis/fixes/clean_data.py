from __future__ import annotations

from stabdiag.analysis.batches import nonfinite_input, outlier
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("clean-data", title="Find and remove the damaged samples")
def clean_data(run: Run, finding: Finding) -> Change:
    """Searches the data set for values outside the range of the rest, and leaves those samples out.

    It costs one pass over the data. It worked when `batch.nonfinite` is 0 and `batch.absmax` has no
    outlier for an epoch.
    """
    bad, batch = nonfinite_input(run, finding.last_step), outlier(run, finding.onset_step)
    limit = "math.inf"
    if bad is not None:
        told = f"{bad[0]} of step {bad[1]} held non-finite values"
    elif batch is not None and batch.multiple > 2:
        limit = f"{2 * batch.reach / batch.multiple:.3g}"
        told = (
            f"{batch.input} of step {batch.step} reached {figure(batch.reach)}, "
            f"{figure(batch.multiple)} times the usual"
        )
    else:
        told = f"begin with the batch of step {finding.onset_step}"
    return Change(
        f"remove the samples that no other looks like: {told}",
        "def clean(sample):\n"
        "    inputs = sample[0]\n"
        f"    return torch.isfinite(inputs).all() and inputs.abs().max() < {limit}\n"
        "\n"
        "kept = [i for i in range(len(dataset)) if clean(dataset[i])]\n"
        "dataset = torch.utils.data.Subset(dataset, kept)",
    )
