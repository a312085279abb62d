"""Players whose losses and gradients grow together without end, and those that find their measure."""

import numpy as np
import pytest

from stabdiag.analysis.catalogue import CAUSES, FIXES, SIGNATURES
from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.event import Event
from stabdiag.core.site import Site
from stabdiag.core.synthetic import run_of

STEPS = np.arange(1500)
GROWING = 0.05 + 0.05 * STEPS
BOUNDED = np.full(len(STEPS), 0.5)


def game(loss=GROWING, norm=GROWING, other=GROWING, sign=-1.0, every=1, function="unknown", **series):
    sides = [Site("side", name, "Adam", order=i) for i, name in enumerate(("Critic", "Generator"))]
    optimizers = [Event("optimizer", 0.0, data={"name": "Adam"}) for _ in sides]
    kept = np.flatnonzero((STEPS[: len(loss)] % every == 0) | (STEPS[: len(loss)] < 4))
    losses = np.column_stack([sign * loss, loss])
    norms = np.column_stack([norm, other])
    return run_of(
        {"run.loss": losses[:, 0], "side.loss": losses[kept], "side.grad_norm": norms[kept], **series},
        sites={"side": sides},
        steps={"side": kept},
        events=[*optimizers, Event("loss", 0.0, data={"function": function})],
    )


def told(run):
    return [f for f in SIGNATURES["loss-divergence"](run) if "grad_norm_growth" in f.facts]


@pytest.mark.parametrize("every", [1, 40], ids=["each step recorded", "few steps recorded"])
def test_a_critic_that_grows_with_the_gradients_of_both_is_told_however_densely_it_is_recorded(every):
    (finding,) = told(game(every=every))
    assert finding.sites == ("Critic",)
    assert finding.severity.name == "warning"
    assert finding.onset_step < 150


@pytest.mark.parametrize(
    "run",
    [
        game(norm=BOUNDED),
        game(loss=BOUNDED),
        game(other=BOUNDED),
        game(sign=1.0),
        game(function="mean-squared-error"),
        game(norm=np.where(STEPS < 700, GROWING, 25.0), other=np.where(STEPS < 700, GROWING, 25.0)),
        game(loss=GROWING[:900], norm=GROWING[:900], other=GROWING[:900]),
    ],
    ids=[
        "gradients stay", "loss stays", "other player stays", "loss has a floor", "loss of values",
        "past its height", "too short to tell",
    ],
)  # fmt: skip
def test_growth_that_another_reason_explains_is_not_told(run):
    assert not told(run)


def test_values_that_grow_with_a_policy_may_grow_without_end():
    run = game(**{"targets.rms": 1 + 16 * (1 - np.exp(-STEPS / 600))})
    assert not told(run)


def test_the_missing_bound_leads_and_a_gradient_penalty_is_the_first_thing_to_try():
    run = game()
    (finding,) = [f for f in diagnose(run).findings if f.signature == "loss-divergence"]
    assert finding.causes[0].id == "unbounded-output-logits"
    change = FIXES[CAUSES["unbounded-output-logits"].fixes[0]].propose(run, finding)
    assert "gradient norm of Critic grew" in change.text
    assert "create_graph=True" in change.code


def test_a_gradient_penalty_is_for_games_alone():
    (finding,) = told(game())
    assert FIXES["gradient-penalty"].propose(run_of({"run.loss": np.ones(50)}), finding) is None
