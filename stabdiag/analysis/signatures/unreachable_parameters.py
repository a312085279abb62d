"""Parameters that never receive a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.initial import stuck_at_zero
from stabdiag.analysis.robust import Flags
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "unreachable-parameters",
    title="Parameters that never receive a gradient",
    needs=("grad.nonfinite", "grad.norm"),
    explains=("context-blind-plateau", "loss-plateau", "update-ratio-low"),
    causes=("detached-graph", "dying-relu", "parameters-not-optimized", "bad-init-scale"),
)
def unreachable_parameters(
    run: Run, *, records: float = 3.0, most: float = 0.5, few: float = 0.01
) -> Iterator[Finding]:
    """What it means: the optimizer holds parameters that the loss does not depend on, as far as
    autograd knows: the graph is cut between them and the loss, or they are not used.

    How it is detected: a parameter that is trainable and in an optimizer had no gradient at any of the
    recorded steps, `records` or more, while others had one. Critical where it concerns more than the
    share `most` of the trainable elements. Where its module never ran it is unused, which is a warning from
    the share `few` of the elements on: a matrix among a hundred alike, where norms and biases are less.
    Likewise matrices that began as zeros and whose gradient is exactly zero at every step: both factors
    of a product, of which neither leaves zero. Any other gradient of exactly zero at every step is info.

    Look-alikes: frozen tensors are not trainable. An expert or a branch that is used at times has a
    gradient at times. Weights whose gradient is small are not cut off: see vanishing-gradient.

    Fixes: look for `.detach()`, `.data`, `.item()`, `no_grad`, `torch.tensor(tensor)` or numpy between
    the last of them and the loss; remove modules that are not used.

    Reference: PyTorch, autograd mechanics; DistributedDataParallel, find_unused_parameters.

    Facts: tensors, elements, share (of the trainable elements), ran (1 where their modules ran), zeros (1
    where they began as zeros), by_construction (1, but for experts that do not run and gradients that
    are zero).
    """
    counted, norms = run.table("grad.nonfinite"), run.table("grad.norm")
    if len(counted.steps) < records:
        raise NotEvaluable(f"only {len(counted.steps)} steps were recorded")
    measured: Flags = ~np.isnan(counted.values)
    had: Flags = np.any(measured, axis=0)
    if not had.any():
        raise NotEvaluable("no gradient was recorded")
    held = [i for i, site in enumerate(counted.sites) if site.trainable and site.optimized]
    trainable = sum(counted.sites[i].size for i in held)
    never = [i for i in held if not had[i]]
    ran = [i for i in never if counted.sites[i].order >= 0]
    unused = [i for i in never if counted.sites[i].order < 0]
    with np.errstate(invalid="ignore"):
        nonzero: Flags = np.any((norms.values > 0) | (measured & np.isnan(norms.values)), axis=0)
    zero = [i for i in held if had[i] and measured[:, i].sum() >= records and not nonzero[i]]
    began = {site.name for site in stuck_at_zero(run)}
    stuck = [i for i in zero if counted.names[i] in began]
    zero = [i for i in zero if counted.names[i] not in began]
    steps = int(counted.steps[0]), int(counted.steps[-1])
    for chosen, words in (
        (ran, "never receive a gradient although their modules run: the graph is cut after them"),
        (unused, "never receive a gradient: their modules do not run"),
        (stuck, "began as zeros and receive gradients that are exactly zero at every step: they never leave"),
        (zero, "receive gradients that are exactly zero at every step"),
    ):
        if not chosen:
            continue
        share = sum(counted.sites[i].size for i in chosen) / max(trainable, 1)
        severity = Severity.critical if share > most else Severity.warning
        if chosen is zero or ((chosen is unused or chosen is stuck) and share < few):
            severity = Severity.info
        facts = {"zeros": 1.0} if chosen is stuck else {}
        # An expert that gets no tokens does not run, and a dead unit passes on zeros: training did that.
        # Zeros that stay are what an initialization left out.
        if chosen is ran or (chosen is unused and not run.sites("router")):
            facts["by_construction"] = 1.0
        found = _finding(counted.sites, chosen, words, severity, share, steps)
        yield replace(found, facts={**found.facts, **facts})


def _finding(
    sites: tuple[Site, ...],
    chosen: list[int],
    words: str,
    severity: Severity,
    share: float,
    steps: tuple[int, int],
) -> Finding:
    # The last of them in forward order lies next to the cut.
    names = telling([sites[i].name for i in chosen], np.array([float(sites[i].order) for i in chosen]))
    return Finding(
        severity=severity,
        confidence=0.95 if severity > Severity.info else 0.7,
        sites=names,
        onset_step=steps[0],
        peak_step=steps[0],
        last_step=steps[1],
        message=f"{len(chosen)} trainable tensors ({share:.0%} of the trainable elements) {words}: "
        f"{', '.join(names[:3])}.",
        value=share,
        threshold=0.0,
        evidence=(Evidence("grad.norm", names, log=True),),
        facts={
            "tensors": float(len(chosen)),
            "elements": float(sum(sites[i].size for i in chosen)),
            "share": share,
            "ran": float(any(sites[i].order >= 0 for i in chosen)),
        },
    )


def _run(rng: np.random.Generator, missing: np.ndarray) -> Run:
    norms = np.where(missing, np.nan, np.exp(0.3 * rng.standard_normal(missing.shape)))
    nonfinite = np.where(missing, np.nan, 0.0)
    return run_of(
        {"grad.norm": norms, "grad.nonfinite": nonfinite}, sites={"grad": weights("grad", missing.shape[1])}
    )


@unreachable_parameters.fires_on
def _cut_graph(rng: np.random.Generator) -> Run:
    return _run(rng, np.broadcast_to(np.arange(6) < 2, (50, 6)))


@unreachable_parameters.fires_on
def _both_factors_of_products_at_zero(rng: np.random.Generator) -> Run:
    run = _run(rng, np.zeros((50, 6), dtype=bool))
    run.kinds["grad"].values["norm"][:, :4] = 0.0
    begun = {f"initial.{what}": [[0.0] * 4 + [0.1] * 8] for what in ("absmax", "rms")}
    sites = {"initial": weights("initial", 12)}
    first = run_of({**begun, "initial.nonfinite": np.zeros((1, 12))}, sites=sites)
    return Run(run.info, {**run.kinds, **first.kinds})


@unreachable_parameters.quiet_on
def _used_at_times(rng: np.random.Generator) -> Run:
    return _run(rng, (np.arange(6) < 2) & (np.arange(50) % 7 != 3)[:, None])


@unreachable_parameters.quiet_on
def _not_trainable(rng: np.random.Generator) -> Run:
    sites = [
        Site("grad", f"layers.{i}.weight", "Linear", (64, 64), order=i, trainable=i > 1) for i in range(6)
    ]
    run = _run(rng, np.broadcast_to(np.arange(6) < 2, (50, 6)))
    values = {f"grad.{name}": array for name, array in run.kinds["grad"].values.items()}
    return run_of(values, sites={"grad": sites})
