from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stabdiag.capture import facts

LOGITS = torch.randn(6, 5, requires_grad=True)
CLASSES = torch.arange(6) % 5
VALUES = torch.rand(6, 5)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda: F.cross_entropy(LOGITS, CLASSES), {"function": "cross-entropy", "classes": 5}),
        (lambda: F.cross_entropy(LOGITS, CLASSES) / 4 + 0.1, {"function": "cross-entropy", "classes": 5}),
        (lambda: F.nll_loss(F.log_softmax(LOGITS, 1), CLASSES), {"function": "cross-entropy", "classes": 5}),
        (
            lambda: F.cross_entropy(LOGITS.view(1, 5, 2, 3), CLASSES.view(1, 2, 3)),
            {"function": "cross-entropy", "classes": 5},
        ),
        (lambda: F.mse_loss(LOGITS, VALUES), {"function": "mean-squared-error"}),
        (lambda: F.smooth_l1_loss(LOGITS, VALUES), {"function": "smooth-absolute-error"}),
        (lambda: F.huber_loss(LOGITS, VALUES), {"function": "huber"}),
        (
            lambda: F.binary_cross_entropy(LOGITS.sigmoid(), VALUES),
            {"function": "binary-cross-entropy", "logits": False},
        ),
        (
            lambda: F.binary_cross_entropy_with_logits(LOGITS, VALUES),
            {"function": "binary-cross-entropy", "logits": True},
        ),
        (lambda: F.mse_loss(LOGITS, VALUES).log(), {"function": "unknown", "node": "LogBackward0"}),
        (lambda: F.mse_loss(LOGITS, VALUES) - 9, {"function": "unknown", "node": "SubBackward0"}),
        (lambda: LOGITS.square().mean(), {"function": "unknown", "node": "MeanBackward0"}),
        (lambda: nn.Parameter(torch.ones(())), {"function": "unknown", "node": "NoneType"}),
    ],
)
def test_the_loss_is_known_by_its_graph(loss, expected):
    assert facts.loss(loss()) == expected


def test_saved_tensors_are_not_unpacked():
    def refuse(_):
        raise AssertionError("unpacked")

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, refuse):
        loss = F.cross_entropy(LOGITS, CLASSES)
    assert facts.loss(loss)["classes"] == 5


def test_an_optimizer_is_told_in_plain_numbers():
    model = nn.Linear(2, 3)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
    told = facts.optimizer(torch.optim.AdamW(groups, lr=torch.tensor(0.5), betas=(0.9, 0.95)), 1)
    assert json.loads(json.dumps(told)) == told | {
        "groups": [{**group, "betas": [0.9, 0.95]} for group in told["groups"]]
    }
    assert told["name"] == "AdamW"
    assert [(g["lr"], g["weight_decay"], g["parameters"]) for g in told["groups"]] == [
        (0.5, 0.01, 1),
        (0.5, 0, 1),
    ]


def test_a_model_is_counted():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    model[0].bias.requires_grad_(False)
    assert facts.model(model, "net") == {
        "name": "net",
        "class": "Sequential",
        "modules": 3,
        "parameters": 9,
        "trainable": 6,
    }


def test_a_process_says_where_it_runs():
    told = json.loads(json.dumps(facts.process(4)))
    assert told["world_size"] == 4
    assert told["versions"]["torch"] == torch.__version__
    assert told["device"]
