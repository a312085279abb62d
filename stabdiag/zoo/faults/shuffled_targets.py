from __future__ import annotations

import torch

from stabdiag.reference.data import Batch, Batches
from stabdiag.reference.train import Options, build_model, build_optimizer
from stabdiag.zoo.fault import Planted, fault


@fault(
    "shuffled-targets",
    roots=["loss-plateau"],
    causes=["wrong-targets"],
    steps=200,
)
def plant(options: Options, batches: Batches) -> Planted:
    """The numbering of the targets is shuffled anew for each batch, as by a vocabulary built batch by batch.

    What a class means changes from step to step, so the loss stays at ln V: nothing can be learned.
    """

    def shuffled(index: int) -> Batch:
        inputs, targets = batches(index)
        generator = torch.Generator().manual_seed(index)
        numbering = torch.randperm(options.vocabulary, generator=generator)
        return inputs, numbering[targets]

    model = build_model(options)
    return model, build_optimizer(model, options), shuffled
