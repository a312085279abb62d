"""What a fix in plain PyTorch is called where a trainer holds the loop."""

from __future__ import annotations

import re
from typing import NamedTuple

NUMBER = r"(\d[\d.]*(?:e[+-]?\d+)?)"
ARGUMENTS = (
    (rf"max_norm={NUMBER}", "max_grad_norm={}", "gradient_clip_val={}"),
    (rf"\blr={NUMBER}", "learning_rate={}", ""),
    (rf"betas=\({NUMBER},", "adam_beta1={}", ""),
    (rf"betas=\([^,]+, {NUMBER}\)", "adam_beta2={}", ""),
    (rf"\beps={NUMBER}", "adam_epsilon={}", ""),
    (rf"weight_decay={NUMBER}", "weight_decay={}", ""),
    (rf"label_smoothing={NUMBER}", "label_smoothing_factor={}", ""),
    (rf"LinearLR\(.*total_iters={NUMBER}", "warmup_steps={}", ""),
    (rf"\(loss / {NUMBER}\)\.backward", "gradient_accumulation_steps={}", "accumulate_grad_batches={}"),
    (r"autocast\(.*(bf)loat16", "{}16=True", 'precision="{}16-mixed"'),
    (r"(GradScaler)\(", "fp16=True", 'precision="16-mixed"'),
)
"""What the code says, and the arguments of transformers' TrainingArguments and of Lightning's Trainer that
say the same; empty where it is said in the code there too."""


class HostCode(NamedTuple):
    host: str
    code: str


def host_codes(code: str) -> list[HostCode]:
    """The hosts in which the change that `code` makes is an argument."""
    said = [(found[1], *names) for pattern, *names in ARGUMENTS if (found := re.search(pattern, code))]
    transformers = [name.format(value) for value, name, _ in said]
    lightning = [name.format(value) for value, _, name in said if name]
    calls = (("Hugging Face", "TrainingArguments", transformers), ("Lightning", "Trainer", lightning))
    return [HostCode(host, f"{call}({', '.join(given)})") for host, call, given in calls if given]
