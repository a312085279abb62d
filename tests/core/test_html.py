"""Findings, incidents and diagnoses in a notebook."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from stabdiag.analysis.catalogue import CAUSES, FIXES, SIGNATURES
from stabdiag.core.diagnosis import Batch, Culprit, Diagnosis, FirstMover, FixAdvice, Incident
from stabdiag.core.finding import CauseRanked, Finding, Findings, Severity
from stabdiag.core.html import TITLES, shown

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "a\x1b[31mb",
    "../../etc/passwd",
    "nul\x00l",
    "left\u202eright",
    "two\nlines",
]


def diagnosis(text="blocks.3.attn", severity=Severity.critical):
    finding = Finding(
        severity=severity,
        confidence=0.91,
        sites=(text, "blocks.4"),
        onset_step=1412,
        peak_step=1428,
        last_step=1430,
        message=f"The entropy of {text} collapses.",
        signature="attention-entropy-collapse",
        causes=(CauseRanked("learning-rate-too-high", 0.83, f"because of {text}"),),
        fixes=("lower-learning-rate",),
    )
    incident = Incident(
        severity=severity,
        root=0,
        findings=(0,),
        onset_step=1412,
        cause=finding.causes[0],
        fixes=(FixAdvice("lower-learning-rate", "Lower it", f"to {text}", f"if {text}:\n    lr = 1"),),
        first_mover=FirstMover("attention.max_logit", text, 1398, 1390, 3.0, (1.0, 2.0), 14),
        culprit=Culprit(module=text, source=f"/home/me/gpt/{text}.py:39", batch=Batch(1411, 0xA612FD)),
    )
    return Diagnosis("at-risk", (incident,), (finding,), (), {"steps": 2000})


class Reading(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(autouse=True)
def titles():
    """The catalogue declares them when it is looked at, as a diagnosis does."""
    for what, catalogue in (("signature", SIGNATURES), ("cause", CAUSES), ("fix", FIXES)):
        assert all(TITLES[what, entry.id] == entry.title for entry in catalogue)


def test_what_no_catalogue_has_is_told_by_its_id():
    (finding,) = diagnosis().findings
    assert "my own signature" in replace(finding, signature="my-own-signature")._repr_html_()


def test_a_diagnosis_says_what_where_when_why_and_what_to_do():
    text = Reading(diagnosis()._repr_html_()).text
    for told in (
        "At risk after 2,000 steps",
        "critical",
        "Attention looks at one key only",
        "blocks.3.attn",
        "since step 1,412",
        "attention.max_logit at blocks.3.attn, step 1,398",
        "gpt/blocks.3.attn.py:39",
        "the batch of step 1,411, fingerprint a612fd",
        "The learning rate is too high (83%)",
        "Lower it: to blocks.3.attn",
        "    lr = 1",
    ):
        assert told in text
    assert "/home/me" not in text


def test_findings_show_themselves_one_and_many():
    (finding,) = diagnosis().findings
    assert "steps 1,412 to 1,430" in Reading(finding._repr_html_()).text
    found = Findings((finding, finding))
    assert found == (finding, finding)
    assert Reading(found._repr_html_()).text.count("Attention looks at one key only") == 2
    assert "No findings" in Findings()._repr_html_()


@pytest.mark.parametrize("text", HOSTILE)
def test_strings_of_a_run_are_text_and_nothing_else(text):
    for html in (
        diagnosis(text)._repr_html_(),
        diagnosis(text).findings[0]._repr_html_(),
        diagnosis(text).incidents[0]._repr_html_(),
    ):
        reading = Reading(html)
        assert set(reading.tags) <= {"div", "p", "b", "code", "span", "pre"}
        assert set(reading.attributes) <= {"style"}
        assert not any(c in html for c in "\x1b\x00\u202e")


def test_a_name_of_ten_megabytes_is_cut():
    assert len(shown("a" * 10_000_000)) < 1000
    assert len(diagnosis("<" * 10_000_000)._repr_html_()) < 100_000


def test_showing_needs_neither_torch_nor_pandas():
    text = (
        "import sys\n"
        "from stabdiag.core.diagnosis import Diagnosis\n"
        "Diagnosis('stable', (), (), (), {'steps': 3})._repr_html_()\n"
        "print([name for name in ('torch', 'pandas', 'numpy', 'jinja2') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
