"""What the page "From a laptop to a pod" says of Flax: the same mistakes in partitions there, and in jscope.

A failure of what is asserted of another library means that it has changed, and that the page must change.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import processes
import pytest
from jax.sharding import AxisType, PartitionSpec

import jscope as js

pytest.importorskip("flax")

WIDTH, HIDDEN = 64, 256
RULES = {"width": "data", "hidden": "model"}
X = jnp.ones((1, WIDTH))

# Each mistake: the axes of the kernel, the rules, and how many hidden units there are.
NONE = (("width", "hidden"), RULES, HIDDEN)
MISSPELT = (("width", "hiden"), RULES, HIDDEN)
TWICE = (("width", "hidden"), {"width": "model", "hidden": "model"}, HIDDEN)
NOT_DIVISIBLE = (("width", "hidden"), RULES, HIDDEN - 1)
NO_RULES = (("width", "hidden"), {}, HIDDEN)

Mistake = tuple[tuple[str, str], dict[str, str], int]


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def linen(mistake: Mistake) -> PartitionSpec:
    """How the kernel is cut."""
    from flax import linen as nn

    axes, rules, hidden = mistake
    kernel_init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), axes)
    net = nn.Dense(hidden, use_bias=False, kernel_init=kernel_init)
    logical = nn.get_partition_spec(jax.eval_shape(net.init, jax.random.key(0), X))
    shardings = nn.logical_to_mesh_sharding(logical, mesh(), tuple(rules.items()))
    made = jax.jit(net.init, out_shardings=shardings)(jax.random.key(0), X)
    return nn.unbox(made)["params"]["kernel"].sharding.spec


def nnx_(mistake: Mistake) -> PartitionSpec:
    from flax import nnx

    axes, rules, hidden = mistake
    kernel_init = nnx.with_partitioning(nnx.initializers.lecun_normal(), axes)
    with jax.set_mesh(mesh()), nnx.logical_axis_rules(tuple(rules.items())):
        net = nnx.jit(lambda: nnx.Linear(WIDTH, hidden, use_bias=False, rngs=nnx.Rngs(0), kernel_init=kernel_init))()
    return net.kernel[...].sharding.spec


def jscope(mistake: Mistake) -> PartitionSpec:
    axes, rules, hidden = mistake

    def program(x: jax.Array) -> jax.Array:
        return x @ js.get_variable("kernel", [WIDTH, hidden], partitioner=jax.P(*axes))

    return js.transform(program).specs(X).shardings(mesh(), rules)["kernel"].spec


def cut(spec: PartitionSpec) -> tuple[Any, ...]:
    """Of both dimensions."""
    return (*spec, None, None)[:2]


def refused(program: Any, mistake: Mistake) -> str:
    with pytest.raises(Exception, match=r".") as caught:
        program(mistake)
    return str(caught.value)


def check_flax() -> None:
    assert cut(linen(NONE)) == cut(nnx_(NONE)) == cut(jscope(NONE)) == ("data", "model")
    # Nothing is said of these.
    assert cut(linen(MISSPELT)) == ("data", None)
    assert cut(linen(TWICE)) == ("model", None)
    assert cut(linen(NO_RULES)) == (None, None)
    assert cut(nnx_(NOT_DIVISIBLE)) == ("data", None)
    # Of these JAX refuses the first one: of a size, since JAX 0.12, with the way to the leaf; else without its name.
    assert "255" in refused(linen, NOT_DIVISIBLE)
    for mistake, axis in ((MISSPELT, "hiden"), (TWICE, "model"), (NO_RULES, "width")):
        text = refused(nnx_, mistake)
        assert axis in text
        assert "kernel" not in text


@pytest.mark.slow
def test_flax_in_eight_devices() -> None:
    processes.check("import test_peers_of_partitions; test_peers_of_partitions.check_flax()", 8)


@pytest.mark.parametrize(
    ("mistake", "fault"),
    [
        (MISSPELT, "there is no rule for axis 'hiden' (near: 'hidden')"),
        (TWICE, "axis 'model' of the mesh is used twice, for dimensions 0 and 1"),
        (NOT_DIVISIBLE, "dimension 1 of size 255 can't be cut into 2 equal parts ('model')"),
        (NO_RULES, "there is no rule for axis 'width'"),
    ],
)
def test_jscope_names_the_variable(mistake: Mistake, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "mesh", lambda: jax.sharding.AbstractMesh((4, 2), ("data", "model")))
    with pytest.raises(js.BadArgumentError) as caught:
        jscope(mistake)
    assert caught.value.faults[0].startswith("'kernel' f32[")
    assert fault in caught.value.faults[0]
