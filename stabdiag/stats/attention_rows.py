"""Which rows of an attention matrix are looked at, where not all of them are."""

from __future__ import annotations

SHARE = 16
MOST = 2**22
FEW = 2**15


def items_at(turn: int, items: int) -> slice:
    """A sixteenth of the items of a batch, at least one; others at the next turn."""
    count = max(1, items // SHARE)
    start = turn * count % items
    return slice(min(start, items - count), min(start, items - count) + count)


def rows_of(queries: int, scores: int, most: int) -> slice:
    """Evenly spaced ones, so that of `scores` in all queries no more than about `most` are looked at."""
    step = min(queries, max(1, -(-scores // min(max(most, 2 * FEW), MOST))))
    return slice(step // 2, None, step)


def most_likely(queries: int, scores: int) -> int:
    """How many of the rows with the largest expected logit, of each item and head: one in 32, at least four;
    of few scores more."""
    return min(queries, max(4, queries // 32, FEW * queries // scores), max(1, MOST * queries // scores))
