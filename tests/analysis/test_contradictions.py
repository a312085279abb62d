"""What cannot be, whatever the course of the training."""

from __future__ import annotations

import numpy as np
import pytest

from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.event import Event
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


def falling_below_zero(function: str) -> Run:
    steps = np.arange(200)
    return run_of(
        {
            "run.loss": 0.7 - 0.5 * steps,
            "run.lr": np.full(200, 1e-2),
            "update.ratio": np.full((200, 1), 0.3),
        },
        sites={"update": [Site("update", "head.weight", "Linear", (4, 4))]},
        events=[Event("loss", 0.0, data={"function": function})],
    )


@pytest.mark.parametrize(
    ("function", "cause", "fix"),
    [
        ("binary-cross-entropy", "wrong-targets", "fix-targets"),
        ("mean-squared-error", "wrong-loss", "fix-loss"),
    ],
)
def test_a_negative_loss_that_has_no_negative_value_is_no_matter_of_the_step_size(function, cause, fix):
    diagnosis = diagnose(falling_below_zero(function))
    incident = next(
        i for i in diagnosis.incidents if diagnosis.findings[i.root].signature == "loss-divergence"
    )
    root = diagnosis.findings[incident.root]
    assert "lr-divergence" not in {finding.signature for finding in diagnosis.findings}
    assert "can be negative" in root.message
    assert root.causes[0].id == cause
    assert incident.fixes[0].id == fix


def test_a_loss_of_ones_own_may_be_negative():
    diagnosis = diagnose(falling_below_zero(""))
    assert "loss-divergence" not in {finding.signature for finding in diagnosis.findings}
