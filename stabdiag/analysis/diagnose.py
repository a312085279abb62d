"""The engine: a run in, a diagnosis out. The same while training goes on and afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stabdiag.analysis.attribution import attribute
from stabdiag.analysis.catalogue import SIGNATURES, Signature
from stabdiag.analysis.evaluable import NotEvaluable
from stabdiag.analysis.flight import replay_command, step_to_replay
from stabdiag.analysis.incidents import fold
from stabdiag.analysis.same_event import merged
from stabdiag.analysis.verdict import verdict_of
from stabdiag.core.config import Configuration
from stabdiag.core.diagnosis import Diagnosis, Incident, Skipped
from stabdiag.core.errors import UnknownName
from stabdiag.core.finding import Finding
from stabdiag.core.run import MissingSeries, Run


def diagnose(run: Run, config: Configuration | None = None) -> Diagnosis:
    """Findings of the selected signatures, with causes, folded into incidents.

    UnknownName where `config` names a signature or a threshold that the catalogue lacks.
    """
    config = config or Configuration()
    check_names(config)
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    # A diverging run overflows and divides by zero; its detectors see the result, nobody a warning.
    with np.errstate(all="ignore"):
        for signature in _selected(config):
            found = evaluate(signature, run, config.thresholds.get(signature.id, {}))
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                events = merged(run, suppress(found, config))
                findings += [attribute(run, finding, signature.causes) for finding in events]
        ranked, incidents = fold(run, findings)
    return Diagnosis(verdict_of(run, ranked), incidents, ranked, tuple(skipped), report_block(run, incidents))


def check_names(config: Configuration) -> None:
    """Raises UnknownName, with the nearest names, for one that is not in the catalogue."""
    for name in (*config.select, *(entry.signature for entry in config.ignore), *config.thresholds):
        SIGNATURES[name]
    for name, thresholds in config.thresholds.items():
        known = SIGNATURES[name].thresholds
        for threshold in thresholds:
            if threshold not in known:
                raise UnknownName(f"threshold of {name}", threshold, known)


def _selected(config: Configuration) -> Iterator[Signature]:
    return (entry for entry in SIGNATURES if not config.select or entry.id in config.select)


def evaluate(signature: Signature, run: Run, thresholds: Mapping[str, float]) -> list[Finding] | Skipped:
    """The findings of one signature, or why there can be none. A detector that fails is skipped too:
    it must not take the rest of the diagnosis down."""
    missing = [series for series in signature.needs if series not in run or not len(run.table(series).steps)]
    if missing:
        verb = "was" if len(missing) == 1 else "were"
        return Skipped(signature.id, f"{' and '.join(missing)} {verb} not recorded{_uncovered(run, missing)}")
    try:
        return list(signature(run, thresholds))
    except NotEvaluable as reason:
        return Skipped(signature.id, reason.because)
    except MissingSeries as error:
        return Skipped(signature.id, error.message)
    except Exception as error:
        return Skipped(signature.id, f"failed: {type(error).__name__}: {error}")


def _uncovered(run: Run, missing: list[str]) -> str:
    """Why the recorder could not observe it, where it said so."""
    names = {*missing, *(series.partition(".")[0] for series in missing)}
    because = (e.data.get("because") for e in run.events_of("coverage") if e.data.get("what") in names)
    return next((f": {reason}" for reason in because if reason), "")


def suppress(findings: list[Finding], config: Configuration) -> list[Finding]:
    """Without the sites that the configuration ignores; a finding whose sites are all ignored goes."""
    kept = []
    for finding in findings:
        rules = [rule for rule in config.ignore if rule.signature == finding.signature]
        sites = tuple(s for s in finding.sites if not any(rule.covers(s) for rule in rules))
        whole = not finding.sites and any(rule.sites == "*" for rule in rules)
        if not whole and (sites or not finding.sites):
            kept.append(replace(finding, sites=sites))
    return kept


def report_block(run: Run, incidents: Sequence[Incident]) -> dict[str, Any]:
    """The run block, with the command that computes again where it began, if a flight record is there."""
    step = step_to_replay(run, incidents)
    return {**run_block(run), "replay": None if step is None else replay_command(run.path, step)}


def run_block(run: Run) -> dict[str, Any]:
    """The report's `run`: what it was, how long it took, how it ended, what recording it cost."""
    info = run.info
    return {
        "path": str(run.path) if run.path else None,
        "command": list(info.command),
        "steps": run.steps,
        "duration_s": _duration(run),
        "exit_status": info.exit_status,
        "signal": info.signal,
        "world_size": info.world_size,
        "overhead_percent": _overhead_percent(run),
    }


def _duration(run: Run) -> float | None:
    """Seconds from start to end; of a run without a written end, to its last recorded step. None where
    nobody wrote down when a step was."""
    known = (data.times[np.isfinite(data.times)] for data in run.kinds.values())
    times = [times for times in known if len(times)]
    start, end = run.info.started, run.info.ended
    if start is None and times:
        start = min(float(t.min()) for t in times)
    if end is None and times:
        end = max(float(t.max()) for t in times)
    return None if start is None or end is None else max(end - start, 0.0)


def _overhead_percent(run: Run) -> float | None:
    if "run.overhead" not in run or "run.step_time" not in run:
        return None
    spent = float(np.nansum(run.table("run.overhead").first(), dtype=np.float64))
    total = float(np.nansum(run.table("run.step_time").first(), dtype=np.float64))
    return 100.0 * spent / total if total > 0 else None
