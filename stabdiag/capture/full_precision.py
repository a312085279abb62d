"""float32 that is computed as float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

BACKENDS = tuple((device, kind) for device in ("cuda", "mkldnn") for kind in ("matmul", "conv", "rnn"))


@contextmanager
def full_precision() -> Iterator[None]:
    """Products are not rounded to TF32 or bfloat16 inside, whatever the script allows: differences of
    gradients at weights that are 3e-5 apart would be lost in that. Convolutions on CUDA are by default."""
    if not hasattr(torch._C, "_get_fp32_precision_getter"):  # torch before 2.9
        with _older():
            yield
        return
    before = [torch._C._get_fp32_precision_getter(*backend) for backend in BACKENDS]
    try:
        for backend in BACKENDS:
            torch._C._set_fp32_precision_setter(*backend, "ieee")
        yield
    finally:
        for backend, precision in zip(BACKENDS, before, strict=True):
            torch._C._set_fp32_precision_setter(*backend, precision)


@contextmanager
def _older() -> Iterator[None]:
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
