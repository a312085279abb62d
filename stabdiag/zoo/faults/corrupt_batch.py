from __future__ import annotations

import torch

from stabdiag.reference.data import Batch, Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault

AT = 150


@fault(
    "corrupt-batch",
    roots=["loss-spike"],
    causes=["corrupt-batch", "out-of-distribution-batch"],
    step=AT,
    steps=220,
)
def plant(options: Options, batches: Batches) -> Planted:
    """Batch 150 is garbage: uniformly random bytes in the place of text. All others are sound."""

    def corrupt(index: int) -> Batch:
        inputs, targets = batches(index)
        if index == AT:
            generator = torch.Generator().manual_seed(index)
            size = (len(inputs), options.context + 1)
            garbage = torch.randint(options.vocabulary, size, generator=generator)
            inputs, targets = garbage[:, :-1].contiguous(), garbage[:, 1:].contiguous()
        return inputs, targets

    model = build_model(options)
    return model, build_optimizer(model, options), corrupt
