"""What docs/integrations.md says can be imported is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
IMPORTS = re.findall(r"^from (stabdiag\.\S+) import (\w+)$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize(("module", "name"), IMPORTS)
def test_a_class_that_the_page_imports_exists(module, name):
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_the_page_names_every_host_that_is_imported_by_its_user():
    hosts = {path.stem for path in (ROOT / "stabdiag" / "adapters").glob("[!_]*.py")} - {
        "hosted",
        "ipython",
        "pytest",
    }
    assert {module.rpartition(".")[2] for module, _ in IMPORTS} == hosts


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
