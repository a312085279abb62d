from __future__ import annotations

from collections.abc import Callable

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.render.markdown import code, escaped, render_markdown


def test_the_report_tells_the_incidents_and_keeps_code_apart(
    failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    text = render_markdown(failed_run, failed_diagnosis)
    assert text.startswith("## Failed: ")
    assert "| where | `blocks.7.mlp`, `blocks.6.mlp`" in text
    code = "optimizer = torch.optim.AdamW(model.parameters(), lr=9e-4, betas=(0.9, 0.95))"
    assert f"   ```python\n   {code}\n   ```" in text


def test_user_made_text_is_no_markup(failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    text = render_markdown(failed_run, failed_diagnosis)
    for line in text.splitlines():
        bare = "".join(line.split("`")[::2])
        if line.startswith("   "):
            continue
        assert "<script" not in bare.replace("\\<", ""), line
    assert escaped("[a](https://x) @you\n# b") == r"\[a\]\(https:&#47;&#47;x\) \@you \# b"
    assert code("a`b|c") == "`` a`b¦c ``"


def test_any_run_has_a_markdown_report(odd_run: Run, stable: Callable[[Run], Diagnosis]) -> None:
    assert render_markdown(odd_run, stable(odd_run)).startswith("## ")
