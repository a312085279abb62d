"""Parameters that should learn, and never change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import weights
from stabdiag.analysis.step_size import schedule
from stabdiag.analysis.updates import skipped_steps
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


@signature(
    "frozen-parameters",
    title="Parameters that should learn, and never change",
    needs=("grad.norm",),
    explains=("loss-plateau", "update-ratio-low"),
    causes=("parameters-not-optimized", "learning-rate-too-low", "precision-overflow"),
)
def frozen_parameters(run: Run, *, records: float = 3.0, most: float = 0.5) -> Iterator[Finding]:
    """What it means: parameters with `requires_grad` receive gradients, and no step ever uses them.

    How it is detected: a trainable parameter with a gradient at `records` steps or more, its own or
    that of its module's output, is in no optimizer, and does not change by other means. Or it is in
    one, the learning rate is not zero, and its recorded changes, `records` of them or more, are all
    exactly zero, or that optimizer never steps while another one does. Critical where it concerns more
    than the share `most` of the trainable elements.

    Look-alikes: `requires_grad=False` is intended, and no finding. Target networks and moving averages
    are in no optimizer and get no gradient. Rows of an embedding that no batch holds do not change.
    Steps that a gradient scaler withheld do not count. Where no optimizer holds anything, the loop
    updates by hand.

    Fixes: build the optimizer after the model is complete, from all of `model.parameters()`; or say
    `requires_grad_(False)` where it is meant.

    Reference: PyTorch, torch.optim: constructing an optimizer.

    Facts: tensors, elements, share (of the trainable elements), in_optimizer (1 or 0),
    by_construction (1 where no optimizer holds them).
    """
    table = run.table("grad.norm")
    if len(table.steps) < records:
        raise NotEvaluable(f"only {len(table.steps)} steps were recorded")
    with np.errstate(invalid="ignore"):
        reached = (table.values > 0).sum(axis=0) >= records
    still, moved = _changes(run, int(records))
    fed = _fed(run, int(records))
    anything = any(site.optimized for site in table.sites)
    outside = [
        i
        for i, site in enumerate(table.sites)
        if anything
        and site.trainable
        and not site.optimized
        and (reached[i] or site.module in fed)
        and site.name not in moved
    ]
    inside = [
        i
        for i, site in enumerate(table.sites)
        if reached[i] and site.trainable and site.optimized and site.name in still and _sure(site)
    ]
    trainable = sum(site.size for site in table.sites if site.trainable)
    first, last = int(table.steps[0]), int(table.steps[-1])
    for chosen, held in ((outside, False), (inside, True)):
        if not chosen:
            continue
        elements = sum(table.sites[i].size for i in chosen)
        share = elements / max(trainable, 1)
        sites = telling(
            [table.names[i] for i in chosen], np.array([float(table.sites[i].size) for i in chosen])
        )
        why = (
            "are in an optimizer, have gradients and never change"
            if held
            else "have gradients and are in no optimizer"
        )
        yield Finding(
            severity=Severity.critical if share > most else Severity.warning,
            confidence=0.85 if held else 0.95,
            sites=sites,
            onset_step=first,
            peak_step=first,
            last_step=last,
            message=f"{len(chosen)} trainable tensors ({share:.0%} of the trainable elements) {why}: "
            f"{', '.join(sites[:3])}.",
            value=share,
            threshold=0.0,
            evidence=(
                Evidence("grad.norm" if held or "weight.norm" not in run else "weight.norm", sites, log=True),
                *([Evidence("update.norm", sites)] if held else []),
            ),
            facts={
                "tensors": float(len(chosen)),
                "elements": float(elements),
                "share": share,
                "in_optimizer": float(held),
            }
            | ({} if held else {"by_construction": 1.0}),
        )


def _sure(site: Site) -> bool:
    """Whether a change of zero means something: of an embedding only some rows may be looked at, and
    the sum that is a bias's gradient may be nothing but rounding."""
    return "Embedding" not in site.module_type and len(site.shape) != 1


def _fed(run: Run, records: int) -> set[str]:
    """Names of the modules whose outputs receive gradients, and their parameters with them: those of
    parameters that no optimizer holds are not recorded."""
    if "output_grad.norm" not in run:
        return set()
    table = run.table("output_grad.norm")
    with np.errstate(invalid="ignore"):
        often = (table.values > 0).sum(axis=0) >= records
    return {name for name, enough in zip(table.names, often, strict=True) if enough}


def _changes(run: Run, records: int) -> tuple[set[str], set[str]]:
    """Names of the parameters that never changed where it was looked, and of those that did."""
    if "update.norm" not in run:
        return set(), _drifted(run)
    table = run.table("update.norm")
    rates = schedule(run).rate
    stepped = ~np.isin(table.steps, skipped_steps(run))
    if len(rates):
        stepped &= ~np.isin(table.steps, rates.steps[rates.values == 0])
    values = table.values if stepped.all() else table.values[stepped]
    known = ~np.isnan(values)
    zero = (known.sum(axis=0) >= records) & ~(known & (values != 0)).any(axis=0)
    if known.any(axis=1).sum() >= records:
        zero |= ~known.any(axis=0)  # its optimizer never stepped, while another one did
    changed = (known & (values != 0)).any(axis=0)
    names = np.array(table.names, dtype=object)
    return set(names[zero]), set(names[changed]) | _drifted(run)


def _drifted(run: Run) -> set[str]:
    """Names of the weights whose norm is not what it was: they change outside of the optimizers."""
    if "weight.norm" not in run or len(run.table("weight.norm").steps) < 2:
        return set()
    table = run.table("weight.norm")
    differs = np.abs(table.values[-1] - table.values[0]) > 1e-6 * np.abs(table.values[0])
    return {name for name, moved in zip(table.names, differs, strict=True) if moved}


def _run(rng: np.random.Generator, sites: tuple[int, ...], update: np.ndarray, gradient: np.ndarray) -> Run:
    return run_of(
        {"grad.norm": gradient * np.exp(0.3 * rng.standard_normal((100, 5))), "update.norm": update},
        sites={"grad": weights("grad", 5, left_out=sites), "update": weights("update", 5, left_out=sites)},
        steps={"update": np.arange(0, 100, 10)},
    )


@frozen_parameters.fires_on
def _forgotten_by_the_optimizer(rng: np.random.Generator) -> Run:
    update = np.full((10, 5), 0.01)
    update[:, 2] = np.nan
    return _run(rng, (2,), update, np.ones((100, 5)))


@frozen_parameters.fires_on
def _forgotten_and_not_recorded(rng: np.random.Generator) -> Run:
    gradient = np.where(np.arange(5) == 2, np.nan, np.exp(0.3 * rng.standard_normal((100, 5))))
    series = {"grad.norm": gradient, "output_grad.norm": np.ones((10, 5)), "weight.norm": np.ones((10, 5))}
    sites = {kind: weights(kind, 5, left_out=(2,)) for kind in ("grad", "weight")}
    modules = [Site("output_grad", f"layers.{i}", "Linear", order=i) for i in range(5)]
    sparse = np.arange(0, 100, 10)
    steps = dict.fromkeys(("output_grad", "weight"), sparse)
    return run_of(series, sites={**sites, "output_grad": modules}, steps=steps)


@frozen_parameters.fires_on
def _never_moves(rng: np.random.Generator) -> Run:
    update = np.full((10, 5), 0.01)
    update[:, 1] = 0.0
    return _run(rng, (), update, np.ones((100, 5)))


@frozen_parameters.quiet_on
def _target_network(rng: np.random.Generator) -> Run:
    update, gradient = np.full((10, 5), 0.01), np.ones((100, 5))
    update[:, 3:], gradient[:, 3:] = np.nan, np.nan
    return _run(rng, (3, 4), update, gradient)


@frozen_parameters.quiet_on
def _frozen_on_purpose(rng: np.random.Generator) -> Run:
    sites = [
        Site("grad", f"layers.{i}.weight", "Linear", (64, 64), order=i, trainable=i > 2) for i in range(5)
    ]
    gradient = np.where(np.arange(5) > 2, np.exp(0.3 * rng.standard_normal((100, 5))), np.nan)
    return run_of({"grad.norm": gradient}, sites={"grad": sites})
