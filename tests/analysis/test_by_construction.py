"""What is written into the program, and is no consequence of its training."""

from __future__ import annotations

import numpy as np
import pytest

from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

LAYERS = 6


def trained(*, unused: int = 0, left_out: int = 0, rate: float = 1e-2, **more: np.ndarray) -> Run:
    """A run of 200 steps without progress; the first `left_out` matrices are in no optimizer, the last
    `unused` tensors, of 64 elements, in modules that never run."""
    sites = [Site("grad", f"layers.{i}.weight", "Linear", (64, 64), order=i, optimized=i >= left_out)
             for i in range(LAYERS)]  # fmt: skip
    sites += [Site("grad", f"norms.{i}.weight", "LayerNorm", (64,), order=-1) for i in range(unused)]
    norms = np.ones((200, len(sites)))
    norms[:, LAYERS:] = np.nan
    moves = [Site("update", site.name, site.module_type, site.shape, order=i) for i, site in enumerate(sites)]
    series = {
        "grad.norm": norms,
        "grad.nonfinite": np.where(np.isnan(norms), np.nan, 0.0),
        "update.ratio": np.full((200, LAYERS - left_out), rate),
        "run.lr": np.full(200, rate),
        "run.loss": 3.0 + 0.01 * np.random.default_rng(0).standard_normal(200),
        **more,
    }
    known = {"grad": sites, "update": moves[left_out:LAYERS], "router": [Site("router", "moe", order=0)]}
    return run_of(series, sites=known)


def found(run: Run, signature: str) -> Finding:
    return next(f for f in diagnose(run).findings if f.signature == signature)


def test_a_rate_of_zero_follows_from_no_module_that_never_runs():
    diagnosis = diagnose(trained(unused=2, rate=0.0))
    root = diagnosis.findings[diagnosis.incidents[0].root]
    assert root.signature == "update-ratio-low"
    assert diagnosis.incidents[0].fixes[0].id == "fix-schedule"
    folded = {diagnosis.findings[i].signature for i in diagnosis.incidents[0].findings}
    assert "loss-plateau" in folded
    assert "unreachable-parameters" not in folded


@pytest.mark.parametrize(("rate", "written"), [(0.0, True), (1e-9, False)])
def test_only_a_rate_of_exactly_zero_is_written_so(rate, written):
    assert ("by_construction" in found(trained(rate=rate), "update-ratio-low").facts) is written


def test_what_is_in_no_optimizer_is_written_so():
    assert found(trained(left_out=2), "frozen-parameters").facts["by_construction"]


def test_a_module_that_never_runs_is_written_so_and_an_expert_without_tokens_is_not():
    assert found(trained(unused=2), "unreachable-parameters").facts["by_construction"]
    routed = trained(unused=2, **{"router.load": np.ones((200, 1))})
    assert "by_construction" not in found(routed, "unreachable-parameters").facts


@pytest.mark.parametrize(("unused", "grave"), [(3, False), (5, True)])
def test_unused_modules_are_a_note_below_a_hundredth_of_the_elements(unused, grave):
    assert bool(found(trained(unused=unused), "unreachable-parameters").severity) is grave
