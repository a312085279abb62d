"""`--metrics-port`: what Prometheus reads, and the Grafana dashboard that draws it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.errors import StabdiagError
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import KindData, Run, RunInfo
from stabdiag.core.site import Site
from stabdiag.launch.metrics import Metrics
from stabdiag.launch.voice import Voice

GRAFANA = Path(__file__).parents[2] / "dashboards" / "grafana.json"
HOSTILE = 'a"b\\c\n{}\x1b[2J\x00\u202e\ud800<script>' + "x" * 100_000
STATISTICS = (
    *("loss", "lr", "grad_norm", "clipped_grad_norm", "loss_scale", "tokens", "overhead", "step_time"),
    *("data_time", "forward_time", "backward_time", "optimizer_time", "memory", "reserved", "resident"),
)


def a_run(last_loss=2.5, site="run", name="a run"):
    values = {name: np.array([[1.0], [2.0]], np.float32) for name in STATISTICS}
    values["loss"][1, 0] = last_loss
    values["nonfinite"] = np.array([[0.0], [float(not np.isfinite(last_loss))]], np.float32)
    data = KindData(np.array([0, 1]), np.array([1.0, 2.0]), (Site("run", site),), values)
    return Run(RunInfo(), {"run": data}, path=Path(name))


def found(severity, signature, *sites):
    return Finding(severity, 0.9, sites, 7, 8, 9, "a message", signature=signature)


def diagnosed(*findings):
    return Diagnosis("unstable", (), findings, (), {})


@pytest.fixture
def read(capsys):
    """Serves looks at a free port, and reads them back with the official parser: (name, labels) -> value."""

    def read(run, diagnosis):
        metrics = Metrics(0, Voice())
        metrics.began(Path())
        metrics.looked(run, diagnosis)
        (port,) = re.findall(
            r"stabdiag: metrics at http://127\.0\.0\.1:(\d+)/metrics", capsys.readouterr().err
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}

    return read


def test_scalars_steps_and_findings_by_severity_are_served(read):
    critical, warning = (
        found(Severity.critical, "loss-spike", "run"),
        found(Severity.warning, "dead-units", "a.b"),
    )
    samples = read(a_run(), diagnosed(critical, warning, warning))
    run = ("run", "a run")
    assert samples["stabdiag_steps", (run,)] == 2
    assert samples["stabdiag_run_loss", (run, ("site", "run"))] == 2.5
    counts = {
        dict(labels)["severity"]: value for (name, labels), value in samples.items() if "findings" in name
    }
    assert counts == {"info": 0, "warning": 2, "critical": 1}
    verdicts = {dict(labels)["verdict"] for (name, labels), v in samples.items() if "verdict" in name and v}
    assert verdicts == {"unstable"}
    place = {"run": "a run", "severity": "warning", "signature": "dead-units", "site": "a.b"}
    onset = samples["stabdiag_finding_onset_step", tuple(sorted(place.items()))]
    assert onset == 7


def test_a_loss_that_is_not_finite_is_served_as_such(read):
    samples = read(a_run(np.nan), diagnosed())
    assert np.isnan(samples["stabdiag_run_loss", (("run", "a run"), ("site", "run"))])


def test_hostile_names_stay_labels(read):
    samples = read(
        a_run(site=HOSTILE, name=HOSTILE.replace("/", "")), diagnosed(found(Severity.warning, "x", HOSTILE))
    )
    labels = [value for _, pairs in samples for _, value in pairs]
    assert any(value.startswith('a"b\\c') for value in labels)
    assert max(map(len, labels)) < 1000
    assert not [value for value in labels if re.search(r"[\x00-\x1f\u202e\ud800]", value)]


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:{port}", 200), ("localhost:{port}", 200), ("LOCALHOST:9090", 200), ("127.0.0.1", 200)]
    + [(host, 403) for host in ("evil.example:{port}", "127.0.0.1.evil.example", "", "[::1]:{port}", "[")],
)
def test_a_name_of_another_site_that_leads_here_reads_no_metrics(capsys, host, status):
    metrics = Metrics(0, Voice())
    metrics.began(Path())
    metrics.looked(a_run(), diagnosed())
    port = int(re.search(r":(\d+)/metrics", capsys.readouterr().err)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", "/metrics", skip_host=True)
    connection.putheader("Host", host.format(port=port))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, b"stabdiag_run_loss" in answer.read()) == (status, status == 200)


def test_a_port_in_use_is_one_line_and_the_run_goes_on(workshop):
    workshop.write("train.py", "print('trained')")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = workshop.run("--metrics-port", str(port), "train.py")
    assert (done.returncode, done.stdout) == (0, "trained\n")
    lines = [line for line in done.stderr.splitlines() if "metrics" in line]
    assert lines == [f"stabdiag: no metrics at port {port}: Address already in use; the run goes on"]


def test_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(StabdiagError, match="needs Prometheus's client") as raised:
        Metrics(0, Voice())
    assert raised.value.hint == "pip install 'stabdiag[metrics]'"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the system has no /proc")
def test_it_listens_on_this_machine_alone_while_a_run_goes_on(workshop, wait_for):
    workshop.write("train.py", "import pathlib, time\npathlib.Path('ready').touch()\ntime.sleep(30)\n")
    process = workshop.start("--metrics-port", "0", "train.py")
    try:
        lines = [process.stderr.readline() for _ in range(2)]
        wait_for(workshop.folder / "ready")
        (port,) = re.findall(r"metrics at http://127\.0\.0\.1:(\d+)/metrics", "".join(lines))
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").status == 200
        assert _listening(process.pid) == {("127.0.0.1", int(port))}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")


def _listening(pid):
    """Addresses at which a process of ours listens, from /proc."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed since
            sockets.add(str(link.readlink()))
    found = set()
    for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = row.split()
        if state == "0A" and f"socket:[{rest[5]}]" in sockets:
            address, port = local.split(":")
            found.add((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)))
    return found


def test_every_query_of_the_grafana_dashboard_names_a_metric_that_exists(read):
    dashboard = json.loads(GRAFANA.read_text())
    served = {name for name, _ in read(a_run(), diagnosed(found(Severity.warning, "dead-units", "a")))}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [
        variable["query"]["query"]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    named = {name for query in queries for name in re.findall(r"\bstabdiag_\w+", query)}
    assert len(named) >= 15
    assert named <= served


def test_the_grafana_dashboard_has_the_form_of_one():
    dashboard = json.loads(GRAFANA.read_text())
    assert dashboard["schemaVersion"] >= 36
    source, run = dashboard["templating"]["list"]
    assert (source["type"], source["query"], source["name"]) == ("datasource", "prometheus", "datasource")
    assert run["datasource"]["uid"] == "${datasource}"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    covered = set()
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries", "table")
        assert panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & covered
        covered |= cells
    assert max(x for x, _ in covered) == 23


def test_the_grafana_dashboard_is_none_of_ours():
    from stabdiag.render.dashboard import dashboards

    assert "grafana" not in dashboards()
