"""The arguments of a program, taken apart and put together again."""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import itertools
import queue
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope._arguments import Arguments


def kind(*args, **kwargs):
    return Arguments(args, kwargs).kind()


def test_taken_apart_and_put_together():
    arguments = Arguments((jnp.ones(2), "a", {"z": 1, "b": np.zeros(3)}), {"flag": True})
    assert [array.shape for array in arguments.arrays] == [(2,), (3,)]
    args, kwargs = arguments.filled()
    assert list(args[2]) == ["b", "z"]  # JAX's order
    assert kwargs == {"flag": True}
    (first, name, rest), _ = arguments.filled(["first", "second"])
    assert (first, name, rest) == ("first", "a", {"b": "second", "z": 1})


def test_arrays_count_by_shape_dtype_and_weakness():
    x = jnp.ones((2, 3))
    assert kind(x) == kind(x + 1) == kind(jax.ShapeDtypeStruct((2, 3), jnp.float32))
    assert kind(x) != kind(x[0])
    assert kind(x) != kind(x.astype(jnp.int32))
    assert kind(x) != kind(x, x)
    assert kind(x) != kind(a=x)
    assert kind(jnp.asarray(1.0)) != kind(jnp.float32(1))


class Metres(float):
    pass


DIFFERENT = [
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    ("a", b"a"),
    (None, 0),
    (0, False),
    (1.0, np.float64(1)),
    (1.0, Metres(1)),
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Config:
    x: jax.Array
    static: object = dataclasses.field(metadata={"static": True})


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_a_program_can_tell_apart_is_of_another_kind(one, other):
    assert kind(one) != kind(other)
    assert kind([one]) != kind((one,))
    assert kind(one) == kind(one)
    x = jnp.ones(())
    assert kind(Config(x, one)) == kind(Config(x, one)) != kind(Config(x, other))


def test_nan_is_found_again():
    assert kind(float("nan")) == kind(float("nan"))


def test_what_may_change_is_of_no_kind():
    assert kind(object()) is None
    assert kind(lambda x: x) is None
    assert kind(Metres(1)) is None
    assert kind(jnp.tanh) == kind(jnp.tanh) != kind(jnp.sin)


def test_what_is_used_up_is_noticed():
    for giving in (iter([1]), (row for row in "ab"), np.random.default_rng(0), random.Random(0), queue.SimpleQueue()):
        told = f"the {type(giving).__name__} among its arguments"
        assert Arguments((1, giving), {}).used_up(None) == told
        assert Arguments((), {"rows": giving}).used_up(None) == told
        for asks in (lambda giving=giving: lambda: giving, lambda giving=giving: functools.partial(max, giving)):
            assert Arguments((functools.partial(asks()),), {}).used_up(None) == told
            assert Arguments((), {}).used_up(asks()) == f"the {type(giving).__name__} that it holds"
    rows, rng = iter([1]), np.random.default_rng(0)
    assert Arguments((rows.__next__,), {}).used_up(None) == "the list_iterator among its arguments"
    assert Arguments((rng.normal,), {}).used_up(None) == "the Generator among its arguments"
    assert Arguments((), {}).used_up(lambda rows=rows: rows) == "the list_iterator that it holds"
    assert Arguments((), {}).used_up(asks_a_global) == "the list_iterator that it holds"
    rest = [1], "ab", range(3), np.ones(2), jnp.ones(2), len, "ab".join, lambda: kind, lambda: next(NUMBERS)
    assert Arguments(rest, {}).used_up(rest[-1]) == ""


ROWS, NUMBERS = iter([1]), itertools.count()


def asks_a_global():
    return next(ROWS)


def test_a_run_that_finds_something_out_takes_nothing_out_of_what_the_user_has():
    for holds in (collections.deque([1, 2]), {1, 2}, bytearray(b"ab")):
        before = copy.copy(holds)
        args, _ = Arguments((holds, [holds]), {}).spare().filled()
        args[0].clear()
        args[1][0].pop()
        assert holds == before
        assert Arguments((holds,), {}).filled()[0][0] is holds


def test_none_is_a_part_of_the_structure():
    assert kind(None) is not None
    assert kind(None) != kind()


def test_the_kind_tells_jax_s_settings_apart():
    with jax.enable_x64(True):
        wide = kind(1)
    with jax.disable_jit():
        by_line = kind(1)
    assert len({kind(1), wide, by_line}) == 3


def test_static_parts_of_arguments_count_where_they_last():
    """What stands in the structure of arguments is kept with it."""
    pair = collections.namedtuple("pair", ["a", "b"])
    assert kind({"a": 1}, pair(1, 2)) is None  # a class that was made here
    assert kind(collections.OrderedDict(a=1), {"b": 2}, [None, (3,)]) is not None
    partial = jax.tree_util.Partial
    assert kind(partial(jnp.tanh, 1)) is not None
    assert kind(partial(jnp.tanh, 1)) != kind(partial(jnp.cos, 1))
    assert kind(partial(lambda x: x)) is None
    assert kind({"in": [partial(lambda x: x)]}) is None


NOT_OF_JAX = {
    "bytes": np.array([b"a", b"b"]),
    "text": np.array(["a", "b"]),
    "new strings": np.array(["a", "b"], np.dtypes.StringDType()),
    "objects": np.array([{"a": 1}, None], object),
    "dates": np.array(["2020-01-01", "2021-01-01"], "M8[D]"),
    "times": np.array([1, 2], "m8[s]"),
    "records": np.array([(1, 2.0), (3, 4.0)], [("n", "i4"), ("x", "f4")]),
    "raw": np.zeros(2, "V8"),
    "masked text": np.ma.masked_array(["a", "b"], [True, False]),
}


@pytest.mark.parametrize("ids", NOT_OF_JAX.values(), ids=NOT_OF_JAX)
def test_what_jax_has_no_dtype_for_reaches_the_program_as_it_is(ids: np.ndarray) -> None:
    """As in `apply`, and beside arrays that become abstract."""
    seen = []

    def program(batch):
        assert isinstance(batch["image"], jax.Array)
        seen.append(batch["id"])
        scale = js.get_variable("scale", [len(batch["id"])], initializer=js.ones_initializer())
        bias = js.get_variable("bias", initializer=2 * batch["image"][0])  # computed by the program, in a second run
        js.assign(bias, bias + 1)
        return jnp.sum(batch["image"] * scale)

    batch = {"image": jnp.ones(2), "id": ids}
    net, key = js.transform(program), jax.random.key(0)
    assert set(net.specs(batch)) == {"scale", "bias"}
    params = net.init(key, batch)
    assert params["bias"] == 2
    out, params = net.update(params, batch)
    assert (out, params["bias"]) == (2, 3)
    assert seen
    assert all(each is ids for each in seen)

    reading = js.transform(lambda batch: js.get_variable("w", [len(batch["id"])]))
    lifting = js.transform(lambda batch: js.lift(reading, batch)["w"] * batch["image"])
    assert lifting.apply(lifting.init(key, batch), batch).shape == (2,)
    assert kind(batch) is None  # such an array may change, and nobody compares it


@pytest.mark.parametrize(
    "array",
    [np.ones(2, "f2"), np.ones(2, jnp.bfloat16), np.ones(2, bool), jax.random.split(jax.random.key(0))],
    ids=lambda array: str(array.dtype),
)
def test_what_jax_has_a_dtype_for_becomes_abstract(array) -> None:
    seen = []
    net = js.transform(lambda x: seen.append(x))
    net.specs(array)
    net.specs(jax.ShapeDtypeStruct(array.shape, array.dtype))
    assert all(isinstance(x, jax.core.Tracer) for x in seen)
    assert len(seen) == 2
