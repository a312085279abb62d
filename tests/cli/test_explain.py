from __future__ import annotations

import json

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
