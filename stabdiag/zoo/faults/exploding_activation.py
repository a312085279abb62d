from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from stabdiag.reference.data import Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault

AT = 100


@fault(
    "exploding-activation",
    roots=["exploding-activation"],
    causes=["hardware-corruption"],
    site="blocks.1*",
    step=AT,
    steps=125,
)
def plant(options: Options, batches: Batches) -> Planted:
    """At step 100 one row of a weight in block 1 is multiplied by 100,000, as flipped bits would do."""
    model = build_model(options)
    optimizer = build_optimizer(model, options)
    weight = model.get_parameter("blocks.1.mlp.project.weight")
    done = 0

    @torch.no_grad()
    def corrupt(optimizer: Optimizer, arguments: Any, keywords: Any) -> None:
        nonlocal done
        done += 1
        if done == AT:
            weight[7] *= 1e5

    optimizer.register_step_post_hook(corrupt)
    return model, optimizer, batches
