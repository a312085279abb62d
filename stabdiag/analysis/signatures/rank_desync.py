"""Processes that should hold the same parameters do not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.examples import weights
from stabdiag.analysis.robust import Flags
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.synthetic import run_of


@signature(
    "rank-desync",
    title="Replicas drift apart",
    needs=("replica.differs", "replica.odd_rank"),
    explains=("loss-spike", "loss-divergence", "loss-plateau"),
    causes=("replicas-not-synchronized", "hardware-corruption"),
)
def rank_desync(run: Run, *, most: float = 0.0) -> Iterator[Finding]:
    """What it means: processes that are to hold copies of a parameter hold different ones. Gradients are
    then averages over different models, and the loss shows nothing of it for thousands of steps.

    How it is detected: fingerprints of all bits of a parameter differ on more than `most` ranks, at a step
    that all ranks recorded. Equal copies have equal fingerprints, and different ones have but for one
    chance in sixteen million: there is nothing to calibrate.

    Look-alikes: sharded parameters differ by design and are not compared; buffers, such as the statistics
    of batch normalisation, are not either. A parameter that DistributedDataParallel is told to ignore may
    differ on purpose.

    Fixes: broadcast parameters from one rank; take the decision to skip a step on all ranks together.

    Reference: PyTorch, DistributedDataParallel; metaseq pull request 521 (a step skipped on one rank only).

    Facts: tensors (that differ at the first such step), rank (the odd one; where as many say this as that,
    the lowest that differs from rank 0), same_until (the last step at which all were alike, -1 if none).
    """
    differs, odd = run.table("replica.differs"), run.table("replica.odd_rank")
    apart: Flags = differs.values > most
    rows = np.flatnonzero(apart.any(axis=1))
    if not len(rows):
        return
    first, last = int(rows[0]), int(rows[-1])
    which = np.flatnonzero(apart[first])
    names = telling([differs.names[i] for i in which], differs.values[first, which])
    ranks = odd.values[first, which]
    rank = min(ranks[np.isfinite(ranks)].tolist(), default=float("nan"))
    step = int(differs.steps[first])
    before = int(differs.steps[first - 1]) if first else -1
    since = f"they were the same at step {before}" if first else "from the first comparison on"
    yield Finding(
        severity=Severity.critical,
        confidence=0.99,
        sites=names,
        onset_step=before + 1,
        peak_step=step,
        last_step=int(differs.steps[last]),
        message=f"Rank {rank:.0f} holds other values of {', '.join(names[:3])} than the other ranks at "
        f"step {step}; {since}.",
        value=float(differs.values[first].max()),
        threshold=most,
        evidence=(Evidence("replica.differs", names),),
        facts={"tensors": float(len(which)), "rank": rank, "same_until": float(before)},
    )


def _run(differs: np.ndarray) -> Run:
    odd = np.where(differs > 0, 1.0, np.nan)
    series = {"replica.differs": differs, "replica.odd_rank": odd, "replica.nonfinite": 0 * differs}
    return run_of(series, sites={"replica": weights("replica", differs.shape[1])})


@rank_desync.fires_on
def _one_tensor_parts(rng: np.random.Generator) -> Run:
    differs = np.zeros((60, 6))
    differs[int(rng.integers(10, 50)) :, 2] = 1
    return _run(differs)


@rank_desync.quiet_on
def _all_alike(rng: np.random.Generator) -> Run:
    return _run(np.zeros((60, 6)))
