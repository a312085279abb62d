import numpy as np
import pytest

from stabdiag.analysis.catalogue import SIGNATURES
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.core.errors import UnknownName
from stabdiag.core.finding import Severity
from stabdiag.core.run import KindData, Run
from stabdiag.core.synthetic import run_of

HEADINGS = ("What it means:", "How it is detected:", "Look-alikes:", "Fixes:", "Reference:")
NAMES = [entry.id for entry in SIGNATURES]
EXAMPLES = [(s.id, e) for s in SIGNATURES for e in s.fires]
NATS = ("bad-initialization", "loss-plateau", "overfitting")  # these compare it with what an answer costs
WITHOUT_UNIT = [(n, e) for n, e in EXAMPLES if n not in NATS and "run.loss" in e(np.random.default_rng(0))]
NEAR_MISSES = [(s.id, e) for s in SIGNATURES for e in s.quiet]


def named(pairs):
    return [f"{name}-{example.__name__}" for name, example in pairs]


def findings(name, run):
    try:
        with np.errstate(all="ignore"):  # as the engine calls it
            return list(SIGNATURES[name](run))
    except NotEvaluable:
        return []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=named(EXAMPLES))
def test_a_signature_fires_on_its_examples(name, example, seed):
    run = example(np.random.default_rng(seed))
    found = findings(name, run)
    assert found
    assert max(f.severity for f in found) > Severity.info
    known = {site.name for kind in run.kinds for site in run.sites(kind)} | {"run"}
    for finding in found:
        assert finding.signature == name
        assert finding.sites
        assert set(finding.sites) <= known
        assert 0 <= finding.onset_step <= finding.peak_step <= finding.last_step < run.steps
        assert 0 < finding.confidence <= 1
        assert finding.message.endswith(".")
        assert finding.evidence
        assert all(
            evidence.series in run or evidence.series.startswith("run.") for evidence in finding.evidence
        )
        assert all(isinstance(value, float) for value in finding.facts.values())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("name", "example"), NEAR_MISSES, ids=named(NEAR_MISSES))
def test_a_signature_stays_quiet_on_its_near_misses(name, example, seed):
    assert [f.message for f in findings(name, example(np.random.default_rng(seed))) if f.severity] == []


@pytest.mark.parametrize(("name", "example"), WITHOUT_UNIT, ids=named(WITHOUT_UNIT))
def test_a_finding_does_not_depend_on_the_unit_of_the_loss(name, example):
    run = example(np.random.default_rng(0))
    scaled = dict(run.kinds["run"].values)
    scaled["loss"] = scaled["loss"] * np.float32(1024)
    data = run.kinds["run"]
    kinds = {**run.kinds, "run": KindData(data.steps, data.times, data.sites, scaled)}
    for kind, series in (("grad", "norm"), ("run", "grad_norm")):
        if f"{kind}.{series}" in run:
            old = kinds[kind]
            values = {**old.values, series: old.values[series] * np.float32(1024)}
            kinds[kind] = KindData(old.steps, old.times, old.sites, values)
    before, after = findings(name, run), findings(name, Run(run.info, kinds, run.events))
    assert [(f.severity, f.onset_step, f.sites) for f in before] == [
        (f.severity, f.onset_step, f.sites) for f in after
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_is_documented_and_has_examples(name):
    entry = SIGNATURES[name]
    places = [entry.doc.find(heading) for heading in HEADINGS]
    assert -1 not in places
    assert places == sorted(places)
    assert entry.title
    assert entry.causes
    assert entry.fires
    assert entry.quiet
    assert all(isinstance(value, float) for value in entry.thresholds.values())
    assert entry.thresholds or name == "nonfinite-origin"
    for threshold in entry.thresholds:
        assert f"`{threshold}`" in entry.doc, f"{threshold} is not explained"


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_threshold_is_an_error(name):
    with pytest.raises(UnknownName):
        list(SIGNATURES[name](run_of({"run.loss": np.ones(3)}), {"no_such_threshold": 1.0}))


def test_what_explains_what_has_no_cycle():
    state = {}

    def visit(name, path):
        assert state.get(name) != "open", f"a cycle: {[*path, name]}"
        if name in SIGNATURES and state.get(name) != "done":
            state[name] = "open"
            for follows in SIGNATURES[name].explains:
                visit(follows, [*path, name])
            state[name] = "done"

    for name in NAMES:
        visit(name, [])


def full_series(name):
    """An example of each signature, by turns, gives it realistic shapes to be damaged."""
    return SIGNATURES[name].fires[0](np.random.default_rng(0))


def altered(run, change, rows=None):
    kinds = {}
    for kind, data in run.kinds.items():
        cut = slice(rows)
        values = {series: change(series, array[cut]) for series, array in data.values.items()}
        kinds[kind] = KindData(data.steps[cut], data.times[cut], data.sites, values)
    return Run(run.info, kinds, run.events)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_few_steps_is_judged_or_declined(name, rows):
    findings(name, altered(full_series(name), lambda series, values: values, rows))


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.0, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_a_series_of_one_value_never_crashes(name, value):
    findings(name, altered(full_series(name), lambda series, values: np.full_like(values, value)))


@pytest.mark.parametrize("name", NAMES)
def test_series_that_were_never_measured_are_no_fault(name):
    unmeasured = altered(full_series(name), lambda series, values: np.full_like(values, np.nan))
    assert [f.message for f in findings(name, unmeasured) if f.severity] == []


@pytest.mark.parametrize("name", NAMES)
def test_each_optional_series_may_be_absent(name):
    run = full_series(name)
    for missing in set(run.series) - set(SIGNATURES[name].needs):
        kind, _, statistic = missing.partition(".")
        data = run.kinds[kind]
        kept = {series: values for series, values in data.values.items() if series != statistic}
        kinds = {**run.kinds, kind: KindData(data.steps, data.times, data.sites, kept)}
        findings(name, Run(run.info, kinds, run.events))


@pytest.mark.parametrize("name", NAMES)
def test_random_gaps_never_crash(name):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        run = SIGNATURES[name].fires[0](rng)

        def holes(series, values, rng=rng):
            kind = rng.random(values.shape)
            return np.where(kind < 0.1, np.nan, np.where(kind < 0.12, np.inf, values)).astype(np.float32)

        findings(name, altered(run, holes))
