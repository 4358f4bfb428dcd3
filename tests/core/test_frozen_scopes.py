"""`variable_scope(trainable=False)`: what is made inside is not trainable, by the rules of TF1's other defaults."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import jscope as js
from jscope import layers

FROZEN = {"trainable": False}


def trainable(program, *args):
    """name -> whether it is trainable, and the same told by the collection."""
    specs = js.transform(program).specs(*args)
    flags = {name: spec.trainable for name, spec in specs.items()}
    assert flags == {name: "trainable_variables" in spec.collections for name, spec in specs.items()}
    return flags


def test_scopes_inside_inherit_it_and_may_turn_it_on_again() -> None:
    def program() -> None:
        with js.variable_scope("a", **FROZEN) as scope:
            assert scope.trainable is False
            js.get_variable("w", [])
            with js.variable_scope("b"):
                js.get_variable("w", [])
                with js.variable_scope("c", trainable=True):
                    js.get_variable("w", [])
            js.get_variable("last", [])
        assert js.get_variable_scope().trainable is True
        js.get_variable("w", [])

    assert trainable(program) == {"a/w": False, "a/b/w": False, "a/b/c/w": True, "a/last": False, "w": True}


def test_the_argument_of_get_variable_wins() -> None:
    def program() -> None:
        with js.variable_scope("a", **FROZEN):
            js.get_variable("told", [], trainable=True)
            js.get_variable("not_told", [], trainable=None)
        with js.variable_scope("b", trainable=True):
            js.get_variable("told", [], trainable=False)

    assert trainable(program) == {"a/told": True, "a/not_told": False, "b/told": False}


def test_a_variable_that_is_found_stays_what_it_was_made_as() -> None:
    def program() -> None:
        with js.variable_scope("a"):
            js.get_variable("w", [])
        with js.variable_scope("a", reuse=True, **FROZEN):
            js.get_variable("w", [])
        with js.variable_scope("b", reuse=js.AUTO_REUSE, **FROZEN):
            js.get_variable("w", [])
        with js.variable_scope("b", reuse=js.AUTO_REUSE):
            js.get_variable("w", [])

    assert trainable(program) == {"a/w": True, "b/w": False}


def test_a_captured_scope_keeps_it_and_the_request_may_say_otherwise() -> None:
    def program() -> None:
        with js.variable_scope("a", **FROZEN) as scope:
            pass
        with js.variable_scope(scope):
            js.get_variable("kept", [])
        with js.variable_scope(scope, trainable=True):
            js.get_variable("turned_on", [])
        with js.variable_scope("other", **FROZEN), js.variable_scope(js.get_variable_scope(), trainable=True):
            js.get_variable("w", [])

    assert trainable(program) == {"a/kept": False, "a/turned_on": True, "other/w": True}


def test_a_local_variable_is_never_trainable() -> None:
    def program() -> None:
        with js.variable_scope("a", trainable=True):
            js.get_local_variable("seen", [])

    assert trainable(program) == {"a/seen": False}


def test_a_variable_that_is_never_shared_asks_no_scope() -> None:
    def program() -> None:
        with js.variable_scope("a", **FROZEN):
            js.variable(1.0, name="v")

    assert trainable(program) == {"a/v": True}


def test_a_custom_getter_is_told_and_decides() -> None:
    seen = []

    def getter(getter, name, *args, **kwargs):
        seen.append(kwargs["trainable"])
        return getter(name, *args, **{**kwargs, "trainable": kwargs["trainable"] or "adapter" in name})

    def program() -> None:
        with js.variable_scope("a", custom_getter=getter, **FROZEN):
            js.get_variable("w", [])
            js.get_variable("adapter", [])
            js.get_variable("told", [], trainable=True)

    assert trainable(program) == {"a/w": False, "a/adapter": True, "a/told": True}
    assert seen == [False, False, True]


def test_templates_are_frozen_where_they_are_made_or_first_called() -> None:
    def program() -> None:
        def head():
            return js.get_variable("w", [])

        with js.variable_scope("a", **FROZEN):
            js.make_template("now", head, create_scope_now_=True)()
            later = js.make_template("later", head)
            later()
        later()

    assert trainable(program) == {"a/now/w": False, "a/later/w": False}


def test_what_is_lifted_into_a_frozen_scope_is_frozen() -> None:
    layer = js.transform(lambda x: x * js.get_variable("w", []) + js.get_variable("b", [], trainable=True))

    def program(x: jax.Array) -> None:
        with js.variable_scope("a", **FROZEN):
            js.lift(layer, x)
        with js.variable_scope("b"):
            js.lift(layer, x)

    assert trainable(program, jnp.ones(2)) == {"a/w": False, "a/b": False, "b/w": True, "b/b": True}


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda x, **kw: layers.dense(x, 3, **kw), (2, 4)),
        (lambda x, **kw: layers.conv2d(x, 3, 3, **kw), (2, 8, 8, 3)),
        (lambda x, **kw: layers.separable_conv2d(x, 3, 3, **kw), (2, 8, 8, 3)),
        (lambda x, **kw: layers.batch_normalization(x, training=True, **kw), (2, 4)),
        (lambda x, **kw: layers.GRUCell(3, **kw)(x, jnp.zeros((2, 3))), (2, 4)),
        (lambda x, **kw: layers.contrib.fully_connected(x, 3, **kw), (2, 4)),
        (lambda x, **kw: layers.contrib.conv2d(x, 3, 3, **kw), (2, 8, 8, 3)),
        (lambda x, **kw: layers.contrib.batch_norm(x, scale=True, **kw), (2, 4)),
        (lambda x, **kw: layers.contrib.layer_norm(x, **kw), (2, 4)),
        (lambda x, **kw: layers.contrib.embed_sequence(jnp.zeros((2, 3), int), 4, 2, **kw), (2, 4)),
    ],
    ids=lambda value: None,
)
def test_layers_are_frozen_unless_they_are_told_otherwise(layer, shape: tuple[int, ...]) -> None:
    def program(x: jax.Array) -> None:
        with js.variable_scope("frozen", **FROZEN):
            layer(x)
        with js.variable_scope("told", **FROZEN):
            layer(x, trainable=True)
        with js.variable_scope("usual"):
            layer(x)

    flags = trainable(program, jnp.ones(shape))
    names = {name.partition("/")[2] for name in flags}
    assert not any(flags[f"frozen/{name}"] for name in names)
    assert {n: flags[f"told/{n}"] for n in names} == {n: flags[f"usual/{n}"] for n in names}
    assert any(flags[f"usual/{name}"] for name in names)


def test_split_and_gradients_leave_a_frozen_scope_alone() -> None:
    def program(x: jax.Array) -> jax.Array:
        with js.variable_scope("tower", **FROZEN):
            x = layers.dense(x, 3)
        return layers.dense(x, 1, name="head")

    net, x = js.transform(program), jnp.ones((2, 4))
    trained, rest = net.specs(x).split(net.init(jax.random.key(0), x))
    assert {name.partition("/")[0] for name in trained.names} == {"head"}
    assert {name.partition("/")[0] for name in rest.names} == {"tower"}


@pytest.mark.parametrize("value", ["no", 0, 1.0, []])
def test_a_flag_that_is_no_bool_is_refused(value) -> None:
    with pytest.raises(js.BadTypeError, match="trainable must be True, False or None") as caught:
        js.variable_scope("a", trainable=value)
    assert "test_frozen_scopes.py" in str(caught.value)
    assert "Fix: give False to freeze the scope" in str(caught.value)


def test_it_is_given_by_keyword_so_that_tf1_calls_keep_their_order() -> None:
    with pytest.raises(TypeError):
        js.variable_scope("a", None, None, None, None, None, None, None, None, None, None, None, True, False)
