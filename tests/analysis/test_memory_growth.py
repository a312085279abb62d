from __future__ import annotations

import numpy as np
import pytest

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.core.synthetic import run_of


@pytest.mark.parametrize("start", [0, 40, 88])
def test_a_leak_begins_at_the_last_step_that_needed_no_more_than_before(start):
    rng = np.random.default_rng(0)
    steps = np.arange(300)
    memory = 325 + 3.0 * rng.random(300) + 2.5 * np.maximum(steps - start, 0)
    (finding,) = SIGNATURES["memory-growth"](run_of({"run.loss": np.ones(300), "run.memory": memory}))
    assert -1 <= finding.onset_step - start <= 10
