from __future__ import annotations

import numpy as np
import pytest
import torch

from stabdiag.capture.partials import CHUNK, PartialLog
from stabdiag.stats.magnitude import Magnitude
from stabdiag.stats.moments import SAMPLE, Moments


def columns(log: PartialLog, sites: int) -> dict[str, np.ndarray]:
    harvest = log.harvest()
    with np.errstate(all="ignore"):
        return harvest.columns({device: rows.numpy() for device, rows in harvest.rows.items()}, sites)


def test_each_site_gets_its_own_numbers_and_an_unmeasured_one_is_nan():
    log = PartialLog(Moments())
    log.add(2, torch.full((3,), 5.0))
    log.add(0, torch.tensor([1.0, 3.0]))
    np.testing.assert_array_equal(columns(log, 3)["mean"], [2, np.nan, 5])


def test_a_module_that_runs_often_is_the_whole_of_its_calls():
    log = PartialLog(Moments())
    calls = torch.arange(12.0).reshape(4, 3)
    for call in calls:
        log.add(0, call)
    got = columns(log, 1)
    assert got["mean"][0] == pytest.approx(5.5)
    assert got["max"][0] == 11
    assert got["rms"][0] == pytest.approx(calls.square().mean().sqrt().item())


def test_a_repeated_row_is_said_of_both_sites():
    log = PartialLog(Magnitude())
    log.add(0, torch.tensor([1.0]))
    key = log.add(1, torch.tensor([-7.0]))
    log.repeat(3, key)
    np.testing.assert_array_equal(columns(log, 4)["absmax"], [1, 7, np.nan, 7])


def test_more_rows_than_a_chunk_holds_are_kept():
    log = PartialLog(Magnitude())
    count = 2 * CHUNK + 3
    for site in range(count):
        log.add(site, torch.tensor([float(site)]))
    np.testing.assert_array_equal(columns(log, count)["absmax"], np.arange(count))


def test_a_harvest_is_kept_and_the_next_one_begins_with_nothing():
    log = PartialLog(Magnitude())
    log.add(0, torch.tensor([1.0]))
    first = log.harvest()
    rows = {device: taken.numpy().copy() for device, taken in first.rows.items()}
    log.add(0, torch.tensor([9.0]))
    assert first.columns(rows, 1)["absmax"][0] == 1
    assert columns(log, 1)["absmax"][0] == 9
    assert log.harvest().rows == {}
    assert np.isnan(log.harvest().columns({}, 1)["absmax"]).all()


def test_what_an_earlier_and_larger_tensor_left_in_a_row_does_not_count():
    log = PartialLog(Moments())
    for size in (SAMPLE + 7, 3, SAMPLE - 1):
        log.add(0, torch.full((size,), 2.0))
        got = columns(log, 1)
        assert (got["mean"][0], got["rms"][0], got["zeros"][0]) == pytest.approx((2, 2, 0), rel=1e-6), size


def test_a_tensor_with_gaps_in_memory_is_sampled_too():
    log = PartialLog(Moments())
    log.add(0, torch.full((SAMPLE, 3), 2.0)[:, ::2])
    assert columns(log, 1)["mean"][0] == 2
