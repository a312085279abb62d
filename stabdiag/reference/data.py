"""Text as tokens: from any file or folder, as bytes or as byte pairs."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

BYTES = 256
DEFAULT_SIZE = 3_000_000
SAMPLE = 400_000

Batch = tuple[Tensor, Tensor]
Batches = Callable[[int], Batch]


def read(source: str = "") -> bytes:
    """The text of a file, or of all text files of a folder in sorted order.

    Without a source it is Python's own standard library: a few megabytes of text that every machine
    has, so that nothing is ever downloaded. FileNotFoundError where there is no text.
    """
    if not source:
        folder = Path(sysconfig.get_path("stdlib"))
        text = join(sorted(folder.glob("*.py")), DEFAULT_SIZE)
    elif Path(source).is_dir():
        text = join(sorted(path for path in Path(source).rglob("*") if path.is_file()))
    else:
        text = Path(source).read_bytes()
    if not text:
        raise FileNotFoundError(f"there is no text in {source or 'the standard library of this Python'}")
    return text


def join(paths: list[Path], limit: int | None = None) -> bytes:
    """The files one after the other, up to `limit` bytes. A zero byte tells a binary file, left out."""
    text = bytearray()
    for path in paths:
        content = path.read_bytes()
        if b"\0" not in content:
            text += content
        if limit and len(text) >= limit:
            return bytes(text[:limit])
    return bytes(text)


# Byte-pair encoding is written out here, not taken from `tokenizers`: as tensor operations it is thirty
# lines, it needs no further package, and the same text gives the same tokens on every machine.


def merge(tokens: Tensor, pair: tuple[int, int], new: int) -> Tensor:
    """`tokens` with each occurrence of `pair` replaced by `new`, from left to right."""
    hit = (tokens[:-1] == pair[0]) & (tokens[1:] == pair[1])
    if pair[0] == pair[1]:
        # "aaa" holds the pair twice but can be merged once: of a run of hits, take every other one.
        place = torch.arange(len(hit))
        begins = hit.clone()
        begins[1:] &= ~hit[:-1]
        run = torch.where(begins, place, 0).cummax(0).values
        hit &= (place - run) % 2 == 0
    merged = tokens.clone()
    merged[:-1][hit] = new
    kept = torch.ones(len(tokens), dtype=torch.bool)
    kept[1:][hit] = False
    return merged[kept]


@dataclass(frozen=True)
class Vocabulary:
    """Bytes, and the pairs that were merged, in order: pair i became token 256 + i (Sennrich et al. 2016)."""

    pairs: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return BYTES + len(self.pairs)

    @classmethod
    def trained(cls, text: bytes, size: int) -> Vocabulary:
        """`size` tokens, fewer where the text has no pair that occurs twice. A sample of it is enough."""
        tokens = cls().encode(text[:SAMPLE])
        pairs: list[tuple[int, int]] = []
        for new in range(BYTES, size):
            counts = torch.bincount(tokens[:-1] * new + tokens[1:], minlength=1)
            if counts.max() < 2:
                break
            first, second = divmod(int(counts.argmax()), new)
            pairs.append((first, second))
            tokens = merge(tokens, (first, second), new)
        return cls(tuple(pairs))

    def encode(self, text: bytes) -> Tensor:
        """Tokens, int64 [n]."""
        tokens = torch.tensor(list(text), dtype=torch.long)
        for new, pair in enumerate(self.pairs, start=BYTES):
            tokens = merge(tokens, pair, new)
        return tokens

    def decode(self, tokens: Tensor) -> bytes:
        words = [bytes([i]) for i in range(BYTES)]
        for first, second in self.pairs:
            words.append(words[first] + words[second])
        return b"".join(words[i] for i in tokens.tolist())


def batches(tokens: Tensor, batch: int, context: int, seed: int) -> Batches:
    """The i-th batch, as a function of i: inputs and the tokens that follow them, int64 [batch, context].

    A batch depends on the seed and on i alone, so the data position of a run is one integer, and a
    resumed run sees what it would have seen.
    """
    windows = len(tokens) - context
    if windows < 1:
        raise ValueError(f"a text of {len(tokens)} tokens is too short for a context of {context}")

    def take(index: int) -> Batch:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        starts = torch.randint(windows, (batch,), generator=generator)
        rows = tokens[starts[:, None] + torch.arange(context + 1)]
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    return take
