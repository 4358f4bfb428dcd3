"""Random programs for the tests of scripts, which note what comes of each call."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import jscope as js

X = jnp.ones(2)
SHAPES = {"a": [2], "b": (2,), "w": [2, 2], "a/b": [2], "layer": [2]}
ZEROS = js.zeros_initializer()
inner = js.transform(lambda: (js.get_variable("a", [2]), js.get_variable("w", [2, 2])))


def names_shown(closed):
    return [str(equation.source_info.name_stack) for equation in closed.jaxpr.eqns]


names = st.sampled_from(["a", "b", "layer", "w"])
reuses = st.sampled_from([None, False, True, js.AUTO_REUSE])
calls = st.one_of(
    st.tuples(
        st.just("get"),
        st.sampled_from([*SHAPES, "a", "b"]),
        st.booleans(),  # as a tuple
        st.sampled_from([None, "new", "kept", "class", "number"]),
        st.sampled_from([None, None, np.float32, np.int32, "float32"]),
        st.sampled_from([None, True, False]),
        st.sampled_from([None, None, ["variables"], ("variables", "mine"), "variables", [1]]),
    ),
    st.tuples(st.just("found"), names),
    st.just(("key",)),
    st.just(("lift",)),
    st.sampled_from([("list",), ("name",), ("value",), ("counted",), ("reuse",), ("loss",)]),
)


def scoped(inside):
    return st.one_of(
        st.tuples(st.just("scope"), names, st.just(None), reuses, st.sampled_from([True, True, False]), inside),
        st.tuples(st.just("scope"), st.none(), names, st.none(), st.just(True), inside),
        st.tuples(st.just("kept scope"), st.sampled_from([0, 1]), inside),
        st.tuples(st.just("captured"), inside),
        st.tuples(st.just("op scope"), names, inside),
        st.tuples(st.just("dtype"), names, inside),
        st.tuples(st.just("checkpoint"), inside),
        st.tuples(st.just("raise"), inside),
    )


programs = st.lists(
    st.recursive(calls, lambda call: scoped(st.lists(call, max_size=3)), max_leaves=8), min_size=1, max_size=6
)


class BoomError(Exception):
    pass


class StopError(Exception):
    pass


class Player:
    """Makes the calls of a random program and notes what comes of each."""

    def __init__(self, leaves):
        self.leaves = leaves
        self.seen = []
        self.kept_scopes = [js.variable_scope("kept"), js.variable_scope(None, "layer")]
        self.captured = None

    def program(self, ops, x, listing):
        with contextlib.suppress(StopError):
            x = self.play(ops, x)
        if listing:
            found = [js.global_variables(), js.trainable_variables(), js.get_collection("mine")]
            self.seen.append([[(v.name, v.key, v.shape, v.trainable, v.created_at) for v in vs] for vs in found])
            with js.variable_scope(None, "layer") as scope:
                self.seen.append((scope.name, scope.original_name_scope))
        return jnp.sin(x)

    def do_stop(self, x):
        raise StopError

    def play(self, ops, x):
        for op, *details in ops:
            try:
                x = jnp.sin(getattr(self, "do_" + op.replace(" ", "_"))(x, *details))
            except (js.JscopeError, TypeError) as error:
                self.seen.append((type(error).__name__, str(error)))
        return x

    def note(self, values):
        known = {id(leaf): i for i, leaf in enumerate(self.leaves)}
        self.seen.append([known.get(id(value)) for value in values])

    def do_get(self, x, name, as_tuple, initializer, dtype, trainable, collections):
        shape = tuple(SHAPES[name]) if as_tuple else list(SHAPES[name])
        given = {"new": js.ones_initializer(), "kept": ZEROS, "class": js.ones_initializer, "number": 1.0}
        initializer = given.get(initializer)
        asked = {"trainable": trainable, "collections": collections}
        self.note([js.get_variable(name, shape, dtype, initializer, **asked)])
        return x

    def do_found(self, x, name):
        self.note([js.get_variable(name)])
        return x

    def do_key(self, x):
        self.seen.append(str(jax.random.key_data(js.next_key())))
        return x

    def do_lift(self, x):
        self.note(js.lift(inner).flat().values())
        return x

    def do_list(self, x):
        self.seen.append([v.name for v in js.trainable_variables()])
        return x

    def do_name(self, x):
        scope = js.get_variable_scope()
        self.seen.append((scope.name, scope.reuse))
        return x

    def do_value(self, x):
        self.note([js.value("a")])
        return x

    def do_counted(self, x):
        self.note([js.variable(1.0, name="a")])
        return x

    def do_reuse(self, x):
        js.get_variable_scope().reuse_variables()
        return x

    def do_loss(self, x):
        self.seen.append(len(js.get_regularization_losses()))
        return x

    def do_scope(self, x, name, default, reuse, auxiliary, inside):
        with js.variable_scope(name, default, reuse=reuse, auxiliary_name_scope=auxiliary) as scope:
            self.captured = scope
            return self.play(inside, x)

    def do_kept_scope(self, x, which, inside):
        with self.kept_scopes[which]:
            return self.play(inside, x)

    def do_captured(self, x, inside):
        if self.captured is None:
            return x
        with js.variable_scope(self.captured) as scope:
            self.seen.append(scope.name)
            return self.play(inside, x)

    def do_op_scope(self, x, name, inside):
        with js.name_scope(name):
            return self.play(inside, x)

    def do_dtype(self, x, name, inside):
        with js.variable_scope(name, dtype=jnp.int32):
            return self.play(inside, x)

    def do_checkpoint(self, x, inside):
        return jax.checkpoint(lambda x: self.play(inside, x))(x)

    def do_raise(self, x, inside):
        with contextlib.suppress(BoomError), js.variable_scope("layer"):
            x = self.play(inside, x)
            raise BoomError
        return x


class Runs:
    """A program whose calls can be exchanged, so that one run can differ from the last."""

    def __init__(self):
        self.net = js.transform(lambda x: self.player.program(self.ops, x, self.listing))

    def specs(self, ops):
        self.ops, self.player, self.listing = ops, Player([]), False
        return self.net.specs(X)

    def run(self, ops, tree, listing=False):
        """What is noted, and the names of the operations, of one run on `tree`."""
        self.ops, self.listing = ops, listing

        def apply(params, x):
            self.player = Player(list(params._leaves))
            return self.net.apply(params, x, rng=jax.random.key(0))

        closed = jax.make_jaxpr(apply)(tree, X)
        return self.player.seen, names_shown(closed)


def tree_for(*programs):
    leaves = {}
    for ops in programs:
        for name, spec in Runs().specs(ops).items():
            leaves.setdefault(name, jnp.zeros(spec.shape, spec.dtype))
    return js.Params(leaves)


def inserted(ops, new, place):
    """`ops` with `new` at the place-th place, counted through all that is nested in them; and the places left."""
    found = []
    for op in ops:
        if place == 0:
            found += new
        place -= 1
        if isinstance(op[-1], list):
            inside, place = inserted(op[-1], new, place)
            op = (*op[:-1], inside)
        found.append(op)
    if place == 0:
        found += new
    return found, place - 1


def shared(ops):
    return [("scope", "all", None, js.AUTO_REUSE, True, ops)]


# Only calls that scripts have, and that never fail.
written = st.recursive(
    st.one_of(
        st.tuples(
            *(st.just("get"), names, st.booleans(), st.sampled_from([None, "new", "kept"]), st.none(), st.none()),
            st.sampled_from([None, ["variables", "mine"], ("variables",)]),
        ),
        st.just(("key",)),
        st.just(("lift",)),
    ),
    lambda call: st.one_of(
        st.tuples(
            *(st.just("scope"), names, st.none(), st.sampled_from([None, js.AUTO_REUSE]), st.booleans()),
            st.lists(call, max_size=3),
        ),
        st.tuples(st.just("scope"), st.none(), names, st.none(), st.just(True), st.lists(call, max_size=3)),
        st.tuples(st.just("checkpoint"), st.lists(call, max_size=3)),
    ),
    max_leaves=12,
)
