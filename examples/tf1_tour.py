"""TensorFlow 1's walk-through of variable sharing, in jscope: eighteen short listings. Run it with no arguments.

Each listing makes what TensorFlow's made, and prints what TensorFlow printed, with these differences:

* A variable is a plain JAX array and an operation has no Python object, so neither has a repr of its own. Where
  TensorFlow prints `<tf.Variable 'x:0' shape=() dtype=int32_ref>` and `Tensor("add:0", shape=(), dtype=int32)`, this
  prints `variable 'x:0' shape=() dtype=int32` and `operation 'add:0' shape=() dtype=int32`. JAX has no reference
  dtypes, so no `_ref`.
* TensorFlow's `v.name` and `v.op.name` are `js.name_of(v) + ":0"` and `js.name_of(v)`.
* Names of operations are read out of the lowered program, which is where compilers and profilers see them. JAX ends
  each with the primitive's own name, so `tf.add(x, y, name="f")` becomes an addition in `js.name_scope("f")`, shown
  as `f`.
* Errors are of TensorFlow's kinds (`except ValueError` still works) with other texts. Random values are other ones.

Every listing is a program of its own. In one TensorFlow graph the later ones would fail, because `reuse_variables()` at
the root can't be taken back; the last listing shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jscope as js

KEY = jax.random.key(0)


# What the listings print with -----------------------------------------------------------------------------------------


def describe(kind: str, name: str, array: Any) -> str:
    return f"{kind} '{name}:0' shape={array.shape} dtype={array.dtype}"


def show_names(name: str) -> None:
    """TensorFlow's `v.name` and `v.op.name`."""
    print(f"{name}:0 | {name}")


def show_scope() -> None:
    scope = js.get_variable_scope()
    print(f"scope '{scope.name}' reuse {scope.reuse}")


def additions(program: Callable[[], Any], params: js.Params) -> list[str]:
    """The names of the program's additions, in order, as its lowered text has them."""
    text = jax.jit(js.transform(program).apply).lower(params).as_text(debug_info=True)
    names = dict(re.findall(r'^(#loc\d+) = loc\("jit\([^)]*\)/([^"]*)"', text, re.MULTILINE))
    return [names[location] for location in re.findall(r"stablehlo\.add .* loc\((#loc\d+)\)", text)]


def named_additions(program: Callable[[], Any], params: js.Params) -> list[str]:
    """As `additions`, for those that have a name scope each: its name, without JAX's own last part."""
    return [name.removesuffix("/add") for name in additions(program, params)]


# Variables that are never shared --------------------------------------------------------------------------------------


def add_function() -> jax.Array:
    x = js.variable(3, name="x_scalar")
    y = js.variable(2, name="y_scalar")
    with js.name_scope("add_function"):
        return x + y


def call_twice() -> list[jax.Array]:
    return [add_function(), add_function()]


def two_fresh_variables() -> None:
    """`js.variable` makes a new variable at each call"""
    net = js.transform(call_twice)
    specs, params = net.specs(), net.init(KEY)
    x1, y1, x2, y2 = (describe("variable", name, spec) for name, spec in specs.items())
    print(x1, y1)
    print(x2, y2)
    sums = zip(named_additions(call_twice, params), net.apply(params), strict=True)
    print(*(describe("operation", name, value) for name, value in sums))


def share_by_dictionary() -> list[jax.Array]:
    variables = {"x": js.variable(3, name="x_scalar"), "y": js.variable(2, name="y_scalar")}

    def add_function(variables: dict[str, jax.Array]) -> jax.Array:
        with js.name_scope("add_function"):
            return variables["x"] + variables["y"]

    return [add_function(variables), add_function(variables)]


def dictionary() -> None:
    """Shared the hard way: a dictionary that is passed around"""
    net = js.transform(share_by_dictionary)
    specs, params = net.specs(), net.init(KEY)
    sums = net.apply(params)
    lines = [describe("variable", name, spec) for name, spec in specs.items()]
    names = named_additions(share_by_dictionary, params)
    print(*lines, *(describe("operation", name, value) for name, value in zip(names, sums, strict=True)))
    print([int(value) for value in sums])


def both_in_one() -> list[jax.Array]:
    return call_twice() + share_by_dictionary()


def dictionary_after_the_first_listing() -> None:
    """The two listings before, as one program: the names count on"""
    net = js.transform(both_in_one)
    specs, params = net.specs(), net.init(KEY)
    lines = [describe("variable", name, spec) for name, spec in specs.items()]
    sums = zip(named_additions(both_in_one, params), net.apply(params), strict=True)
    print(*lines[4:], *[describe("operation", name, value) for name, value in sums][2:])


# get_variable and scopes ----------------------------------------------------------------------------------------------


def get_variable_twice() -> None:
    """`js.get_variable` refuses a name that exists, unless told to share it"""
    with js.build(KEY):
        js.get_variable("x_scalar", [])
        try:
            js.get_variable("x_scalar", [])
        except ValueError as error:
            print(f"ValueError: {error.what}")


def names() -> None:
    """A scope puts its name in front"""
    with js.build(KEY):
        v = js.get_variable("test_vector", [2])
        show_names(js.name_of(v))
        with js.variable_scope("test"):
            v = js.get_variable("v_vector", [2])
            show_names(js.name_of(v))


def reuse_true() -> None:
    """`reuse=True` gives the variable that exists"""
    with js.build(KEY):
        with js.variable_scope("test"):
            v = js.get_variable("var_vector", [2])
        with js.variable_scope("test", reuse=True):
            v1 = js.get_variable("var_vector", [2])
        assert v1 is v
        show_names(js.name_of(v))
        show_names(js.name_of(v1))


def nested() -> None:
    """Scopes nest"""
    with js.build(KEY), js.variable_scope("test"), js.variable_scope("simple"):
        show_names(js.name_of(js.get_variable("obj_vector", [2])))


def reuse_variables() -> None:
    """`reuse_variables()` turns sharing on half-way through a scope"""
    with js.build(KEY), js.variable_scope("test"):
        v = js.get_variable("t_vector", [2])
        js.get_variable_scope().reuse_variables()
        v1 = js.get_variable("t_vector", [2])
        assert v1 is v
        show_names(js.name_of(v))
        show_names(js.name_of(v1))


def scope_object_reuse_variables() -> None:
    """The same, on the scope object that the `with` statement gives"""
    with js.build(KEY), js.variable_scope("test") as scope:
        v = js.get_variable("t_vector1", [2])
        scope.reuse_variables()
        v1 = js.get_variable("t_vector1", [2])
        assert v1 is v
        show_names(js.name_of(v1))


def add_function1() -> tuple[jax.Array, jax.Array, jax.Array]:
    x = js.get_variable("x_scalar1", [2])
    y = js.get_variable("y_scalar1", [2])
    with js.name_scope("add_function1"):
        return x, y, x + y


def share_by_root() -> list[tuple[jax.Array, jax.Array, jax.Array]]:
    first = add_function1()
    js.get_variable_scope().reuse_variables()
    return [first, add_function1()]


def root_reuse_variables() -> None:
    """And at the root, where no scope is open: a function called twice shares everything"""
    with js.build(KEY) as built:
        for x, y, _ in share_by_root():
            print(describe("variable", js.name_of(x), x), describe("variable", js.name_of(y), y))
            show_names(js.name_of(x))
            show_names(js.name_of(y))
        variables = [f"{variable.name}:0" for variable in js.global_variables()]
    for name in named_additions(share_by_root, built.params):
        show_names(name)
    print("global variables:", variables)
    run = jax.jit(js.transform(share_by_root).apply)
    runs = [[np.asarray(total) for _, _, total in run(built.params)] for _ in range(3)]
    print(*runs[0], "equal:", np.array_equal(*runs[0]))
    # A tree is an argument here, and nothing but the arguments decides the result.
    print(f"three runs give {'the same value' if np.array_equal([runs[0]] * 3, runs) else 'different values'}")


def inheritance_of_reuse() -> None:
    """Scopes inside a sharing scope share; leaving it ends that"""
    with js.build(KEY), js.variable_scope("root1"):
        show_scope()
        with js.variable_scope("foo2"):
            show_scope()
        with js.variable_scope("foo1", reuse=True):
            show_scope()
            with js.variable_scope("bar1", reuse=False):  # False means "as outside", so it can't switch sharing off
                show_scope()
        show_scope()


def capture() -> None:
    """A scope object can be entered again"""
    with js.build(KEY):
        with js.variable_scope("foo") as foo_scope:
            show_scope()
            v = js.get_variable("v", [1])
            show_names(js.name_of(v))
        with js.variable_scope(foo_scope):
            show_scope()
            w = js.get_variable("w", [1])
            show_names(js.name_of(w))
        with js.variable_scope(foo_scope, reuse=True):
            show_scope()
            v1, w1 = js.get_variable("v", [1]), js.get_variable("w", [1])
            assert v1 is v
            assert w1 is w
            show_names(js.name_of(v1))
            show_names(js.name_of(w1))


def capture_jump() -> None:
    """A scope object is an absolute place: entering it jumps out of the scopes around"""
    with js.build(KEY):
        with js.variable_scope("foo_test") as foo_scope:
            print(type(foo_scope).__name__)
            show_scope()
        with js.variable_scope("bar_test"):
            show_scope()
            with js.variable_scope("baz_test"):
                show_scope()
                with js.variable_scope(foo_scope):
                    show_scope()


def initializers() -> None:
    """A scope's initializer is the default of what is inside"""
    with js.build(KEY), js.variable_scope("initializer", initializer=js.constant_initializer(0.4)):
        values = [js.get_variable("v", [1]), js.get_variable("w", [1], initializer=js.constant_initializer(0.3))]
        with js.variable_scope("inherited"):
            values.append(js.get_variable("v", [1]))
        with js.variable_scope("its_own", initializer=js.constant_initializer(0.2)):
            values.append(js.get_variable("v", [1]))
        print([float(value[0]) for value in values])


# Names of operations --------------------------------------------------------------------------------------------------


def add_in_scope() -> jax.Array:
    with js.variable_scope("variable_name"):
        return js.get_variable("v", [1]) + 1.0


def op_name() -> None:
    """A variable scope names the operations inside it as well"""
    for name in additions(add_in_scope, js.transform(add_in_scope).init(KEY)):
        show_names(name)


def add_in_name_scope() -> tuple[jax.Array, jax.Array]:
    with js.variable_scope("op_name"), js.name_scope("name_scope"):
        v = js.get_variable("v", [1])
        return v, v + 1.0


def name_scope() -> None:
    """A name scope names operations only, and leaves variables alone"""
    with js.build(KEY) as built:
        v, _ = add_in_name_scope()
        show_names(js.name_of(v))
    for name in additions(add_in_name_scope, built.params):
        show_names(name)


def add_in_scope_twice() -> tuple[jax.Array, jax.Array]:
    first = add_in_scope()
    with js.variable_scope("variable_name", reuse=True):
        return first, js.get_variable("v", [1]) + 1.0


def second_entry() -> None:
    """Entered again, a scope shares its variables; its operations get a new name"""
    for name in additions(add_in_scope_twice, js.transform(add_in_scope_twice).init(KEY)):
        show_names(name)


def after_reuse_at_the_root() -> None:
    """Why each listing is a program of its own"""
    with js.build(KEY):
        js.get_variable_scope().reuse_variables()
        with js.variable_scope("root1"):
            show_scope()
        try:
            with js.variable_scope("foo"):
                js.get_variable("v", [1])
        except ValueError as error:
            print(f"ValueError: {error.what}")
        # Comparing the scope object, where its `.reuse` was meant, was a common slip.
        scope = js.get_variable_scope()
        print(f"scope == False: {scope == False} | scope == True: {scope == True}")  # noqa: E712


LISTINGS = (
    two_fresh_variables,
    dictionary,
    dictionary_after_the_first_listing,
    get_variable_twice,
    names,
    reuse_true,
    nested,
    reuse_variables,
    scope_object_reuse_variables,
    root_reuse_variables,
    inheritance_of_reuse,
    capture,
    capture_jump,
    initializers,
    op_name,
    name_scope,
    second_entry,
    after_reuse_at_the_root,
)


def main() -> None:
    for number, listing in enumerate(LISTINGS, start=1):
        print(f"\n{number}. {listing.__doc__}")
        listing()


if __name__ == "__main__":
    main()
