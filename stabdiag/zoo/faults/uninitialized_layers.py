from __future__ import annotations

import torch

from stabdiag.zoo import spots
from stabdiag.zoo.fault import Planted, fault
from stabdiag.zoo.training import Training


@fault(
    "uninitialized-layers",
    signatures=("bad-initialization", "nonfinite-origin", "exploding-activation"),
    causes=("bad-init-scale", "hardware-corruption"),
    fixes=("rescale-init",),
    follows=("loss-divergence", "exploding-gradient", "loss-plateau"),
)
def plant(training: Training, dose: float) -> Planted:
    """The layers of one block were made on the meta device, and materialized by `to_empty`; as their
    `reset_parameters` reaches none of them, they hold what the memory held before."""
    name = spots.block(training)
    source = torch.Generator().manual_seed(training.seed)
    with torch.no_grad():
        for weight in training.model.get_submodule(name).parameters():
            if weight.dim() >= 2:
                # Half of the memory was never used, the other half holds the bits of something else.
                bits = torch.randint(-(2**31), 2**31, weight.shape, generator=source).to(torch.int32)
                used = torch.rand(weight.shape, generator=source) < 0.5
                weight.copy_(torch.where(used, bits.view(torch.float32).nan_to_num(), 0.0).clamp(-1e33, 1e33))
    return Planted(0, (f"{name}*",), shows=2)
