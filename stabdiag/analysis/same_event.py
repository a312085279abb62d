"""Findings of one signature at many places and one time are one finding with many sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stabdiag.analysis.precedence import precedence
from stabdiag.analysis.resolution import slack
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


def merged(run: Run, findings: Sequence[Finding]) -> list[Finding]:
    """`findings`, all of one signature, with those joined that have a place, rest on the same series and
    began together, as far as the recording interval can tell.

    The worst of them speaks for all, and the sites of the others follow its own, the first to move first.
    """
    groups: list[list[Finding]] = []
    for finding in sorted(findings, key=lambda f: f.onset_step):
        group = next((g for g in reversed(groups) if _together(run, g[0], finding)), None)
        if group is None:
            groups.append([finding])
        else:
            group.append(finding)
    return [_joined(run, group) if len(group) > 1 else group[0] for group in groups]


def _together(run: Run, first: Finding, later: Finding) -> bool:
    if ("run",) in (first.sites, later.sites):
        return False
    # What rests on other series is another fault of that name.
    alike = [e.series for e in first.evidence] == [e.series for e in later.evidence]
    return alike and later.onset_step - first.onset_step <= slack(run, first, later)


def _joined(run: Run, group: Sequence[Finding]) -> Finding:
    ranked = sorted(group, key=lambda f: precedence(run, f))
    worst = min(ranked, key=lambda f: (-f.severity, -f.confidence))
    sites = tuple(dict.fromkeys(site for finding in (worst, *ranked) for site in finding.sites))
    more = len(sites) - len(worst.sites)
    also = f" The same in {more} other {'place' if more == 1 else 'places'}." if more else ""
    return replace(
        worst,
        sites=sites,
        onset_step=min(f.onset_step for f in group),
        last_step=max(f.last_step for f in group),
        message=worst.message + also,
    )
