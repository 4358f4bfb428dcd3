"""Partitions: names of axes on variables, turned into shardings of a mesh; every fault by the variable's name."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jscope as js

P = jax.P
RULES = {"vocab": "model", "embed": "data", "heads": "model", "mlp": "model", "layers": None}


def mesh(*sizes: int, names: tuple[str, ...] = ("data", "model")) -> jax.sharding.AbstractMesh:
    return jax.sharding.AbstractMesh(sizes, names)


def declared(**partitions: Any) -> js.Specs:
    """Variables of shape [8, 4], a partitioner for each."""

    def program() -> None:
        for name, partitioner in partitions.items():
            js.get_variable(name, [8, 4], partitioner=partitioner)

    return js.transform(program).specs()


def test_a_partition_is_given_as_it_is_or_by_a_callable_or_by_name() -> None:
    specs = declared(
        as_it_is=P("embed", "mlp"),
        by_shape=lambda shape, dtype: P(*[f"axis_{size}" for size in shape]),
        by_name=js.axes_partitioner([("other", P("never")), (".*name", P(None, "mlp"))]),
        not_named=js.axes_partitioner([("other", P("never"))]),
        none=None,
    )
    assert [spec.partition for spec in specs.values()] == [
        P("embed", "mlp"),
        P("axis_8", "axis_4"),
        P(None, "mlp"),
        None,
        None,
    ]


def test_the_first_pattern_that_matches_the_whole_name_counts() -> None:
    by_name = js.axes_partitioner([(".*/kernel", P("a")), (".*", P("b")), (".*kernel", P("c"))])

    def program() -> None:
        with js.variable_scope("s", partitioner=by_name):
            js.get_variable("kernel", [2])
            js.get_variable("kernels", [2])
            with js.variable_scope("inner"):
                js.get_variable("kernel", [2])

    specs = js.transform(program).specs()
    assert {name: spec.partition for name, spec in specs.items()} == {
        "s/kernel": P("a"),
        "s/kernels": P("b"),
        "s/inner/kernel": P("a"),
    }


@pytest.mark.parametrize("rules", [["kernel"], [("a", "b")], [("a", P(), 1)], [(1, P())]])
def test_axes_partitioner_takes_pairs(rules: Any) -> None:
    with pytest.raises(js.BadTypeError, match=re.escape("pairs of a pattern and a jax.P")):
        js.axes_partitioner(rules)


def test_axes_partitioner_says_which_pattern_is_none() -> None:
    with pytest.raises(js.BadArgumentError, match=re.escape("'(' is not a regular expression")):
        js.axes_partitioner([("(", P())])


def test_more_axes_than_dimensions_are_refused_where_the_variable_is_asked_for() -> None:
    """Row X17: TF1 refuses a partitioner's list that does not fit the rank."""

    def program() -> None:
        with js.variable_scope("dense", partitioner=P("embed", "mlp")):
            js.get_variable("kernel", [8, 4])
            js.get_variable("bias", [4])

    with pytest.raises(js.BadArgumentError) as caught:
        js.transform(program).specs()
    assert caught.value.kind == "bad_partition"
    assert "names 2 axes, and 'dense/bias' of shape [4] has 1" in str(caught.value)
    assert "axes_partitioner" in caught.value.fix


def test_a_scalar_has_no_partition() -> None:
    specs = js.transform(lambda: js.get_variable("v", [], partitioner=P("embed"))).specs()
    assert specs["v"].partition is None


@pytest.mark.parametrize(
    "again", [P("mlp", "embed"), lambda shape, dtype: P("mlp"), js.axes_partitioner([(".*", P())])]
)
def test_asking_again_with_another_partition_is_an_error(again: Any) -> None:
    """Row X15."""

    def program() -> None:
        with js.variable_scope("s", reuse=js.AUTO_REUSE):
            js.get_variable("w", [8, 4], partitioner=P("embed", "mlp"))
            js.get_variable("w", [8, 4], partitioner=again)

    with pytest.raises(js.BadArgumentError, match="was made with P") as caught:
        js.transform(program).specs()
    assert caught.value.kind == "partition_mismatch"
    assert "made at" in caught.value.exists


def test_asking_again_with_the_same_partition_or_none_shares() -> None:
    def program() -> None:
        with js.variable_scope("s", reuse=js.AUTO_REUSE):
            w = js.get_variable("w", [8, 4], partitioner=P("embed", "mlp"))
            assert js.get_variable("w", [8, 4], partitioner=lambda shape, dtype: P("embed", "mlp")) is w
        with js.variable_scope("s", reuse=True):
            assert js.get_variable("w") is w

    assert len(js.transform(program).specs()) == 1


def test_shardings_by_rules() -> None:
    specs = declared(a=P("embed", "mlp"), b=P(None, "vocab"), c=P("layers"), d=None, e=P(("embed", "mlp")))
    shardings = specs.shardings(mesh(4, 2), RULES)
    assert {name: sharding.spec for name, sharding in shardings.flat().items()} == {
        "a": P("data", "model"),
        "b": P(None, "model"),
        "c": P(None),
        "d": P(),
        "e": P(("data", "model")),
    }


def test_axes_of_the_mesh_need_no_rule() -> None:
    specs = declared(a=P("data", "model"), b=P("model"))
    for rules in (None, {}, {"other": "data"}):
        shardings = specs.shardings(mesh(4, 2), rules)
        assert [sharding.spec for sharding in shardings.flat().values()] == [P("data", "model"), P("model")]


def test_a_rule_may_say_several_axes() -> None:
    shardings = declared(a=P("embed")).shardings(mesh(4, 2), {"embed": ("data", "model")})
    assert shardings["a"].spec == P(("data", "model"))


@pytest.mark.parametrize(
    ("partition", "rules", "fault"),
    [
        (P("embd"), RULES, "there is no rule for axis 'embd' (near: 'embed')"),
        (P("modle"), None, "the mesh has no axis 'modle' (near: 'model'), and there are no rules"),
        (P("embed"), {"embed": "dta"}, "the rule of axis 'embed' says 'dta', and the mesh has 'data', 'model'"),
        (P("heads", "mlp"), RULES, "axis 'model' of the mesh is used twice, for dimensions 0 and 1"),
        (P(("heads", "mlp")), RULES, "axis 'model' of the mesh is used twice, for one dimension"),
        (P(None, ("data", "model")), None, "dimension 1 of size 4 can't be cut into 8 equal parts ('data', 'model')"),
    ],
)
def test_what_does_not_fit_is_an_error(partition: Any, rules: Any, fault: str) -> None:
    with pytest.raises(js.BadArgumentError) as caught:
        declared(w=partition).shardings(mesh(4, 2), rules)
    assert caught.value.kind == "bad_shardings"
    (line,) = caught.value.faults
    assert line.startswith(f"'w' f32[8,4] by P({', '.join(map(repr, partition))}): {fault} (made at {__file__}:")


def test_thirty_wrong_partitions_are_found_at_once_by_name() -> None:
    wrong = {f"wrong_{i}": P("nowhere") for i in range(30)}
    specs = declared(**wrong, right=P("embed", "mlp"))
    with pytest.raises(js.BadArgumentError, match="30 faults") as caught:
        specs.shardings(mesh(4, 2), RULES)
    assert [re.match("'(.*?)'", fault)[1] for fault in caught.value.faults] == list(wrong)


def test_shardings_takes_a_mesh() -> None:
    with pytest.raises(js.BadTypeError, match="takes a mesh of devices, not a tuple"):
        declared(w=None).shardings((4, 2), RULES)


def test_abstract_carries_the_shardings() -> None:
    specs = declared(a=P("embed", "mlp"), b=None)
    shardings = specs.shardings(mesh(4, 2), RULES)
    abstract = specs.abstract(shardings)
    assert {name: leaf.sharding for name, leaf in abstract.flat().items()} == shardings.flat()


def test_shardings_of_other_names_are_refused() -> None:
    specs = declared(kernel=P("embed", "mlp"), bias=None)
    shardings = specs.shardings(mesh(4, 2), RULES)
    other = js.Params({"kernel": shardings["kernel"], "bais": shardings["bias"]})
    with pytest.raises(js.BadArgumentError) as caught:
        specs.abstract(other)
    assert caught.value.faults == ("'bias' has no sharding", "'bais' is not declared (near: 'bias')")
    with pytest.raises(js.BadArgumentError, match="'bias' is given a str, no sharding"):
        specs.abstract({"kernel": shardings["kernel"], "bias": "data"})
    with pytest.raises(js.BadTypeError, match="shardings by name, or one for all, not a list"):
        specs.abstract([1])


def test_lift_hands_partitions_over() -> None:
    inner = js.transform(lambda x: x @ js.get_variable("w", [4, 8], partitioner=P("embed", "mlp")))

    def program(x: jax.Array) -> jax.Array:
        with js.variable_scope("a"):
            return inner.apply(js.lift(inner, x), x)

    assert js.transform(program).specs(jnp.ones((1, 4)))["a/w"].partition == P("embed", "mlp")


# One device's part ----------------------------------------------------------------------------------------------------


def dense(x: jax.Array) -> jax.Array:
    return x @ js.get_variable("dense/w", [8, 4]) + js.get_variable("dense/b", [4])


DENSE = js.transform(dense)


def in_parts(w: P, b: P, body: Any) -> Any:
    """What the body of a `shard_map` over 4 x 2 devices gives that is given parts, as shapes."""
    mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    run = jax.shard_map(
        lambda w, b, x: body({"dense": {"w": w, "b": b}}, x),
        mesh=mesh,
        in_specs=(w, b, P()),
        out_specs=P(),
        check_vma=False,
    )
    return jax.eval_shape(run, jnp.ones((8, 4)), jnp.ones(4), jnp.ones((2, 8)))


def refused_in_parts(w: P, b: P, body: Any = DENSE.apply) -> js.ParamsMismatchError:
    with pytest.raises(js.ParamsMismatchError) as caught:
        in_parts(w, b, body)
    return caught.value


@pytest.mark.parametrize(
    ("partition", "shape", "cut", "gather"),
    [
        (P("data"), (2, 4), "dimension 0 along 'data'", "(leaf, 'data', axis=0, tiled=True) is"),
        (P(None, "model"), (8, 2), "dimension 1 along 'model'", "(leaf, 'model', axis=1, tiled=True) is"),
        (P(("data", "model")), (1, 4), "dimension 0 along 'data', 'model'", "(leaf, ('data', 'model'), axis=0, "),
        (P("data", "model"), (2, 2), "dimension 0 along 'data' and dimension 1 along 'model'", "), 'model', axis=1, "),
    ],
)
def test_a_part_given_to_apply_is_called_one_and_what_to_gather_is_said(
    partition: P, shape: tuple[int, ...], cut: str, gather: str
) -> None:
    error = refused_in_parts(partition, P())
    (fault,) = error.faults
    assert fault.startswith(f"'dense/w': has shape {shape}, declared (8, 4); here, in a jax.shard_map body, it may be")
    assert f"cut in {cut}: jax.lax.all_gather(" in fault
    assert gather in fault
    assert "jax.P() in the in_specs" in error.fix


def test_all_parts_are_told_at_once() -> None:
    error = refused_in_parts(P("data"), P("model"))
    assert [re.findall("along '(.*?)'", fault) for fault in error.faults] == [["data"], ["model"]]


def test_what_can_be_no_part_is_not_called_one() -> None:
    def other(tree: Any, x: jax.Array) -> jax.Array:
        return DENSE.apply({"dense": {"w": jnp.ones((3, 4)), "b": jnp.ones((4, 1))}}, x)

    error = refused_in_parts(P(), P(), other)
    assert error.faults == (
        "'dense/w': has shape (3, 4), declared (8, 4)",
        "'dense/b': has shape (4, 1), declared (4,)",
    )
    assert "shard_map" not in error.fix


def test_gathered_as_the_message_says_it_fits() -> None:
    line = re.search(r"jax\.lax\.all_gather\(.*\)", refused_in_parts(P("data", "model"), P()).faults[0])[0]

    def gathered(tree: Any, x: jax.Array) -> jax.Array:
        whole = eval(line, {"jax": jax, "leaf": tree["dense"]["w"]})
        return DENSE.apply({"dense": {"w": whole, "b": tree["dense"]["b"]}}, x)

    assert in_parts(P("data", "model"), P(), gathered).shape == (2, 4)


def test_what_is_not_cut_at_the_end_need_not_be_said() -> None:
    def program(*partitions: Any) -> js.Specs:
        def asks() -> None:
            for partition in partitions:
                with js.variable_scope("s", reuse=js.AUTO_REUSE):
                    js.get_variable("w", [8, 4], partitioner=partition)

        return js.transform(asks).specs()

    assert program(P("x"), P("x", None), P(("x",)))["s/w"].partition == P("x")
    assert len(program(P("x")) | program(P("x", None))) == 1
    for other in (P("y"), P("x", "y"), P(None, "x")):
        with pytest.raises(js.BadArgumentError, match="asked for with P"):
            program(P("x"), other)
        with pytest.raises(js.BadArgumentError, match="partition"):
            program(P("x")) | program(other)
