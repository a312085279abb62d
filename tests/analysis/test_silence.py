"""What the analysis computes of broken series is its own affair: no warning of numpy's reaches the user."""

import warnings

import numpy as np
import pytest

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.config import Configuration
from stabdiag.core.run import KindData, Run

EXAMPLES = [(s.id, example) for s in SIGNATURES for example in s.fires]


def half_of_the_sites_never_measured(values):
    values[:, ::2] = np.nan


def nothing_measured_at_first(values):
    values[: len(values) * 2 // 3] = np.nan


def lost_half_way(values):
    values[len(values) // 2 :] = np.nan


def infinite_from_half_way_on(values):
    values[len(values) // 2 :] = np.inf


def few_measured(values):
    values[np.arange(values.size).reshape(values.shape) % 10 != 0] = np.nan


def never_measured(values):
    values[:] = np.nan


def nothing_but_infinity(values):
    values[:] = -np.inf


def zero(values):
    values[:] = 0.0


DAMAGES = (
    half_of_the_sites_never_measured,
    nothing_measured_at_first,
    lost_half_way,
    infinite_from_half_way_on,
    few_measured,
    never_measured,
    nothing_but_infinity,
    zero,
)


def damaged(run, damage, series):
    """A copy of the run in which one series is damaged, or all, where `series` is None."""
    kinds = {}
    for kind, data in run.kinds.items():
        values = {statistic: array.copy() for statistic, array in data.values.items()}
        for statistic, array in values.items():
            if series in (None, f"{kind}.{statistic}"):
                damage(array)
        kinds[kind] = KindData(data.steps, data.times, data.sites, values)
    return Run(run.info, kinds, run.events)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_no_warning_reaches_the_user_whatever_was_recorded(damage):
    for name, example in EXAMPLES:
        run = example(np.random.default_rng(0))
        only = Configuration(select=(name,))
        for series in (None, *run.series):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                diagnose(damaged(run, damage, series), only)
            assert not told, f"{name}, {example.__name__}, {series}: {told[0].message} at {told[0].lineno}"
