"""`--metrics-port`: the run's numbers for Prometheus, on this machine only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.errors import StabdiagError
from stabdiag.core.finding import Finding, Severity
from stabdiag.core.run import Run
from stabdiag.launch.listener import Listener
from stabdiag.launch.loopback import LOOPBACK, NAMES
from stabdiag.launch.voice import Voice
from stabdiag.render.curve import curve
from stabdiag.render.describe import VERDICT_WORDS
from stabdiag.render.kind import unit_of
from stabdiag.render.terminal import speakable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from prometheus_client.core import GaugeMetricFamily

LONGEST = 200
"""Characters of a label."""


class Metrics(Listener):
    """Serves what was seen at the last look, until the run has ended. Port 0 is one that is free."""

    name = "--metrics-port"

    def __init__(self, port: int, voice: Voice) -> None:
        """StabdiagError where Prometheus's client is not installed."""
        try:
            import prometheus_client  # noqa: F401
        except ModuleNotFoundError:
            raise StabdiagError(
                "--metrics-port needs Prometheus's client library", "pip install 'stabdiag[metrics]'"
            ) from None
        self._port = port
        self._voice = voice
        self._seen = Seen()

    def began(self, run_dir: Path) -> None:
        from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server

        registry = CollectorRegistry()
        registry.register(self._seen)
        try:
            server, _ = start_http_server(self._port, LOOPBACK, registry)
        except OSError as error:
            self._voice.complain(f"no metrics at port {self._port}: {error.strerror}; the run goes on")
            return
        server.set_app(_to_this_machine(make_wsgi_app(registry)))
        self._voice.say(f"metrics at http://{LOOPBACK}:{server.server_port}/metrics")

    def looked(self, run: Run, diagnosis: Diagnosis) -> None:
        self._seen.last = run, diagnosis

    def ended(self, run: Run, diagnosis: Diagnosis) -> None:
        self.looked(run, diagnosis)


def _to_this_machine(app: WSGIApplication) -> WSGIApplication:
    """Answers who asks it by a name of this machine; the port may be another one, of a tunnel."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("HTTP_HOST", "").partition(":")[0].lower() in NAMES:
            return app(environ, start_response)
        start_response(f"{HTTPStatus.FORBIDDEN.value} {HTTPStatus.FORBIDDEN.phrase}", [])
        return []

    return guarded


class Seen:
    """Collects what Prometheus asks for from the last look; every metric has the name of the run."""

    def __init__(self) -> None:
        self.last: tuple[Run, Diagnosis] | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        if self.last is None:
            return
        run, diagnosis = self.last
        name = label(run.path.name if run.path else "")
        yield _gauge("steps", "Optimizer steps seen", ("run",), {(name,): run.steps}.items())
        yield from _scalars(run, name)
        counts = {(name, str(s)): sum(f.severity is s for f in diagnosis.findings) for s in Severity}
        yield _gauge("findings", "Findings by severity", ("run", "severity"), counts.items())
        onsets = {(name, *_place(f)): f.onset_step for f in reversed(diagnosis.findings)}
        labels = ("run", "signature", "severity", "site")
        yield _gauge("finding_onset_step", "The step since which it is so", labels, onsets.items())
        verdicts = {(name, verdict): verdict == diagnosis.verdict for verdict in VERDICT_WORDS}
        yield _gauge("verdict", "1 for the verdict on the run", ("run", "verdict"), verdicts.items())


def _scalars(run: Run, name: str) -> Iterator[GaugeMetricFamily]:
    """The last measured value of each series of kind `run`; NaN where it was not finite."""
    for series in (series for series in run.series if series.startswith("run.")):
        found = {(name, label(s.name)): curve(run, series, s.name).values[-1:] for s in run.sites("run")}
        values = {labels: float(last[0]) for labels, last in found.items() if len(last)}
        unit = unit_of(series)
        told = f"Last value of {series}{f' ({unit})' if unit else ''}"
        yield _gauge(re.sub(r"\W", "_", series, flags=re.ASCII), told, ("run", "site"), values.items())


def _place(finding: Finding) -> tuple[str, str, str]:
    return finding.signature, str(finding.severity), label(finding.sites[0] if finding.sites else "")


def _gauge(
    name: str, told: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily

    gauge = GaugeMetricFamily(f"stabdiag_{name}", told, labels=labels)
    for each, value in values:
        gauge.add_metric(each, float(value))
    return gauge


def label(text: str) -> str:
    """A name of the run's as the value of a label: without control characters, and not endless."""
    return speakable(text[:LONGEST], "utf-8")
