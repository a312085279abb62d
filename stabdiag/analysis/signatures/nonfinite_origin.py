"""The first value that is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from stabdiag.analysis.catalogue import signature
from stabdiag.analysis.depth import telling
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.examples import outputs, weights
from stabdiag.analysis.leap import leap
from stabdiag.analysis.updates import skipped_steps
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.run import Run, Table
from stabdiag.core.synthetic import run_of

PLACES = ("batch", "output", "loss", "grad", "weight")
"""In the order in which a step meets them; weights are read after the step."""


@dataclass(frozen=True)
class Place:
    """The first and the last step at which the `kind` held a non-finite value, and the sites that did
    at the first, of which the foremost may have `made` it without any module within; `elder` is one beside
    it that put out more of them."""

    kind: str
    first: int
    last: int
    sites: tuple[str, ...]
    share: float
    made: bool = False
    elder: str = ""


@signature(
    "nonfinite-origin",
    title="The first value that is not finite",
    needs=("run.loss",),
    explains=("loss-divergence", "loss-plateau", "update-ratio-low", "dead-units"),
    causes=(
        "nonfinite-input",
        "precision-overflow",
        "unsafe-operation",
        "learning-rate-too-high",
        "recurrent-instability",
        "hardware-corruption",
        "corrupt-batch",
        "bad-init-scale",
    ),
)
def nonfinite_origin(run: Run, *, recovered: float = 3.0) -> Iterator[Finding]:
    """What it means: a NaN or an infinity appeared. Once it is in the parameters every later value is
    one; the finding names where it was first.

    How it is detected: the first step at which the batch, an output, the loss, a gradient or a
    parameter holds a non-finite value, and at that step the first of them in the order of the
    computation: of the outputs the first in forward order, of the gradients the one nearest the loss.
    Outputs count the calls that held one: a module called once a time step that put out more of them than
    any module within made the first itself, and handed it to them in its next call.
    Where an output before it leapt by orders of magnitude in that step, and was finite, it comes first.
    Finite outputs and loss with non-finite gradients mean that it came from the backward pass. It is
    critical where it reached the parameters or lasts to the end, a warning where at least `recovered`
    finite steps follow.

    Look-alikes: a gradient scaler meets infinite gradients by design, and skips those steps: with a
    finite loss that is info. A loss that rose for steps before it overflowed is loss-divergence, and
    the non-finite value its end.

    Fixes: clean the batch; compute the operation in float32 or guard it; skip steps with non-finite
    gradients; lower the learning rate where values grew before.

    Reference: PyTorch, torch.autograd.detect_anomaly; Micikevicius et al. 2018 (arXiv 1710.03740).

    Facts: batch_step, output_step, loss_step, grad_step, weight_step where seen (first
    steps), backward (1 where it came from the backward pass), persists, steps_affected.
    """
    table = run.table("run.loss")
    if not table.sites or not len(table.steps):
        raise NotEvaluable("no step was recorded")
    places = {place.kind: place for kind in PLACES if (place := _place(run, kind)) is not None}
    if not places:
        yield from _scaled(run)
        return
    origin = min(places.values(), key=lambda place: (place.first, PLACES.index(place.kind)))
    end = run.steps - 1
    last = max(place.last for place in places.values())
    persists = last > end - recovered
    leapt = leap(run, origin.first) if origin.kind in ("output", "loss") else None
    poisoned = "weight" in places and places["weight"].last >= int(run.table("weight.nonfinite").steps[-1])
    backward = origin.kind == "grad"
    facts = {f"{kind}_step": float(place.first) for kind, place in places.items()}
    facts |= {
        "backward": float(backward),
        "persists": float(persists),
        "steps_affected": float(last - origin.first + 1),
    }
    fate = (
        "It reached the parameters"
        if poisoned
        else "It lasts to the end"
        if persists
        else f"Training recovered after step {last}"
    )
    yield Finding(
        severity=Severity.critical if persists or poisoned else Severity.warning,
        confidence=0.95 if origin.kind in ("batch", "output", "weight") or backward else 0.8,
        sites=tuple(dict.fromkeys([leapt.site, *origin.sites])) if leapt else origin.sites,
        onset_step=origin.first,
        peak_step=origin.first,
        last_step=last,
        message=" ".join([_words(run, origin), *([_sentence(leapt.words)] if leapt else []), f"{fate}."]),
        evidence=_evidence(origin),
        facts=facts,
    )


def _table(run: Run, kind: str) -> Table | None:
    """Counts of non-finite values: NaN where nothing was measured."""
    if kind == "loss":
        loss = run.table("run.loss")
        lost = np.isinf(loss.values[:, :1])
        if "run.nonfinite" in run:
            lost = lost | (run.table("run.nonfinite").values[:, :1] > 0)
        return Table("run.nonfinite", loss.steps, loss.sites[:1], lost.astype(np.float32))
    return run.table(f"{kind}.nonfinite") if f"{kind}.nonfinite" in run else None


def _place(run: Run, kind: str) -> Place | None:
    table = _table(run, kind)
    if table is None or not table.values.size:
        return None
    with np.errstate(invalid="ignore"):
        bad = table.values > 0
    rows = bad.any(axis=1)
    if kind == "grad":
        rows &= ~np.isin(table.steps, skipped_steps(run))
    at = np.flatnonzero(rows)
    if not at.size:
        return None
    here, measured = np.flatnonzero(bad[at[0]]), ~np.isnan(table.values[at[0]])
    order = np.array([site.order for site in table.sites], dtype=np.float64)
    # Backward goes from the last layer to the first, so the last of the bad gradients came first.
    weights = order[here] if kind == "grad" else -order[here]
    calls = {table.names[i]: float(table.values[at[0], i]) for i in here} if kind == "output" else {}
    makers = _makers(calls)
    if calls:
        passed_on = [any(name.startswith(f"{maker}.") for maker in makers) for name in calls]
        repeats = _holds_another(table.names, here) & ~np.isin(list(calls), makers)
        weights = np.where(passed_on | repeats, weights - 1e9, weights)
    sites = telling([table.names[i] for i in here], weights)
    return Place(
        kind,
        int(table.steps[at[0]]),
        int(table.steps[at[-1]]),
        sites,
        len(here) / int(measured.sum()),
        sites[0] in makers,
        _elder(calls, sites[0]),
    )


def _holds_another(names: tuple[str, ...], here: np.ndarray) -> np.ndarray:
    """Which of the places are containers of another one: they repeat the value of their child."""
    holders = {""}
    for i in here:
        name = names[i]
        while name := name.rpartition(".")[0]:
            holders.add(name)
    return np.array([names[i] in holders and len(here) > 1 for i in here])


def _makers(counts: Mapping[str, float]) -> list[str]:
    """Modules with more non-finite calls than any module within, where those have more than half as many:
    what is called more seldom, as keys that are computed once, says nothing."""
    found = []
    for name, count in counts.items():
        within = [other for inner, other in counts.items() if name and inner.startswith(f"{name}.")]
        if within and count / 2 < max(within) < count:
            found.append(name)
    return found


def _elder(counts: Mapping[str, float], site: str) -> str:
    """The module that holds `site`, or another within that, with the most non-finite calls; empty where
    none has more than `site`."""
    holder = site.rpartition(".")[0]
    beside = [name for name in counts if holder and (name == holder or name.startswith(f"{holder}."))]
    most = max(beside, key=lambda name: counts[name], default=site)
    return most if counts.get(most, 0.0) > counts.get(site, 0.0) else ""


def _words(run: Run, origin: Place) -> str:
    site, step = origin.sites[0] if origin.sites else "", origin.first
    if origin.kind == "batch":
        return f"The batch of step {step} holds non-finite values, in {site}."
    if origin.kind == "output":
        rest = (
            ", in more calls than that of any module within: it made the first one itself"
            if origin.made
            else f", the first in forward order; {origin.elder} put out more of them and may have begun it"
            if origin.elder
            else "; what comes before it is"
        )
        return f"The output of {site or 'the model'} is not finite at step {step}{rest}."
    if origin.kind == "loss":
        if "output.nonfinite" in run and step in run.table("output.nonfinite").steps:
            return (
                f"The loss is not finite at step {step} although all outputs are: it overflowed in the loss."
            )
        return (
            f"The loss is not finite at step {step}, so it came from the forward pass; "
            "the outputs of that step were not recorded."
        )
    if origin.kind == "grad":
        whole = "All gradients are" if origin.share == 1.0 else f"The gradient of {site} is"
        return f"{whole} not finite at step {step} while the loss is: it came from the backward pass."
    return f"The parameter {site} is not finite after step {step} although gradients and loss were."


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _evidence(origin: Place) -> tuple[Evidence, ...]:
    if origin.kind == "loss":
        return (Evidence("run.loss", ("run",)),)
    return (Evidence(f"{origin.kind}.nonfinite", origin.sites, threshold=0.0), Evidence("run.loss", ("run",)))


def _scaled(run: Run) -> Iterator[Finding]:
    """Steps that a gradient scaler withheld, and nothing else."""
    skipped = skipped_steps(run)
    if skipped.size:
        yield Finding(
            severity=Severity.info,
            confidence=0.9,
            sites=("run",),
            onset_step=int(skipped[0]),
            peak_step=int(skipped[0]),
            last_step=int(skipped[-1]),
            message=f"The gradient scaler withheld {skipped.size} steps with non-finite gradients, "
            "as it is meant to.",
            value=float(skipped.size),
            evidence=(Evidence("run.skipped", ("run",)),),
            facts={"skipped": float(skipped.size)},
        )


def _clean(rng: np.random.Generator, count: int = 60) -> dict[str, np.ndarray]:
    return {
        "run.loss": 2.0 + 0.1 * rng.standard_normal(count),
        "run.nonfinite": np.zeros(count),
        "batch.nonfinite": np.zeros(count),
        "output.nonfinite": np.zeros((count, 4)),
        "grad.nonfinite": np.zeros((count, 4)),
        "weight.nonfinite": np.zeros((count, 4)),
    }


def _run(series: dict[str, np.ndarray]) -> Run:
    return run_of(
        series, sites={"output": outputs(4), "grad": weights("grad", 4), "weight": weights("weight", 4)}
    )


@nonfinite_origin.fires_on
def _layer_overflows(rng: np.random.Generator) -> Run:
    series = _clean(rng)
    series["run.loss"][30:] = np.nan
    series["run.nonfinite"][30:] = 1
    series["output.nonfinite"][30:, 2:] = 1
    series["output.nonfinite"][31:] = 1
    for kind in ("grad", "weight"):
        series[f"{kind}.nonfinite"][30:] = 64
    return _run(series)


@nonfinite_origin.fires_on
def _a_layer_leaps_and_the_next_overflows(rng: np.random.Generator) -> Run:
    series = _clean(rng)
    series["run.loss"][30:] = np.nan
    series["run.nonfinite"][30:] = 1
    series["output.absmax"] = 2.0 + 0.1 * rng.random((60, 4))
    series["output.absmax"][30, 1] = 1e37
    series["output.absmax"][30, 2:] = series["output.absmax"][31:] = np.nan
    series["output.nonfinite"][30, 2:] = series["output.nonfinite"][31:] = 1
    return _run(series)


@nonfinite_origin.fires_on
def _backward_only(rng: np.random.Generator) -> Run:
    series = _clean(rng)
    series["grad.nonfinite"][30, :3] = 64
    return _run(series)


@nonfinite_origin.quiet_on
def _scaler_calibrates(rng: np.random.Generator) -> Run:
    series = _clean(rng)
    series["run.skipped"] = np.isin(np.arange(60), [0, 1, 40]).astype(float)
    series["grad.nonfinite"][[0, 1, 40]] = 64
    return _run(series)
