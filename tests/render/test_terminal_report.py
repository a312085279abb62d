from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.event import Event
from stabdiag.core.run import Run, RunInfo
from stabdiag.core.synthetic import run_of
from stabdiag.render.summary import summary_lines
from stabdiag.render.terminal import console_for, speakable
from stabdiag.render.text import render_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class AsciiStream(io.StringIO):
    encoding = "ascii"


def _text(run: Run, diagnosis: Diagnosis, stream: io.StringIO, *, verbose: bool = False) -> str:
    render_text(run, diagnosis, console_for(stream), verbose=verbose)
    return stream.getvalue()


def test_the_report_fits_eighty_columns_without_ragged_ends(
    failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    text = _text(failed_run, failed_diagnosis, io.StringIO())
    for line in text.splitlines():
        assert len(line) <= 80, line
        assert line == line.rstrip()
    assert text.startswith("Failed: ")


def test_the_report_says_where_since_when_why_and_what_to_change(
    failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    text = " ".join(_text(failed_run, failed_diagnosis, io.StringIO()).split())
    for told in (
        "blocks.7.mlp, blocks.6.mlp",
        "steps 1,430 to 1,879",
        "(83 %): the update-to-weight ratio",
        "lower the peak learning rate from 3e-3 to 9e-4",
        "after step 1,999 with ValueError: the loss is not finite",
        "blocks.*.attn weights: attention ran fused",
        "overhead 1.7 %",
        "stabdiag explain activations-out-of-hand",
    ):
        assert told in text


def test_symptoms_stand_under_their_root(failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    text = _text(failed_run, failed_diagnosis, io.StringIO())
    root, symptom, second = (text.index(told) for told in ("1 CRITICAL", "in blocks.0.ln_1", "2 WARNING"))
    assert root < symptom < second


def test_code_is_shown_on_request_alone(failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    code = "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)"
    assert code not in _text(failed_run, failed_diagnosis, io.StringIO())
    assert code in _text(failed_run, failed_diagnosis, io.StringIO(), verbose=True)


def test_the_two_best_fixes_are_told_and_all_on_request(failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    first = failed_diagnosis.incidents[0]
    third = replace(first.fixes[0], change="sleep over it")
    many = replace(failed_diagnosis, incidents=(replace(first, fixes=(*first.fixes, third)),))
    assert "sleep over it" not in _text(failed_run, many, io.StringIO())
    assert "sleep over it" in _text(failed_run, many, io.StringIO(), verbose=True)


def test_a_terminal_gets_colour_and_no_color_takes_it_away(
    failed_run: Run, failed_diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in _text(failed_run, failed_diagnosis, Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in _text(failed_run, failed_diagnosis, Terminal())
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b" not in _text(failed_run, failed_diagnosis, io.StringIO())


def test_a_stream_that_speaks_ascii_gets_ascii(failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    text = _text(failed_run, failed_diagnosis, AsciiStream())
    assert text.isascii()
    assert "gr\\xf6\\xdfe" in text
    assert re.search(r"loss +[_.~=+*#x-]{20,}", text)


def test_a_name_cannot_steer_the_terminal() -> None:
    assert speakable("a\x1b[2Jb\r\nc\u202ed", "utf-8") == "a\\x1b[2Jb  c\\u202ed"


def test_any_run_has_a_report(odd_run: Run, stable: Callable[[Run], Diagnosis]) -> None:
    text = _text(odd_run, stable(odd_run), io.StringIO())
    assert text.startswith("Stable: " if odd_run.steps else "No training step was recorded.")
    assert 1 <= len(summary_lines(odd_run, stable(odd_run))) <= 8


def test_the_summary_has_at_most_eight_short_lines(failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    many = replace(failed_diagnosis, incidents=failed_diagnosis.incidents * 4)
    lines = summary_lines(failed_run, many)
    assert len(lines) <= 8
    assert all(len(line) <= 70 for line in lines[:-1])
    assert lines[0].startswith("2,000 steps, 1 min 1 s, 2 processes, overhead 1.7 %   loss ")
    assert lines[0].endswith("×")
    assert "and 6 more" in lines
    assert lines[2].startswith("CRITICAL activations-out-of-hand since step 1,430 at blocks.7.mlp")
    assert lines[-1].startswith("next: stabdiag report stabdiag-runs/train-20261123-110142")


@pytest.mark.parametrize(
    ("signal", "told"),
    [
        ("SIGKILL", "killed by SIGKILL (out of memory?)"),
        ("SIGSEGV", "native code"),
        ("SIGUSR1", "killed by SIGUSR1"),
    ],
)
def test_a_death_by_signal_is_told_with_its_step_and_what_was_abnormal_before(
    failed_run: Run, failed_diagnosis: Diagnosis, signal: str, told: str
) -> None:
    killed = replace(failed_diagnosis, run={**failed_diagnosis.run, "exit_status": None, "signal": signal})
    text = " ".join(_text(failed_run, killed, io.StringIO()).split())
    assert told in text
    assert "after step 1,999; before that: activations out of hand" in text


def test_a_crash_of_a_healthy_run_leads_the_report(
    stable: Callable[[Run], Diagnosis], failed_run: Run
) -> None:
    healthy = failed_run.window(0, 600)
    crashed = replace(healthy, info=RunInfo(exit_status=3), events=())
    diagnosis = replace(stable(crashed), verdict="failed", run={"steps": 601, "exit_status": 3})
    text = " ".join(_text(crashed, diagnosis, io.StringIO()).split())
    assert text.startswith(
        "Failed: the target ended with exit status 3 after step 600; nothing abnormal before that."
    )


def test_the_size_on_disk_is_told(tmp_path: Path, failed_run: Run, failed_diagnosis: Diagnosis) -> None:
    (tmp_path / "rank-0").mkdir()
    (tmp_path / "rank-0" / "run.arrows").write_bytes(b"0" * 2_400_000)
    assert "2.4 MB" in summary_lines(replace(failed_run, path=tmp_path), failed_diagnosis)[0]


def test_a_loss_that_ends_infinite_is_not_said_to_be_no_number(stable: Callable[[Run], Diagnosis]) -> None:
    for last, word in ((np.inf, "inf"), (-np.inf, "-inf"), (np.nan, "NaN")):
        lost = np.array([0.0, 0.0, 0.0, 1.0])
        run = run_of({"run.loss": np.array([3.0, 2.0, 2.5, last]), "run.nonfinite": lost})
        assert f"3 to {word}, lowest 2 at step 1" in _text(run, stable(run), io.StringIO())


def test_what_was_told_while_it_trained_and_does_not_hold_is_withdrawn_in_a_word(
    failed_run: Run, failed_diagnosis: Diagnosis
) -> None:
    told = [
        Event("finding", 0.0, 35, 0, {"signature": signature, "severity": "warning"})
        for signature in ("gan-imbalance", "loss-divergence", "frozen-parameters", "gan-imbalance")
    ]
    run = replace(failed_run, events=(*failed_run.events, *told))
    lines = summary_lines(run, failed_diagnosis, width=120)
    assert len(lines) <= 8
    (line,) = (line for line in lines if line.startswith("withdrawn"))
    assert line.startswith("withdrawn: gan-imbalance, frozen-parameters, told while it trained")
    assert not any("withdrawn" in line for line in summary_lines(failed_run, failed_diagnosis, width=120))


def test_a_clean_verdict_says_what_it_could_not_judge(stable: Callable[[Run], Diagnosis]) -> None:
    out_of_sight = ("training", "the optimizer LBFGS", "curvature")
    events = [Event("coverage", 0.0, 0, 0, {"what": what, "because": "hidden"}) for what in out_of_sight]
    run = run_of({"run.loss": np.ones(5)}, events=events)
    told = "training and the optimizer LBFGS could not be judged"
    text = " ".join(_text(run, stable(run), io.StringIO()).split())
    assert f"Stable: no instability in 5 steps; {told}." in text
    assert f"nothing abnormal was seen; {told}" in summary_lines(run, stable(run), width=120)
    seen = run_of({"run.loss": np.ones(5)}, events=events[2:])
    assert "Stable: no instability in 5 steps." in _text(seen, stable(seen), io.StringIO())
