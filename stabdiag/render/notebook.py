"""The report in a notebook: the whole page in a frame, or the findings alone."""

from __future__ import annotations

from markupsafe import Markup

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.render import describe
from stabdiag.render.page import render_page


def page_frame(run: Run, diagnosis: Diagnosis, height: int = 720) -> str:
    """The page as a frame of `height` pixels that holds its own document: no file, no server."""
    frame = Markup(
        '<iframe title="stabdiag report" srcdoc="{}" style="width:100%;height:{}px;border:0" '
        'sandbox="allow-scripts" allow="clipboard-write"></iframe>'
    )
    return str(frame.format(render_page(run, diagnosis), height))


def findings_fragment(run: Run, diagnosis: Diagnosis) -> str:
    """A few lines of HTML without script or style of their own: what `_repr_html_` returns."""
    item = Markup("<li><b>{}</b> {}, {}: {}</li>")
    roots = [diagnosis.findings[incident.root] for incident in diagnosis.incidents]
    items = [
        item.format(str(finding.severity), describe.titled(finding), describe.span(finding), finding.message)
        for finding in (*roots, *describe.others(diagnosis))
    ]
    listed = Markup("<ul>{}</ul>").format(Markup("").join(items)) if items else Markup("")
    sentence = describe.verdict_sentence(run, diagnosis)
    return str(Markup("<div><p><b>{}</b></p>{}</div>").format(sentence, listed))
