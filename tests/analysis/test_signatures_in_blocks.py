"""Tables that are larger than the memory: a signature goes through them in pieces."""

import tracemalloc

import numpy as np
import pytest

from stabdiag.analysis import blocks
from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.signatures import activation_outliers
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS, SITES = 20_000, 200
MOST = 16
"""Bytes a cell of one table; the table itself has four."""
PIECEWISE = ("attention-logit-growth", "attention-entropy-collapse", "attention-uniform",
             "activation-outliers", "embedding-gradient-spike")  # fmt: skip


HIGH = ("attention.max_logit", "attention.entropy", "grad.norm", "weight.norm", "output.absmax", "output.rms",
        "update.ratio")  # fmt: skip
LOW = ("attention.entropy_ratio", "attention.entropy_rest")
RECORDED = {*HIGH, *LOW, "run.loss"}


@pytest.fixture(scope="module")
def long_run():
    noise = np.random.default_rng(0)
    growth = np.exp(np.clip((np.arange(STEPS) - 0.9 * STEPS) / 200, 0, 7)).astype(np.float32)
    table = np.exp(0.1 * noise.standard_normal((STEPS, SITES), dtype=np.float32)) * growth[:, None]
    series = dict.fromkeys(HIGH, table) | dict.fromkeys(LOW, 1 / (1 + table))
    series["run.loss"] = 2 + 3 * np.exp(-np.arange(STEPS) / 2000) + np.log(growth)
    types = ["Embedding" if i % 6 == 0 else "Linear" for i in range(SITES)]
    kinds = ("attention", "grad", "weight", "output", "update")
    sites = {kind: [Site(kind, f"layers.{i}", types[i], order=i) for i in range(SITES)] for kind in kinds}
    return run_of(series, sites=sites)


@pytest.mark.parametrize("name", [entry.id for entry in SIGNATURES if RECORDED.issuperset(entry.needs)])
def test_a_signature_needs_little_more_memory_than_the_tables_have(long_run, name):
    tracemalloc.start()
    try:
        with np.errstate(all="ignore"):
            list(SIGNATURES[name](long_run))
    except NotEvaluable:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST * STEPS * SITES


@pytest.mark.parametrize("name", PIECEWISE)
@pytest.mark.parametrize("seed", range(3))
def test_findings_are_the_same_whatever_the_size_of_the_pieces(monkeypatch, name, seed):
    entry = SIGNATURES[name]
    examples = [*entry.fires, *entry.quiet]
    whole = [repr(list(entry(example(np.random.default_rng(seed))))) for example in examples]
    assert "Finding" in whole[0]
    monkeypatch.setattr(blocks, "CELLS", 16)
    monkeypatch.setattr(activation_outliers, "TOGETHER", 1)
    assert [repr(list(entry(example(np.random.default_rng(seed))))) for example in examples] == whole


def test_the_blocks_of_a_table_are_all_its_rows_once(monkeypatch):
    monkeypatch.setattr(blocks, "CELLS", 12)
    assert [list(range(10))[rows] for rows in blocks.blocks(10, 4)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert list(blocks.blocks(0, 4)) == []
    assert [rows.stop for rows in blocks.blocks(2, 100)] == [1, 2]
