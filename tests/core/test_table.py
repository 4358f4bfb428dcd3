"""What `print(specs)` shows: scopes with their totals, initializers with arguments, partitions, likely misspellings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import jscope as js


def declared(program: Callable[[], object]) -> js.Specs:
    return js.transform(program).specs()


def rows(text: str) -> list[list[str]]:
    """The cells of each line."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


# Scopes ---------------------------------------------------------------------------------------------------------------


def nested() -> None:
    js.get_variable("step", [], jnp.int32, initializer=js.zeros_initializer(), trainable=False)
    with js.variable_scope("tower"):
        with js.variable_scope("inner"), js.variable_scope("most"):
            js.get_variable("v", [2])
        js.get_variable("w", [3, 4])
    js.get_variable("last", [5])


def test_scopes_hold_their_variables_and_say_their_totals() -> None:
    assert [row[:2] for row in rows(str(declared(nested)))] == [
        ["variable", "type"],
        ["step", "i32[]"],
        ["last", "f32[5]"],
        ["tower/", "2 variables, 14 elements, 56 B"],
        ["w", "f32[3,4]"],
        ["inner/most/", "1 variable, 2 elements, 8 B"],
        ["v", "f32[2]"],
        ["4 variables, 20 elements, 80 B"],
    ]
    assert [len(line) - len(line.lstrip()) for line in str(declared(nested)).splitlines()] == [0, 0, 0, 0, 2, 2, 4, 0]


@pytest.mark.parametrize(
    ("depth", "labels"),
    [
        (0, []),
        (1, ["step", "last", "tower/"]),
        (2, ["step", "last", "tower/", "w", "inner/"]),
        (3, ["step", "last", "tower/", "w", "inner/most/"]),
        (9, ["step", "last", "tower/", "w", "inner/most/", "v"]),
    ],
)
def test_totals_down_to_a_depth(depth: int, labels: list[str]) -> None:
    table = rows(declared(nested).table(depth=depth))
    assert [row[0] for row in table[1:-1]] == labels
    assert table[-1] == ["4 variables, 20 elements, 80 B"]


def test_a_scope_and_a_variable_of_one_name() -> None:
    def program() -> None:
        js.get_variable("a", [])
        js.get_variable("a/v", [])
        js.get_variable("b//v", [])

    assert [row[0] for row in rows(str(declared(program)))[1:-1]] == ["a", "a/", "v", "b//", "v"]


def test_it_keeps_to_its_width_whatever_the_texts() -> None:
    def program() -> None:
        with js.variable_scope("s" * 150), js.variable_scope("t"):
            js.get_variable("v" * 200, [2] * 30, initializer=Draw(1, "x" * 99))

    for width in (80, 100, 120, 400):
        assert max(map(len, declared(program).table(width=width).splitlines())) <= width
    assert "v" * 200 in declared(program).table(width=900)


def test_names_however_deep() -> None:
    spec = declared(nested)["step"]
    names = ["/".join(["a"] * depth) for depth in (*range(1, 40), 9999)]
    specs = js.Specs(js.VariableSpec(name, name, (), spec.dtype, spec.initializer, auto_reuse=True) for name in names)
    for text in (str(specs), specs.to_text()):
        assert max(map(len, text.splitlines())) <= 120
    assert len(str(specs).splitlines()) == 2 + len(names) + 16  # sixteen scopes, and no more
    assert specs._repr_html_().count("<details") == 16


def test_what_steers_a_terminal_is_escaped() -> None:
    spec = declared(nested)["step"]
    table = str(js.Specs([js.VariableSpec("a\x1b[2J\n/b\u202e", None, (), spec.dtype, spec.initializer)]))
    assert "a\\x1b[2J\\n/" in table
    assert "b\\u202e" in table
    assert len(table.splitlines()) == 4


# Columns --------------------------------------------------------------------------------------------------------------


def my_draw(key: jax.Array, shape: tuple[int, ...], dtype: Any, scale: float = 1.0) -> jax.Array:
    return scale * jnp.ones(shape, dtype)


class Draw:
    """An initializer of the user's."""

    def __init__(self, scale: float, kind: str = "plain") -> None:
        self.scale = scale
        self.kind = kind

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jnp.ones(shape, dtype)


@pytest.mark.parametrize(
    ("initializer", "text"),
    [
        (None, "glorot_uniform"),
        (js.zeros_initializer, "zeros"),
        (js.random_normal_initializer(stddev=0.05), "random_normal(stddev=0.05)"),
        (js.random_uniform_initializer(-1, 1, seed=3), "random_uniform(minval=-1, maxval=1, seed=3)"),
        (js.truncated_normal_initializer(stddev=np.float32(0.02)), "truncated_normal(stddev=0.02)"),
        (js.variance_scaling_initializer(2.0, "fan_out"), "variance_scaling(scale=2, mode='fan_out')"),
        (js.he_normal_initializer(seed=1), "he_normal(seed=1)"),
        (js.ones_initializer(jnp.bfloat16), "ones(dtype=bfloat16)"),
        (js.constant_initializer(), "constant(0)"),
        (js.constant_initializer(0.1), "constant(0.1)"),
        (js.constant_initializer([1.0, 2.0]), "constant([1, 2])"),
        (js.constant_initializer([[0] * 5] * 5), "constant(i64[5,5])"),
        (js.constant_initializer(np.zeros((5, 5), np.float32)), "constant(f32[5,5])"),
        (jax.nn.initializers.zeros, "zeros"),
        (jax.nn.initializers.normal(0.1), "normal(stddev=0.1)"),
        (jax.nn.initializers.normal(), "normal"),
        (jax.nn.initializers.constant(3.0), "constant(3)"),
        (jax.nn.initializers.orthogonal(2.0), "orthogonal(scale=2)"),
        (jax.nn.initializers.he_normal(), "variance_scaling(scale=2, mode='fan_in', distribution='trun…"),
        (functools.partial(my_draw, scale=3.0), "my_draw(scale=3)"),
        (my_draw, "my_draw"),
        (Draw(2.0), "Draw(scale=2)"),
        (Draw(2.0, "k" * 99), "Draw(scale=2, kind='" + "k" * 29 + ")"),
    ],
)
def test_initializers_with_their_arguments(initializer: Any, text: str) -> None:
    specs = declared(lambda: js.get_variable("v", [5, 5], initializer=initializer))
    assert rows(specs.table(width=200))[1][3] == text


def test_a_lambda_says_where_it_stands() -> None:
    specs = declared(lambda: js.get_variable("v", [], initializer=lambda key, shape, dtype: jnp.ones(shape, dtype)))
    place = specs["v"].created_at.rpartition("/")[2]
    assert rows(str(specs))[1][3] == f"lambda at {place}"


def test_a_function_inside_a_program_is_not_called_as_the_program() -> None:
    """As `made`, which is told by its factory, they stand in a function of the module."""
    assert [row[3].partition(" at ")[0] for row in rows(str(declared(program_with_functions)))[1:-1]] == [
        "lambda",
        "own",
        "factory(scale=2)",
    ]


def factory(scale: float) -> Callable[..., jax.Array]:
    return lambda key, shape, dtype: scale * jnp.ones(shape, dtype)


def program_with_functions() -> None:
    def own(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jnp.ones(shape, dtype)

    js.get_variable("a", [], initializer=lambda key, shape, dtype: jnp.ones(shape, dtype))
    js.get_variable("b", [], initializer=own)
    js.get_variable("c", [], initializer=factory(2.0))


def test_values_are_short() -> None:
    def program(x: jax.Array) -> None:
        js.get_variable("array", initializer=np.zeros((40, 50)))
        js.get_variable("number", initializer=0.5)
        js.get_variable("traced", initializer=x)
        js.get_variable("large", [2000], initializer=jax.nn.initializers.constant(np.ones(2000, np.float32)))

    table = rows(str(js.transform(program).specs(jnp.ones(3))))
    assert [row[3] for row in table[1:-1]] == ["array", "array 0.5", "from the program", "constant(f32[2000])"]


def test_partitions_where_there_are_any() -> None:
    def program() -> None:
        with js.variable_scope("a", partitioner=lambda shape, dtype: PartitionSpec(*["data", None][: len(shape)])):
            js.get_variable("v", [2, 2])
            js.get_variable("w", [2])
        js.get_variable("x", [2])

    head, x, _, v, w, _ = rows(str(declared(program)))
    assert head == ["variable", "type", "trainable", "initializer", "partition", "reads", "created at"]
    assert (v[4], w[4], x[4]) == ("('data', None)", "('data')", "1")
    assert "partition" not in str(declared(nested))


# Likely misspellings --------------------------------------------------------------------------------------------------


def auto(*names: str, shape: tuple[int, ...] = (2,)) -> None:
    """Reads variables under AUTO_REUSE by their full names."""
    for name in names:
        scope, _, last = name.rpartition("/")
        with js.variable_scope(scope or js.get_variable_scope(), reuse=js.AUTO_REUSE):
            js.get_variable(last, shape)


def marked(program: Callable[[], object]) -> list[str]:
    """The names that are marked, and what follows the table."""
    table = str(declared(program)).splitlines()
    foot = next((i for i, line in enumerate(table) if line.startswith("? ")), len(table))
    assert sum(" ? " in line for line in table[:foot]) >= len(table[foot:]) - 1
    return [line.strip() for line in table[foot + 1 :]]


def test_a_misspelt_scope_is_marked() -> None:
    def program() -> None:
        auto("tower/kernel", "tower/bias")
        auto("towr/kernel", "towr/bias")
        auto("tower/kernel", "tower/bias")

    assert marked(program) == ["towr is near tower"]
    lines = [line for line in str(declared(program)).splitlines() if " ? " in line]
    assert [line.split()[0] for line in lines] == ["kernel", "bias"]


def test_of_two_that_are_read_once_both_are_marked() -> None:
    def program() -> None:
        auto("a/tower/kernel", "a/towre/kernel")

    assert marked(program) == ["a/tower is near a/towre"]
    assert sum(" ? " in line for line in str(declared(program)).splitlines()) == 2


@pytest.mark.parametrize(
    "wrong",
    ["towr", "towwer", "twoer", "otwer", "towet", "Tower", "to_wer", "tower_"],
)
def test_one_slip_is_near(wrong: str) -> None:
    assert f"{wrong} is near tower" in marked(lambda: auto("tower/v", f"{wrong}/v", "tower/v"))


def test_the_variable_itself_and_words_among_others() -> None:
    assert marked(lambda: auto("s/kernel", "s/kernle", "s/kernel")) == ["s/kernle is near s/kernel"]
    assert marked(lambda: auto("discriminator_2/v", "discrimiantro_2/v", "discriminator_2/v")) == [
        "discrimiantro_2 is near discriminator_2"
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("layer_1/v", "layer_2/v", "layer_10/v"),
        ("encoder/v", "decoder/v"),
        ("w_q", "w_k", "w_v"),
        ("s/w", "s/W", "s/_w"),
        ("block_a/v", "block_b/v"),
        ("branchA/v", "branchB/v", "branchC/v"),
        ("fw/v", "bw/v"),
        ("gamma", "beta", "zeta"),
        ("key/kernel", "query/kernel", "value/kernel"),
        ("forward/v", "backward/v"),
        ("mean", "variance"),
        ("tower/v", "towr/w"),  # another variable in it: no twin
    ],
)
def test_names_that_are_meant_to_differ_are_not_marked(names: tuple[str, ...]) -> None:
    assert marked(lambda: auto(*names)) == []


def test_what_can_not_be_a_slip_is_not_marked() -> None:
    def other_shape() -> None:
        auto("tower/v")
        auto("towr/v", shape=(3,))

    def read_twice() -> None:
        auto("tower/v", "towr/v", "tower/v", "towr/v")

    def without_auto_reuse() -> None:
        js.get_variable("tower/v", [2])
        js.get_variable("towr/v", [2])

    assert [marked(program) for program in (other_shape, read_twice, without_auto_reuse)] == [[], [], []]


def test_many_names_take_no_time() -> None:
    from time import process_time

    spec = declared(lambda: auto("v"))["v"]
    names = [f"layer_{i}/part_{j}/{name}" for i in range(200) for j in range(5) for name in ("a", "b", "c", "d", "e")]
    specs = js.Specs(js.VariableSpec(n, n, (2,), spec.dtype, spec.initializer, auto_reuse=True) for n in names)
    start = process_time()
    assert "?" not in str(specs)
    assert process_time() - start < 2


# Where the variables lie ----------------------------------------------------------------------------------------------


def partitioned() -> None:
    with js.variable_scope("tower"):
        js.get_variable("kernel", [8, 4], partitioner=PartitionSpec("embed", "mlp"))
        js.get_variable("bias", [4], jnp.bfloat16, partitioner=PartitionSpec("mlp"))
        with js.variable_scope("norm"):
            js.get_variable("scale", [3])


MESH = jax.sharding.AbstractMesh((4, 2), ("data", "model"))


def test_with_shardings_it_says_the_axes_the_cuts_and_the_bytes_on_each_device() -> None:
    specs = declared(partitioned)
    table = specs.table(specs.shardings(MESH, {"embed": "data", "mlp": "model"}))
    assert rows(table) == [
        ["variable", "type", "axes", "spec", "on each device"],
        ["tower/", "3 variables, 39 elements, 148 B, 32 B on each device"],
        ["kernel", "f32[8,4]", "('embed', 'mlp')", "('data', 'model')", "16 B"],
        ["bias", "bf16[4]", "('mlp')", "('model')", "4 B"],
        ["norm/", "1 variable, 3 elements, 12 B, 12 B on each device"],
        ["scale", "f32[3]", "()", "12 B"],
        ["3 variables, 39 elements, 148 B, 32 B on each device"],
    ]
    everywhere = specs.shardings(MESH, {"embed": None, "mlp": None})
    assert rows(specs.table(everywhere, depth=1))[1:] == [
        ["tower/", "3 variables, 39 elements, 148 B, 148 B on each device"],
        ["3 variables, 39 elements, 148 B, 148 B on each device"],
    ]


def test_one_sharding_for_all_has_to_fit_each_shape() -> None:
    specs, kept_whole = declared(partitioned), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    assert "SingleDeviceSharding" in specs.table(kept_whole)
    assert specs.table(kept_whole).endswith("148 B on each device")
    with pytest.raises(js.BadArgumentError, match="do not fit the shapes of the variables: 1 fault") as caught:
        specs.table(jax.sharding.NamedSharding(MESH, PartitionSpec("data")))
    assert caught.value.faults[0].startswith("'tower/norm/scale' f32[3]: ")
    with pytest.raises(js.BadArgumentError, match="has more axes than shape"):
        specs.table(jax.sharding.NamedSharding(MESH, PartitionSpec(None, None, "data")))
    with pytest.raises(js.BadArgumentError, match="'tower/bias' has no sharding"):
        specs.table({"tower": {"kernel": kept_whole, "norm": {"scale": kept_whole}}})
