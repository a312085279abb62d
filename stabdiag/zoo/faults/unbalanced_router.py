from __future__ import annotations

import torch

from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "unbalanced-router",
    signatures=("moe-router-collapse",),
    causes=("missing-balance-loss", "bad-init-scale"),
    fixes=("balance-router", "rescale-init", "lower-learning-rate"),
    follows=("dead-units", "frozen-parameters", "unreachable-parameters"),
    doses=(1.0, 10.0, 100.0),
    found_from=100.0,
    needs=("router",),
    shape={"balance": 0.0, "experts": 8},
)
def plant(training: Training, dose: float) -> Planted:
    """Nothing balances the experts, and one of them starts ahead of the others: all tokens go to it."""
    names = []
    with torch.no_grad():
        for name, weight in training.model.named_parameters():
            if name.endswith("router.weight"):
                weight[0] += 0.01 * dose * torch.randn(weight.shape[1])
                names.append(name.rpartition(".router")[0])
    return Planted(0, tuple(f"{name}*" for name in names), shows=200)
