"""The line that an alert is, on the terminal and in the log of a host."""

from __future__ import annotations

from dataclasses import replace

from stabdiag.core.diagnosis import Culprit, Diagnosis
from stabdiag.render.summary import alert_line


def test_an_alert_names_the_module_its_class_and_where_that_is_written(failed_diagnosis: Diagnosis) -> None:
    incident = failed_diagnosis.incidents[0]
    culprit = Culprit(
        module="blocks.3.attn", module_type="CausalSelfAttention", source="/home/a/gpt/model.py:39"
    )
    diagnosis = replace(failed_diagnosis, incidents=(replace(incident, culprit=culprit),))
    root = diagnosis.findings[incident.root]
    line = alert_line(diagnosis, root)
    since = f"{root.severity}: {root.signature} since step {root.onset_step}"
    assert line.startswith(f"{since} at blocks.3.attn (CausalSelfAttention, gpt/model.py:39): ")
    others = [f for f in diagnosis.findings if f is not root]
    assert others
    assert not any("model.py" in alert_line(diagnosis, finding) for finding in others)


def test_what_a_module_is_called_cannot_steer_the_terminal(failed_diagnosis: Diagnosis) -> None:
    incident = failed_diagnosis.incidents[0]
    culprit = Culprit(module="a\x1b[2Jb\nc\u202ed", module_type="Linear")
    diagnosis = replace(failed_diagnosis, incidents=(replace(incident, culprit=culprit),))
    line = alert_line(diagnosis, diagnosis.findings[incident.root])
    assert not any(c in line for c in "\x1b\n\u202e")
