"""The matrix of transforms: what a program does inside any plain JAX transform is right, or refused.

Rows and contexts are those of `matrix.py`. Here every cell does everything at once: variables are made, read and
assigned, keys taken, scopes opened by default names, templates called, losses and collections asked for.
`test_the_matrix_is_complete` counts the cells.
"""

from __future__ import annotations

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from matrix import (
    CHEAP,
    CONTEXTS,
    PAIRS,
    SINGLES,
    TRIPLES,
    Expected,
    X,
    agrees,
    arrays,
    caller,
    cells,
    counting,
    everything,
    everything_counted,
    is_in,
    may_be_refused,
    over_singles,
    plain_jax_lacks,
    program_of,
    rows,
)
from transforms import TRANSFORMS, Nesting, nestings, wrapped

import jscope as js

PAIR_CONTEXTS = ("eager", "jit", "grad", "vmap")


def jax_refuses_itself(nesting: Nesting, context: str) -> bool:
    """Where JAX refuses what was traced before, and jscope no longer runs; see `test_what_jscope_can_not_see`."""
    return context == "vmap_of_traced" and any("branches" in t.traits for t in nesting)


def check_everything(nesting: Nesting, context: str) -> None:
    """Makes the variables, then reads them."""
    expected, net = Expected(nesting), js.transform(program_of(wrapped(nesting, everything)))
    agrees(net.init(CHEAP, jnp.float32(X)).flat(), expected.initial())
    agrees(CONTEXTS[context](caller(net))(arrays(expected.tree), jnp.float32(X)), expected.out())


def check_counted(nesting: Nesting, context: str) -> None:
    """The same, and assigns inside: right, or refused at the line that assigns where that may be."""
    if jax_refuses_itself(nesting, context):
        return
    expected = Expected(nesting, counted=True)
    net = js.transform(program_of(wrapped(nesting, everything_counted)))
    refusal = None
    try:
        initial = net.init(CHEAP, jnp.float32(X)).flat()
        out, after = CONTEXTS[context](caller(net, "update"))(arrays(expected.tree), jnp.float32(X))
    except js.JscopeError as error:
        refusal = error
    if refusal is None:
        agrees(initial, expected.initial())
        agrees(out, expected.out())
        agrees(after.flat(), expected.after())
    else:
        assert may_be_refused(nesting, context), refusal
        assert is_in(counting, refusal.where)
        assert refusal.fix


@pytest.mark.sampled(3)
@cells(SINGLES, "eager")
def test_everything_eagerly(nesting, context):
    check_everything(nesting, context)


@cells(SINGLES, "jit")
def test_everything(nesting, context):
    check_everything(nesting, context)


@pytest.mark.sampled(4)
@cells(SINGLES, "jit", "grad", "vmap")
def test_counted(nesting, context):
    check_counted(nesting, context)


@cells(
    [row for row in SINGLES if row[0].traits & {"checkpoint", "while", "custom"}], "grad_of_traced", "vmap_of_traced"
)
def test_counted_and_traced_before(nesting, context):
    check_counted(nesting, context)


# All nestings take minutes for two transforms and hours for three. By default there is a part of each, spread over all:
# the steps have no divisor in common with the number of transforms, so that each is met in each place.


@cells(PAIRS[::97], "jit")
def test_everything_in_pairs(nesting, context):
    check_everything(nesting, context)


@cells(PAIRS[8::73], "jit")
def test_counted_in_pairs(nesting, context):
    check_counted(nesting, context)


@cells(PAIRS[::251], "eager")
def test_both_in_pairs_eagerly(nesting, context):
    check_everything(nesting, context)
    check_counted(nesting, context)


@cells(TRIPLES[::3989], "jit")
def test_both_in_triples(nesting, context):
    check_everything(nesting, context)
    check_counted(nesting, context)


@pytest.mark.slow
@cells(SINGLES, *CONTEXTS)
def test_all_singles(nesting, context):
    check_everything(nesting, context)
    check_counted(nesting, context)


@pytest.mark.slow
@cells(PAIRS, *PAIR_CONTEXTS)
def test_all_pairs(nesting, context):
    check_everything(nesting, context)
    check_counted(nesting, context)


@pytest.mark.slow
@cells(TRIPLES, "jit")
def test_all_triples(nesting, context):
    check_everything(nesting, context)
    check_counted(nesting, context)


@pytest.mark.sampled(2)
@over_singles
def test_shapes_alone(nesting):
    """`jax.eval_shape`, of all that a program's members give."""
    expected, x = Expected(nesting, counted=True), jnp.float32(X)
    plain, counted = (js.transform(program_of(wrapped(nesting, f))) for f in (everything, everything_counted))
    scalar, integer = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    tree = dict.fromkeys(expected.names, scalar)
    assert jax.eval_shape(plain.init, CHEAP, x).flat() == dict.fromkeys(Expected(nesting).names, scalar)
    assert jax.eval_shape(caller(plain), tree, x) == (scalar, [], [scalar, scalar], [integer, integer])
    if not may_be_refused(nesting):
        out, after = jax.eval_shape(caller(counted, "update"), tree, x)
        assert out == (scalar, [scalar, scalar], [scalar, scalar], [integer, integer])
        assert after.flat() == tree


@pytest.mark.sampled(3)
@cells(SINGLES, "grad")
def test_gradients(nesting, context):
    """By variables that are read inside, next to others that are assigned where that may be."""
    counted = not may_be_refused(nesting, context)
    expected = Expected(nesting, counted=counted)
    net = js.transform(program_of(wrapped(nesting, everything_counted if counted else everything)))
    given = arrays({name: expected.tree[name] for name in expected.trainable()})
    rest = arrays({name: expected.tree[name] for name in expected.names if name not in given})

    def loss(given):
        (value, *_), after = net.update(given | rest, jnp.float32(X), rng=CHEAP)
        return value, after

    gradients, after = jax.jit(jax.grad(loss, has_aux=True))(given)
    agrees(gradients, expected.gradients())
    agrees(after.flat(), expected.after())


# The count ------------------------------------------------------------------------------------------------------------


def count(deep: int, *contexts: str) -> dict[str, int]:
    """How many cells are right, may be refused, and are left out, for programs that assign."""
    counted: Counter[str] = Counter()
    for nesting, context in itertools.product(nestings(deep), contexts):
        if plain_jax_lacks(nesting, context):
            counted["lacking"] += 1
        else:
            counted["refused" if may_be_refused(nesting, context) else "right"] += 1
    return dict(counted)


def test_the_matrix_is_complete():
    assert len(TRANSFORMS) == 24
    assert [len(rows(deep)) for deep in (1, 2, 3)] == [24, 557, 12616]
    assert count(1, *CONTEXTS) == {"right": 152, "refused": 30, "lacking": 10}
    assert count(2, *PAIR_CONTEXTS) == {"right": 1355, "refused": 677, "lacking": 272}
    assert count(3, "jit") == {"right": 7876, "refused": 4740, "lacking": 1208}
