import numpy as np
import pytest

from stabdiag.analysis.same_event import merged
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.synthetic import run_of

RUN = run_of({"output.rms": np.ones((100, 20)), "grad.norm": np.ones((100, 20))})


def found(site, onset, severity=Severity.warning, series="output.rms", last=99):
    seen = (Evidence(series, (site,)),)
    return Finding(severity, 1.0, (site,), onset, onset, last, f"{site} grew.", evidence=seen, signature="s")


def test_twenty_layers_are_one_finding_with_twenty_sites_and_the_worst_speaks():
    many = [found(f"layers.{i}", 40 + i % 2, last=50 + i) for i in range(19)]
    (one,) = merged(RUN, [*many, found("layers.19", 41, Severity.critical)])
    assert one.sites == ("layers.19", *(f"layers.{i}" for i in (*range(0, 19, 2), *range(1, 19, 2))))
    assert (one.severity, one.onset_step, one.last_step) == (Severity.critical, 40, 99)
    assert one.message == "layers.19 grew. The same in 19 other places."


@pytest.mark.parametrize(
    "other",
    [found("layers.1", 60), found("run", 40, series="run.loss"), found("layers.1", 40, series="grad.norm")],
    ids=["at another time", "without a place", "by another series"],
)
def test_what_is_another_event_stays_another_finding(other):
    assert len(merged(RUN, [found("layers.0", 40), other])) == 2


def test_the_order_of_what_comes_makes_no_difference():
    many = [found(f"layers.{i}", 40) for i in range(5)]
    assert merged(RUN, many) == merged(RUN, many[::-1])
