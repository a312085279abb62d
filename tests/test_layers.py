"""The layers of docs/design.md, proved from the imports."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import stabdiag

PACKAGE = Path(stabdiag.__file__).parent
BELOW_API = {"core", "stats", "store", "capture", "intervene", "analysis", "render"}
MAY_IMPORT = {
    "core": set(),
    "stats": {"core"},
    "store": {"core"},
    "capture": {"core", "stats", "store"},
    "intervene": {"core", "capture"},
    "analysis": {"core"},
    "render": {"core", "analysis"},
    "api": BELOW_API,
    "launch": BELOW_API | {"api"},
    "adapters": BELOW_API | {"api"},
    "zoo": {"core", "store", "analysis", "api", "launch", "reference"},
    "reference": set(),
    "cli": BELOW_API - {"capture", "stats"} | {"api", "launch", "zoo", "reference"},
}
WITHOUT_TORCH = {"core", "store", "analysis", "render", "cli", "launch", "api"}
MODULES = {
    ".".join(("stabdiag", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "sitecustomize.py"
}


def imported(module: str, top_level_only: bool = False) -> Iterator[str]:
    """Full names of what a module imports; for `from a import b` that is `a.b`."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def nearest(name: str) -> str | None:
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def layer(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_the_layers_below_it(module):
    if layer(module) not in MAY_IMPORT:
        assert module in ("stabdiag", "stabdiag.__main__")
        return
    others = {layer(found) for name in imported(module) if (found := nearest(name))}
    assert others - MAY_IMPORT[layer(module)] - {layer(module), ""} == set()


@pytest.mark.parametrize("module", MODULES)
def test_torch_is_imported_only_where_training_is(module):
    roots = {name.split(".")[0] for name in imported(module, top_level_only=True)}
    if layer(module) in WITHOUT_TORCH:
        assert "torch" not in roots
    if layer(module) == "reference":
        assert "stabdiag" not in {n.split(".")[0] for n in imported(module) if "reference" not in n}


def test_no_imports_go_in_a_circle():
    graph = {
        module: {
            found
            for name in imported(module, top_level_only=True)
            if (found := nearest(name)) and found not in (module, "stabdiag")
        }
        for module in MODULES
    }
    list(graphlib.TopologicalSorter(graph).static_order())
