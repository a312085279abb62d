"""Sentences of a random context-free grammar, one after the other (after Allen-Zhu and Li 2023, arXiv
2305.13673)."""

from __future__ import annotations

import torch

from stabdiag.zoo.data.generator import generator
from stabdiag.zoo.training import Batch, Batches

LEVELS = (1, 5, 8)
"""Symbols of each level that is no token, from the sentence on."""
RULES = 3
Rules = list[list[list[int]]]
"""What each symbol of a level may become, in symbols of the next."""


def grammar(seed: int, batch: int, length: int, vocabulary: int) -> Batches:
    """Inputs and next tokens, int64 [batch, length]. Token 0 ends a sentence."""
    levels = _rules(seed, vocabulary)

    def take(index: int) -> Batch:
        source = generator(seed, index + 1)
        # A sentence takes at most 1 + 3 + 9 choices, and has at least eight tokens and its end.
        choices = torch.randint(RULES, (batch, 13 * (2 * length // 9 + 2)), generator=source).tolist()
        begins = torch.randint(length, (batch,), generator=source).tolist()
        rows = [_text(levels, c, b + length + 1)[b:] for c, b in zip(choices, begins, strict=True)]
        tokens = torch.tensor(rows)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    return take


def _rules(seed: int, vocabulary: int) -> list[Rules]:
    world = generator(seed, 0)
    levels: list[Rules] = []
    for symbols, below in zip(LEVELS, (*LEVELS[1:], vocabulary - 1), strict=True):
        first = int(below == vocabulary - 1)
        longs = torch.randint(2, 4, (symbols, RULES), generator=world).tolist()
        levels.append(
            [
                [(first + torch.randint(below, (long,), generator=world)).tolist() for long in row]
                for row in longs
            ]
        )
    return levels


def _text(levels: list[Rules], choices: list[int], length: int) -> list[int]:
    tokens: list[int] = []
    left = iter(choices)
    while len(tokens) < length:
        sentence = [0]
        for rules in levels:
            sentence = [below for symbol in sentence for below in rules[symbol][next(left)]]
        tokens += [*sentence, 0]
    return tokens[:length]
