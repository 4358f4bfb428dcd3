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
    "_callsite": 0,
    "_names": 0,
    "_show": 0,
    "_see": 0,
    "_atomic": 0,
    "_compat": 0,
    "_stack": 1,
    "_arguments": 1,
    "_values": 1,
    "_layout": 1,
    "_describe": 1,
    "_misspelt": 1,
    "_table": 1,
    "_leaves": 1,
    "_params": 1,
    "_partitions": 1,
    "_initial_values": 1,
    "_declared": 1,
    "initializers": 1,
    "_mismatch": 1,
    "_variable_spec": 1,
    "_comparison": 1,
    "_specs": 1,
    "_support": 1,
    "_hints": 1,
    "_members": 1,
    "run.bodies": 2,
    "run.record": 2,
    "run.arrays": 2,
    "run.checks": 2,
    "run.refs": 2,
    "run.values_from": 2,
    "run.call_keys": 2,
    "run.scopes": 2,
    "run.variables": 2,
    "run.listings": 2,
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
FOR_ROOMS = "_support"  # what rooms may use from inside
RUN = HOUSE / "run"
ROOMS = {path.parent.name for path in HOUSE.glob("*/__init__.py")} - {"run"}
FILES = sorted(HOUSE.rglob("*.py"))
NO_JAX = {"_atomic", "_errors", "_callsite", "_names", "_show"}


def file_of(name):
    return HOUSE / (name.replace(".", "/") + ".py")


def imports(path):
    """(module, names) of every import in a file; jscope's own from "jscope." on."""
    package = ["jscope", *path.relative_to(HOUSE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            if node.level and node.module is None:
                yield from ((f"{base}.{name}", []) for name in names)
            else:
                yield (f"{base}.{node.module}" if node.level else node.module, names)


def own_imports(name):
    """The files of the house, without rooms, that a file imports."""
    for module, names in imports(file_of(name)):
        if module == "jscope.run":
            yield from (f"run.{name}" for name in names)
        elif module.startswith("jscope."):
            yield module.removeprefix("jscope.")


def test_every_file_has_a_floor():
    inside = {path.stem for path in HOUSE.glob("*.py")} - {DOOR}
    inside |= {f"run.{path.stem}" for path in RUN.glob("*.py") if path.stem != "__init__"}
    assert inside == set(FLOORS)
    assert {"layers", "checkpoint", "testing"} <= ROOMS
    assert not any(room.startswith("_") for room in ROOMS)


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_imports_go_down_only(name):
    for below in own_imports(name):
        assert below.partition(".")[0] not in ROOMS
        assert FLOORS[below] <= FLOORS[name], f"{name} imports {below}"
        assert below != name


def test_no_import_cycles():
    graph = {name: set(own_imports(name)) for name in FLOORS}
    done: list[str] = []
    while len(done) < len(graph):
        ready = [name for name in graph if name not in done and graph[name] <= set(done)]
        assert ready, f"a cycle among {set(graph) - set(done)}"
        done += ready


def test_one_file_leads_up_into_a_room_and_only_when_it_is_called():
    up = [path.stem for path in FILES if "import_module" in path.read_text() and path.parent == HOUSE]
    assert up == ["_see"]
    code = "import sys, jscope; print([name for name in sys.modules if name.startswith('jscope.seeing')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_door_leads_into_a_room_only():
    modules = [module for module, _ in imports(HOUSE / f"{DOOR}.py") if module.startswith("jscope")]
    assert modules == ["jscope.checkpoint.command", "jscope.seeing.command"]
    assert not any(DOOR in module for path in FILES for module, _ in imports(path))


@pytest.mark.parametrize("path", [p for p in FILES if p.parent not in (HOUSE, RUN)], ids=lambda p: p.stem)
def test_rooms_use_public_names_and_the_door_for_rooms(path):
    """And never each other."""
    own_room = path.relative_to(HOUSE).parts[0]
    for module, names in imports(path):
        _, *parts = module.split(".")
        if module.partition(".")[0] == "jscope" and parts != [FOR_ROOMS]:
            assert not any(part.startswith("_") for part in parts)
            assert not any(name.startswith("_") for name in names)
            assert not parts or parts[0] == own_room or parts[0] not in ROOMS


def test_only_rooms_use_the_door_for_rooms():
    assert not any(FOR_ROOMS in own_imports(name) for name in FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_public_jax_only(path):
    for module, names in imports(path):
        assert "jax._src" not in module
        if module.startswith(("jax.extend", "jax.interpreters")) or (module == "jax" and "extend" in names):
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


def test_only_one_file_reads_variables_of_frames():
    """And nothing is noted in a frame of the user's, nor asked of what may look at frames (`sys.settrace`)."""
    for path in FILES:
        attributes = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "f_locals" not in attributes or path.stem == "_stack", path.name
        assert not attributes & {"f_trace", "settrace", "setprofile", "gettrace"}, path.name


def test_no_assert_statements():
    for path in FILES:
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text()))), path.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_file_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_only_jax_is_imported():
    code = """
import sys, jax, jax.numpy
before = {m.split(".")[0] for m in sys.modules}
import jscope
print(sorted({m.split(".")[0] for m in sys.modules} - before - set(sys.stdlib_module_names)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['jscope']"
