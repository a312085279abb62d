from __future__ import annotations

import numpy as np

from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.render.heatmap import BROKEN, UNMEASURED, heat_map, heat_maps

NAN, INF = float("nan"), float("inf")


def test_rows_are_in_forward_order_and_what_never_ran_comes_last() -> None:
    sites = [Site("output", "never"), Site("output", "second", order=2), Site("output", "first", order=1)]
    drawn = heat_map(run_of({"output.rms": np.ones((3, 3))}, sites={"output": sites}), "output.rms")
    assert [site.name for site in drawn.sites] == ["first", "second", "never"]


def test_not_measured_and_not_finite_have_levels_of_their_own() -> None:
    run = run_of({"output.rms": [[1.0, NAN, NAN, INF]], "output.nonfinite": [[0, NAN, 1, 1]]})
    cells = heat_map(run, "output.rms").cells[:, 0]
    assert cells[1:].tolist() == [UNMEASURED, BROKEN, BROKEN]
    assert UNMEASURED < cells[0] < BROKEN


def test_levels_stand_for_the_values_within_a_percent_on_a_decade() -> None:
    values = np.geomspace(1, 10_000, 700).reshape(100, 7)
    drawn = heat_map(run_of({"grad.norm": values}), "grad.norm")
    assert np.allclose(drawn.values[drawn.cells.T], values, rtol=0.03)


def test_zero_stays_zero_on_a_logarithmic_scale() -> None:
    drawn = heat_map(run_of({"grad.norm": [[0.0, 1e-6, 1.0]]}), "grad.norm")
    assert drawn.values[drawn.cells[:, 0]].tolist() == [0.0, np.float64(np.float32(1e-6)), 1.0]


def test_a_spike_and_a_nan_survive_the_merging_of_columns() -> None:
    values, nonfinite = np.ones((5000, 2)), np.zeros((5000, 2))
    values[1234, 0], values[4321, 1] = 1e6, NAN
    nonfinite[4321, 1] = 1
    drawn = heat_map(run_of({"grad.norm": values, "grad.nonfinite": nonfinite}), "grad.norm", 600)
    assert drawn.cells.shape == (2, 600)
    assert drawn.values[drawn.cells[0].max()] == 1e6
    assert (drawn.cells[1] == BROKEN).sum() == 1
    column = int(np.flatnonzero(drawn.cells[1] == BROKEN)[0])
    assert drawn.steps[column] <= 4321 < drawn.steps[column + 1]


def test_series_without_a_number_and_of_the_run_itself_have_no_map() -> None:
    run = run_of(
        {"run.loss": [1.0], "output.rms": [[NAN, NAN]], "grad.nonfinite": [[0, 0]], "grad.norm": [[1, 2]]}
    )
    assert [drawn.series for drawn in heat_maps(run, run.series, 500_000)] == ["grad.norm"]


def test_a_run_of_which_nothing_has_several_sites_has_no_map() -> None:
    alone = run_of({"run.loss": [2.0, 1.0], "evaluation.loss": [[2.0], [1.0]]})
    assert heat_maps(alone, alone.series, 1000) == []
    beside = run_of({"logits.log_z": [[2.0], [1.0]], "output.rms": [[1.0, 2.0], [1.0, 2.0]]})
    assert [drawn.series for drawn in heat_maps(beside, beside.series, 1000)] == [
        "logits.log_z",
        "output.rms",
    ]
