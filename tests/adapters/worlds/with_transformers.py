"""A small language model in the hands of Hugging Face's Trainer.

`python with_transformers.py WAY`: `both` trains without and with the callback and compares, `once` trains
with it, `fails` raises in the third step.
"""

import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from stabdiag.adapters.transformers import StabdiagCallback

STEPS = 8


class Tokens(torch.utils.data.Dataset):
    def __init__(self, fails_at=None):
        self.fails_at = fails_at

    def __len__(self):
        return 64

    def __getitem__(self, index):
        if self.fails_at is not None and index >= self.fails_at:
            raise ValueError("a damaged sample")
        tokens = torch.randint(0, 50, (16,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens}


class InOrder(Trainer):
    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def train(callbacks, data=None, **options):
    """The sum of the trained weights, to the bit."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    special = {"bos_token_id": 0, "eos_token_id": 0, "loss_type": "ForCausalLM"}
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2, **special)
    )
    settings = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "bf16": True,
        "max_grad_norm": 0.1,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "learning_rate": 1e-3,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        **options,
    }
    arguments = TrainingArguments("out", **settings)
    trainer = InOrder(
        model, arguments, train_dataset=data or Tokens(), eval_dataset=Tokens(), callbacks=callbacks
    )
    trainer.train()
    return sum(p.detach().double().sum().item() for p in model.parameters()).hex()


if __name__ == "__main__":
    way = sys.argv[1]
    if way == "both":
        alone = train([])
        recorded = train([StabdiagCallback(every=2)])
        print("the same" if recorded == alone else f"{recorded} is not {alone}", flush=True)
    else:
        train([StabdiagCallback(every=2)], Tokens(fails_at=10 if way == "fails" else None))
