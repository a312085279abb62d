"""The trainer that `stabdiag demo` runs."""

from __future__ import annotations

import pytest

from stabdiag.zoo import plant
from stabdiag.zoo.case import Case
from stabdiag.zoo.fault import FAULTS


@pytest.mark.parametrize("fault", list(FAULTS), ids=lambda fault: fault.id)
def test_every_fault_has_a_place_for_a_demonstration(fault):
    case = plant.default_case(fault)
    assert case.subject == fault.id
    assert case.dose == fault.doses[-1]


def test_it_trains_for_as_many_steps_as_it_is_told(capsys):
    plant.main(["dead-relu", "--steps", "3"])
    assert "step 3/3" in capsys.readouterr().out


def test_without_a_known_fault_it_lists_them():
    with pytest.raises(SystemExit, match="lr-too-high"):
        plant.main(["nonsense"])


def test_a_case_is_trained_by_its_command(capsys):
    case = Case("nan-in-batch", "regression", "sgd", 1, every=10)
    words = plant.command(case)
    plant.main([*words[3:], "--steps", "2"])
    assert "nan-in-batch in regression" in capsys.readouterr().out
