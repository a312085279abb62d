from __future__ import annotations

import copy
import gc
import pickle
import traceback
from collections.abc import Iterator

import pytest
import torch

from stabdiag.capture.instances import Instances


class Base:
    def __init__(self, size: int = 0) -> None:
        self.size = size


class Own(Base):
    def __new__(cls, *args, **kwargs):
        made = super().__new__(cls)
        made.own = True
        return made


class Picky(Base):
    def __init__(self, size: int) -> None:
        raise ValueError(size)


@pytest.fixture
def instances() -> Iterator[Instances[Base]]:
    observed = Instances(Base)
    yield observed
    observed.forget()


def test_it_knows_those_that_live_in_the_order_they_were_made(instances):
    assert not instances
    first, second = Base(1), Own(2)
    assert list(instances) == [first, second]
    assert second.own
    assert second.size == 2
    del first
    gc.collect()
    assert list(instances) == [second]


def test_copies_and_unpickled_ones_count(instances):
    first = Base(3)
    others = [copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    assert list(instances) == [first, *others]
    assert [other.size for other in others] == [3, 3]


def test_an_error_in_a_constructor_shows_no_frame_of_ours(instances):
    with pytest.raises(ValueError, match="7") as caught:
        Picky(7)
    assert [frame.name for frame in traceback.extract_tb(caught.tb)][1:] == ["__init__"]
    with pytest.raises(TypeError, match=r"__init__\(\) takes from 1 to 2") as caught:
        Base(1, 2, 3)
    assert len(traceback.extract_tb(caught.tb)) == 1


def test_after_it_has_forgotten_classes_still_work():
    observed = Instances(Base)
    observed.forget()
    kept = [Base(1), Own(2), pickle.loads(pickle.dumps(Base(3)))]
    assert [made.size for made in kept] == [1, 2, 3]
    assert list(observed) == []


def test_optimizers_are_found_with_their_own_constructors():
    observed = Instances(torch.optim.Optimizer)
    try:
        optimizer = torch.optim.AdamW([torch.zeros(2, requires_grad=True)], lr=0.5)
        twin = copy.deepcopy(optimizer)
        assert list(observed) == [optimizer, twin]
        assert twin.param_groups[0]["lr"] == 0.5
        with pytest.raises(ValueError, match="empty parameter list"):
            torch.optim.SGD([], lr=1.0)
    finally:
        observed.forget()


def test_those_made_before_it_began_can_be_taken_in():
    class Thing:
        pass

    early = Thing()
    instances = Instances(Thing)
    late = Thing()
    instances.adopt()
    assert set(instances) == {early, late}
    assert len(list(instances)) == 2
    del early
    assert list(instances) == [late]
    instances.forget()
