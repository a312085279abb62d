from __future__ import annotations

import json
from pathlib import Path

import pytest

from stabdiag.analysis.catalogue import CAUSES, FIXES, SIGNATURES


def test_without_a_name_the_catalogue_is_listed(stabdiag):
    lines = stabdiag("explain").stdout.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [
        *("Signatures", "Causes", "Fixes", "Interventions")
    ]
    for entry in (*SIGNATURES, *CAUSES, *FIXES):
        assert any(line.startswith(f"  {entry.id} ") for line in lines), entry.id


@pytest.mark.parametrize("catalogue", [SIGNATURES, CAUSES, FIXES], ids=["signature", "cause", "fix"])
def test_each_kind_of_entry_is_explained(stabdiag, catalogue):
    entry = next(iter(catalogue))
    text = stabdiag("explain", entry.id).stdout
    assert text.startswith(f"{entry.id}  ({catalogue.what})\n{entry.title}\n")
    assert entry.doc in text
    assert "\x1b" not in text


def test_json_says_what_leads_on(stabdiag):
    spike = json.loads(stabdiag("explain", "loss-spike", "--json").stdout)
    assert spike["kind"] == "signature"
    assert spike["thresholds"] == SIGNATURES["loss-spike"].thresholds
    cause = json.loads(stabdiag("explain", spike["causes"][0], "--json").stdout)
    assert "loss-spike" in cause["shown by"]
    fix = json.loads(stabdiag("explain", cause["fixes"][0], "--json").stdout)
    assert cause["id"] in fix["cures"]
    assert {e["id"] for e in json.loads(stabdiag("explain", "--json").stdout)["fixes"]} == {
        f.id for f in FIXES
    }


def test_a_signature_is_shown_on_its_example_with_threshold_and_onset(stabdiag):
    text = stabdiag("explain", "loss-spike").stdout
    chart = [line for line in text.splitlines() if "│" in line]
    assert len(chart) == 6
    assert any("╌╌" in line for line in chart)
    assert any(0x2801 <= ord(character) <= 0x28FF for line in chart for character in line)
    assert "run.loss, steps 0 to 399: onset at step 200, threshold" in text


def test_the_document_of_the_catalogue_is_what_the_entries_say(stabdiag):
    """`stabdiag explain --markdown > docs/signatures.md` writes it anew."""
    kept = Path(__file__).parents[2] / "docs" / "signatures.md"
    assert kept.read_text(encoding="utf-8") == stabdiag("explain", "--markdown").stdout


def test_every_link_of_the_document_leads_to_an_entry(stabdiag):
    text = stabdiag("explain", "--markdown").stdout
    entries = {entry.id for catalogue in (SIGNATURES, CAUSES, FIXES) for entry in catalogue}
    targets = {part.partition(")")[0] for part in text.split("](#")[1:]}
    assert targets <= entries
    assert entries == {line[4:] for line in text.splitlines() if line.startswith("### ")}
