"""Which line of the user's a variable comes from: under getters, layers, decorators, and in cells of a notebook."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jscope as js
import jscope.layers

X = jax.ShapeDtypeStruct((2, 3), jnp.float32)


def line_of(function: Callable[..., Any], text: str) -> str:
    """The `file:line` of the one line in a function's source that holds a text."""
    lines, first = inspect.getsourcelines(function)
    (number,) = (first + i for i, line in enumerate(lines) if text in line)
    return f"{__file__}:{number}"


def doubled(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
    return 2 * getter(name, *args, **kwargs)


def passed_on(getter: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return getter(*args, **kwargs)


def test_under_getters_it_is_the_line_that_asked() -> None:
    def program() -> None:
        with (
            js.variable_scope("a", custom_getter=doubled, reuse=js.AUTO_REUSE),
            js.variable_scope("b", custom_getter=passed_on),
        ):
            js.get_variable("v", [])  # first
            js.get_variable("v", [])  # again
        js.get_variable("w", [], custom_getter=passed_on)  # its own getter
        js.get_local_variable("x", [], custom_getter=passed_on)  # local

    specs = js.transform(program).specs()
    assert specs["a/b/v"].created_at == line_of(program, "# first")
    assert specs["a/b/v"].used_at == (line_of(program, "# again"),)
    assert specs["w"].created_at == line_of(program, "# its own getter")
    assert specs["x"].created_at == line_of(program, "# local")


def test_what_a_getter_makes_beside_is_made_in_the_getter() -> None:
    def with_scale(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
        scale = js.get_variable("scale", [], custom_getter=passed_on)  # beside
        return scale * getter(name, *args, **kwargs)

    def program() -> None:
        js.get_variable("v", [2], custom_getter=with_scale)  # asked

    specs = js.transform(program).specs()
    assert specs["scale"].created_at == line_of(with_scale, "# beside")
    assert specs["v"].created_at == line_of(program, "# asked")


def test_under_layers_it_is_the_line_that_called_the_layer() -> None:
    def program(x: jax.Array) -> jax.Array:
        x = jscope.layers.dense(x, 4, name="plain")  # plain
        with js.variable_scope("inside", custom_getter=doubled):
            x = jscope.layers.dense(x, 4)  # under a getter
        with js.arg_scope([jscope.layers.contrib.fully_connected], activation_fn=jnp.tanh):
            x = jscope.layers.contrib.fully_connected(x, 4)  # under an arg_scope
            return jscope.layers.contrib.repeat(x, 2, jscope.layers.contrib.fully_connected, 4)  # repeated

    made = {name: spec.created_at for name, spec in js.transform(program).specs(X).items()}
    assert {made["plain/kernel"], made["plain/bias"]} == {line_of(program, "# plain")}
    assert made["inside/dense/kernel"] == line_of(program, "# under a getter")
    assert made["fully_connected/weights"] == line_of(program, "# under an arg_scope")
    repeated = {place for name, place in made.items() if name.startswith("Repeat")}
    assert repeated == {line_of(program, "# repeated")}


def test_whether_it_was_made_under_auto_reuse() -> None:
    inner = js.transform(lambda: js.get_variable("v", []))

    def program() -> None:
        js.get_variable("plain", [])
        with js.variable_scope("auto", reuse=js.AUTO_REUSE):
            js.get_variable("v", [])
            js.get_variable("w", [], custom_getter=passed_on)
            with js.variable_scope("lifted"):
                js.lift(inner)
        with js.variable_scope("lifted"):
            js.lift(inner)

    specs = js.transform(program).specs()
    assert [name for name, spec in specs.items() if spec.auto_reuse] == ["auto/v", "auto/w", "auto/lifted/v"]
    assert specs["plain"] == js.transform(lambda: js.get_variable("plain", [])).specs()["plain"]


# Notebooks ------------------------------------------------------------------------------------------------------------

CELL = """

def program():
    js.get_variable("v", [])
    js.get_variable("v", [2])
"""


def run_cell(file: str) -> Callable[[], None]:
    """The program of a cell that was compiled under a file name, as IPython does it."""
    names: dict[str, Any] = {"js": js, "__name__": "__main__"}
    exec(compile(CELL, file, "exec"), names)
    return names["program"]


def places(program: Callable[[], None]) -> tuple[str, str]:
    """Where a message says that the second line of the program is, and the first."""
    with pytest.raises(js.VariableExistsError) as raised:
        js.transform(program).specs()
    return raised.value.where, raised.value.exists.rpartition("made at ")[2]


def test_cells_that_ipython_names_itself() -> None:
    assert places(run_cell("<ipython-input-12-0123456789ab>")) == ("cell 12, line 5", "cell 12, line 4")


class Compiler:
    """As that of IPython 8 and later: it knows the cell of a made-up file."""

    def __init__(self, numbers: dict[str, int]) -> None:
        self._numbers = numbers

    def format_code_name(self, name: str) -> tuple[str, str] | None:
        return ("Cell", f"In[{self._numbers[name]}]") if name in self._numbers else None


def ipython(shell: Any) -> types.ModuleType:
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]
    return module


def test_cells_under_files_that_ipykernel_makes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    file = "/tmp/ipykernel_123/456.py"
    shell = types.SimpleNamespace(compile=Compiler({file: 3}))
    monkeypatch.setitem(sys.modules, "IPython", ipython(shell))
    assert places(run_cell(file)) == ("cell 3, line 5", "cell 3, line 4")
    assert places(run_cell("/home/me/model.py")) == ("/home/me/model.py:5", "/home/me/model.py:4")


@pytest.mark.parametrize(
    "module",
    [ipython(None), ipython(types.SimpleNamespace(compile=object())), types.ModuleType("IPython")],
    ids=["no shell", "an older IPython", "half imported"],
)
def test_without_cells_files_stay_as_they_are(module: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert places(run_cell("/tmp/ipykernel_123/456.py"))[0] == "/tmp/ipykernel_123/456.py:5"


def test_nothing_imports_ipython() -> None:
    loaded = "IPython" in sys.modules
    places(run_cell("<ipython-input-1-0123456789ab>"))
    assert ("IPython" in sys.modules) == loaded
