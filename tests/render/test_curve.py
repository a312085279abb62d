from __future__ import annotations

import numpy as np
import pytest

from stabdiag.core.run import MissingSeries
from stabdiag.core.synthetic import run_of
from stabdiag.render.curve import curve, curves, loss_curve, nonfinite_steps
from stabdiag.render.envelope import Measured
from stabdiag.render.sparkline import sparkline

NAN, INF = float("nan"), float("inf")


def test_a_gap_in_the_measurement_is_no_nonfinite_value() -> None:
    run = run_of({"grad.norm": [1.0, NAN, NAN, INF], "grad.nonfinite": [0.0, NAN, 2.0, 1.0]})
    drawn = curve(run, "grad.norm", "run")
    assert drawn.steps.tolist() == [0, 2, 3]
    assert np.isnan(drawn.values).tolist() == [False, True, True]


def test_what_a_lost_loss_does_not_spoil_is_a_gap_where_it_is_not_measured() -> None:
    run = run_of(
        {
            "run.loss": [1.0, NAN, NAN],
            "run.memory": [5.0, NAN, 6.0],
            "run.grad_norm": [1.0, NAN, NAN],
            "run.nonfinite": [0.0, 1.0, 1.0],
        }
    )
    assert curve(run, "run.memory", "run").steps.tolist() == [0, 2]
    assert curve(run, "run.grad_norm", "run").steps.tolist() == [0, 1, 2]
    steps, (values, broken) = (measured := Measured(run, "run.memory")).steps, measured.block(measured.rows)
    assert (steps.tolist(), values.ravel().tolist(), broken.any()) == ([0, 2], [5.0, 6.0], False)


def test_without_a_count_of_nonfinite_values_only_infinity_is_one() -> None:
    run = run_of({"run.loss": [1.0, NAN, INF]})
    assert loss_curve(run).steps.tolist() == [0, 2]
    assert nonfinite_steps(run).tolist() == [2]


def test_nonfinite_steps_are_those_of_any_kind() -> None:
    run = run_of(
        {"run.loss": np.ones(4), "run.nonfinite": [0, 0, 1, 0], "grad.nonfinite": [[0, 1], [0, 0]]},
        steps={"grad": [1, 3]},
    )
    assert nonfinite_steps(run).tolist() == [1, 2]


def test_curves_are_those_of_known_and_measured_sites() -> None:
    run = run_of({"output.rms": [[1.0, NAN, 3.0]]}, sites={"output": ["a", "b", "c"]})
    assert [c.name for c in curves(run, "output.rms", ("c", "unknown", "b"), 5)] == ["c"]
    assert [c.name for c in curves(run, "output.rms", (), 1)] == ["a"]
    assert curves(run, "output.absmax", (), 5) == []
    with pytest.raises(MissingSeries):
        curve(run, "output.absmax", "a")


def test_a_sparkline_shows_the_spike_and_the_nonfinite_end() -> None:
    loss = np.ones(1000)
    loss[500] = 5.0
    loss[990:] = INF
    line = sparkline(loss_curve(run_of({"run.loss": loss})), 20)
    assert line == "▁" * 10 + "█" + "▁" * 8 + "×"
    assert sparkline(loss_curve(run_of({"run.loss": loss})), 20, ascii_only=True).isascii()
