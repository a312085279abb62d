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
    doses=(0.1, 1.0, 10.0),
    found_from=10.0,
    needs=("router",),
    shape={"experts": 8},
    broken={"balance": 0.0},
)
def plant(training: Training, dose: float) -> Planted:
    """Nothing balances the experts, and one of them starts ahead of the others: all tokens go to it."""
    biases = {n: p for n, p in training.model.named_parameters() if n.endswith("router.bias")}
    with torch.no_grad():
        for bias in biases.values():
            bias[0] += dose
    return Planted(0, tuple(f"{name.removesuffix('.router.bias')}*" for name in biases), shows=200)
