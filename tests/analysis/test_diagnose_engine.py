import dataclasses

import numpy as np
import pytest

from stabdiag.analysis.attribution import SHARPNESS, UNKNOWN
from stabdiag.analysis.catalogue import CAUSES, FIXES, SIGNATURES, Cause, Change, Fix, Signature, Weight
from stabdiag.analysis.diagnose import diagnose
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.core.config import Configuration, Ignore
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.errors import UnknownName
from stabdiag.core.event import Event
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import RunInfo
from stabdiag.core.synthetic import run_of

CALM = np.linspace(3, 1, 50)


def found(*sites, severity=Severity.warning, onset=5, **more):
    return Finding(severity, 1.0, sites, onset, onset, onset, "it did", **more)


@pytest.fixture
def catalogue(monkeypatch):
    """Declares a whole small catalogue: signatures, causes and fixes by id."""

    def declare(signatures, causes=(), fixes=()):
        for registry, entries in ((SIGNATURES, signatures), (CAUSES, causes), (FIXES, fixes)):
            monkeypatch.setattr(registry, "_entries", {entry.id: entry for entry in entries})
            monkeypatch.setattr(registry, "_loaded", True)

    return declare


def signature(id, detect, *, needs=(), causes=(), explains=()):
    return Signature(id, id, needs, explains, causes, detect)


def test_a_run_without_findings_is_stable(catalogue):
    catalogue([signature("quiet", lambda run: [])])
    diagnosis = diagnose(run_of({"run.loss": CALM}))
    assert (diagnosis.verdict, diagnosis.findings, diagnosis.skipped) == ("stable", (), ())


@pytest.mark.parametrize(
    ("severity", "verdict"),
    [(Severity.info, "stable"), (Severity.warning, "at-risk"), (Severity.critical, "unstable")],
)
def test_the_verdict_follows_the_worst_finding(catalogue, severity, verdict):
    catalogue([signature("a", lambda run: [found("x"), found("y", severity=severity)][1:])])
    assert diagnose(run_of({"run.loss": CALM})).verdict == verdict


def test_a_critical_loss_divergence_is_a_failure(catalogue):
    catalogue([signature("loss-divergence", lambda run: [found("run", severity=Severity.critical)])])
    assert diagnose(run_of({"run.loss": CALM})).verdict == "failed"


@pytest.mark.parametrize(
    ("info", "verdict"),
    [
        ({}, "stable"),
        ({"exit_status": 0}, "stable"),
        ({"exit_status": 1}, "failed"),
        ({"exit_status": -9, "signal": "SIGKILL"}, "failed"),
        ({"signal": "SIGSEGV"}, "failed"),
        ({"exit_status": -15, "signal": "SIGTERM"}, "stable"),
        ({"exit_status": 130, "signal": "SIGINT"}, "stable"),
        ({"exit_status": 143}, "stable"),
    ],
)
def test_a_crash_fails_the_run_and_a_polite_signal_does_not(catalogue, info, verdict):
    catalogue([])
    diagnosis = diagnose(run_of({"run.loss": CALM}, info=RunInfo(**info)))
    assert diagnosis.verdict == verdict
    assert diagnosis.run["exit_status"] == info.get("exit_status")
    assert diagnosis.run["signal"] == info.get("signal")


@pytest.mark.parametrize("series", ["run.nonfinite", "weight.nonfinite"])
def test_nonfinite_values_fail_the_run_only_where_they_last(catalogue, series):
    catalogue([])
    passing = np.zeros(50)
    passing[20:25] = 1
    lasting = np.zeros(50)
    lasting[40:] = 1
    lasting[46:] = np.nan  # not measured at the last steps
    assert diagnose(run_of({series: passing})).verdict == "stable"
    assert diagnose(run_of({series: lasting})).verdict == "failed"


def test_a_series_that_is_missing_is_told(catalogue):
    catalogue([signature("a", lambda run: [], needs=("run.loss", "output.rms", "grad.norm"))])
    run = run_of({"run.loss": CALM})
    assert diagnose(run).skipped[0].because == "output.rms and grad.norm were not recorded"


def test_the_recorders_own_reason_is_passed_on(catalogue):
    catalogue([signature("a", lambda run: [], needs=("output.rms",))])
    event = Event("coverage", 0.0, data={"what": "output", "because": "the model is compiled"})
    run = run_of({"run.loss": CALM}, events=[event])
    assert diagnose(run).skipped[0].because == "output.rms was not recorded: the model is compiled"


def test_a_kind_without_a_single_row_counts_as_not_recorded(catalogue):
    catalogue([signature("a", lambda run: [found("x")], needs=("output.rms",))])
    assert (
        diagnose(run_of({"output.rms": np.empty((0, 3))})).skipped[0].because == "output.rms was not recorded"
    )


def test_a_detector_may_say_that_there_is_too_little(catalogue):
    def detect(run):
        raise NotEvaluable("only 3 steps were recorded")
        yield

    catalogue([signature("a", detect)])
    assert diagnose(run_of({"run.loss": CALM})).skipped[0].because == "only 3 steps were recorded"


def test_a_detector_that_asks_for_an_unrecorded_series_is_skipped(catalogue):
    catalogue([signature("a", lambda run: [run.table("grad.norm")])])
    assert diagnose(run_of({"run.loss": CALM})).skipped[0].because == "grad.norm was not recorded"


def test_a_detector_that_crashes_leaves_the_others_standing(catalogue):
    def crash(run):
        yield found("x")
        raise ZeroDivisionError("of mine")

    catalogue([signature("bad", crash), signature("good", lambda run: [found("y")])])
    diagnosis = diagnose(run_of({"run.loss": CALM}))
    assert [f.signature for f in diagnosis.findings] == ["good"]
    assert diagnosis.skipped[0].because == "failed: ZeroDivisionError: of mine"


def test_thresholds_reach_the_detector(catalogue):
    def detect(run, *, z=4.0):
        return [found("x", value=z)]

    catalogue([signature("a", detect)])
    run = run_of({"run.loss": CALM})
    assert diagnose(run).findings[0].value == 4.0
    assert diagnose(run, Configuration().with_settings(["a.z=7"])).findings[0].value == 7.0


@pytest.mark.parametrize(
    ("config", "suggestion"),
    [
        (Configuration(select=("los-spike",)), "loss-spike"),
        (Configuration(ignore=(Ignore("los-spike"),)), "loss-spike"),
        (Configuration(thresholds={"los-spike": {"zeta": 1.0}}), "loss-spike"),
        (Configuration(thresholds={"loss-spike": {"zet": 1.0}}), "zeta"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(catalogue, config, suggestion):
    catalogue([signature("loss-spike", lambda run, *, zeta=4.0: [])])
    with pytest.raises(UnknownName) as caught:
        diagnose(run_of({"run.loss": CALM}), config)
    assert suggestion in caught.value.hint


def test_only_the_selected_are_evaluated(catalogue):
    catalogue([signature(id, lambda run: [found("x")]) for id in "ab"])
    diagnosis = diagnose(run_of({"run.loss": CALM}), Configuration(select=("b",)))
    assert [f.signature for f in diagnosis.findings] == ["b"]


def test_ignored_sites_leave_a_finding_and_a_finding_without_sites_goes(catalogue):
    detect = lambda run: [found("encoder.0", "decoder.0"), found("encoder.1"), found("decoder.1")]  # noqa: E731
    catalogue([signature("a", detect), signature("b", lambda run: [found("encoder.0")])])
    config = Configuration(ignore=(Ignore("a", "encoder.*"),))
    kept = diagnose(run_of({"run.loss": CALM}), config).findings
    assert sorted((f.signature, f.sites) for f in kept) == [
        ("a", ("decoder.0", "decoder.1")),
        ("b", ("encoder.0",)),
    ]


def test_a_finding_of_the_whole_run_goes_only_where_the_whole_signature_is_ignored(catalogue):
    catalogue([signature("a", lambda run: [found()])])
    run = run_of({"run.loss": CALM})
    assert len(diagnose(run, Configuration(ignore=(Ignore("a", "encoder.*"),))).findings) == 1
    assert diagnose(run, Configuration(ignore=(Ignore("a"),))).findings == ()


def weigh(support):
    return lambda run, finding: Weight(support, "so it was")


def fails(run, finding):
    raise RuntimeError("of mine")


def test_causes_are_ranked_with_a_share_for_the_unknown_and_bring_their_fixes(catalogue):
    causes = [
        Cause("weak", "weak", ("second", "first"), weigh(0.25)),
        Cause("strong", "strong", ("first",), weigh(0.6)),
        Cause("absent", "absent", ("third",), lambda run, finding: None),
    ]
    change = lambda run, finding: Change("do it", "x = 1", {"lr_scale": 0.1})  # noqa: E731
    fixes = [
        Fix("first", "First", change),
        Fix("second", "Second", change),
        Fix("third", "Third", change),
    ]
    names = ("weak", "strong", "absent", "not-written-yet")
    catalogue([signature("a", lambda run: [found("x")], causes=names)], causes, fixes)
    diagnosis = diagnose(run_of({"run.loss": CALM}))
    (finding,), (incident,) = diagnosis.findings, diagnosis.incidents
    assert [c.id for c in finding.causes] == ["strong", "weak"]
    shares = np.array([0.6, 0.25, UNKNOWN]) ** SHARPNESS
    assert [c.confidence for c in finding.causes] == pytest.approx((shares / shares.sum())[:2])
    assert finding.fixes == ("first", "second")
    assert incident.cause == finding.causes[0]
    assert [f.id for f in incident.fixes] == ["first", "second"]
    assert incident.fixes[0].runtime == {"lr_scale": 0.1}
    assert Diagnosis.from_json(diagnosis.to_json()).to_json() == diagnosis.to_json()


def test_where_the_unknown_leads_the_incident_names_no_cause(catalogue):
    causes = [Cause("weak", "weak", (), weigh(0.1))]
    catalogue([signature("a", lambda run: [found("x")], causes=("weak",))], causes)
    diagnosis = diagnose(run_of({"run.loss": CALM}))
    assert diagnosis.incidents[0].cause is None
    assert diagnosis.findings[0].causes[0].confidence < 0.4


def test_fixes_that_cannot_help_are_not_advised_and_four_are_enough(catalogue):
    fixes = [Fix(f"fix-{i}", "f", lambda run, finding: Change("do", "x = 1")) for i in range(6)]
    fixes[1] = dataclasses.replace(fixes[1], propose=lambda run, finding: None)
    causes = [Cause("c", "c", tuple(fix.id for fix in fixes), weigh(0.9))]
    catalogue([signature("a", lambda run: [found("x")], causes=("c",))], causes, fixes)
    advised = diagnose(run_of({"run.loss": CALM})).incidents[0].fixes
    assert [f.id for f in advised] == ["fix-0", "fix-2", "fix-3", "fix-4"]


def test_a_cause_or_fix_that_crashes_is_told_and_takes_nothing_down(catalogue):
    causes = [Cause("bad", "bad", (), fails), Cause("good", "good", ("bad-fix",), weigh(0.9))]
    catalogue(
        [signature("a", lambda run: [found("x")], causes=("bad", "good"))],
        causes,
        [Fix("bad-fix", "f", fails)],
    )
    diagnosis = diagnose(run_of({"run.loss": CALM}))
    assert diagnosis.incidents[0].cause.id == "good"
    assert "RuntimeError: of mine" in diagnosis.findings[0].causes[1].because
    assert "RuntimeError: of mine" in diagnosis.incidents[0].fixes[0].change


def test_the_run_block_tells_length_cost_and_end(catalogue):
    catalogue([])
    info = RunInfo(command=("python", "train.py"), started=10.0, ended=70.0, exit_status=0, world_size=2)
    run = run_of({"run.step_time": np.full(50, 0.1), "run.overhead": np.full(50, 0.002)}, info=info)
    block = diagnose(run).run
    assert block["overhead_percent"] == pytest.approx(2.0, rel=1e-5)
    assert (block["steps"], block["duration_s"], block["world_size"]) == (50, 60.0, 2)
    assert block["command"] == ["python", "train.py"]


def test_an_empty_run_can_be_diagnosed(catalogue):
    catalogue([signature("a", lambda run: [], needs=("run.loss",))])
    diagnosis = diagnose(run_of({}))
    assert (diagnosis.verdict, diagnosis.run["steps"], diagnosis.run["duration_s"]) == ("stable", 0, None)
