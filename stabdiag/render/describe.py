"""What there is to say of a run and its diagnosis, in words; each kind of report lays it out its own way."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Any, NamedTuple

from stabdiag.analysis.catalogue import CAUSES, SIGNATURES
from stabdiag.core.cadence import DEFAULT_BUDGET
from stabdiag.core.diagnosis import Batch, Culprit, Diagnosis, FirstMover, FixAdvice, Incident
from stabdiag.core.finding import CauseRanked, Evidence, Finding, Severity
from stabdiag.core.run import INSIDE, Run
from stabdiag.render.cost import cost
from stabdiag.render.curve import loss_curve
from stabdiag.render.numbers import count, duration, fingerprint, number, percent

VERDICT_WORDS = {"stable": "Stable", "at-risk": "At risk", "unstable": "Unstable", "failed": "Failed"}

NAMES = ("Adam's",)
"""Words of titles that are written with a capital wherever they stand."""

SIGNALS = {
    "SIGKILL": "killed by SIGKILL (out of memory?)",
    "SIGTERM": "ended by SIGTERM (a scheduler's time limit?)",
    "SIGINT": "interrupted (SIGINT)",
    "SIGSEGV": "killed by SIGSEGV (a crash in native code)",
    "SIGABRT": "killed by SIGABRT (an abort in native code)",
    "SIGBUS": "killed by SIGBUS (shared memory or a mapped file ran out?)",
}


class Unobserved(NamedTuple):
    what: str
    because: str


def signature_title(id: str) -> str:
    return SIGNATURES[id].title if id in SIGNATURES else id.replace("-", " ")


def cause_title(id: str) -> str:
    return CAUSES[id].title if id in CAUSES else id.replace("-", " ")


def place(finding: Finding) -> str:
    """`blocks.3.mlp and 4 more`, empty for a finding of the run itself."""
    if not finding.sites or finding.sites[0] == "run":
        return ""
    more = len(finding.sites) - 1
    return finding.sites[0] + (f" and {count(more)} more" if more else "")


def titled(finding: Finding) -> str:
    """`Activations explode, in blocks.3.mlp and 4 more`."""
    return ", in ".join(filter(None, (signature_title(finding.signature), place(finding))))


def running(title: str) -> str:
    """A title in the middle of a sentence: `The loss jumps` as `the loss jumps`."""
    first, _, _ = title.partition(" ")
    return title if first in NAMES or first[1:] != first[1:].lower() else title[:1].lower() + title[1:]


def span(finding: Finding) -> str:
    """`steps 412 to 430, worst at 428`."""
    if finding.last_step <= finding.onset_step:
        return f"step {count(finding.onset_step)}"
    worst = f", worst at {count(finding.peak_step)}" if finding.peak_step > finding.onset_step else ""
    return f"steps {count(finding.onset_step)} to {count(finding.last_step)}{worst}"


def measure(finding: Finding) -> str:
    """`12.3 against a threshold of 4`, empty where the finding has no value."""
    if finding.value is None:
        return ""
    limit = "" if finding.threshold is None else f" against a threshold of {number(finding.threshold)}"
    return number(finding.value) + limit


def cause_line(cause: CauseRanked) -> str:
    """`The learning rate is too high (83 %): the update ratio passed 1e-2 …`."""
    return f"{cause_title(cause.id)} ({percent(cause.confidence)}): {cause.because}"


def mark_words(fix: FixAdvice) -> str:
    """`verified in a replay, the loss recovered by 98 %`; empty where it was not tried."""
    mark = fix.mark
    if mark is None:
        return ""
    told = f"{mark.result} in a replay"
    if mark.result == "verified" and mark.recovery is not None:
        told += f", the loss recovered by {percent(min(mark.recovery, 1.0))}"
    return told


def acted(run: Run) -> str:
    """What interventions did: `guard skipped 3 times, lower-learning-rate set 200 times`; empty where none
    acted."""
    counts: dict[str, int] = {}
    for event in run.events_of("intervention"):
        if event.rank or event.data.get("action") == "ended":
            continue
        counts.setdefault(f"{event.data.get('intervention')} {event.data.get('action')}", 0)
        counts[f"{event.data.get('intervention')} {event.data.get('action')}"] += 1
    # What is only counted has one event, and its number at the end.
    for event in run.events_of("intervention"):
        ended = event.data.get("counts")
        if event.rank == 0 and isinstance(ended, dict):
            counts |= {f"{event.data.get('intervention')} {action}": int(n) for action, n in ended.items()}
    return ", ".join(f"{what} {count(times, 'time')}" for what, times in counts.items())


def unknown_cause(root: Finding) -> str:
    """Of an incident without a cause, what the best guess was: `unknown; the likeliest is …`."""
    if not root.causes:
        return "unknown: nothing that was measured speaks for a cause that is known"
    return f"unknown; of those known the likeliest is: {running(cause_line(root.causes[0]))}"


def first_moved(mover: FirstMover) -> str:
    """`attention.max_logit at blocks.3.attn, step 398, 14 steps before the loss`."""
    where = "" if mover.site == "run" else f" at {mover.site}"
    since = f"step {count(mover.step)}"
    if mover.step - mover.within > 1:
        since = f"between steps {count(mover.within)} and {count(mover.step)}"
    if mover.series == "run.loss":
        return f"the loss itself, {since}"
    if mover.lead is None:
        beside = ", and the loss did not follow"
    elif mover.lead > 0:
        beside = f", {count(mover.lead, 'step')} before the loss"
    else:
        beside = ", with the loss"
    return f"{mover.series}{where}, {since}{beside}"


def blamed(culprit: Culprit) -> str:
    """`blocks.3.attn (CausalSelfAttention, model.py:39), head 2`; empty where nothing is known."""
    class_ = ", ".join(filter(None, (culprit.module_type, nearby(culprit.source))))
    module = " ".join(filter(None, (culprit.parameter or culprit.module, f"({class_})" if class_ else "")))
    numbers = {"head": culprit.head, "expert": culprit.expert, "rank": culprit.rank}
    numbered = [f"{what} {number}" for what, number in numbers.items() if number is not None]
    return ", ".join(filter(None, (module, *numbered, _batch(culprit.batch))))


def _batch(batch: Batch | None) -> str:
    if batch is None:
        return ""
    told = f"the batch of step {count(batch.step)}"
    if batch.fingerprint is not None:
        told += f", fingerprint {fingerprint(batch.fingerprint)}"
    if batch.again:
        more = " and others" if len(batch.again) > 3 else ""
        told += f", trained on at {', '.join(count(step) for step in batch.again[:3])}{more} as well"
    return told


def nearby(source: str) -> str:
    """`file:line` with the file's folder, and without those around it."""
    path, _, line = source.rpartition(":")
    return f"{PurePath(*PurePath(path).parts[-2:])}:{line}" if path else source


def verdict_sentence(run: Run, diagnosis: Diagnosis) -> str:
    """The one sentence that a hurried reader needs."""
    word = VERDICT_WORDS.get(diagnosis.verdict, diagnosis.verdict)
    if steps_of(run, diagnosis) == 0:
        return f"{ending(run, diagnosis) or 'No training step was recorded'}."
    ended = ending(run, diagnosis)
    worst = diagnosis.incidents[0].severity if diagnosis.incidents else Severity.info
    if diagnosis.verdict == "failed" and ended and worst < Severity.critical:
        return f"{word}: {ended}; {before_the_end(diagnosis)}."
    if worst > Severity.info:
        cause = diagnosis.incidents[0].cause
        likely = f"; likely cause: {running(cause_title(cause.id))}" if cause else ""
        return f"{word}: {_root_since(diagnosis)}{likely}."
    parts = [f"no instability in {count(steps_of(run, diagnosis), 'step')}", unjudged(run)]
    return f"{word}: {'; '.join(filter(None, parts))}."


def _root_since(diagnosis: Diagnosis) -> str:
    root = diagnosis.findings[diagnosis.incidents[0].root]
    since = f"{running(titled(root))}, since step {count(root.onset_step)}"
    return ", ".join(filter(None, (since, graver(diagnosis, diagnosis.incidents[0]))))


def ending(run: Run, diagnosis: Diagnosis) -> str | None:
    """How the target ended where it did not end well, or not by itself: `the target was killed by … after
    step 412`."""
    signal = diagnosis.run.get("signal") or run.info.signal
    status = diagnosis.run.get("exit_status", run.info.exit_status)
    steps = steps_of(run, diagnosis)
    at = f" after step {count(steps - 1)}" if steps else " before its first recorded step"
    stopped = " ".join(str(run.fact("stop", "because", "")).split())
    by = f", stopped by {stopped}" if stopped else ""
    if signal:
        how = f"interrupted ({signal})" if by else SIGNALS.get(str(signal), f"killed by {signal}")
        return f"the target was {how}{at}{by}"
    raised = next(run.events_of("exception"), None)
    if raised is not None and status != 0:
        message = " ".join(str(raised.data.get("message", "")).split())
        told = f"{raised.data.get('type', 'an exception')}: {message}" if message else raised.data.get("type")
        return f"the target ended{at} with {told}{by}"
    if status or by:
        return f"the target ended{f' with exit status {status}' if status else ''}{at}{by}"
    return None


def before_the_end(diagnosis: Diagnosis) -> str:
    """What was abnormal before a crash: `before that: the loss jumps, since step 402`."""
    if not diagnosis.incidents or diagnosis.incidents[0].severity is Severity.info:
        return "nothing abnormal before that"
    return f"before that: {_root_since(diagnosis)}"


def steps_of(run: Run, diagnosis: Diagnosis) -> int:
    return int(diagnosis.run.get("steps") or run.steps)


def so_far(run: Run, diagnosis: Diagnosis) -> str:
    """Of a run that went on since it was diagnosed, how far it was then: `so far, to step 1,203`."""
    seen = steps_of(run, diagnosis)
    return f"so far, to step {count(seen - 1)}" if seen < run.steps else ""


def run_facts(run: Run, diagnosis: Diagnosis) -> list[str]:
    """Steps, duration, processes, overhead: those that are known. A share means little without its
    seconds: a run of five steps is seen whole."""
    block = diagnosis.run
    facts = [count(steps_of(run, diagnosis), "step")]
    if block.get("duration_s") is not None:
        facts.append(duration(float(block["duration_s"])))
    facts.append(count(run.info.processes, "process", "processes"))
    spent = cost(run, diagnosis)
    if spent.percent is not None:
        facts.append(f"overhead {spent.share}")
    return facts


def loss_facts(run: Run) -> str:
    """`10.82 to 4.31, lowest 2.9 at step 1,390`; why not where there is no such loss."""
    loss = loss_curve(run)
    if not len(loss.steps):
        return "no loss was recorded"
    finite = loss.finite
    if not len(finite):
        return "not a finite number at any step"
    best = int(loss.steps[(loss.values == finite.min()).argmax()])
    table = run.table("run.loss")
    last = float(table.column(loss.name)[table.steps == loss.steps[-1]][0])  # the curve has NaN for infinity
    ends = f"{number(finite[0])} to {number(last)}"
    return f"{ends}, lowest {number(finite.min())} at step {count(best)}"


def graver(diagnosis: Diagnosis, incident: Incident) -> str:
    """`with critical consequences` where what followed is worse than what began it, else empty."""
    return incident.consequences(diagnosis.findings[incident.root])


def symptoms(diagnosis: Diagnosis, incident: Incident) -> list[Finding]:
    return [diagnosis.findings[i] for i in incident.findings if i != incident.root]


def kept_steps(run: Run, incident: Incident) -> str:
    """What the flight record that holds the onset of an incident has, empty for none."""
    for event in run.events_of("flight"):
        first, last = event.data.get("first"), event.step
        if isinstance(first, int) and last is not None and first <= incident.onset_step <= last:
            batches = event.data.get("batches") or []
            kept = f", and {count(len(batches), 'batch', 'batches')}" if batches else ""
            return f"steps {count(first)} to {count(last)} at full rate{kept}, to be computed again"
    return ""


def others(diagnosis: Diagnosis) -> list[Finding]:
    """The findings that belong to no incident."""
    return [diagnosis.findings[i] for i in other_indices(diagnosis)]


def other_indices(diagnosis: Diagnosis) -> list[int]:
    told = {i for incident in diagnosis.incidents for i in (incident.root, *incident.findings)}
    return [i for i in range(len(diagnosis.findings)) if i not in told]


def first_evidence(finding: Finding) -> Evidence | None:
    return finding.evidence[0] if finding.evidence else None


def unobserved(run: Run) -> list[Unobserved]:
    """What the recorder could not see, once each, in the order in which it said so."""
    told = [Unobserved(_text(e.data, "what"), _text(e.data, "because")) for e in run.events_of("coverage")]
    told += [
        Unobserved(f"probe {_text(e.data, 'probe')}", f"switched off: {_text(e.data, 'error')}")
        for e in run.events_of("recorder-error")
    ]
    return list(dict.fromkeys(told))


def unjudged(run: Run) -> str:
    """`the optimizer LBFGS could not be judged`: what was out of sight and is no detail; empty for none."""
    known = (item.what for item in unobserved(run))
    gaps = [what for what in known if what in ("training", "updates") or what.startswith("the optimizer ")]
    return f"{' and '.join(gaps)} could not be judged" if gaps else ""


def withdrawn(run: Run, diagnosis: Diagnosis) -> list[str]:
    """The signatures that were told as warnings or worse while it trained, and are no longer."""
    told = [str(event.data.get("signature")) for event in run.events_of("finding") if event.rank == 0]
    holds = {finding.signature for finding in diagnosis.findings if finding.severity > Severity.info}
    return [signature for signature in dict.fromkeys(told) if signature not in holds]


def _text(data: Any, key: str) -> str:
    return " ".join(str(data.get(key, "")).split())


def again(run: Run) -> str:
    """The command that records such a run once more; empty where it was recorded inside a program, or by
    another tool."""
    words = run.info.command
    if not words or words == INSIDE:
        return ""
    asked = run.info.configuration
    options = []
    if asked.get("every"):
        options += ["--every", str(asked["every"])]
    elif "budget" in asked and asked["budget"] != DEFAULT_BUDGET:
        options += ["--budget", "off" if asked["budget"] is None else f"{100 * asked['budget']:g}%"]
    if asked.get("keep_batches"):
        options += ["--keep-batches", str(asked["keep_batches"])]
    for request in asked.get("apply", ()):
        options += ["--apply", str(request)]
    options += ["--guard"] * bool(asked.get("guard"))
    return shlex.join(["stabdiag", "run", *options, *words])


def next_commands(run: Run, diagnosis: Diagnosis) -> list[str]:
    """What to type next: the report of this run, its worst step once more where a flight record is there,
    and what its first incident means."""
    path = diagnosis.run.get("path") or run.path
    report = f"stabdiag report {shlex.quote(str(path))}" if path else "stabdiag report"
    roots = [diagnosis.findings[incident.root].signature for incident in diagnosis.incidents[:1]]
    replay = diagnosis.run.get("replay")
    explain = [f"stabdiag explain {signature}" for signature in roots]
    return [report, *([str(replay)] if replay else []), *explain]
