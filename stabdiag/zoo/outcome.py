"""What stabdiag said of one recorded case, and whether it was right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from stabdiag.analysis.diagnose import diagnose
from stabdiag.core.diagnosis import Diagnosis, Incident
from stabdiag.core.finding import Severity
from stabdiag.core.run import Run
from stabdiag.store.reader import load
from stabdiag.zoo.case import Case
from stabdiag.zoo.fault import FAULTS, Fault, Planted
from stabdiag.zoo.harm import harm, loss_alarms
from stabdiag.zoo.worker import TRUTH

NEAR = 3
"""Sites, causes and fixes that count as named: the first so many."""


OF_THE_LOSS = ("loss-spike", "loss-divergence", "loss-plateau", "context-blind-plateau")
"""What says no more than that the loss went wrong, and is true wherever it did."""


@dataclass(frozen=True)
class Told:
    """An incident as the report tells it: its root, and what belongs to that."""

    root: str
    severity: Severity
    onset: int
    sites: tuple[str, ...]
    causes: tuple[str, ...]
    fixes: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """`incidents` in the report's order; `planted` is None of a control. `harmed` is the step at which the
    loss left its twin's; `gap` how many steps about the fault were not recorded whole. `alarm` and
    `loss_alarm` are the steps at which stabdiag, and a watch on the loss alone, would have spoken while it
    trained."""

    case: Case
    planted: Planted | None
    steps: int
    gap: int
    incidents: tuple[Told, ...]
    harmed: int | None = None
    alarm: int | None = None
    loss_alarm: int | None = None

    @property
    def fault(self) -> Fault | None:
        return FAULTS[self.case.subject] if self.planted else None

    @property
    def did_harm(self) -> bool:
        """Whether the loss left its twin's after the fault was planted, and not before."""
        return self.planted is not None and self.harmed is not None and self.harmed >= self.planted.step

    @property
    def counted(self) -> bool:
        """Whether it has to be found: a dose that is strong enough, or that did harm."""
        fault = self.fault
        if fault is None:
            return False
        return fault.has_to_be_found(self.case.dose) or self.did_harm

    @property
    def least(self) -> Severity:
        """The severity that it has to be told with: harm makes a note of a batch or a rate a warning."""
        fault = self.fault
        if fault is None:
            return Severity.warning
        return Severity.info if fault.by_harm and not self.did_harm else Severity[fault.least]

    @property
    def loud(self) -> tuple[Told, ...]:
        return tuple(told for told in self.incidents if told.severity >= Severity.warning)

    @property
    def answer(self) -> Told | None:
        """The first incident that a reader takes for the fault: of the severity that it has to have."""
        fault, least = self.fault, self.least
        grave = [told for told in self.incidents if told.severity >= least]
        # An info is an answer only where nothing graver is told, and where it is a right one.
        if fault and least is Severity.info and not self.loud:
            return next((told for told in grave if told.root in fault.signatures), None)
        return next((told for told in grave if told.severity >= Severity.warning), None)

    @property
    def right(self) -> Told | None:
        """The incident that names the fault, the first one if there are several."""
        fault, planted = self.fault, self.planted
        if fault is None or planted is None:
            return None
        grave = (told for told in self.incidents if told.severity >= self.least)
        named = (told for told in grave if told.root in fault.signatures)
        return next((told for told in named if told.onset >= planted.step - self.gap), None)

    @property
    def false(self) -> tuple[Told, ...]:
        """Incidents above `info` that say what is not so, or say it before it was."""
        fault, planted = self.fault, self.planted
        if fault is None or planted is None:
            return self.loud
        true = {*fault.signatures, *fault.follows, *(OF_THE_LOSS if self.harmed is not None else ())}
        return tuple(
            told for told in self.loud if told.root not in true or told.onset < planted.step - self.gap
        )

    def site_rank(self) -> int | None:
        """Place of the first site that is right among those named, None where none is."""
        if self.right is None or self.planted is None:
            return None
        globs = self.planted.sites
        hits = [any(fnmatchcase(site, glob) for glob in globs) for site in self.right.sites]
        return hits.index(True) if True in hits else None

    def onset_error(self) -> int | None:
        """Steps from the nearest end of the window in which the onset may lie; 0 within it."""
        if self.right is None or self.planted is None:
            return None
        first = self.planted.step - self.gap
        last = self.planted.step + self.planted.shows + self.gap
        return max(first - self.right.onset, self.right.onset - last, 0)


def judge(case: Case, folder: Path, lead: bool = True) -> Outcome | None:
    """Diagnoses a recorded case; None where its training could not be recorded. With `lead` it finds out
    too when the diagnosis would have come, which takes some further ones of parts of the run."""
    truth = json.loads((folder / case.name / TRUTH).read_text())
    run = load(folder / case.name)
    if not run.steps:
        return None
    where = truth["planted"]
    planted = Planted(where["step"], tuple(where["sites"]), where["shows"]) if where else None
    outcome = Outcome(case, planted, run.steps, gap(run, planted), told(diagnose(run)))
    if not planted:
        return outcome
    twin_folder = folder / case.twin.name
    harmed = harm(run, load(twin_folder)) if (twin_folder / TRUTH).is_file() else None
    alarm = first_alarm(run, outcome) if lead and outcome.right else None
    loud = [step for step in loss_alarms(run) if step >= planted.step]
    return Outcome(
        case, planted, run.steps, outcome.gap, outcome.incidents, harmed, alarm, min(loud, default=None)
    )


def told(diagnosis: Diagnosis) -> tuple[Told, ...]:
    return tuple(_told(diagnosis, incident) for incident in diagnosis.incidents)


def _told(diagnosis: Diagnosis, incident: Incident) -> Told:
    root = diagnosis.findings[incident.root]
    causes = tuple(cause.id for cause in root.causes)
    if incident.cause and incident.cause.id not in causes:
        causes = (incident.cause.id, *causes)
    fixes = tuple(fix.id for fix in incident.fixes)
    return Told(root.signature, incident.severity, root.onset_step, root.sites, causes, fixes)


def gap(run: Run, planted: Planted | None) -> int:
    """Steps between the two nearest to the fault, before it and from it on, that were recorded whole:
    nobody can tell its onset more exactly."""
    if planted is None or "weight" not in run.kinds:
        return 1
    steps = run.kinds["weight"].steps
    at = int(np.searchsorted(steps, planted.step))
    before = int(steps[at - 1]) if at else planted.step
    after = int(steps[at]) if at < len(steps) else run.steps
    return max(1, after - before)


def first_alarm(run: Run, outcome: Outcome) -> int | None:
    """The first step at which the analysis of the run so far names the fault, by bisection."""
    fault, planted = outcome.fault, outcome.planted
    if fault is None or planted is None:
        return None

    def speaks(step: int) -> bool:
        so_far = Outcome(outcome.case, planted, step, outcome.gap, told(diagnose(run.window(0, step))))
        return so_far.right is not None

    low, high = planted.step - 1, run.steps - 1
    while high - low > max(1, (run.steps - planted.step) // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if speaks(middle) else (middle, high)
    return high


def steps_of(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.steps for outcome in outcomes)
