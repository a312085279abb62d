from __future__ import annotations

import traceback

import pytest
import torch
import torch._dynamo.utils as dynamo
from torch.nn import utils
from torch.nn.utils import clip_grad, clip_grad_norm_, get_total_norm

from stabdiag.capture.clipping import ClippingObserver


def parameters(*gradients: list[float]) -> list[torch.Tensor]:
    made = [torch.zeros(len(g), requires_grad=True) for g in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return made


@pytest.fixture
def seen():
    told = []

    def tell(clip):
        told.append(([p.grad.tolist() for p in clip.parameters], clip.max_norm, clip.total.item()))

    observer = ClippingObserver(tell)
    yield told
    observer.remove()


def test_it_sees_the_gradients_before_they_are_scaled(seen):
    held = parameters([3.0], [0.0, 4.0])
    assert clip_grad_norm_(iter(held), 1.0) == 5
    assert seen == [([[3.0], [0.0, 4.0]], 1.0, 5.0)]
    torch.testing.assert_close(held[1].grad, torch.tensor([0.0, 0.8]))


def test_a_single_tensor_is_clipped_too(seen):
    (held,) = parameters([8.0])
    clip_grad_norm_(held, 2.0)
    assert seen[0][0] == [[8.0]]
    torch.testing.assert_close(held.grad, torch.tensor([2.0]))


def test_the_error_of_non_finite_gradients_shows_no_frame_of_ours(seen):
    with pytest.raises(RuntimeError, match="non-finite") as caught:
        clip_grad_norm_(parameters([float("nan")]), 1.0, error_if_nonfinite=True)
    assert "stabdiag/" not in "".join(traceback.format_tb(caught.tb))
    assert seen == []


def clipped_norms(held, **options):
    told = []
    observer = ClippingObserver(
        lambda clip: told.append([n if n is None else n.item() for n in clip.norms()])
    )
    clip_grad_norm_(held, 1.0, **options)
    observer.remove()
    return told[0]


def test_the_norms_that_torch_takes_are_told():
    held = [*parameters([3.0, 4.0], [0.0, 12.0]), torch.zeros(1, requires_grad=True)]
    assert clipped_norms(held) == [5.0, 12.0, None]


@pytest.mark.parametrize("options", [{"norm_type": float("inf")}, {"foreach": False}])
def test_norms_of_another_order_and_those_taken_one_by_one_are_not(options):
    assert clipped_norms(parameters([3.0, 4.0]), **options) == [None]


def test_narrow_gradients_have_norms_of_their_own_width_which_are_not_told():
    held = torch.zeros(2, dtype=torch.bfloat16, requires_grad=True)
    held.grad = torch.ones_like(held)
    assert clipped_norms([held]) == [None]


def test_the_norm_of_a_gradient_that_changed_meanwhile_is_not_told():
    (held,) = parameters([3.0, 4.0])
    told = []
    observer = ClippingObserver(lambda clip: told.append(clip.norms()))
    total = get_total_norm([held.grad])
    held.grad.mul_(2)
    utils.clip_grads_with_norm_([held], 1.0, total)
    observer.remove()
    assert told == [[None]]


def test_gradients_that_are_scaled_by_a_norm_of_the_script_s_own_are_seen(seen):
    (held,) = parameters([3.0, 4.0])
    utils.clip_grads_with_norm_(held, 1.0, torch.tensor(10.0))
    assert seen == [([[3.0, 4.0]], 1.0, 10.0)]


def test_compiled_clipping_has_the_graphs_that_it_has_without():
    def graphs():
        torch._dynamo.reset()
        dynamo.counters.clear()
        held = parameters([3.0, 4.0])
        torch.compile(clip_grad_norm_, backend="aot_eager", fullgraph=True)(held, 1.0)
        return dict(dynamo.counters["stats"]), held[0].grad.tolist()

    expected = graphs()
    observer = ClippingObserver(lambda _: None)
    assert graphs() == expected
    observer.remove()


def test_torch_is_as_before_when_it_is_removed():
    before = clip_grad._clip_grads_with_norm_
    ClippingObserver(lambda *_: None).remove()
    assert clip_grad._clip_grads_with_norm_ is before
    assert utils.clip_grads_with_norm_ is before
    assert clip_grad.torch is torch
