"""The store and the scope stack without anything ambient: explicit objects, called directly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope._listings import losses
from jscope._params import Params
from jscope._scope_stack import AUTO_REUSE, ScopeStack
from jscope._sources import Abstract, Drawn, Given
from jscope._store import Store

KEY = jax.random.key(0)


class Request:
    """What `variable_scope` is to the stack."""

    def __init__(self, name=None, default=None, reuse=None, aux=True, **overrides):
        self._name_or_scope, self._default_name, self._reuse = name, default, reuse
        self._auxiliary_name_scope, self._overrides = aux, overrides
        self._run = None


def test_a_stack_enters_and_leaves():
    stack = ScopeStack()
    root = stack.handle
    outer, inner = Request("a", reuse=AUTO_REUSE), Request(None, "d")
    first = stack.enter(outer)
    stack.enter(inner)
    assert (stack.state.name, stack.state.reuse, stack.op_scope) == ("a/d", AUTO_REUSE, "a/d")
    stack.leave(inner)
    assert stack.handle is first
    stack.change(first, reuse=True)
    assert stack.state.reuse is True
    stack.leave(outer)
    assert (stack.handle, stack.op_scope) == (root, "")
    assert stack.state_of(first).reuse is True
    assert first._made_with.reuse is AUTO_REUSE  # the object itself is as it was


def test_sources():
    def declare(store):
        return store.get_variable("v", [2])

    abstract = jax.eval_shape(lambda: declare(Store(Abstract(KEY))))
    assert (abstract.shape, abstract.dtype) == ((2,), jnp.float32)
    drawn = declare(Store(Drawn(KEY)))
    given = declare(Store(Given(Params({"v": drawn}))))
    assert given is drawn
    with pytest.raises(js.ParamsMismatchError):
        declare(Store(Given(Params({}))))


@pytest.mark.parametrize("expected", [False, True])
def test_placeholders_are_made_many_at_once(expected):
    types = {f"v{i}": jax.ShapeDtypeStruct((2 + i % 3,), jnp.float32) for i in range(300)}
    values = []

    def declare():
        store = Store(Abstract(KEY, types if expected else None))
        values.extend(store.get_variable(name, type_.shape) for name, type_ in types.items())
        assert [value.shape for value in values] == [type_.shape for type_ in types.values()]
        assert len(set(map(id, values))) == len(types)
        values.clear()

    assert len(jax.make_jaxpr(declare)().jaxpr.eqns) <= (6 if expected else 60)


def test_a_store_knows_levels():
    store = Store(Drawn(KEY))
    store.level = 2
    inner = store.get_variable("v", [2])
    store.scopes.change(store.scopes.handle, reuse=True)
    assert store.get_variable("v") is inner
    store.level = 1
    other = store.get_variable("v")
    assert other is not inner  # that array belongs to another trace
    assert (other == inner).all()
    store.level = 2
    assert store.get_variable("v") is inner
    store.level = 0
    outside = store.get_variable("v")
    store.level = 1
    assert store.get_variable("v") is outside  # good in every trace


def test_a_regularizer_that_is_refused_is_not_kept():
    store = Store(Drawn(KEY))
    with pytest.raises(js.BadTypeError):
        store.get_variable("v", [2], regularizer=3)
    assert [spec.regularizer for spec in store.specs()] == [None]
    assert losses(store) == []


def test_a_constant_has_a_partition_too():
    seen = []

    def partitioner(shape, dtype):
        seen.append((shape, dtype))
        return jax.sharding.PartitionSpec("data")

    store = Store(Drawn(KEY))
    store.get_variable("a", initializer=np.ones((4, 2), np.float32), partitioner=partitioner)
    store.get_variable("b", initializer=lambda: [1, 2], partitioner=partitioner)
    assert seen == [((4, 2), jnp.float32), ((2,), jnp.int32)]
    assert [spec.partition for spec in store.specs()] == 2 * [jax.sharding.PartitionSpec("data")]


def test_a_set_of_collections_has_one_order():
    store = Store(Drawn(KEY))
    names = {f"c{i}" for i in range(20)}
    store.get_variable("v", [], collections=names, trainable=False)
    assert store.specs()[0].collections == tuple(sorted(names))


def test_stores_share_nothing():
    one, two = Store(Drawn(KEY)), Store(Drawn(KEY))
    one.get_variable("v", [2])
    assert [spec.name for spec in one.specs()] == ["v"]
    assert two.specs() == []
