from __future__ import annotations

import traceback

import pytest
import torch
from torch.nn.utils import clip_grad, clip_grad_norm_

from stabdiag.capture.clipping import ClippingObserver


def parameters(*gradients: list[float]) -> list[torch.Tensor]:
    made = [torch.zeros(len(g), requires_grad=True) for g in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return made


@pytest.fixture
def seen():
    told = []

    def clip(held, max_norm, total):
        told.append(([p.grad.tolist() for p in held], max_norm, total.item()))

    observer = ClippingObserver(clip)
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


def test_torch_is_as_before_when_it_is_removed():
    before = clip_grad._clip_grads_with_norm_
    ClippingObserver(lambda *_: None).remove()
    assert clip_grad._clip_grads_with_norm_ is before
