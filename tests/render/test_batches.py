"""The table of batches: those that stand out, and not all that came after a loss was lost."""

from __future__ import annotations

import numpy as np

from stabdiag.core.synthetic import run_of
from stabdiag.render.dashboard import Panel
from stabdiag.render.view import VIEWS

PANEL = Panel(series=("batch.fingerprint",), view="batches")


def steps_shown(loss):
    run = run_of({"run.loss": loss, "batch.fingerprint": np.arange(len(loss))}, sites={"batch": ["x"]})
    (drawing,) = VIEWS["batches"].draw(run, PANEL)
    return [row[0] for row in drawing.rows]


def test_of_losses_that_stay_lost_the_first_is_told_and_then_those_that_stand_out():
    loss = np.linspace(3, 2, 200)
    loss[[40, 90]] += [5, 3]
    loss[150:] = np.nan
    assert steps_shown(loss)[:3] == ["150", "40", "90"]
    assert len(steps_shown(loss)) == 8


def test_every_time_that_the_loss_is_lost_is_told():
    loss = np.linspace(3, 2, 200)
    loss[20:30], loss[80], loss[120:] = np.nan, np.inf, np.nan
    assert steps_shown(loss)[:3] == ["20", "80", "120"]


def test_a_run_without_a_finite_loss_has_its_first_batch():
    assert steps_shown(np.full(50, np.nan)) == ["0"]
