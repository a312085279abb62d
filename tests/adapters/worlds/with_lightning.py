"""A small classifier in the hands of Lightning; the ways are those of with_transformers.py."""

import sys

import lightning
import torch
from torch.nn import functional as F

from stabdiag.adapters.lightning import StabdiagCallback

STEPS = 8


class Classifier(lightning.LightningModule):
    def __init__(self, fails_at=None, lr=1e-2):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        self.fails_at = fails_at
        self.lr = lr

    def training_step(self, batch, index):
        if self.fails_at == index:
            raise ValueError("a damaged sample")
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), self.lr)


def train(callbacks, **how):
    """The sum of the trained weights, to the bit."""
    torch.set_num_threads(1)
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        precision="bf16-mixed",
        gradient_clip_val=0.1,
        accumulate_grad_batches=2,
        val_check_interval=6,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=callbacks,
        devices=how.pop("devices", 1),
        strategy=how.pop("strategy", "auto"),
    )
    x = torch.randn(256, 8)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :3].argmax(1)), 16)
    model = Classifier(**how)
    trainer.fit(model, data, data)
    return sum(p.detach().double().sum().item() for p in model.parameters()).hex()


if __name__ == "__main__":
    way = sys.argv[1]
    if way == "both":
        world = {"devices": 2, "strategy": "ddp"}
        alone = train([], **world)
        recorded = train([StabdiagCallback(every=2)], **world)
        print("the same" if recorded == alone else f"{recorded} is not {alone}", flush=True)
    else:
        train([StabdiagCallback(every=2)], fails_at=5 if way == "fails" else None)
