"""A run and its scopes without anything ambient: explicit objects, called directly."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope._params import Params
from jscope.run.listings import losses
from jscope.run.scopes import AUTO_REUSE, Scopes
from jscope.run.values_from import Abstract, Drawn, Given
from jscope.run.variables import Run

KEY = jax.random.key(0)


HERE = sys._getframe()


def get(run, name, *args, **kwargs):
    return run.get_variable(HERE, name, *args, **kwargs)


class Request:
    """What `variable_scope` is to the scopes of a run."""

    def __init__(self, name=None, default=None, reuse=None, aux=True, **overrides):
        self._name_or_scope, self._default_name, self._reuse = name, default, reuse
        self._auxiliary_name_scope, self._overrides = aux, overrides


def test_scopes_are_entered_and_left():
    stack = Scopes()
    root = stack.handle
    outer, inner = Request("a", reuse=AUTO_REUSE), Request(None, "d")
    first = stack.enter(outer, None, None)
    stack.enter(inner, None, None)
    assert (stack.state.name, stack.state.reuse, stack.op_scope) == ("a/d", AUTO_REUSE, "a/d")
    stack.leave(inner)
    assert stack.handle is first
    stack.change(first, None, reuse=True)
    assert stack.state.reuse is True
    stack.leave(outer)
    assert (stack.handle, stack.op_scope) == (root, "")
    assert stack.state_of(first, None).reuse is True
    assert first._made_with.reuse is AUTO_REUSE  # the object itself is as it was


def test_sources():
    def declare(run):
        return get(run, "v", [2])

    abstract = jax.eval_shape(lambda: declare(Run(Abstract(KEY))))
    assert (abstract.shape, abstract.dtype) == ((2,), jnp.float32)
    drawn = declare(Run(Drawn(KEY)))
    given = declare(Run(Given(Params({"v": drawn}))))
    assert given is drawn
    with pytest.raises(js.ParamsMismatchError):
        declare(Run(Given(Params({}))))


def test_placeholders_are_made_many_at_once():
    types = {f"v{i}": jax.ShapeDtypeStruct((2 + i % 3,), jnp.float32) for i in range(300)}
    values = []

    def declare():
        run = Run(Abstract(KEY))
        values.extend(get(run, name, type_.shape) for name, type_ in types.items())
        assert [value.shape for value in values] == [type_.shape for type_ in types.values()]
        assert len(set(map(id, values))) == len(types)
        values.clear()

    assert len(jax.make_jaxpr(declare)().jaxpr.eqns) <= 60


def test_a_run_knows_levels():
    run = Run(Drawn(KEY))
    run.level = 2
    inner = get(run, "v", [2])
    run.scopes.change(run.scopes.handle, None, reuse=True)
    assert get(run, "v") is inner
    run.level = 1
    other = get(run, "v")
    assert other is not inner  # that array belongs to another trace
    assert (other == inner).all()
    run.level = 2
    assert get(run, "v") is inner
    run.level = 0
    outside = get(run, "v")
    run.level = 1
    assert get(run, "v") is outside  # good in every trace


def test_a_regularizer_that_is_refused_is_not_kept():
    run = Run(Drawn(KEY))
    with pytest.raises(js.BadTypeError):
        get(run, "v", [2], regularizer=3)
    assert [spec.regularizer for spec in run.specs()] == [None]
    assert losses(run) == []


def test_a_constant_has_a_partition_too():
    seen = []

    def partitioner(shape, dtype):
        seen.append((shape, dtype))
        return jax.sharding.PartitionSpec("data")

    run = Run(Drawn(KEY))
    get(run, "a", initializer=np.ones((4, 2), np.float32), partitioner=partitioner)
    get(run, "b", initializer=lambda: [1, 2], partitioner=partitioner)
    assert seen == [((4, 2), jnp.float32), ((2,), jnp.int32)]
    assert [spec.partition for spec in run.specs()] == 2 * [jax.sharding.PartitionSpec("data")]


def test_a_set_of_collections_has_one_order():
    run = Run(Drawn(KEY))
    names = {f"c{i}" for i in range(20)}
    get(run, "v", [], collections=names, trainable=False)
    assert run.specs()[0].collections == tuple(sorted(names))


def test_runs_share_nothing():
    one, two = Run(Drawn(KEY)), Run(Drawn(KEY))
    get(one, "v", [2])
    assert [spec.name for spec in one.specs()] == ["v"]
    assert two.specs() == []
