"""The code that computes a step of somebody's own script once more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

FUTURE = "from __future__ import annotations\n"


def replay_code(run: str, step: int, steps: Path, batch: Path | None, sources: Sequence[str]) -> str:
    """A script for which its reader gives the model and the loss; `batch` is None where it was not kept.

    `sources` are modules that need no stabdiag: of `Ranges`, and of `row_of`, `restore_random`, `calls_of`.
    """
    head = f"# Step {step} of {' '.join(run.split())} once more: give it your MODEL and LOSS.\n{FUTURE}"
    bodies = [source.partition(FUTURE)[2].strip("\n") for source in sources]
    calls = _NOT_KEPT if batch is None else f"batch = list(calls_of({str(batch.resolve())!r}, device))"
    return "\n\n".join([head, *bodies, _TAIL.format(step=step, steps=str(steps.resolve()), calls=calls)])


_NOT_KEPT = """\
# BATCH: it was not kept, as it is with `stabdiag run --keep-batches 8`, or with keep_batches=8 of a callback
# or of stabdiag.watch. Arguments and named ones, of each call:
batch = [([...], {})]"""

_TAIL = """
model = ...  # MODEL: built as in your script, with the weights of just before step {step}
loss_of = ...  # LOSS: of what the model returned

device = next(model.parameters()).device
{calls}
restore_random(row_of({steps!r}, {step}))
with Ranges(model) as ranges:
    for arguments, named in batch:
        loss_of(model(*arguments, **named)).backward()

for r in ranges.rows:  # min, max and rms of the finite values; how many are not
    values = f"{{r.low:11.4g}} {{r.high:11.4g}} {{r.rms:11.4g}}"
    print(f"{{r.direction:8}} {{r.module:40}} {{values}} {{r.nonfinite or ''}}")"""
