"""Golden files: what they hold, what they say of a change, old ones, and how they are written anew."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import jscope as js
from jscope import testing
from jscope.testing import assert_golden

KEY = jax.random.key(0)
HEAD_OF_SHORT = "# What the program declares; written by jscope.testing.assert_golden, anew by `pytest --jscope-update`"
OLD = "# name, dtype and shape of each variable; written by jscope.testing.assert_golden"


@pytest.fixture(autouse=True)
def compares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JSCOPE_UPDATE_GOLDEN", raising=False)


def specs_of(program: Callable[[], Any]) -> js.Specs:
    return js.transform(program).specs()


def tower(scope: str, layers: int = 18, initializer: Any = None) -> Callable[[], None]:
    def program() -> None:
        with js.variable_scope(scope, initializer=initializer):
            for i in range(layers):
                with js.variable_scope(f"layer_{i}"):
                    js.get_variable("kernel", [3, 4])
                    js.get_variable("bias", [4], initializer=js.zeros_initializer())

    return program


def both(*programs: Callable[[], Any]) -> Callable[[], None]:
    return lambda: [program() for program in programs] and None


def test_a_file_that_can_not_be_written_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, variables = tmp_path / "net.txt", {"w": jnp.ones(2)}
    assert_golden(variables, file, update=True)
    before = file.read_text()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for path in (file, tmp_path / "other.txt"):
            with pytest.raises(OSError, match="No space"):
                assert_golden({"v": jnp.ones(3)}, path, update=True)
    assert [path.name for path in tmp_path.iterdir()] == ["net.txt"]
    assert file.read_text() == before
    for update in (True, False):
        with pytest.raises(js.BadArgumentError, match="is a directory"):
            assert_golden(variables, tmp_path, update=update)


def changes(now: Any, file: Path) -> list[str]:
    """The lines between the first and the last of the message, which are the same for all."""
    with pytest.raises(AssertionError) as caught:
        assert_golden(now, file)
    head, *lines, last = str(caught.value).splitlines()
    assert head == f"The variables differ from {file}:"
    assert last == (
        "  If that is meant, run pytest once with --jscope-update (or JSCOPE_UPDATE_GOLDEN=1 in the environment)."
    )
    return lines


def test_the_file_holds_all_that_is_declared(tmp_path: Path) -> None:
    def program() -> None:
        with js.variable_scope("tower", reuse=js.AUTO_REUSE):
            for _ in range(2):
                js.get_variable("kernel", [2, 3], initializer=js.random_normal_initializer(stddev=0.05))
        js.get_variable("table", [4], partitioner=lambda shape, dtype: jax.P("data"), trainable=False)
        js.get_variable("count", [], jnp.int32, js.zeros_initializer(), trainable=False)
        js.get_local_variable("seen", [], initializer=lambda key, shape, dtype: jnp.zeros(shape, dtype))
        js.variable(1.0, "rate")

    file = tmp_path / "deep" / "net.txt"
    assert_golden(specs_of(program), file, update=True)
    assert (
        file.read_text()
        == """\
# What the program declares, in full; written by jscope.testing.assert_golden, anew by `pytest --jscope-update`
count  i32[]  init=zeros  uses=1  trainable=False
rate  f32[]  init=array 1.0  uses=1
seen  f32[]  init=lambda  uses=1  trainable=False  collections=local_variables
table  f32[4]  init=glorot_uniform  uses=1  trainable=False  partition=('data')
tower/kernel  f32[2,3]  init=random_normal(stddev=0.05)  uses=2
"""
    )
    assert_golden(specs_of(program), file)


def test_what_is_not_known_is_not_compared(tmp_path: Path) -> None:
    specs, file = specs_of(tower("a", 1)), tmp_path / "net.txt"
    assert_golden(specs, file, update=True)
    assert_golden(specs.abstract(), str(file))
    assert_golden(specs.init(KEY).to_dict(), file)


def test_old_files_are_read(tmp_path: Path) -> None:
    specs, file = specs_of(tower("a", 1)), tmp_path / "net.txt"
    file.write_text(f"{OLD}\na/layer_0/bias  f32[4]\na/layer_0/kernel  f32[3,4]\n")
    assert_golden(specs, file)
    file.write_text("# a comment\n\na/layer_0/kernel\t f32[3,4]  \na/layer_0/bias f32[5]\n")
    assert changes(specs, file) == ["  ~ a/layer_0/bias: f32[5] is now f32[4]"]
    assert_golden(specs, file, update=True)
    assert "uses=1" in file.read_text()


def local_factory(scale: float) -> Any:
    def made(scale: float) -> Any:
        return lambda key, shape, dtype: scale * jnp.ones(shape, dtype)

    return made(scale)


class Kept:
    def __init__(self, scale: float) -> None:
        self._scale = scale

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return self._scale * jnp.ones(shape, dtype)


def derived(width: float) -> Any:
    stddev = width**-0.5

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return stddev * jnp.ones(shape, dtype)

    return init


def scaled(inner: Any) -> Any:
    return lambda key, shape, dtype: 2 * inner(key, shape, dtype)


def of_names(*names: str) -> Any:
    return lambda key, shape, dtype: len(names) * jnp.ones(shape, dtype)


def own(key: jax.Array, shape: tuple[int, ...], dtype: Any, scale: float = 1.0) -> jax.Array:
    return scale * jnp.ones(shape, dtype)


FULL_VARIANCE = functools.partial(js.variance_scaling_initializer, 2.0, "fan_out", "untruncated_normal")
NUMBERS = np.arange(12.0)
SQUARE = NUMBERS.reshape(3, 4)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (
            FULL_VARIANCE(seed=1),
            FULL_VARIANCE(seed=2),
            "variance_scaling(scale=2, mode='fan_out', distribution='untruncated_normal', seed=1)",
        ),
        (js.constant_initializer(NUMBERS), js.constant_initializer(NUMBERS[::-1]), "constant(f64[12]#3cdb8485)"),
        (jax.nn.initializers.constant(SQUARE), jax.nn.initializers.constant(-SQUARE), "constant(f64[3,4]#3cdb8485)"),
        (jnp.arange(12), jnp.arange(12)[::-1], "array i32[12]#"),
        (js.constant_initializer(0.02), js.constant_initializer(0.02000000001), "constant(0.02)"),
        (js.constant_initializer(np.float32(0.02)), js.constant_initializer(np.float32(0.0200001)), "constant(0.02)"),
        (local_factory(0.02), local_factory(2.0), "lambda(scale=0.02)"),
        (lambda k, s, d, by=0.02: by * jnp.ones(s, d), lambda k, s, d, by=2: by * jnp.ones(s, d), "lambda(by=0.02)"),
        (Kept(0.02), Kept(2.0), "Kept(scale=0.02)"),
        (Kept(0.02).__call__, Kept(2.0).__call__, "Kept(scale=0.02).__call__"),
        (derived(4.0), derived(9.0), "init(stddev=0.5)"),
        (scaled(jax.nn.initializers.normal(1.0)), scaled(jax.nn.initializers.normal(2.0)), "scaled(inner=normal("),
        (of_names("a", "b"), of_names("a", "c"), "of_names(names=['a', 'b'])"),
        (functools.partial(own, scale=0.02000000001), functools.partial(own, scale=0.02), "own(scale=0.02000000001)"),
    ],
)
def test_initializers_are_held_in_full(tmp_path: Path, first: Any, second: Any, text: str) -> None:
    def of(initializer: Any) -> js.Specs:
        shape = None if isinstance(initializer, jax.Array) else [3, 4]
        return specs_of(lambda: js.get_variable("w", shape, initializer=initializer))

    file = tmp_path / "net.txt"
    assert_golden(of(first), file, update=True)
    assert f"  init={text}" in file.read_text()
    assert_golden(of(first), file)
    (change,) = changes(of(second), file)
    assert change.startswith(f"  ~ w: init {text}")


def test_an_initializer_that_holds_itself_has_a_text(tmp_path: Path) -> None:
    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jnp.ones(shape, dtype) if len(shape) < 2 else jnp.stack([init(key, shape[1:], dtype)] * shape[0])

    assert_golden(specs_of(lambda: js.get_variable("w", [2, 2], initializer=init)), tmp_path / "net.txt", update=True)
    assert "init=init(init=init(" in (tmp_path / "net.txt").read_text()


def test_files_with_initializers_cut_short_stay_valid(tmp_path: Path) -> None:
    def program() -> None:
        js.get_variable("a", [3, 4], initializer=FULL_VARIANCE(seed=1))
        js.get_variable("b", [12], initializer=js.constant_initializer(NUMBERS))
        js.get_variable("c", [2], initializer=local_factory(0.02))

    file = tmp_path / "net.txt"
    file.write_text(
        f"{HEAD_OF_SHORT}\n"
        "a  f32[3,4]  init=variance_scaling(scale=2, mode='fan_out', distribution='unt…  uses=1\n"
        "b  f32[12]  init=constant(f64[12])  uses=1\n"
        "c  f32[2]  init=lambda  uses=1\n"
    )
    assert_golden(specs_of(program), file)
    file.write_text(file.read_text().replace("mode='fan_out'", "mode='fan_in'"))
    (change,) = changes(specs_of(program), file)
    assert change.startswith("  ~ a: init variance_scaling(scale=2, mode='fan_in'")


def test_names_that_could_be_taken_for_something_else(tmp_path: Path) -> None:
    tree, file = {name: jnp.ones(1) for name in ("#x", "c  d", "e   f", " g", "h ", "a b", "a#b")}, tmp_path / "net.txt"
    assert_golden(tree, file, update=True)
    assert_golden(tree, file)
    assert "\na b  f32[1]\na#b  f32[1]\nc \\x20d  f32[1]\n" in file.read_text()
    assert changes({**tree, "#x": jnp.ones(2)}, file) == ["  ~ \\x23x: f32[1] is now f32[2]"]


def test_a_scope_that_is_new_or_gone_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "net.txt"
    assert_golden(specs_of(tower("encoder")), file, update=True)
    assert changes(specs_of(both(tower("encoder"), tower("decoder"))), file) == ["  + decoder/  (36 variables)"]
    assert changes(specs_of(both(tower("decoder", 3))), file) == [
        "  + decoder/  (6 variables)",
        "  - encoder/  (36 variables)",
    ]
    assert changes(specs_of(tower("encoder", 17)), file) == ["  - encoder/layer_17/  (2 variables)"]


def test_a_scope_with_another_name_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "net.txt"
    assert_golden(specs_of(tower("tower")), file, update=True)
    assert changes(specs_of(tower("towr")), file) == ["  ~ tower/ is now towr/  (36 variables)"]


def test_an_initializer_that_changes_is_told(tmp_path: Path) -> None:
    file = tmp_path / "net.txt"
    assert_golden(specs_of(tower("a", 1, js.random_normal_initializer(stddev=0.02))), file, update=True)
    assert changes(specs_of(tower("a", 1, js.random_normal_initializer(stddev=0.2))), file) == [
        "  ~ a/layer_0/kernel: init random_normal(stddev=0.02) is now random_normal(stddev=0.2)"
    ]


def test_sharing_and_training_that_change_are_told(tmp_path: Path) -> None:
    def program(reuse: bool, trainable: bool) -> None:
        js.get_variable("w", [2], trainable=trainable)
        if reuse:
            with js.variable_scope("", reuse=True):
                js.get_variable("w", [2])

    file = tmp_path / "net.txt"
    assert_golden(specs_of(lambda: program(True, True)), file, update=True)
    assert changes(specs_of(lambda: program(False, False)), file) == [
        "  ~ w: uses 2 is now 1, trainable as usual is now False"
    ]


def test_leaves_that_are_no_arrays_have_lines_too(tmp_path: Path) -> None:
    file = tmp_path / "net.txt"
    assert_golden({"a": jnp.ones(2), "b": 0, "k": KEY}, file, update=True)
    assert changes({"a": jnp.ones(3, jnp.uint8), "c": None}, file) == [
        "  ~ a: f32[2] is now u8[3]",
        "  - b  int",
        "  + c  NoneType",
        "  - k  key<fry>[]",
    ]


def test_there_must_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_golden({}, tmp_path / "net.txt")
    assert str(caught.value) == (
        f"There is no golden file {tmp_path / 'net.txt'}.\n  To write it, run pytest once with --jscope-update "
        "(or JSCOPE_UPDATE_GOLDEN=1 in the environment)."
    )


def test_the_environment_says_whether_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.txt"
    monkeypatch.setenv("JSCOPE_UPDATE_GOLDEN", "1")
    assert_golden({"a": 1}, file)
    with pytest.raises(AssertionError, match="- a  int"):
        assert_golden({}, file, update=False)
    monkeypatch.setenv("JSCOPE_UPDATE_GOLDEN", "0")
    with pytest.raises(AssertionError, match="- a  int"):
        assert_golden({}, file)


@given(testing.params())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_has_a_golden_file(tmp_path: Path, params: js.Params) -> None:
    assert_golden(params, tmp_path / "net.txt", update=True)
    assert_golden(params, tmp_path / "net.txt")
