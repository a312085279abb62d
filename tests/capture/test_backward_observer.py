from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

import pytest
import torch
from torch.autograd import graph
from torch.utils.checkpoint import checkpoint

from stabdiag.capture.backward import BackwardObserver


class Diary:
    """What an observer told."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, bool]] = []
        self.ended = 0
        self.observer = BackwardObserver(self.begin, self.end)

    def begin(self, roots, accumulates) -> None:
        self.begun.append((len(roots), accumulates))

    def end(self) -> None:
        self.ended += 1


@pytest.fixture
def diary() -> Iterator[Diary]:
    kept = Diary()
    yield kept
    kept.observer.remove()


class Failing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("in backward")


def leaf() -> torch.Tensor:
    return torch.ones(2, requires_grad=True)


def test_each_way_into_the_engine_is_told(diary):
    leaf().sum().backward()
    torch.autograd.backward([leaf().sum(), leaf().prod()])
    x = leaf()
    torch.autograd.grad(outputs=x.sum(), inputs=x)
    assert diary.begun == [(1, True), (2, True), (1, False)]
    assert diary.ended == 3


def test_the_roots_are_those_of_the_call():
    seen = []
    observer = BackwardObserver(lambda roots, _: seen.extend(roots), lambda: None)
    try:
        loss = leaf().sum()
        loss.backward()
        assert seen[0] is loss
    finally:
        observer.remove()


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_backward_pass_inside_another_is_part_of_it(diary, reentrant):
    active = []

    def inner(x):
        active.append(diary.observer.active)
        return x.exp()

    checkpoint(inner, leaf(), use_reentrant=reentrant).sum().backward()
    assert active == [False, True]
    assert diary.begun == [(1, True)]
    assert diary.ended == 1


def test_an_error_in_backward_leaves_it_in_order_and_shows_no_frame_of_ours(diary):
    with pytest.raises(RuntimeError, match="in backward") as caught:
        Failing.apply(leaf()).sum().backward()
    assert "stabdiag/" not in "".join(traceback.format_tb(caught.tb))
    assert not diary.observer.active
    assert diary.ended == 1
    leaf().sum().backward()
    assert len(diary.begun) == 2


def test_a_root_that_needs_no_gradient_fails_as_ever(diary):
    with pytest.raises(RuntimeError, match="does not require grad") as caught:
        torch.ones(1).sum().backward()
    assert "stabdiag/" not in "".join(traceback.format_tb(caught.tb))
    assert not diary.observer.active


def test_the_debug_logging_of_autograd_still_works(diary, caplog):
    with caplog.at_level(logging.DEBUG, logger="torch.autograd.graph"):
        leaf().sum().backward()
    assert "Executing" in caplog.text
    caplog.clear()
    leaf().sum().backward()
    assert caplog.text == ""
    assert len(diary.begun) == 2


def test_its_logging_hooks_are_taken_off_again(diary, caplog):
    loss, counts = leaf().sum(), []
    with caplog.at_level(logging.DEBUG, logger="torch.autograd.graph"):
        for _ in range(2):
            caplog.clear()
            loss.backward(retain_graph=True)
            counts.append(caplog.text.count("Executing"))
    assert counts[0] == counts[1] > 0


def test_torch_is_as_before_when_it_is_removed():
    before = vars(graph)["log"], graph._register_logging_hooks_on_whole_graph
    kept = Diary()
    assert vars(graph)["log"] is not before[0]
    kept.observer.remove()
    assert (vars(graph)["log"], graph._register_logging_hooks_on_whole_graph) == before
    leaf().sum().backward()
    assert kept.begun == []
