"""When the loss shows a fault."""

from __future__ import annotations

import numpy as np
import pytest

from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.zoo.harm import harm, loss_alarms


def falling(seed: int, count: int = 400) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(count)
    return 2 + 3 * np.exp(-np.arange(count) / 60) + 0.05 * noise


def run(loss):
    return run_of({"run.loss": loss})


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_harm(seed):
    assert harm(run(falling(seed)), run(falling(seed + 100))) is None


def test_a_loss_that_leaves_its_twin_is_harm_from_then_on():
    loss = falling(1)
    loss[200:] += 0.5
    assert harm(run(loss), run(falling(2))) == pytest.approx(203, abs=5)


def test_a_short_excursion_is_none():
    loss = falling(1)
    loss[200:203] += 1.0
    assert harm(run(loss), run(falling(2))) is None


def test_what_is_not_finite_is_harm_at_once():
    loss = falling(1)
    loss[150:] = np.nan
    assert harm(run(loss), run(falling(2))) == 150


def test_harm_knows_no_unit_of_the_loss():
    loss, twin = falling(1), falling(2)
    loss[200:] += 0.5
    assert harm(run(1e6 * loss - 7e6), run(1e6 * twin - 7e6)) == harm(run(loss), run(twin))


def test_losses_of_opposed_players_part_without_harm_unless_they_leave_all_bounds():
    def opposed(loss):
        sites = {"run": [Site("run", "run"), Site("run", "AdamW.1.0")]}
        rates = np.full((len(loss), 2), 1e-3)
        whole = np.column_stack([loss, np.full(len(loss), np.nan)])
        return run_of({"run.loss": whole, "run.lr": rates}, sites=sites)

    parted, thrown = falling(1), falling(1)
    parted[200:] += 0.5
    thrown[200:] += 500.0
    assert harm(opposed(parted), opposed(falling(2))) is None
    assert harm(opposed(thrown), opposed(falling(2))) == pytest.approx(200, abs=5)


def test_the_watch_on_the_loss_sees_six_deviations_and_a_nan_does_not_blind_it():
    loss = 2 + 0.1 * np.random.default_rng(0).standard_normal(300)
    loss[200], loss[205] = np.nan, 5.0
    assert loss_alarms(run(loss)) == [200, 205]


def test_the_watch_on_the_loss_is_quiet_before_it_has_seen_half_a_window():
    loss = np.full(100, 2.0)
    loss[30] = 50.0
    assert loss_alarms(run(loss)) == []
