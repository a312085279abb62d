"""The three registries fit together, and every cause and fix stands every run it may meet."""

import ast
import re

import numpy as np
import pytest

from stabdiag.analysis.catalogue import CAUSES, FIXES, SIGNATURES
from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.synthetic import run_of

FIRING = [
    pytest.param(signature, example, id=f"{signature.id}-{example.__name__}")
    for signature in SIGNATURES
    for example in signature.fires
]
RUN = run_of({"run.loss": np.linspace(3, 1, 50)})
EVERY_SEVERITY = [
    Finding(severity, 1.0, sites, onset, onset, onset + 3, "it did", value=0.5)
    for severity in Severity
    for sites in ((), ("run",), ("no.such.weight",))
    for onset in (0, 1, 25, 10**6)
]


def test_every_cause_that_a_signature_names_exists():
    assert {cause for signature in SIGNATURES for cause in signature.causes} <= {c.id for c in CAUSES}


def test_every_signature_names_a_cause():
    assert [signature.id for signature in SIGNATURES if not signature.causes] == []


def test_every_fix_that_a_cause_names_exists():
    assert {fix for cause in CAUSES for fix in cause.fixes} <= {fix.id for fix in FIXES}


def test_every_fix_is_named_by_a_cause():
    assert {fix.id for fix in FIXES} <= {fix for cause in CAUSES for fix in cause.fixes}


@pytest.mark.parametrize("entry", [*CAUSES, *FIXES], ids=lambda entry: entry.id)
def test_every_cause_and_fix_is_documented_in_a_file_of_its_name(entry):
    function = entry.weigh if entry in list(CAUSES) else entry.propose
    assert function.__module__.rpartition(".")[2] == entry.id.replace("-", "_")
    assert len(entry.doc.split("\n")) >= 3


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.id)
def test_every_cause_gives_its_reference(cause):
    assert "Reference: " in cause.doc


@pytest.mark.parametrize("fix", FIXES, ids=lambda fix: fix.id)
def test_every_fix_tells_its_cost_and_how_to_see_that_it_worked(fix):
    assert re.search(r"\bcosts\b", fix.doc)
    assert re.search(r"\bIt\s+worked\b", fix.doc)


@pytest.mark.parametrize("run", [run_of({}), RUN], ids=["empty", "loss alone"])
def test_causes_and_fixes_stand_a_run_that_recorded_next_to_nothing(run):
    for finding in EVERY_SEVERITY:
        for cause in CAUSES:
            weight = cause.weigh(run, finding)
            assert weight is None or 0 <= weight.support <= 1
        for fix in FIXES:
            fix.propose(run, finding)


@pytest.mark.parametrize(("signature", "example"), FIRING)
def test_causes_and_fixes_stand_every_run_on_which_a_signature_fires(signature, example):
    run = example(np.random.default_rng(0))
    for finding in signature(run):
        for cause in CAUSES:
            weight = cause.weigh(run, finding)
            assert weight is None or (0 <= weight.support <= 1 and weight.because)
        for fix in FIXES:
            change = fix.propose(run, finding)
            if change:
                ast.parse(change.code)
                assert all(
                    isinstance(value, float) and np.isfinite(value) for value in change.runtime.values()
                )


@pytest.mark.parametrize(("signature", "example"), FIRING)
def test_the_whole_diagnosis_of_a_firing_run_names_the_signature_and_nothing_fails(signature, example):
    diagnosis = diagnose(example(np.random.default_rng(0)))
    assert signature.id in {finding.signature for finding in diagnosis.findings}
    assert [skipped for skipped in diagnosis.skipped if skipped.because.startswith("failed")] == []
    told = [cause.because for finding in diagnosis.findings for cause in finding.causes]
    assert [because for because in told if "could not be weighed" in because] == []


@pytest.mark.parametrize(("signature", "example"), FIRING)
def test_live_gives_what_is_found_afterwards(signature, example):
    """A finding that is complete before the last step looks the same once more has been recorded."""
    run = example(np.random.default_rng(0))
    for cut in (run.steps // 2, 3 * run.steps // 4):
        live = {f.onset_step for f in signature(run.window(0, cut)) if f.last_step < cut - 25}
        later = {f.onset_step for f in signature(run)}
        assert live <= later
