from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from stabdiag.capture.autograd_nodes import Unreadable
from stabdiag.capture.losstail import LossTail


def targets():
    generator = torch.Generator().manual_seed(1)
    return {
        "classes": torch.tensor([1, 2, -100, 0]),
        "all": torch.tensor([1, 2, 4, 0]),
        "values": torch.randn(4, 5, generator=generator),
        "shares": torch.rand(4, 5, generator=generator),
        "weight": torch.rand(5, generator=generator),
        "scale": torch.tensor(1024.0),
    }


T = targets()
LOSSES = {
    "cross-entropy": lambda h: F.cross_entropy(h, T["classes"]),
    "cross-entropy-weighted": lambda h: F.cross_entropy(h, T["all"], weight=T["weight"]),
    "cross-entropy-smoothed": lambda h: F.cross_entropy(h, T["classes"], label_smoothing=0.1),
    "cross-entropy-soft": lambda h: F.cross_entropy(h, T["values"].softmax(-1)),
    "cross-entropy-summed": lambda h: F.cross_entropy(h, T["classes"], reduction="sum") / 3,
    "cross-entropy-masked": lambda h: (
        (F.cross_entropy(h, T["all"], reduction="none") * T["shares"][:, 0]).sum() / T["shares"][:, 0].sum()
    ),
    "cross-entropy-by-hand": lambda h: -h.log_softmax(-1).gather(1, T["all"][:, None]).squeeze(1).mean(),
    "language-model": lambda h: F.cross_entropy(
        h.view(2, 2, 5)[:, :-1, :].reshape(-1, 5), T["all"].view(2, 2)[:, 1:].reshape(-1)
    ),
    "segmentation": lambda h: F.cross_entropy(
        h.reshape(2, 2, 5).permute(0, 2, 1).unsqueeze(-1), T["all"].view(2, 2, 1)
    ),
    "transposed": lambda h: F.cross_entropy(h.view(2, 2, 5).transpose(1, 2), T["all"].view(2, 2)),
    "mse": lambda h: F.mse_loss(h, T["values"]),
    "mse-by-hand": lambda h: ((h - T["values"]) ** 2).mean(),
    "mse-other-way-round": lambda h: (T["values"] - h).square().sum(1).mean(),
    "rms": lambda h: (h - T["values"]).square().mean().sqrt(),
    "distance": lambda h: torch.linalg.vector_norm(h - T["values"], dim=1).mean(),
    "l1": lambda h: F.l1_loss(h, T["values"]),
    "huber": lambda h: F.huber_loss(h, T["values"], delta=0.7),
    "smooth-l1": lambda h: F.smooth_l1_loss(h, T["values"], beta=0.5, reduction="sum"),
    "bce": lambda h: F.binary_cross_entropy(h.sigmoid(), T["shares"]),
    "bce-logits": lambda h: F.binary_cross_entropy_with_logits(h, T["shares"], pos_weight=T["weight"]),
    "softplus": lambda h: F.softplus(-h[:2]).mean() + F.softplus(h[2:]).mean(),
    "log-sigmoid": lambda h: -F.logsigmoid(h[:, 0] * 3 - h[:, 1] / 2).mean(),
    "plus-a-constant": lambda h: F.mse_loss(h, T["values"]) + 1.5,
    "summed-by-python": lambda h: sum([h.square().mean(), h[0].square().mean()]) / 3,
    "z-loss": lambda h: F.cross_entropy(h, T["all"]) + 1e-2 * h.logsumexp(-1).pow(2).mean(),
    "accumulated": lambda h: F.cross_entropy(h, T["all"]) / 4,
    "scaled": lambda h: F.cross_entropy(h, T["all"]) * T["scale"],
    "double": lambda h: F.cross_entropy(h.double(), T["all"]),
    "last-position": lambda h: F.cross_entropy(h.view(2, 2, 5)[:, -1], T["all"][:2]),
    "indexed": lambda h: h[torch.arange(4), T["all"]].exp().mean(),
    "tanh": lambda h: (h.tanh().abs() + h.relu() + h.clamp(min=0)).sum(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_tail_is_the_loss_and_has_its_derivatives(name):
    body = nn.Linear(3, 5)
    outputs = [body(torch.randn(4, 3)) for _ in range(2)]
    losses = [LOSSES[name](output) for output in outputs]
    tail = LossTail(losses[0], [outputs[0]])
    assert tail.arguments == [0]
    assert torch.equal(tail([outputs[0].detach()]), losses[0].detach())
    other = outputs[1].detach().requires_grad_()
    loss = tail([other])
    torch.testing.assert_close(loss, losses[1], rtol=1e-6, atol=1e-7)
    expected = torch.autograd.grad(losses[1], outputs[1])
    torch.testing.assert_close(torch.autograd.grad(loss, other), expected, rtol=1e-5, atol=1e-6)
    losses[0].backward()  # the graph of the script is whole


def test_a_model_that_returns_its_loss_has_no_tail_and_scales_stay_on_it():
    output = nn.Linear(3, 1)(torch.randn(2, 3)).mean()
    tail = LossTail(output, [torch.zeros(1), output])
    assert (tail.length, tail.arguments) == (0, [1])
    assert tail([torch.zeros(1), torch.tensor(7.0)]) == 7
    assert LossTail(output / 4 * 2, [output])([torch.tensor(6.0)]) == 3


def test_narrowing_is_left_out_so_that_a_replay_may_be_wider():
    output = nn.Linear(3, 5)(torch.randn(4, 3))
    tail = LossTail(F.cross_entropy(output.bfloat16().float(), T["all"]), [output])
    assert torch.equal(tail([output]), F.cross_entropy(output, T["all"]))


def test_the_scale_of_a_gradient_scaler_is_the_one_at_the_time():
    output = nn.Linear(3, 1)(torch.randn(2, 3)).mean()
    scale = torch.tensor(8.0)
    tail = LossTail(output * scale, [output])
    scale.mul_(2)
    assert tail([torch.tensor(1.0)]) == 8


def test_a_loss_of_several_outputs_is_read_whole():
    body = nn.Linear(3, 5)
    x = torch.randn(4, 3)
    first, second, unused = body(x), body(x + 1), body(x + 2)
    loss = F.cross_entropy(first, T["all"]) + 0.5 * F.mse_loss(second, T["values"])
    tail = LossTail(loss, [unused, second, first])
    assert sorted(tail.arguments) == [1, 2]
    assert torch.equal(tail([unused, second, first]), loss)


def test_a_tail_keeps_neither_the_graph_nor_the_output():
    body = nn.Linear(3, 5)
    output = body(torch.randn(4, 3))
    alive = weakref.ref(output)
    loss = F.cross_entropy(output, T["all"])
    tail = LossTail(loss, [output])
    del output, loss
    gc.collect()
    assert alive() is None
    assert tail([torch.zeros(4, 5)]).isfinite()


class Odd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sum()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def body_and_output():
    body = nn.Linear(3, 5)
    return body, body(torch.randn(4, 3))


def test_what_is_not_known_is_named():
    body, output = body_and_output()
    with pytest.raises(Unreadable, match="passes through OddBackward, which is not known"):
        LossTail(Odd.apply(output), [output])
    with pytest.raises(Unreadable, match="depends on a parameter by another way"):
        LossTail(output.mean() + body.weight.square().sum(), [output])
    with pytest.raises(Unreadable, match="passes through AddmmBackward0"):
        LossTail(body(torch.randn(4, 3)).mean(), [output])
    with pytest.raises(Unreadable, match="a term of SubBackward0 is not kept"):
        LossTail((output - 1).sum(), [output])
    with pytest.raises(Unreadable, match="needs no gradients"):
        LossTail(torch.tensor(1.0), [output])
    with pytest.raises(Unreadable, match="more than 200 operations"):
        LossTail(sum(output.exp().mean() for _ in range(150)), [output])


def test_a_target_that_needs_gradients_is_not_taken_for_a_constant():
    _, output = body_and_output()
    with pytest.raises(Unreadable, match="target of MseLossBackward0 needs gradients"):
        LossTail(F.mse_loss(output, output * 2), [output])


def test_hooks_on_what_the_graph_keeps_are_not_run():
    _, output = body_and_output()
    ran = []

    def unpack(tensor):
        ran.append(1)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        offloaded = F.cross_entropy(output, T["all"])
    recomputed = checkpoint(lambda h: F.cross_entropy(h, T["all"]), output, use_reentrant=False)
    for loss in (offloaded, recomputed):
        with pytest.raises(Unreadable, match="hooks of the script"):
            LossTail(loss, [output])
    assert ran == []
    (offloaded + recomputed).backward()


def test_a_target_that_was_changed_in_place_is_told():
    _, output = body_and_output()
    target = T["values"].clone()
    loss = F.mse_loss(output, target)
    target.add_(1)
    with pytest.raises(Unreadable, match="freed or changed"):
        LossTail(loss, [output])
