"""Scripts: a run that follows the last one gives what a first run would, whatever the calls are."""

from __future__ import annotations

import contextlib
import gc
import inspect
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_programs import ZEROS, BoomError, Runs, X, inner, inserted, names_shown, programs, shared, tree_for, written

import jscope as js
from jscope._ambient import Frame, Hint
from jscope._script import NEVER, Script
from jscope._sources import Given
from jscope._store import Store

few = settings(max_examples=25, deadline=None)


def scripts(net):
    return list(net._scripts.values())


def follows(net):
    """Whether the next run follows the last one."""
    return [type(script) for script in scripts(net)] == [Script]


def traced(net, params, x=X, **kwargs):
    return jax.make_jaxpr(lambda params, x: net.apply(params, x, **kwargs))(params, x)


# Random programs ----------------------------------------------------------------------------------------------------


@few
@given(st.lists(written, max_size=4).map(shared), programs, st.integers(0, 12), st.booleans())
def test_runs_that_leave_the_script(ops, new, place, stops):
    """Anything is called in the middle of what a script has; after it comes the rest of that, or nothing."""
    other = inserted(ops, [*new, ("stop",)] if stops else new, place)[0]
    runs, tree = Runs(), tree_for(ops, other)
    first = runs.run(ops, tree)
    assert follows(runs.net)
    assert runs.run(ops, tree) == first
    assert follows(runs.net)
    assert runs.run(other, tree, listing=True) == Runs().run(other, tree, listing=True)
    assert runs.run(ops, tree) == first


@few
@given(programs, programs, st.booleans())
def test_runs_of_any_programs(ops, other, listing):
    runs, tree = Runs(), tree_for(ops, other)
    first = runs.run(ops, tree)
    assert runs.run(ops, tree) == first
    assert runs.run(other, tree, listing) == Runs().run(other, tree, listing)
    assert runs.run(ops, tree) == first


# What is followed, and what is not ----------------------------------------------------------------------------------


def mlp(x):
    with js.variable_scope("layer"):
        w = js.get_variable("w", [2, 2], initializer=js.ones_initializer())
        x = x @ w
    with js.variable_scope(None, "layer"):
        return x + js.get_variable("b", [2], initializer=js.zeros_initializer())


TREE = js.Params({"layer": {"w": jnp.ones((2, 2))}, "layer_1": {"b": jnp.ones(2)}})


def test_a_program_is_followed_from_its_second_run_on():
    net = js.transform(mlp)
    assert not scripts(net)
    first = net.apply(TREE, X)
    assert follows(net)
    (script,) = scripts(net)
    np.testing.assert_array_equal(net.apply(TREE, X), first)
    assert scripts(net) == [script]


def test_scripts_are_by_arguments_and_names():
    def program(x, wide):
        return mlp(x) + js.get_variable("more", [2]) if wide else mlp(x)

    net = js.transform(program)
    more = TREE | js.Params({"more": jnp.ones(2)})
    for _ in range(2):
        for tree in (TREE, more):
            net.apply(tree, X, wide=False)
        net.apply(more, X, wide=True)
        net.apply(more, jnp.ones((3, 2)), wide=True)
    assert [type(script) for script in scripts(net)] == [Script] * 4


def test_a_program_that_changed_once_is_not_followed_again():
    more = []
    net = js.transform(lambda x: [mlp(x), *[js.get_variable(name, [2]) for name in more]][0])
    tree = TREE | js.Params({"more": jnp.ones(2)})
    net.apply(tree, X)
    assert follows(net)
    more.append("more")
    net.apply(tree, X)
    assert scripts(net) == [NEVER]


def test_a_program_that_raises_is_followed_all_the_same():
    broken = []

    def program(x):
        with js.variable_scope("out"):
            x = mlp(x)
            if broken:
                raise BoomError
            return x

    net = js.transform(program)
    tree = js.Params({f"out/{name}": leaf for name, leaf in TREE.flat().items()})
    broken.append(1)
    with pytest.raises(BoomError):
        net.apply(tree, X)
    assert not scripts(net)
    broken.clear()
    net.apply(tree, X)
    broken.append(1)
    with pytest.raises(BoomError):
        net.apply(tree, X)
    assert follows(net)


def test_assigning_is_in_no_script():
    def program():
        count = js.get_variable("count", [], initializer=js.zeros_initializer())
        js.assign(count, count + 1)

    net = js.transform(program)
    tree = js.Params({"count": jnp.float32(0)})
    for _ in range(3):
        _, tree = net.update(tree)
    assert float(tree["count"]) == 3
    assert scripts(net) == [NEVER]


def test_keys_do_not_end_a_reading():
    def program():
        keys = [js.next_key()]
        with js.variable_scope("a"):
            keys += [js.next_key(), js.next_key()]
        return [*keys, js.next_key()]

    net = js.transform(program)
    first, again = (net.apply({}, rng=jax.random.key(0)) for _ in range(2))
    assert follows(net)
    assert [int(jax.random.bits(key)) for key in first] == [int(jax.random.bits(key)) for key in again]
    assert len({int(jax.random.bits(key)) for key in again}) == 4


def test_blocks_that_live_longer():
    block = jax.checkpoint(mlp)

    def program(x):
        for i in range(2):
            with js.variable_scope(f"block_{i}"):
                x = block(x)
        return x

    net = js.transform(program)
    tree = js.Params({f"block_{i}/{name}": leaf * (i + 1) for i in range(2) for name, leaf in TREE.flat().items()})
    wanted = ((X @ TREE["layer/w"] + 1) @ TREE["layer/w"]) * 2 + 2
    for _ in range(3):
        np.testing.assert_allclose(jax.jit(net.apply)(tree, X), wanted)
        jax.clear_caches()
    assert follows(net)


def test_lifted_programs_are_found_in_the_tree():
    net = js.transform(lambda x: js.lift(inner))
    tree = js.Params({"a": jnp.ones(2), "w": jnp.ones((2, 2)), "z": jnp.ones(1)})
    for _ in range(2):
        lifted = net.apply(tree, X)
        assert lifted["a"] is tree["a"]
        assert lifted["w"] is tree["w"]
    assert follows(net)


def test_arguments_that_may_change_are_in_no_script():
    class Model:
        width = 2

    net = js.transform(lambda model: js.get_variable("w", [model.width]))
    model = Model()
    net.apply({"w": X}, model)
    assert not scripts(net)
    model.width = 3
    with pytest.raises(js.ParamsMismatchError):
        net.apply({"w": X}, model)


@pytest.mark.parametrize("leaf", [jnp.ones(3), jnp.ones(2, jnp.int32), jax.ShapeDtypeStruct((2,), jnp.float32)])
def test_a_tree_that_does_not_fit(leaf):
    net = js.transform(mlp)
    net.apply(TREE, X)
    with pytest.raises(js.ParamsMismatchError, match="'layer_1/b'"):
        net.apply(TREE.replace({"layer_1/b": leaf}), X)
    with pytest.raises(js.ParamsMismatchError, match="'layer_1/b' is missing"):
        net.apply(TREE.select("layer/")[0], X)


def test_arrays_of_numpy_stay_jax_arrays():
    net = js.transform(lambda: js.get_variable("a", [2]))
    for tree in ({"a": X}, {"a": np.ones(2, np.float32)}, {"a": X}):
        assert isinstance(net.apply(tree), jax.Array)
    assert follows(net)


@pytest.mark.parametrize("dimension", [2.0, "2", None])
def test_shapes_are_read_as_strictly_as_ever(dimension):
    dimensions = [2]
    net = js.transform(lambda: js.get_variable("a", dimensions))
    net.apply({"a": X})
    dimensions[0] = dimension
    results = []
    for program in (net, js.transform(lambda: js.get_variable("a", dimensions))):
        try:
            results.append(program.apply({"a": X}))
        except js.JscopeError as error:
            results.append(type(error))
    assert results[0] is results[1] or np.array_equal(*results)


def getter(getter, name, *args, **kwargs):
    return getter(name, *args, **kwargs) * 2


GETS = [
    {},
    {"shape": (2,)},
    {"shape": [3]},
    {"shape": None},
    {"dtype": jnp.float32},
    {"dtype": jnp.int32},
    {"trainable": False},
    {"collections": ["variables"]},
    {"collections": ["variables", "mine"]},
    {"collections": "variables"},
    {"initializer": ZEROS},
    {"initializer": js.ones_initializer},
    {"initializer": X, "shape": None},
    {"initializer": X},
    {"regularizer": jnp.sum},
    {"regularizer": 1},
    {"constraint": jnp.abs},
    {"constraint": 1},
    {"partitioner": 1},
    {"custom_getter": getter},
    {"custom_getter": 1},
]


@pytest.mark.parametrize("first", GETS, ids=range(len(GETS)))
def test_each_argument_counts(first):
    """One call changes in one argument after the first run: as without a first run."""

    def outcome(net):
        try:
            return [np.asarray(value).tolist() for value in net.apply({"a": X, "b": X})]
        except js.JscopeError as error:
            return str(error)

    def asking():
        value = js.get_variable("a", **{"shape": [2], **asked})
        again = js.get_variable("b", [2])
        if not listing:
            return value, again
        kinds = ("trainable_variables", "mine", "regularization_losses")
        return value, again, jnp.array([len(js.get_collection(kind)) for kind in kinds])

    for asked in GETS:
        for listing in (False, True):
            net, then = js.transform(asking), (asked, listing)
            asked, listing = first, False
            outcome(net)
            asked, listing = then
            assert outcome(net) == outcome(js.transform(asking)), asked


SHAPES = [None, [2], (2,), [3], [2.0], [True, 2], [None], 2, "ab", np.array([2]), [[2]], [np.int64(2)], []]


@pytest.mark.parametrize("first", SHAPES, ids=repr)
def test_each_shape_of_a_shared_variable_counts(first):
    """A variable that is there already is asked for by another shape after the first run."""

    def sharing():
        with js.variable_scope("", reuse=js.AUTO_REUSE):
            js.get_variable("a", [2])
            return js.get_variable("a", shape)

    def outcome(net):
        try:
            return net.apply({"a": X}).tolist()
        except (js.JscopeError, TypeError) as error:
            return str(error)

    for then in SHAPES:
        net, shape = js.transform(sharing), first
        outcome(net)
        shape = then
        assert outcome(net) == outcome(js.transform(sharing)), then


def test_lists_that_the_program_goes_on_to_change():
    """A shape and collections are what they were at the call, also for calls that are made again."""
    ends = []

    def program():
        shape, collections = [2], ["variables"]
        a = js.get_variable("a", shape, collections=collections)
        shape[0] = 3
        collections.append("mine")
        b = js.get_variable("b", shape, collections=collections)
        return a, b, [v.name for v in js.get_collection("mine")] if ends else None

    net = js.transform(program)
    tree = {"a": jnp.zeros(2), "b": jnp.zeros(3)}
    net.apply(tree)
    assert follows(net)
    ends.append(1)
    assert net.apply(tree)[2] == ["b"]


def test_scope_objects_are_each_runs_own():
    """What a program does to a scope object of an earlier run does not reach those of this run."""
    scopes = []

    def program():
        with js.variable_scope("a") as scope:
            scopes.append(scope)
            return js.get_variable("v", [2])

    net = js.transform(program)
    tree = js.Params({"a/v": X})
    net.apply(tree)
    net.apply(tree)
    assert follows(net)
    assert scopes[0] is not scopes[1]
    with js.build(jax.random.key(0)):
        scopes[0].reuse_variables()
        assert scopes[0].reuse is True
        assert scopes[1].reuse is False


def test_scopes_left_out_of_order_in_a_later_run():
    def program():
        outer, inner = js.variable_scope("outer"), js.variable_scope("inner")
        outer.__enter__(), inner.__enter__()
        first, second = (outer, inner) if swaps else (inner, outer)
        first.__exit__(None, None, None), second.__exit__(None, None, None)

    net, swaps = js.transform(program), False
    net.apply({})
    assert follows(net)
    swaps = True
    with pytest.raises(js.ScopeExitError, match="Improper nesting: scope 'outer' is left while 'outer/inner'"):
        net.apply({})


def test_scopes_that_are_never_left():
    """They are closed in JAX's names, also after a run that follows a script."""
    net = js.transform(lambda x: (js.variable_scope("open").__enter__(), jnp.sin(x))[1])
    for _ in range(3):
        closed = jax.make_jaxpr(lambda x: jnp.cos(net.apply({}, x)))(X)
        assert names_shown(closed) == ["open", ""]


def test_another_program_is_lifted_in_a_later_run():
    first = js.transform(lambda: js.get_variable("a", [2]))
    second = js.transform(lambda: js.get_variable("b", [2]))
    tree = {"a": X, "b": 2 * X}
    net = js.transform(lambda: [*js.lift(lifted).flat().values()][0])  # noqa: RUF015
    for lifted in (first, first, second, first):
        assert net.apply(tree) is tree["a" if lifted is first else "b"]


def test_dtypes_that_jax_narrows_are_warned_of_each_time():
    net = js.transform(lambda: js.get_variable("a", [2], jnp.float64))
    for _ in range(3):
        with pytest.warns(UserWarning, match="float64"):
            net.apply({"a": X})


def test_a_generator_that_keeps_a_scope_open():
    def suspended():
        with js.variable_scope("open"):
            yield js.get_variable("v", [2])

    kept = []

    def program(x):
        kept.append(suspended())
        return x + next(kept[-1])

    net = js.transform(program)
    tree = js.Params({"open/v": X})
    shown = [names_shown(traced(net, tree)) for _ in range(3)]
    assert shown[0] == shown[1] == shown[2]
    assert names_shown(jax.make_jaxpr(jnp.sin)(X)) == [""]
    kept.clear()


def test_an_instance_that_is_entered_again():
    """Told from two that are alike: it stays the scope that it was the first time."""
    one = []

    def program():
        return [get(one[0] if one else js.variable_scope(None, "layer")) for _ in range(2)]

    def get(scope):
        with scope, js.variable_scope("", reuse=js.AUTO_REUSE):
            return js.get_variable("v", [])

    net = js.transform(program)
    tree = js.Params({"layer//v": jnp.float32(0), "layer_1//v": jnp.float32(1)})
    for _ in range(2):
        assert net.apply(tree) == [0, 1]
    assert follows(net)
    one.append(js.variable_scope(None, "layer"))
    assert net.apply(tree) == [0, 0] == js.transform(program).apply(tree)


@pytest.mark.parametrize("runs", [1, 2, 3])
@pytest.mark.parametrize("first", [True, False])
def test_two_instances_in_the_place_of_one(first, runs):
    """One that was entered twice is not what two that are alike would be, nor the other way round."""
    same = first

    def program():
        one = js.variable_scope(None, "d")
        with one:
            a = js.get_variable("w", [])
        with one if same else js.variable_scope(None, "d"):
            return a, js.get_variable("u", [])

    net = js.transform(program)
    tree = js.Params({"d/w": jnp.float32(1), "d/u": jnp.float32(2), "d_1/u": jnp.float32(3)})
    for _ in range(runs):
        assert net.apply(tree) == js.transform(program).apply(tree) == (1, 2 if first else 3)
        assert list(net.specs()) == ["d/w", "d/u" if first else "d_1/u"]
    same = not first
    assert net.apply(tree) == (1, 3 if first else 2)
    assert list(net.specs()) == ["d/w", "d_1/u" if first else "d/u"]


def test_an_instance_that_is_kept_between_runs():
    """It is new to each of them, as to the first."""
    kept = js.variable_scope(None, "layer")

    def program():
        with js.variable_scope("outer"), kept, js.variable_scope("", reuse=js.AUTO_REUSE):
            first = js.get_variable("v", [])
        with js.variable_scope(None, "layer"):
            return first, js.get_variable("v", [])

    net = js.transform(program)
    tree = js.Params({"outer/layer//v": jnp.float32(0), "layer/v": jnp.float32(1)})
    for _ in range(4):
        assert set(net.specs()) == set(tree.names)
        assert net.apply(tree) == (0, 1)


def test_lines_are_those_of_the_run():
    """Which line a call comes from is in no script."""

    def program(above, lists):
        if above():
            js.get_variable("a", [2])
            js.lift(inner)
        else:
            js.get_variable("a", [2])
            js.lift(inner)
        return [spec.created_at for spec in js.global_variables()] if lists() else None

    inner = js.transform(lambda: js.get_variable("w", [2]))
    above, lists = True, False
    net = js.transform(lambda: program(lambda: above, lambda: lists))
    tree, first_line = {"a": X, "w": X}, inspect.getsourcelines(program)[1]
    net.apply(tree)
    assert follows(net)
    above, lists = False, True
    lines = [int(place.rpartition(":")[2]) - first_line for place in net.apply(tree)]
    assert lines == [5, 6]


def test_an_instance_is_what_it_was_made_as():
    """Scripts compare what was asked for in short, so nothing about it may be changed afterwards."""
    scope = js.variable_scope("a")
    for name in ("reuse", "name_or_scope", "default_name", "auxiliary_name_scope"):
        with pytest.raises(AttributeError):
            setattr(scope, name, True)


def test_an_instance_whose_entry_fails_keeps_nothing():
    class Kept:
        pass

    scope = js.variable_scope("a")

    def enter():
        kept = Kept()
        with contextlib.suppress(js.OutsideProgramError):
            scope.__enter__()
        return weakref.ref(kept)

    alive = enter()
    gc.collect()
    assert alive() is None


def test_generators_of_an_earlier_run_end_no_reading():
    """Python closes what nobody holds any more at any moment, also in the middle of another run."""

    def suspended():
        with js.variable_scope("open"), js.name_scope("shown"):
            yield

    def abandons():
        cycle = [suspended()]
        next(cycle[0])
        cycle.append(cycle)

    def program():
        gc.collect()
        return js.get_variable("a", [2])

    net, tree = js.transform(program), {"a": X}
    net.apply(tree)
    gc.collect()
    gc.disable()
    try:
        js.transform(abandons).apply({})
        net.apply(tree)
    finally:
        gc.enable()
    assert follows(net)


def test_arguments_that_hold_functions_are_in_no_script():
    """What a `Partial` holds is part of the structure of arguments, and may be a tracer."""
    net = js.transform(lambda function: function(js.get_variable("a", [2])).sum())

    def run(x):
        return net.apply({"a": X}, jax.tree_util.Partial(lambda y: y * x))

    with jax.checking_leaks():
        assert float(jax.jit(run)(2.0)) == 4
        assert float(jax.grad(run)(2.0)) == 2
    assert not scripts(net)


def test_classes_made_by_the_program_are_in_no_script():
    def program(x):
        scale = x.sum()
        made = type("Scaled", (), {"__call__": lambda self, key, shape, dtype: jnp.full(shape, scale, dtype)})
        return x * js.get_variable("a", [2], initializer=made())

    net = js.transform(program)
    with jax.checking_leaks():
        for _ in range(3):
            jax.make_jaxpr(net.apply)({"a": X}, X)
    assert scripts(net) == [NEVER]


def test_flags_that_may_change_are_in_no_script():
    flags = [1]
    net = js.transform(lambda: (js.get_variable("a", [2], trainable=flags), len(js.trainable_variables()))[1])
    plain = js.transform(lambda: js.get_variable("a", [2], trainable=flags))
    plain.apply({"a": X})
    assert scripts(plain) == [NEVER]
    assert net.apply({"a": X}) == 1
    flags.clear()
    assert net.apply({"a": X}) == 0


def test_ever_new_arguments_are_recorded_so_many_times_only():
    """Recording takes longer than the rules alone, and pays where a run comes again."""
    net = js.transform(lambda number: js.get_variable("a", [2]))
    for number in range(200):
        net.apply({"a": X}, number)
    kept = dict(net._scripts)
    assert len(kept) < 100
    net.apply({"a": X}, 0)
    assert net._scripts == kept


def test_a_frame_is_closed_although_its_end_raises():
    class Boom:
        def settle(self):
            raise BoomError

    net = js.transform(lambda: js.get_variable("a", [2]))
    frame = Frame(Store(Given(js.Params({"a": X}))), Hint(), compile("", "", "exec"))
    with pytest.raises(BoomError), frame:
        frame.front = Boom()
    with pytest.raises(js.OutsideProgramError, match="outside any program"):
        js.get_variable("a", [2])
    assert net.apply({"a": X}) is X


def test_nothing_of_a_run_is_kept():
    alive = []

    def program(x):
        scale = x.sum()

        def regularizer(w):
            return scale * jnp.sum(w)

        def initializer(key, shape, dtype):
            return jnp.zeros(shape, dtype) * scale

        alive.append(weakref.ref(regularizer))
        alive.append(weakref.ref(initializer))
        return x * js.get_variable("a", [2], initializer=initializer, regularizer=regularizer)

    net = js.transform(program)
    with jax.checking_leaks():
        for _ in range(3):
            traced(net, js.Params({"a": X}))
    assert follows(net)
    gc.collect()
    assert [ref() for ref in alive] == [None] * 6


def test_threads_follow_one_script():
    net = js.transform(mlp)
    net.apply(TREE, X)
    results = []

    def follow(scale):
        tree = jax.tree.map(lambda leaf: leaf * scale, TREE)
        results.extend(np.array_equal(net.apply(tree, X), [3 * scale] * 2) for _ in range(50))

    threads = [threading.Thread(target=follow, args=(scale,)) for scale in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 150
    assert follows(net)


def test_where_a_variable_was_made_is_known_after_a_reading():
    more = []

    def program():
        js.get_variable("a", [2])
        return [str(v.created_at) for v in js.global_variables()] if more else []

    net = js.transform(program)
    net.apply({"a": X})
    assert follows(net)
    more.append(1)
    (made_at,) = net.apply({"a": X})
    assert made_at.startswith(__file__)
    assert made_at == net.specs()["a"].created_at


@pytest.mark.parametrize("at", range(7))
def test_each_point_of_departure(at):
    """A scope is opened in the middle of a run, after so many calls."""

    def program(x, depart):
        seen = []
        calls = 0

        def call():
            nonlocal calls
            if calls == depart[0]:
                with js.name_scope("layer") as name:
                    seen.append(name)
            calls += 1

        call()
        with js.variable_scope("layer") as outer:
            call()
            with js.variable_scope(None, "layer") as scope:
                call()
                x = x * js.get_variable("a", [2])
                call()
            call()
        call()
        with js.variable_scope(None, "layer") as last:
            call()
            x = x * js.get_variable("a", [2])
        if depart[0] is not None:
            seen += [s.original_name_scope for s in (outer, scope, last)] + [v.name for v in js.global_variables()]
        return x, seen

    tree = js.Params({"layer/layer/a": X, "layer_1/a": X})

    def runs(departures):
        depart, found = [None], []
        net = js.transform(lambda x: program(x, depart))
        for depart[0] in departures:
            out = []

            def apply(params, x, out=out):
                result, seen = net.apply(params, x)
                out.append(seen)
                return result

            found.append((names_shown(jax.make_jaxpr(apply)(tree, X)), out))
        return found

    assert runs([None, None, at])[-1] == runs([at])[-1]
