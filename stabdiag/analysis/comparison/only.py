"""What one of two runs has and the other lacks."""

from __future__ import annotations

from stabdiag.analysis.comparison.settings import is_foreign
from stabdiag.core.comparison import OnlyOne
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


def only_in(run: Run, other: Run, diagnosis: Diagnosis, others: Diagnosis) -> OnlyOne:
    """Sites of the kinds that both have; of the rest the series alone. The log of another tool lacks most of
    what a recording has, which is no difference of the two."""
    sites: dict[str, tuple[str, ...]] = {}
    recorded = not is_foreign(other) or is_foreign(run)
    for kind in run.kinds if recorded else ():
        if kind in other.kinds:
            known = {site.name for site in other.sites(kind)}
            lacking = tuple(site.name for site in run.sites(kind) if site.name not in known)
            if lacking:
                sites[kind] = lacking
    series = tuple(name for name in run.series if recorded and name not in other)
    findings = tuple(
        finding
        for finding in diagnosis.findings
        if not any(same_place(finding, old) for old in others.findings)
    )
    return OnlyOne(series, sites, findings)


def same_place(finding: Finding, old: Finding) -> bool:
    """Whether both tell the same signature at a common site, or at none."""
    if finding.signature != old.signature:
        return False
    return bool(set(finding.sites) & set(old.sites)) or not (finding.sites or old.sites)
