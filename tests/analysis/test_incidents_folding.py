from dataclasses import replace

import numpy as np
import pytest

from stabdiag.analysis.catalogue import SIGNATURES, Signature
from stabdiag.analysis.incidents import fold
from stabdiag.analysis.resolution import slack
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.synthetic import run_of

EXPLAINS = {
    "rate": ("growth",),
    "growth": ("dead",),
    "dead": ("loss",),
    "loss": (),
    "cut": (),
    "echo": ("growth",),
}


@pytest.fixture(autouse=True)
def catalogue(monkeypatch):
    """rate -> growth -> dead -> loss; cut explains nothing; growth and echo explain each other."""
    explains = {**EXPLAINS, "growth": ("dead", "echo")}
    entries = {id: Signature(id, id, (), explains[id], (), lambda run: ()) for id in explains}
    monkeypatch.setattr(SIGNATURES, "_entries", entries)
    monkeypatch.setattr(SIGNATURES, "_loaded", True)


def found(signature, onset, site="run", severity=Severity.warning, series=None):
    evidence = (Evidence(series),) if series else ()
    return Finding(
        severity, 1.0, (site,), onset, onset, onset, "it did", evidence=evidence, signature=signature
    )


def deep_run(every=1):
    steps = np.arange(0, 100, every)
    shape = (len(steps), 3)
    return run_of(
        {"output.rms": np.ones(shape), "grad.norm": np.ones(shape)}, steps={"output": steps, "grad": steps}
    )


def names(findings, incident):
    return [findings[i].signature for i in incident.findings]


def test_a_chain_folds_under_its_first_link_even_where_a_link_was_not_found():
    findings, incidents = fold(deep_run(), [found("loss", 30), found("rate", 10), found("growth", 12)])
    assert len(incidents) == 1
    assert names(findings, incidents[0]) == ["rate", "growth", "loss"]
    assert findings[incidents[0].root].signature == "rate"
    assert incidents[0].onset_step == 10


def test_a_note_from_the_same_step_explains_nothing_upstream_of_it():
    note, later = Severity.info, found("dead", 10, "layers.0", series="output.rms")
    for place, count in (("layers.2", 2), ("layers.0", 1)):
        early = found("growth", 10, place, note, series="output.rms")
        _, incidents = fold(deep_run(), [early, later])
        assert len(incidents) == count


def test_two_independent_faults_stay_two_incidents_and_the_worse_comes_first():
    findings, incidents = fold(deep_run(), [found("cut", 0), found("rate", 50, severity=Severity.critical)])
    assert [names(findings, i) for i in incidents] == [["rate"], ["cut"]]


def test_what_is_so_by_construction_follows_from_nothing_and_may_be_what_others_follow_from():
    written = replace(found("growth", 10), facts={"by_construction": 1.0})
    for others, count in (([found("rate", 0)], 2), ([found("dead", 12)], 1)):
        assert len(fold(deep_run(), [*others, written])[1]) == count


def test_a_construction_that_does_no_harm_brings_nothing_about():
    note = replace(found("rate", 10, severity=Severity.info), facts={"by_construction": 1.0})
    findings, incidents = fold(deep_run(), [note, found("growth", 12)])
    assert [names(findings, i) for i in incidents] == [["growth"], ["rate"]]


def test_an_effect_that_began_before_its_cause_is_not_folded():
    _, incidents = fold(deep_run(), [found("rate", 50), found("loss", 10)])
    assert len(incidents) == 2


@pytest.mark.parametrize(("every", "onset", "count"), [(1, 12, 1), (1, 13, 2), (10, 30, 1), (10, 31, 2)])
def test_onsets_may_seem_swapped_by_twice_the_recording_interval(every, onset, count):
    run = deep_run(every)
    pair = [found("rate", onset, series="grad.norm"), found("loss", 10)]
    assert slack(run, *pair) == 2 * every
    _, incidents = fold(run, pair)
    assert len(incidents) == count


def test_what_is_taken_rarely_says_nothing_of_the_onsets_of_other_series():
    rare = np.arange(0, 1000, 100)
    run = run_of(
        {"output.rms": np.ones((1000, 3)), "distribution.kurtosis": np.ones((10, 3))},
        steps={"distribution": rare},
    )
    assert slack(run, found("rate", 500, series="output.rms")) == 2
    assert slack(run, found("rate", 500, series="distribution.kurtosis")) == 200


def told(signature, first, last, **more):
    return replace(found(signature, first, **more), last_step=last)


def losses(*levels):
    """A run whose loss has these levels for a hundred steps each."""
    noise = np.random.default_rng(0).normal(0, 0.01, 100 * len(levels))
    return run_of({"run.loss": np.repeat(levels, 100) + noise})


def test_a_fault_that_the_run_got_over_explains_nothing_later():
    later = [told("rate", 150, 160), told("loss", 450, 499)]
    assert len(fold(losses(3.0, 3.0, 2.5, 2.0, 4.0), later)[1]) == 2


def test_a_fault_that_the_run_never_got_over_explains_what_comes_later():
    later = [told("rate", 150, 160), told("loss", 450, 499)]
    assert len(fold(losses(3.0, 3.0, 3.1, 3.1, 4.0), later)[1]) == 1


def test_a_fault_that_goes_on_explains_what_begins_within_it():
    later = [told("rate", 150, 499), told("loss", 450, 499)]
    assert len(fold(losses(3.0, 3.0, 2.5, 2.0, 4.0), later)[1]) == 1


def test_a_note_is_the_root_only_of_what_comes_just_after_it():
    run = losses(3.0, 3.0, 3.0)
    note = told("rate", 50, 299, severity=Severity.info)
    assert len(fold(run, [note, told("loss", 90, 299)])[1]) == 1
    assert len(fold(run, [note, told("loss", 200, 299)])[1]) == 2


def test_a_note_that_leads_through_others_only_has_to_come_clearly_before():
    run = losses(3.0, 3.0, 3.0)
    note = told("rate", 89, 299, severity=Severity.info)
    assert len(fold(run, [note, told("loss", 90, 299)])[1]) == 2
    assert len(fold(run, [note, told("growth", 90, 299)])[1]) == 1


def test_a_note_explains_nothing_that_something_graver_explains():
    note = told("echo", 50, 299, severity=Severity.info)
    findings, incidents = fold(losses(3.0, 3.0, 3.0), [note, told("rate", 90, 299), told("growth", 90, 299)])
    assert [names(findings, i) for i in incidents] == [["rate", "growth"], ["echo"]]


@pytest.mark.parametrize(("onset", "order"), [(240, ["growth", "loss"]), (330, ["loss", "growth"])])
def test_what_shows_in_a_rise_is_its_root_near_the_beginning_and_its_effect_later(onset, order):
    run = losses(3.0, 3.0, 3.5, 5.0)
    slow = replace(found("loss", 200), peak_step=390, last_step=399)
    findings, (incident,) = fold(run, [told("growth", onset, 399, site="layers.1"), slow])
    assert names(findings, incident) == order


@pytest.mark.parametrize(("onset", "count"), [(130, 1), (131, 2)])
def test_a_symptom_of_the_whole_run_that_lasts_long_begins_vaguely(onset, count):
    flat = replace(found("loss", 100), peak_step=100, last_step=409)
    pair = [told("growth", onset, 409, site="layers.1"), flat]
    assert len(fold(deep_run(), pair)[1]) == count


def test_a_loss_that_merely_stays_brings_nothing_about():
    run = losses(3.0, 3.0, 3.0, 3.0)
    flat = replace(found("loss", 100), peak_step=100, last_step=399)
    assert len(fold(run, [told("growth", 330, 399, site="layers.1"), flat])[1]) == 2


def test_the_severity_is_the_highest_of_the_folded_and_the_root_stays_the_root():
    findings, (incident,) = fold(deep_run(), [found("rate", 1), found("loss", 5, severity=Severity.critical)])
    assert incident.severity is Severity.critical
    assert findings[incident.root].signature == "rate"


def test_of_two_roots_the_earlier_takes_the_effect():
    findings, incidents = fold(deep_run(), [found("rate", 8, "b"), found("rate", 5, "a"), found("loss", 20)])
    assert [(findings[i.root].sites, names(findings, i)) for i in incidents] == [
        (("a",), ["rate", "loss"]),
        (("b",), ["rate"]),
    ]


def test_equal_onsets_are_broken_by_place_the_earlier_layer_for_outputs():
    pair = [found("rate", 5, f"layers.{i}", series="output.rms") for i in (2, 1)]
    findings, incidents = fold(deep_run(), [*pair, found("loss", 9)])
    assert findings[incidents[0].root].sites == ("layers.1",)
    assert names(findings, incidents[0]) == ["rate", "loss"]


def test_equal_onsets_are_broken_by_place_the_later_layer_for_gradients():
    pair = [found("rate", 5, f"layers.{i}", series="grad.norm") for i in (1, 2)]
    findings, incidents = fold(deep_run(), [*pair, found("loss", 9)])
    assert findings[incidents[0].root].sites == ("layers.2",)


def test_equal_places_are_broken_by_severity():
    pair = [found("echo", 5), found("growth", 5, severity=Severity.critical)]
    findings, (incident,) = fold(deep_run(), pair)
    assert findings[incident.root].signature == "growth"


def test_signatures_that_explain_each_other_fold_under_the_earlier_one():
    findings, (incident,) = fold(deep_run(), [found("growth", 6), found("echo", 5)])
    assert findings[incident.root].signature == "echo"


def test_every_finding_is_in_exactly_one_incident_whatever_the_order():
    rng = np.random.default_rng(0)
    signatures = list(EXPLAINS)
    many = [
        found(str(rng.choice(signatures)), int(rng.integers(0, 60)), f"layers.{i % 3}") for i in range(40)
    ]
    reference, reference_incidents = fold(deep_run(), many)
    covered = sorted(i for incident in reference_incidents for i in incident.findings)
    assert covered == list(range(40))
    shuffled = [many[i] for i in rng.permutation(40)]
    again, again_incidents = fold(deep_run(), shuffled)

    def outline(findings, incidents):
        return sorted(
            (findings[i.root].signature, findings[i.root].onset_step, sorted(names(findings, i)))
            for i in incidents
        )

    assert outline(again, again_incidents) == outline(reference, reference_incidents)
