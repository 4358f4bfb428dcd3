"""The house: floors whose imports go down only, one ContextVar, public JAX alone, files one can read."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jscope as js

HOUSE = Path(js.__file__).parent
FLOORS = {
    "_errors": 0,
    "_names": 0,
    "_show": 0,
    "_compat": 0,
    "_arguments": 1,
    "_values": 1,
    "_layout": 1,
    "_params": 1,
    "_rng": 1,
    "_drawers": 1,
    "initializers": 1,
    "_specs": 1,
    "_variable": 2,
    "_registry": 2,
    "_declare": 2,
    "_carried": 2,
    "_sources": 2,
    "_scope_stack": 2,
    "_store": 2,
    "_listings": 2,
    "_passes": 2,
    "_script": 2,
    "_replay": 2,
    "_ambient": 3,
    "_arg_scope": 3,
    "_scope": 3,
    "_calls": 3,
    "_template": 3,
    "_transform": 4,
    "_lift": 4,
    "__init__": 5,
}
DOOR = "__main__"  # `python -m jscope`: on no floor, nothing imports it, and it leads into a room
ROOMS = {path.stem for path in HOUSE.glob("*.py")} - set(FLOORS) - {DOOR}
FILES = sorted(HOUSE.rglob("*.py"))
NO_JAX = {"_errors", "_names", "_show"}


def imports(path):
    """(module, names) of every import in a file; jscope's own as their stem."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.level and node.module is None:
                yield from ((f"jscope.{name}", []) for name in names)
            else:
                yield (f"jscope.{node.module}" if node.level else node.module, names)


def test_every_file_has_a_floor():
    assert {path.stem for path in HOUSE.glob("*.py")} == set(FLOORS) | ROOMS | {DOOR}
    assert not any(room.startswith("_") for room in ROOMS)


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_imports_go_down_only(name):
    order = list(FLOORS)
    for module, _ in imports(HOUSE / f"{name}.py"):
        if module.startswith("jscope."):
            below = module.split(".")[1]
            assert FLOORS[below] <= FLOORS[name], f"{name} imports {below}"
            assert below not in ROOMS
            if FLOORS[below] == FLOORS[name]:
                assert order.index(below) != order.index(name)


def test_no_import_cycles():
    graph = {
        name: {m.split(".")[1] for m, _ in imports(HOUSE / f"{name}.py") if m.startswith("jscope.")} for name in FLOORS
    }
    done: list[str] = []
    while len(done) < len(graph):
        ready = [name for name in graph if name not in done and graph[name] <= set(done)]
        assert ready, f"a cycle among {set(graph) - set(done)}"
        done += ready


def test_the_door_leads_into_a_room_only():
    modules = [module for module, _ in imports(HOUSE / f"{DOOR}.py") if module.startswith("jscope")]
    assert modules == ["jscope.checkpoint.command"]
    assert not any(DOOR in module for path in FILES for module, _ in imports(path))


@pytest.mark.parametrize("path", [p for p in FILES if p.stem in ROOMS or p.parent != HOUSE], ids=lambda p: p.stem)
def test_rooms_use_the_public_names_only(path):
    for module, names in imports(path):
        if module == "jscope" or module.startswith("jscope."):
            assert not any(part.startswith("_") for part in module.split("."))
            assert not any(name.startswith("_") for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_public_jax_only(path):
    for module, names in imports(path):
        assert "jax._src" not in module
        if module.startswith("jax.extend") or (module == "jax" and "extend" in names):
            assert path.stem == "_compat"
        if path.stem in NO_JAX:
            assert module.split(".")[0] not in ("jax", "numpy")
    assert "jax._src" not in path.read_text()


def test_contextvars_are_ambient_and_no_globals():
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Global), f"global statement in {path.name}"
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("ContextVar", "threading.local")):
                found.append((path.stem, ast.unparse(node.func)))
    assert found == 2 * [("_ambient", "contextvars.ContextVar")]  # the running program; arg_scopes where none runs


def test_no_assert_statements():
    for path in FILES:
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text()))), path.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_file_can_be_read(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "a file says what it is for"
    assert len(text.splitlines()) <= 500


def test_only_jax_is_imported():
    code = """
import sys, jax, jax.numpy
before = {m.split(".")[0] for m in sys.modules}
import jscope
print(sorted({m.split(".")[0] for m in sys.modules} - before - set(sys.stdlib_module_names)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['jscope']"
