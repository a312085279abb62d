from __future__ import annotations

import json
from xml.etree import ElementTree as ET


def test_a_healthy_run_passes_in_silence(stabdiag, record, falling):
    record("healthy", falling)
    done = stabdiag("check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_lost_run_fails_with_a_line_a_finding(stabdiag, record, diverging):
    done = stabdiag("check", str(record("lost", diverging)))
    assert done.returncode == 1
    assert done.stdout.startswith("critical loss-divergence")


def test_what_is_ignored_or_not_selected_does_not_fail(stabdiag, record, diverging):
    record("lost", diverging)
    assert stabdiag("check", "--ignore", "loss-divergence", "--ignore", "loss-plateau@r*").returncode == 0
    assert stabdiag("check", "--select", "loss-spike").returncode == 0
    assert stabdiag("check", "--select", "loss-divergence").returncode == 1


def test_a_threshold_changes_the_outcome(stabdiag, record, diverging):
    record("lost", diverging)
    words = ("check", "--select", "loss-divergence")
    assert stabdiag(*words).returncode == 1
    assert stabdiag(*words, "--set", "loss-divergence.rise=1000").returncode == 0


def test_a_baseline_hides_what_it_already_had(stabdiag, record, falling, diverging):
    record("before", diverging)
    record("healthy", falling)
    record("after", diverging)
    assert stabdiag("check", "--baseline", "stabdiag-runs/before").returncode == 0
    assert stabdiag("check", "--baseline", "stabdiag-runs/healthy").returncode == 1


def test_a_crash_without_a_finding_is_not_clean(stabdiag, record, falling):
    record("killed", falling, exit_status=None, signal="SIGKILL")
    done = stabdiag("check")
    assert (done.returncode, done.stdout) == (1, "critical the run was killed by SIGKILL\n")
    assert stabdiag("check", "--select", "loss-spike").returncode == 0


def test_a_lesser_finding_explains_no_crash(stabdiag, record, falling):
    falling[150] += 3
    record("spiky", falling)
    assert "loss-spike" in stabdiag("check", "--fail-on", "info").stdout
    assert stabdiag("check", "--fail-on", "critical").returncode == 0
    record("spiky-and-dead", falling, exit_status=1)
    done = stabdiag("check", "stabdiag-runs/spiky-and-dead", "--fail-on", "critical")
    assert (done.returncode, done.stdout) == (1, "critical the run ended with status 1\n")


def test_a_run_without_a_step_cannot_be_checked(stabdiag, record, falling):
    record("empty", falling[:0])
    done = stabdiag("check")
    assert done.returncode == 2
    assert "holds no recorded step" in done.stderr


def test_findings_are_the_same_only_at_a_common_place():
    from stabdiag.analysis.comparison.only import same_place
    from stabdiag.core.finding import Finding, Severity

    def at(signature, *sites):
        return Finding(Severity.warning, 1.0, sites, 0, 0, 0, "", signature=signature)

    assert same_place(at("a", "x", "y"), at("a", "y", "z"))
    assert same_place(at("a"), at("a"))
    assert not same_place(at("a", "x"), at("a", "y"))
    assert not same_place(at("a", "x"), at("b", "x"))


def test_two_outcomes_are_not_written_over_each_other(stabdiag, record, falling, tmp_path):
    record("a", falling)
    done = stabdiag("check", "stabdiag-runs/a", "--junit", "out", "--sarif", "./out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "stabdiag: error: --junit and --sarif would both write out",
        "stabdiag: hint: give each a file of its own",
    ]
    assert not (tmp_path / "out").exists()


def test_junit_and_sarif_are_written_beside_the_lines(stabdiag, record, diverging, falling, tmp_path):
    record("before", diverging)
    words = ("--junit", "out.xml", "--sarif", "out.sarif")
    done = stabdiag("check", *words)
    assert done.returncode == 1
    assert done.stdout.startswith("critical loss-divergence")
    suite = ET.parse(tmp_path / "out.xml").getroot()[0]
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure")) > 0
    results = json.loads((tmp_path / "out.sarif").read_text("utf-8"))["runs"][0]["results"]
    assert "loss-divergence" in [result["ruleId"] for result in results]
    record("after", diverging)
    assert stabdiag("check", *words, "--baseline", "stabdiag-runs/before").returncode == 0
    results = json.loads((tmp_path / "out.sarif").read_text("utf-8"))["runs"][0]["results"]
    assert {result["baselineState"] for result in results} == {"unchanged"}
    record("healthy", falling)
    assert stabdiag("check", *words).returncode == 0
    assert ET.parse(tmp_path / "out.xml").getroot()[0].get("failures") == "0"


def test_an_outcome_that_cannot_be_written_is_no_outcome(stabdiag, record, falling):
    record("healthy", falling)
    done = stabdiag("check", "--sarif", "no/such/folder.sarif")
    assert done.returncode == 2
    assert done.stderr.splitlines()[1] == "stabdiag: hint: give another --sarif"
