from __future__ import annotations

import torch
from torch import nn

from stabdiag.capture.wrapping import stepping


class Wrapper(torch.optim.Optimizer):
    """Shows the groups of another one, in the way that Accelerate's does."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner

    @property
    def param_groups(self):
        return self.inner.param_groups

    @param_groups.setter
    def param_groups(self, groups):
        self.inner.param_groups = groups


def test_an_optimizer_that_shows_the_groups_of_another_one_is_none_beside_it():
    inner = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    wrapper = Wrapper(inner)
    assert stepping([inner, wrapper]) == [inner]
    assert stepping([wrapper]) == [wrapper]


def test_one_that_is_still_being_made_counts():
    assert len(stepping([torch.optim.SGD.__new__(torch.optim.SGD)])) == 1
