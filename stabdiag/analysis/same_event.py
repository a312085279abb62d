"""Findings of one signature at many places and one time are one finding with many sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stabdiag.analysis.resolution import slack
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


def merged(run: Run, findings: Sequence[Finding]) -> list[Finding]:
    """`findings`, all of one signature, with those joined that have a place and began together.

    Began together means: as far as the recording interval can tell. The worst of them speaks for all,
    and the sites of the others follow its own.
    """
    groups: list[list[Finding]] = []
    for finding in sorted(findings, key=lambda f: f.onset_step):
        placed = finding.sites != ("run",)
        near = groups and placed and groups[-1][0].sites != ("run",)
        if near and finding.onset_step - groups[-1][0].onset_step <= slack(run, finding, groups[-1][0]):
            groups[-1].append(finding)
        else:
            groups.append([finding])
    return [_joined(group) if len(group) > 1 else group[0] for group in groups]


def _joined(group: Sequence[Finding]) -> Finding:
    ranked = sorted(group, key=lambda f: (-f.severity, -f.confidence, f.onset_step, f.sites))
    worst = ranked[0]
    sites = tuple(dict.fromkeys(site for finding in ranked for site in finding.sites))
    more = len(sites) - len(worst.sites)
    also = f" The same in {more} other {'place' if more == 1 else 'places'}." if more else ""
    return replace(
        worst,
        sites=sites,
        onset_step=min(f.onset_step for f in group),
        last_step=max(f.last_step for f in group),
        message=worst.message + also,
    )
