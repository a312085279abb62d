"""What holds of folding for any graph of explanations and any findings."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stabdiag.analysis.catalogue import SIGNATURES, Signature
from stabdiag.analysis.incidents import fold
from stabdiag.core.finding import Evidence, Finding, Severity
from stabdiag.core.synthetic import run_of

STEPS = 2_000
NAMES = [entry.id for entry in SIGNATURES]
RUN = run_of(
    {
        "run.loss": np.linspace(4.0, 2.0, STEPS),
        "output.rms": np.ones((STEPS // 10, 8)),
        "grad.norm": np.ones((STEPS, 8)),
    },
    steps={"output": np.arange(0, STEPS, 10)},
)


@st.composite
def findings(draw, names=NAMES, first=0, last=STEPS - 1):
    onset = draw(st.integers(first, last))
    end = draw(st.integers(onset, last))
    kind = draw(st.sampled_from(["run.loss", "output.rms", "grad.norm"]))
    site = "run" if kind == "run.loss" else f"layers.{draw(st.integers(0, 7))}"
    return Finding(
        draw(st.sampled_from(list(Severity))),
        1.0,
        (site,),
        onset,
        draw(st.integers(onset, end)),
        end,
        "it did",
        evidence=(Evidence(kind, (site,)),),
        signature=draw(st.sampled_from(names)),
    )


@st.composite
def graphs(draw, size=60):
    """Any graph of sixty signatures, cycles and self-references included."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    edges = rng.integers(0, size, (draw(st.integers(0, 200)), 2)).tolist()
    return {f"s-{i}": tuple(f"s-{b}" for a, b in edges if a == i) for i in range(size)}


def catalogue(graph):
    entries = {id: Signature(id, id, (), follows, (), lambda run: ()) for id, follows in graph.items()}
    return patch.multiple(SIGNATURES, _entries=entries, _loaded=True)


def outline(found, incidents):
    return [(i.severity, i.onset_step, [found[k] for k in i.findings]) for i in incidents]


def check(found, given_findings, incidents):
    covered = [i for incident in incidents for i in incident.findings]
    assert covered == list(range(len(given_findings)))
    assert sorted(map(repr, found)) == sorted(map(repr, given_findings))
    for incident in incidents:
        assert incident.findings[0] == incident.root
        assert incident.severity == max(found[i].severity for i in incident.findings)
        assert incident.onset_step == min(found[i].onset_step for i in incident.findings)
    severities = [incident.severity for incident in incidents]
    assert severities == sorted(severities, reverse=True)


@settings(max_examples=60, deadline=None)
@given(graph=graphs(), data=st.data())
def test_every_finding_is_in_one_incident_under_its_root_in_an_order_that_nothing_else_decides(graph, data):
    crowded = findings(names=list(graph)[:3], last=5)
    one = st.one_of(crowded, findings(names=list(graph)))
    many = data.draw(st.lists(one, max_size=25, unique_by=repr))
    shuffled = data.draw(st.permutations(many))
    with catalogue(graph):
        found, incidents = fold(RUN, many)
        check(found, many, incidents)
        assert outline(*fold(RUN, shuffled)) == outline(found, incidents)


@pytest.mark.parametrize("change", [{"last_step": 9}, {"peak_step": 6}, {"sites": ("layers.2", "layers.1")}])
def test_findings_that_differ_in_little_have_an_order_of_their_own(change):
    one = Finding(Severity.warning, 1.0, ("layers.2",), 5, 5, 5, "it did", signature="s")
    pair = [one, replace(one, **change)]
    with catalogue({"s": ()}):
        assert outline(*fold(RUN, pair)) == outline(*fold(RUN, pair[::-1]))


@settings(max_examples=60, deadline=None)
@given(many=st.lists(findings(), max_size=25, unique_by=repr))
def test_the_same_holds_of_the_catalogue_itself(many):
    check(*(lambda folded: (folded[0], many, folded[1]))(fold(RUN, many)))


@settings(max_examples=60, deadline=None)
@given(root=findings(first=100, last=300), other=findings(first=1_200))
def test_faults_apart_in_time_stay_apart(root, other):
    """The loss of the run falls all the while: it is well again in between."""
    assume(root.severity and other.severity)
    _, incidents = fold(RUN, [root, other])
    assert len(incidents) == 2


@settings(max_examples=60, deadline=None)
@given(one=findings(), other=findings())
def test_faults_that_nothing_connects_stay_apart_at_one_time_and_place(one, other):
    with catalogue({"left": (), "right": (), "below": ()}):
        pair = [replace(one, signature="left"), replace(other, signature="right")]
        assert len(fold(RUN, pair)[1]) == 2


@pytest.mark.parametrize("name", [s.id for s in SIGNATURES if s.explains])
def test_what_a_signature_explains_folds_under_it_at_once(name):
    """The more specific name of one event is the root, whichever comes first by the alphabet."""
    for follows in SIGNATURES[name].explains:
        if follows not in SIGNATURES:
            continue
        pair = [
            Finding(Severity.warning, 1.0, ("run",), 500, 500, 500, "it did", signature=signature)
            for signature in (follows, name)
        ]
        found, (incident,) = fold(RUN, pair)
        assert found[incident.root].signature == name
