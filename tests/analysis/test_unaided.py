"""Growth of weights that their updates do not account for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stabdiag.analysis.diagnose import diagnose
from stabdiag.analysis.unaided import unaided_growth
from stabdiag.api import watch
from stabdiag.core.run import Run
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of


def walked(seed: int, every: int, rate: float, written: float = 1.0) -> tuple[Run, np.ndarray, np.ndarray]:
    """A matrix that updates of a wandering size move, and that is multiplied by `written` after each; recorded
    at one step in `every`."""
    rng = np.random.default_rng(seed)
    weight, norms, ratios = rng.standard_normal(64), [], []
    for _ in range(240):
        before = np.linalg.norm(weight)
        # The worst that an update can do for the norm: it points along the weight.
        update = weight / before * rate * before * rng.uniform(0.5, 1.5)
        weight = weight + update
        ratios.append(np.linalg.norm(update) / before)
        weight = weight * written
        norms.append(np.linalg.norm(weight))
    steps = np.arange(0, 240, every)
    run = run_of(
        {"update.ratio": np.array(ratios)[steps, None], "run.loss": np.ones(240)},
        sites={"update": [Site("update", "w", "Linear", (8, 8))]},
        steps={"update": steps},
    )
    return run, steps, np.array(norms)[steps, None]


@given(seed=st.integers(0, 2**16), every=st.sampled_from([1, 3, 10]), rate=st.floats(1e-5, 0.05))
def test_what_updates_did_is_never_taken_for_something_else(seed, every, rate):
    run, steps, norms = walked(seed, every, rate)
    growth, _ = unaided_growth(run, steps, ("w",), norms)
    assert growth[0] == 0


@pytest.mark.parametrize("every", [1, 3, 10])
def test_what_is_written_beside_them_is_found_with_its_size(every):
    run, steps, norms = walked(0, every, 1e-4, written=1.02)
    growth, begins = unaided_growth(run, steps, ("w",), norms)
    assert begins == 0
    # All of it, but for what rounding and three times the updates could have been.
    assert 0.4 * 240 * np.log(1.02) < growth[0] < 240 * np.log(1.02)


def test_where_no_update_is_known_nothing_is_told():
    run, steps, norms = walked(0, 1, 1e-4, written=1.02)
    assert unaided_growth(run, steps, ("another",), norms)[0] == 0
    assert unaided_growth(run_of({"run.loss": np.ones(240)}), steps, ("w",), norms)[0] == 0


def test_a_weight_that_a_script_writes_to_is_named_with_what_to_do(tmp_path):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    with watch(model, optimizer, log_dir=tmp_path, name="run", every=2) as recording:
        for step in range(200):
            x = torch.randn(32, 8)
            loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step >= 100:
                with torch.no_grad():
                    model[0].weight.mul_(1.02)
    found = {finding.signature: finding for finding in diagnose(recording.run).findings}
    drift = found["weight-norm-drift"]
    assert drift.sites == ("0.weight",)
    assert 98 <= drift.onset_step <= 104
    assert drift.causes[0].id == "weights-overwritten"
    assert "something else writes to it" in drift.message
