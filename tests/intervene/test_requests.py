"""What can be asked for, and what is said to a wrong word."""

from __future__ import annotations

import pytest

from stabdiag.core.errors import StabdiagError
from stabdiag.intervene.intervention import INTERVENTIONS, described
from stabdiag.intervene.request import Acting, Request


@pytest.mark.parametrize(
    ("text", "value", "start"),
    [
        ("lower-learning-rate=0.3", 0.3, 0),
        ("lower-learning-rate=3e-1@200", 0.3, 200),
        ("skip-nonfinite-steps", None, 0),
        ("skip-nonfinite-steps@7", None, 7),
        ("lower-beta2", None, 0),
        ("lower-weight-decay=0", 0.0, 0),
    ],
)
def test_a_request_is_a_fix_perhaps_a_value_and_perhaps_a_step(text, value, start):
    request = Request.parse(text)
    assert (request.value, request.start) == (value, start)
    assert Request.parse(str(request)) == request


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("lower-learnin-rate=0.3", "there is no intervention 'lower-learnin-rate'", "lower-learning-rate"),
        ("qk-norm", "there is no intervention 'qk-norm'", "stabdiag explain"),
        ("clip-gradients", "clip-gradients needs a value", "--apply clip-gradients=0.5"),
        ("clip-gradients=tight", "the value of clip-gradients is a number, not 'tight'", "=0.5"),
        ("clip-gradients=-1", "takes a number above 0", ""),
        ("clip-gradients=nan", "takes a number above 0", ""),
        ("lower-learning-rate=2", "above 0 and up to 1", ""),
        ("raise-learning-rate=0.5", "above 1", ""),
        ("add-warmup=1.5", "a whole number", ""),
        ("skip-nonfinite-steps=3", "takes no value", "--apply skip-nonfinite-steps"),
        ("clip-gradients=1@soon", "the step from which on clip-gradients acts, not 'soon'", "@200"),
    ],
)
def test_a_wrong_request_is_told_in_one_line_with_what_to_write(text, message, hint):
    with pytest.raises(StabdiagError) as error:
        Request.parse(text)
    assert message in error.value.message
    assert "\n" not in error.value.message
    assert hint in error.value.hint


def test_it_travels_to_the_processes_of_the_target_and_back():
    acting = Acting.parse(["lower-learning-rate=0.3@5", "skip-nonfinite-steps"], guard=True)
    assert Acting.from_json(acting.to_json()) == acting
    assert not Acting()


@pytest.mark.parametrize("entry", INTERVENTIONS, ids=lambda entry: entry.id)
def test_each_says_what_it_does_and_what_its_value_is(entry):
    assert described(entry).rstrip().endswith(".")
    assert entry.takes is None or entry.takes.meaning
    if entry.takes is not None and entry.takes.default is not None:
        entry.takes.check(entry.id, entry.takes.default)


@pytest.mark.parametrize(
    ("id", "runtime", "asked"),
    [
        ("lower-learning-rate", {"lr_scale": 0.02}, ("lower-learning-rate=0.02",)),
        ("skip-nonfinite-steps", {"skip_nonfinite": 1.0}, ("skip-nonfinite-steps",)),
        ("qk-clip", {"a_name_of_its_own": 30.0}, ("qk-clip=30",)),
        ("rollback", {"rollback_to": 80.0}, ("rollback=11@80",)),
        ("rollback", {"rollback_to": 95.0}, ("rollback=16@80",)),
        ("rollback", {"rollback_to": 80.0, "lr_scale": 0.3}, ("lower-learning-rate=0.3@80",)),
    ],
)
def test_what_a_fix_advises_becomes_a_request(id, runtime, asked):
    assert INTERVENTIONS[id].advised(runtime, onset=90) == asked
    assert all(Request.parse(text) for text in asked)
