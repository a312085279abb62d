"""The rules of other tools: each where it fires and where it does not, flaws of the originals included."""

from __future__ import annotations

import numpy as np

from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of
from stabdiag.zoo.baseline import BASELINES, episodes

STEADY = 2 + 0.05 * np.random.default_rng(0).standard_normal(300)


def rules(name, series, **sites):
    with np.errstate(all="ignore"):
        return [(alarm.rule, alarm.step) for alarm in BASELINES[name].alarms(run_of(series, sites=sites))]


def weight(name: str, size: int = 4, order: int = 0) -> Site:
    return Site("grad", name, shape=(size, size), order=order)


def test_olmo_is_blind_for_a_window_after_a_nan():
    spiky = STEADY.copy()
    spiky[250] = 9.0
    assert rules("olmo", {"run.loss": spiky}) == [("run.loss", 250)]
    spiky[200] = np.nan
    assert rules("olmo", {"run.loss": spiky}) == []


def test_megatron_never_lowers_what_it_compares_with():
    loss = STEADY.copy()
    loss[200] = 15.0
    assert rules("megatron", {"run.loss": loss}) == []
    loss[210], loss[260] = 50.0, np.nan
    assert [rule for rule, _ in rules("megatron", {"run.loss": loss})] == ["not finite", "unexpectedly large"]


def test_rms_fires_at_its_level():
    rms = np.full((50, 2), 1.0)
    rms[30, 1] = 2.4
    assert rules("rms", {"optimizer.rms": rms}) == [("RMS", 30)]


def test_msprobe_takes_half_more_than_the_mean_for_turbulence():
    norms = np.full((100, 1), 1.0)
    norms[60] = 1.6
    assert rules("msprobe", {"grad.norm": norms}) == [("turbulence", 60)]
    norms[60] = 1.4
    assert rules("msprobe", {"grad.norm": norms}) == []


def test_sagemaker_knows_vanished_gradients_and_zero_updates():
    norms = np.full((50, 1), 1e-8)
    assert ("VanishingGradient", 0) in rules("sagemaker", {"grad.norm": norms}, grad=[weight("w")])
    assert ("UnchangedTensor", 2) in rules("sagemaker", {"update.norm": np.zeros((50, 1))})
    healthy = rules("sagemaker", {"grad.norm": 0 * norms + 1, "update.norm": 0 * norms + 1})
    assert healthy == []


def test_autotrainer_compares_the_first_matrix_with_the_last():
    norms = np.column_stack([np.full(50, 100.0), np.ones(50)])
    sites = [weight("first", order=0), weight("last", order=5)]
    assert rules("autotrainer", {"grad.norm": norms}, grad=sites) == [("explode", 0)]
    assert rules("autotrainer", {"grad.norm": norms}, grad=sites[::-1]) == []


def test_deepdiagnosis_takes_inputs_beyond_one_for_a_fault():
    assert rules("deepdiagnosis", {"batch.absmax": np.full((50, 1), 3.0)}) == [("inputs", 0)]
    assert rules("deepdiagnosis", {"batch.absmax": np.full((50, 1), 0.9)}) == []


def test_an_episode_is_told_once():
    raised = np.zeros(100, dtype=bool)
    raised[[10, 12, 25, 80]] = True
    assert episodes(np.arange(100), raised) == [10, 80]
