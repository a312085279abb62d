"""Faults and controls are bound to what architectures and optimizers have, not to their names."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stabdiag.zoo.architecture import ARCHITECTURES
from stabdiag.zoo.control import CONTROLS
from stabdiag.zoo.fault import FAULTS
from stabdiag.zoo.optimizer import OPTIMIZERS
from stabdiag.zoo.traits import fits, traits_of

ENTRIES = [*FAULTS, *CONTROLS]
TRAITS = {trait for architecture in ARCHITECTURES for trait in architecture.traits}
BY_ITS_SIGNS = "swinging-descent"
"""Is about descent by signs, which one optimizer alone does."""


def entry(needs=(), without=(), optimizers=(), shape=()):
    return SimpleNamespace(needs=needs, without=without, optimizers=optimizers, shape=dict.fromkeys(shape))


def fitting(*, options=(), optimizer="adamw", **wanted):
    chosen = OPTIMIZERS[optimizer]
    return {a.id for a in ARCHITECTURES if fits(entry(**wanted), a, chosen, options)}


@pytest.mark.parametrize("bound", ENTRIES, ids=lambda bound: bound.id)
def test_nothing_is_bound_by_a_name(bound):
    words = {word for need in (*bound.needs, *bound.without) for word in need.split("|")}
    assert words <= TRAITS
    assert not words & {architecture.id for architecture in ARCHITECTURES}
    assert bound.id == BY_ITS_SIGNS or not {*bound.optimizers} & {optimizer.id for optimizer in OPTIMIZERS}


def test_every_trait_tells_some_fault_or_control_from_another():
    asked = {word for bound in ENTRIES for need in (*bound.needs, *bound.without) for word in need.split("|")}
    assert TRAITS - asked == set()


def test_all_needs_are_met_each_by_one_of_its_traits():
    both = fitting(needs=("classes|values", "residual"))
    assert both == fitting(needs=("classes|values",)) & fitting(needs=("residual",))
    assert fitting(needs=("classes|values",)) == fitting(needs=("classes",)) | fitting(needs=("values",))


def test_what_must_not_be_there_is_not():
    assert fitting(without=("router", "adversarial")) == {*fitting()} - {"experts", "gan"}


def test_an_option_of_the_shape_has_to_be_one_of_the_builders():
    assert fitting(shape=("nonlinearity",)) == fitting(options=("nonlinearity",)) == {"rnn"}


def test_an_architecture_says_by_what_it_can_be_trained():
    assert "gan" in fitting(optimizer="nadam")
    assert "gan" not in fitting(optimizer="sgd")


@pytest.mark.parametrize(
    ("trait", "named"),
    [
        ("descends", {"sgd"}),
        ("adaptive", {"adam", "adamw", "adamw-999", "nadam", "rmsprop"}),
        ("slow-moments", {"adam", "adamw-999"}),
        ("averages", {"adam", "adamw", "adamw-999"}),
        ("decays", {"adamw", "adamw-999", "lion"}),
    ],
)
def test_the_traits_of_optimizers_are_those_of_their_making(trait, named):
    assert {optimizer.id for optimizer in OPTIMIZERS if trait in traits_of(optimizer)} == named


def test_only_an_optimizer_that_caps_its_rate_does_not_follow_it():
    assert {optimizer.id for optimizer in OPTIMIZERS if "follows" not in traits_of(optimizer)} == {
        "adafactor"
    }


def test_an_optimizer_descends_or_takes_no_notice_of_the_scale():
    assert all(len(traits_of(o) & {"descends", "scale-free"}) == 1 for o in OPTIMIZERS)
