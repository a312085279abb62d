from __future__ import annotations

from stabdiag.analysis.batches import outlier
from stabdiag.analysis.case import figure
from stabdiag.analysis.catalogue import Change, fix
from stabdiag.analysis.history import history
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@fix("skip-batch", title="Leave the update of a suspicious batch out")
def skip_batch(run: Run, finding: Finding) -> Change | None:
    """Makes no optimizer step where the loss is far above its recent level, the data's fault or not.

    It costs the batches that are skipped, and reading the loss on the host each step. It worked when
    less than 1 % of the steps are skipped and the spikes are gone. Skips that become frequent tell
    that the data are not to blame.
    """
    step = finding.onset_step
    loss = history(run, "run.loss")
    usual, peak = loss.usual(step - 1), loss.peak(step - 1, max(finding.peak_step, step))
    batch = outlier(run, step)
    if usual is not None and peak is not None and peak[1] > usual:
        told = f": the loss was {figure(peak[1])} where {figure(usual)} was usual"
    elif batch is not None:
        told = f": {batch.input} reached {figure(batch.reach)}"
    elif usual is not None:
        told = ""  # the loss was not finite
    else:
        return None
    where = batch.step if batch is not None and batch.multiple > 3 else step
    return Change(
        "skip steps whose loss is more than 6 standard deviations above the last 128; look at the batch of "
        f"step {where}{told}",
        "recent = collections.deque(maxlen=128)\n"
        "# in the loop, after loss.backward():\n"
        "value = loss.item()\n"
        "limit = statistics.mean(recent) + 6 * statistics.stdev(recent) if len(recent) > 31 else math.inf\n"
        "if value <= limit:\n"
        "    optimizer.step()\n"
        "    recent.append(value)\n"
        "optimizer.zero_grad(set_to_none=True)",
        {"skip_above_z": 6.0},
    )
