"""Variables of unusual kinds and names, and what is listed of them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js

KEY = jax.random.key(0)


def specs_of(program: Callable[[], Any]) -> js.Specs:
    return js.transform(program).specs()


def test_random_keys_are_shared_by_their_dtype() -> None:
    def program() -> None:
        with js.variable_scope("s", reuse=js.AUTO_REUSE):
            js.get_variable("k", initializer=KEY)
            assert js.get_variable("k", dtype=KEY.dtype).dtype == KEY.dtype
        with js.variable_scope("s", reuse=True, dtype=KEY.dtype):
            js.get_variable("k", [])

    assert specs_of(program)["s/k"].used_at
    with pytest.raises(js.InitializerError, match="no default initializer"):
        specs_of(lambda: js.get_variable("k", [], dtype=KEY.dtype))


@pytest.mark.parametrize("value", [3, 1.5, True, [1, 2], jnp.float32(1), np.ones(2)])
def test_a_variable_that_is_a_key_is_assigned_keys_alone(value: Any) -> None:
    net = js.transform(lambda value: js.assign(js.get_variable("k", initializer=KEY), value))
    with pytest.raises(js.JscopeError):
        net.update({"k": KEY}, value)
    assert jax.random.key_data(net.update({"k": KEY}, jax.random.key(3))[1]["k"]).tolist() == [0, 3]


def test_keys_of_equal_layers_are_stacked() -> None:
    layer = js.transform(lambda: js.get_variable("k", initializer=KEY))
    params = js.transform(lambda: js.lift(layer, stack=2)).init(KEY)
    assert (params["k"].shape, params["k"].dtype) == ((2,), KEY.dtype)
    with pytest.raises(js.BadInitialValueTypeError, match="not random keys") as caught:
        js.constant_initializer(KEY)
    assert "initializer=key" in caught.value.fix


MASKED = np.ma.array(np.ones(2, np.float32), mask=[False, True])


@pytest.mark.parametrize(
    "use",
    [
        lambda: js.transform(lambda: js.get_variable("v", [2])).apply({"v": MASKED}),
        lambda: js.transform(lambda: js.assign(js.get_variable("v", [2]), MASKED)).update({"v": np.ones(2)}),
        lambda: js.transform(lambda: js.get_variable("v", [2])).init(KEY, warm_start={"v": MASKED}),
        lambda: specs_of(lambda: js.get_variable("v", [2])).check({"v": MASKED}),
        lambda: specs_of(lambda: js.get_variable("v", initializer=MASKED)),
        lambda: specs_of(lambda: js.variable(MASKED)),
        lambda: js.constant_initializer(MASKED),
    ],
)
def test_a_mask_is_not_lost_in_silence(use: Callable[[], Any]) -> None:
    with pytest.raises(js.JscopeError, match="mask"):
        use()


def test_a_loss_is_one_number() -> None:
    for regularizer in (lambda v: v**2, lambda v: "x"):

        def program(regularizer: Any = regularizer) -> None:
            js.get_variable("v", [3], regularizer=regularizer)
            js.get_regularization_loss()

        with pytest.raises(js.BadArgumentError, match="The regularizer of 'v' gave") as caught:
            specs_of(program)
        assert "'v' f32[3], made at" in caught.value.exists


def test_items_with_a_name_are_found_by_it() -> None:
    class Named(NamedTuple):
        name: Any

    def program() -> None:
        for item in (Named("a/x"), Named("b/x"), Named(3), "a/text"):
            js.add_to_collection("mine", item)
        js.get_variable("a/v", [], collections=["mine"])
        assert [item.name for item in js.get_collection("mine", "a/")] == ["a/x", "a/v"]
        assert [item.name for item in js.get_collection("mine", "a/x$")] == ["a/x"]

    specs_of(program)


def test_collections_of_a_local_variable() -> None:
    def local(collections: Any) -> tuple[str, ...]:
        return specs_of(lambda: js.get_local_variable("v", [], collections=collections))["v"].collections

    want = ("mine", js.GraphKeys.LOCAL_VARIABLES)
    assert local(["mine"]) == local(("mine",)) == want
    assert set(local({"mine"})) == set(want)
    for wrong in ("abc", 3):
        with pytest.raises(js.BadArgumentError, match="not a list of names"):
            local(wrong)


def test_the_text_of_an_enum_is_a_name_as_any_text() -> None:
    class Name(str, enum.Enum):  # noqa: UP042 (in a text it gives its own name, unlike a StrEnum)
        ENCODER, W = "encoder", "w"

    def program() -> None:
        with js.variable_scope("a"), js.variable_scope(Name.ENCODER) as scope:
            assert scope.original_name_scope == "a/encoder/"
            js.get_variable(Name.W, [])
            for _ in range(2):
                js.variable(1.0, name=Name.W)
        js.variable(1.0, name=Name.W)

    specs = specs_of(program)
    assert list(specs) == ["a/encoder/w", "a/encoder/w_1", "a/encoder/w_2", "w"]
    assert {type(name) for name in specs} == {str}


def test_trainable_by_default() -> None:
    assert specs_of(lambda: js.variable(1.0, trainable=None))["Variable"].trainable
