"""Writes to parameters are told where they cost something."""

from __future__ import annotations

import numpy as np
import pytest

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.analysis.diagnose import diagnose
from stabdiag.analysis.overwritten import overwritten
from stabdiag.core.event import Event
from stabdiag.core.finding import Severity
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

AT = 200


def run(rise: np.ndarray | float = 0.0, *, steps=(AT,), noise: float = 0.03, **series) -> Run:
    """A falling loss that is higher by `rise` from step 200 on."""
    loss = 1.0 + 2.0 * np.exp(-np.arange(400) / 40) + noise * np.random.default_rng(0).standard_normal(400)
    loss[AT:] += rise
    data = {"names": ["head.weight", "head.bias"], "count": 3, "share": 0.25}
    written = [Event("overwritten", 0.0, step, data=data) for step in steps]
    largest = np.ones((400, 5))
    largest[AT:, 2] = 1e4  # as a flipped bit would make it
    return run_of({"run.loss": loss, "weight.absmax": largest, **series}, events=written)


def test_a_write_that_the_loss_shows_is_the_root_and_put_down_to_the_script():
    told = diagnose(run(1.5))
    root = told.findings[told.incidents[0].root]
    assert (root.signature, root.onset_step, root.sites) == (
        "silent-data-corruption", AT, ("head.weight", "head.bias"),
    )  # fmt: skip
    assert root.causes[0].id == "weights-overwritten"
    assert told.incidents[0].fixes[0].id == "stop-overwriting"
    assert "head.weight and 2 other parameters" in root.message


def test_it_is_as_grave_as_what_it_cost():
    (passing,) = SIGNATURES["silent-data-corruption"](run(1.5 * np.exp(-np.arange(200) / 10)))
    (lasting,) = SIGNATURES["silent-data-corruption"](run(2.5))
    assert (passing.severity, lasting.severity) == (Severity.warning, Severity.critical)


@pytest.mark.parametrize(
    "of",
    [
        run(),
        run(-0.5),
        run(1.5, steps=()),
        run(1.5, steps=(100,)),
        run(1.5, steps=(AT + 10,)),
        run(np.where(np.arange(200) < 5, 0.0, 1.5)),
        run(np.where(np.arange(200) == 0, 3.0, 0.0)),
    ],
    ids=[
        "no harm",
        "better",
        "not written",
        "long before",
        "the loss moved first",
        "not at once",
        "one batch",
    ],
)
def test_a_write_that_costs_nothing_is_not_told(of):
    assert overwritten(of) is None


def test_a_write_that_was_borne_before_is_not_to_blame_and_another_one_is():
    same = run(1.5, steps=(50, 100, AT))
    assert overwritten(same) is None
    data = {"names": ["stem.weight"], "count": 1, "share": 0.1}
    other = Run(same.info, same.kinds, [*same.events, Event("overwritten", 0.0, AT, data=data)])
    found = overwritten(other)
    assert found is not None
    assert (found.step, found.names) == (AT, ("stem.weight",))


def test_neither_a_target_network_nor_a_cycle_of_the_rate_is_an_overwriting():
    rates = np.where(np.arange(400) < AT, 1e-4, 1e-3)
    assert overwritten(run(1.5, **{"run.lr": rates})) is None
    assert overwritten(run(1.5, **{"run.lr": np.full(400, 1e-3)})) is not None
    sites = {"grad": [Site("grad", name) for name in ("head.weight", "head.bias")]}
    plain = run(1.5)
    for norms, blamed in ((np.full((400, 2), np.nan), False), (np.ones((400, 2)), True)):
        series = {"run.loss": plain.table("run.loss").first(), "grad.norm": norms}
        of = run_of(series, sites=sites, events=list(plain.events))
        assert (overwritten(of) is not None) == blamed
