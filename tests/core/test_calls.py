"""How the calls of a program look to Python and JAX: signatures, help, static arguments; what is said of misuse."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
import pickle
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope import layers

KEY = jax.random.key(0)
OLD_KEY = jax.random.PRNGKey(0)
X = jnp.ones((2, 3))


def dense(x: jax.Array, training: bool = False) -> jax.Array:
    """A dense layer that may drop."""
    x = x @ js.get_variable("w", [x.shape[-1], 4])
    return layers.dropout(x, 0.5) if training else x


net = js.transform(dense)
params = net.init(KEY, X)


# Signatures -----------------------------------------------------------------------------------------------------------


def shown(function: Callable[..., Any]) -> str:
    """The signature without annotations."""
    signature = inspect.signature(function)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(plain))


class Model:
    """A model."""

    def __call__(self, x: Any, scale: float = 2.0) -> Any:
        return x * scale * js.get_variable("w", [])

    def method(self, x: Any) -> Any:
        return x * js.get_variable("w", [])

    @classmethod
    def of_class(cls, x: Any) -> Any:
        return x * js.get_variable("w", [])

    @staticmethod
    def static(x: Any) -> Any:
        return x * js.get_variable("w", [])


@dataclasses.dataclass
class Output:
    x: Any
    w: Any = 1.0


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


OF_INIT = {"warm_start", "out_shardings"}  # what init takes by keyword, beside the program's own

# A program, and how `apply` takes its arguments; `init` has a key in the place of the tree, `specs` has neither.
SIGNATURES = {
    "plain": (lambda x, training: x, "(params, /, x, training, *, rng=None)"),
    "nothing": (lambda: 0, "(params, /, *, rng=None)"),
    "defaults": (lambda x, n=1: x, "(params, /, x, n=1, *, rng=None)"),
    "keyword only": (lambda x, *, flag, n=2: x, "(params, /, x, *, flag, n=2, rng=None)"),
    "position only": (lambda x, y=0, /, z=1: x, "(params, x, y=0, /, z=1, *, rng=None)"),
    "any": (lambda *args, **kwargs: args, "(params, /, *args, rng=None, **kwargs)"),
    "any by position": (lambda x, *rest: x, "(params, /, x, *rest, rng=None)"),
    "any by keyword": (lambda x, **more: x, "(params, /, x, *, rng=None, **more)"),
    "params": (lambda x, params: x, "(params_, /, x, params, *, rng=None)"),
    "params by position": (lambda params, /, params_=1: params, "(params__, params, /, params_=1, *, rng=None)"),
    "params, any": (lambda *params: params, "(params_, /, *params, rng=None)"),
    "key": (lambda key, x: x, "(params, /, key, x, *, rng=None)"),
    "self": (lambda self, x: x, "(params, /, self, x, *, rng=None)"),
    "call, name, net": (lambda call, name, net: call, "(params, /, call, name, net, *, rng=None)"),
    "function of a class": (Model.method, "(params, /, self, x, *, rng=None)"),
    "method": (Model().method, "(params, /, x, *, rng=None)"),
    "class method": (Model.of_class, "(params, /, x, *, rng=None)"),
    "static method": (Model.static, "(params, /, x, *, rng=None)"),
    "object": (Model(), "(params, /, x, scale=2.0, *, rng=None)"),
    "class": (Output, "(params, /, x, w=1.0, *, rng=None)"),
    "partial": (functools.partial(dense, training=True), "(params, /, x, *, training=True, rng=None)"),
    "partial by position": (functools.partial(dense, X), "(params, /, training=False, *, rng=None)"),
    "decorated": (decorated(dense), "(params, /, x, training=False, *, rng=None)"),
    "jitted": (jax.jit(dense, static_argnums=1), "(params, /, x, training=False, *, rng=None)"),
    "without a signature": (dict, "(params, /, *args, rng=None, **kwargs)"),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_calls_have_the_signature_of_the_program(name: str) -> None:
    program, of_apply = SIGNATURES[name]
    made = js.transform(program)
    assert shown(made.apply) == shown(made.update) == of_apply
    of_program = [name for name in inspect.signature(made.apply).parameters if name != "rng"][1:]
    assert [name for name in inspect.signature(made.init).parameters if name not in OF_INIT][1:] == of_program
    assert next(iter(inspect.signature(made.init).parameters)) == ("key_" if "key" in of_program else "key")
    if name != "without a signature":
        assert shown(made.specs) == shown(made) == shown(program)


def test_annotations_are_kept_as_they_are_written() -> None:
    signature = inspect.signature(net.apply)
    assert signature.parameters["x"].annotation == "jax.Array"  # a string here: from __future__ import annotations
    assert signature.return_annotation == "jax.Array"
    assert inspect.signature(net.init).return_annotation is js.Params
    assert inspect.signature(net.specs).return_annotation is js.Specs
    assert inspect.signature(net.update).return_annotation == tuple["jax.Array", js.Params]


def test_arguments_reach_the_program_whatever_they_are_called() -> None:
    def program(params: Any, key: Any, *args: Any, self: Any, call: Any, net: Any, **kwargs: Any) -> Any:
        js.get_variable("w", [])
        return params, key, args, self, call, net, kwargs

    made = js.transform(program)
    given: dict[str, Any] = {"self": 3, "call": 4, "net": 5, "method": 6, "args": 7}
    want = (1, 2, (8,), 3, 4, 5, {"args": 7, "method": 6})
    assert made.init(KEY, 1, 2, 8, **given).names == ("w",)
    assert list(made.specs(1, 2, 8, **given)) == ["w"]
    assert made.apply({"w": 1.0}, 1, 2, 8, **given) == want
    assert made.update({"w": 1.0}, 1, 2, 8, **given)[0] == want
    by_name = js.transform(lambda params, key: (params, key))
    assert by_name.apply({}, params=1, key=2) == by_name.apply({}, key=2, params=1) == (1, 2)
    assert by_name.init(KEY, params=1, key=2) == js.Params()


def test_help_shows_the_signature_and_what_the_call_does() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        help(net.apply)
    text = out.getvalue()
    assert "training" in text
    assert "rng" in text
    assert "Runs the program on the variables in `params`" in text


def test_calls_pickle_by_way_of_the_program() -> None:
    again = pickle.loads(pickle.dumps(net.apply))
    np.testing.assert_array_equal(again(params, X), net.apply(params, X))


def test_calls_bind_to_no_object() -> None:
    class Holder:
        apply = net.apply

    np.testing.assert_array_equal(Holder().apply(params, X), net.apply(params, X))


def test_names_of_partials_are_those_of_their_functions() -> None:
    assert js.transform(functools.partial(dense, training=True)).__name__ == "dense"


# Static arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("static", [{"static_argnames": "training"}, {"static_argnums": 2}], ids=str)
def test_flags_can_be_static(static: dict[str, Any]) -> None:
    apply = jax.jit(net.apply, **static)
    want = net.apply(params, X)
    np.testing.assert_allclose(apply(params, X, False), want, rtol=1e-6)
    np.testing.assert_allclose(apply(params, X, training=False), want, rtol=1e-6)
    np.testing.assert_allclose(apply(params, X), want, rtol=1e-6)
    assert apply(params, X, True, rng=KEY).shape == want.shape
    assert jax.jit(net.init, **static)(KEY, X, True) == params
    assert jax.jit(net.update, **static)(params, X, training=True, rng=KEY)[1] == params


def test_static_names_that_the_program_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="trainig"):
        jax.jit(net.apply, static_argnames="trainig")


# Calls that go wrong --------------------------------------------------------------------------------------------------

state = js.transform(lambda x, batch: x)
any_name = js.transform(lambda x, **keywords: x)
with_rng = {"rng": KEY}

# what is called, and what the way out says
MISUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "key second": (lambda: net.apply(params, KEY, X, True), "rng=key"),
    "key second, the old kind": (lambda: net.apply(params, OLD_KEY, X, True), "rng=key"),
    "key second, taken for the input": (lambda: net.apply(params, KEY, X), "rng=key"),
    "key last": (lambda: net.apply(params, X, True, KEY), "rng=key"),
    "key second in update": (lambda: net.update(params, KEY, X, True), "rng=key"),
    "key by another keyword": (lambda: net.apply(params, X, key=KEY), "rng=key"),
    "keys as in Flax": (lambda: net.apply(params, X, rngs={"dropout": KEY}), "rng=key"),
    "None for a key": (lambda: net.apply(params, None, X, True), "leave the None out"),
    "key under jit": (lambda: jax.jit(net.apply)(params, KEY, X), "rng=key"),
    "state as in Haiku": (lambda: js.transform(lambda x: x).apply(params, params, X), "params | state"),
    "input first": (lambda: net.apply(X, params), "net.apply(params, x"),
    "a dict of inputs first": (lambda: net.apply({"image": X}, params), "net.apply(params, x"),
    "key first": (lambda: net.apply(KEY, params, X), "net.apply(params, x"),
    "what update gave": (lambda: net.apply(net.update(params, X), X), "second of the two"),
    "tree by keyword": (lambda: net.apply(params=params, x=X), "net.apply(params, x"),
    "no tree": (lambda: net.update(), "net.update(params, x"),
    "no input": (lambda: net.apply(params), "net.apply(params, x"),
    "one too many": (lambda: net.apply(params, X, True, 1), "net.apply(params, x"),
    "misspelt": (lambda: net.apply(params, X, trainig=True), "'training'"),
    "as in Flax": (lambda: net.apply(params, X, mutable=["batch_stats"]), "net.update(params, ...)"),
    "warm start of apply": (lambda: net.apply(params, X, warm_start=params), "warm_start=tree"),
    "init: input first": (lambda: net.init(X, KEY), "net.init(key, x"),
    "init: no inputs": (lambda: net.init(KEY), "net.init(key, x"),
    "init: nothing": (lambda: net.init(), "net.init(key, x"),
    "init: key by keyword": (lambda: net.init(key=KEY, x=X), "net.init(key, x"),
    "init: two keys": (lambda: net.init(KEY, KEY, X, True), "one key"),
    "init: rng by keyword": (lambda: net.init(KEY, X, rng=KEY), "one key"),
    "init: keys as in Flax": (lambda: net.init({"params": KEY}, X), "one key"),
    "init: a tree": (lambda: net.init(params, X), "warm_start=tree"),
    "init: a tree too": (lambda: net.init(KEY, params, X, True), "warm_start=tree"),
    "specs: a key": (lambda: net.specs(KEY, X, True), "leave the key out"),
    "specs: no inputs": (lambda: net.specs(), "net.specs(x"),
    "the program called": (lambda: net(X), "net.apply(params, ...)"),
    "the program under jit": (lambda: jax.jit(net)(params, X), "net.apply(params, ...)"),
    "lift without inputs": (lambda: js.transform(lambda: js.lift(net)).specs(), "net.specs(x"),
    "init: rng among any keywords": (lambda: any_name.init(KEY, X, rng=KEY), "one key"),
    "specs: rng among any keywords": (lambda: any_name.specs(X, rng=KEY), "leave the key out"),
    "a start among any keywords": (lambda: any_name.apply({}, X, warm_start={}), "warm_start=tree"),
    "shardings among any keywords": (lambda: any_name.apply({}, X, out_shardings=None), "net.apply(params, x"),
    "rng=0": (lambda: net.apply(params, X, rng=0), "jax.random.key(0)"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISUSED)
def test_misuse_is_told_with_a_way_out(name: str) -> None:
    call, way_out = MISUSED[name]
    with pytest.raises(js.JscopeError) as info:
        call()
    error = info.value
    assert way_out.replace("net.", "dense.") in error.fix.replace("net.", "dense.")
    assert error.fix in str(error)
    assert f"{__file__}:" in error.where
    assert isinstance(error, TypeError | js.ParamsMismatchError)


def test_an_error_of_a_program_inside_is_told_about_that_one() -> None:
    def outer(x: jax.Array, target: js.Params) -> jax.Array:
        return net.apply(x, target)  # wrong; the call of `outer` is right

    with pytest.raises(js.BadTypeError) as info:
        js.transform(outer).apply(params, X, target=params)
    assert info.value.fix.startswith("the tree comes first: dense.apply(")


def test_an_error_of_ours_about_a_key_tells_where_keys_go() -> None:
    def program(x: jax.Array, y: Any = None) -> jax.Array:
        return js.get_variable("w", x.shape, x.dtype)

    with pytest.raises(js.InitializerError, match="apply got a random key as `x`") as info:
        js.transform(program).apply({"w": X}, KEY, X)
    assert "rng=key" in info.value.fix


def test_values_of_arrays_may_be_asked_for_where_nothing_is_traced() -> None:
    def program(x: jax.Array, step: Any) -> jax.Array:
        inner = jax.jit(lambda h: h if h.sum() > 0 else -h)
        return x if step > 2 else inner(x)

    made = js.transform(program)
    made.apply({}, X, jnp.int32(3))
    with pytest.raises(jax.errors.TracerBoolConversionError):  # of `h`, not of `step`
        made.apply({}, X, jnp.int32(1))


def test_old_keys_are_taken_where_keys_go() -> None:
    assert net.init(OLD_KEY, X) == params
    np.testing.assert_array_equal(
        net.apply(params, X, True, rng=OLD_KEY), net.apply(params, X, True, rng=jax.random.key(0))
    )


def test_a_mistake_in_the_program_stays_what_it_is() -> None:
    def wrong(x: jax.Array) -> Any:
        return len(3)  # type: ignore[arg-type]

    def calls_wrongly(x: jax.Array) -> Any:
        return dense(x, False, 3, 4)  # type: ignore[call-arg]

    def takes_a_key(key: jax.Array, x: int = 0) -> Any:
        raise IndexError("mine")

    def with_more(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(x: Any) -> Any:
            return function(x, more=1)

        return wrapper

    @with_more
    def given_more(x: Any, more: Any) -> Any:  # its signature does not say that `more` comes from the decorator
        raise TypeError("mine")

    for program, error, text in (
        (wrong, TypeError, "object of type 'int'"),
        (calls_wrongly, TypeError, "positional arguments"),
        (takes_a_key, IndexError, "mine"),
        (given_more, TypeError, "mine"),
    ):
        with pytest.raises(error, match=text) as info:
            js.transform(program).apply({}, KEY if program is takes_a_key else X)
        assert not isinstance(info.value, js.JscopeError)


class StoppedError(Exception):
    """What a program raises to say something to whoever calls it."""


class StoppedTypeError(StoppedError, TypeError):
    """The same, and a builtin that jscope explains."""


@pytest.mark.parametrize("optional", [KEY, params], ids=["key", "tree"])
@pytest.mark.parametrize(
    "error", [StoppedError, StoppedTypeError, TypeError, ValueError, AssertionError, KeyError, RuntimeError]
)
def test_what_a_program_raises_itself_is_its_own(error: type[Exception], optional: Any) -> None:
    def stop(x: Any) -> Any:
        if error is AssertionError:
            assert x is None, "mine"
        if error is KeyError:
            return {}["mine"]  # Python raises it, but not for what was given
        raise error("mine")

    def program(x: Any, noise: Any = None, old: Any = None) -> Any:
        return jax.jit(stop)(x)

    argument = "noise" if optional is KEY else "old"
    positional = (X, KEY) if optional is KEY else (X, None, params)
    for call in (
        lambda: js.transform(program).apply({}, *positional),
        lambda: js.transform(program).apply({}, X, **{argument: optional}),
    ):
        with pytest.raises(error, match="mine") as info:
            call()
        assert type(info.value) is error


def test_an_error_of_ours_keeps_its_way_out_where_a_key_is_right() -> None:
    def program(x: Any, noise: Any = None) -> Any:
        js.get_variable("w", [])
        return js.get_variable("w" if noise is not None else "b", [])

    with pytest.raises(js.VariableExistsError) as info:
        js.transform(program).apply({"w": 1.0}, X, KEY)
    assert "AUTO_REUSE" in info.value.fix
    assert "rng=key" not in info.value.fix
    with pytest.raises(js.ParamsMismatchError) as caught:
        js.transform(program).apply({}, X, KEY)
    assert "compare(params)" in caught.value.fix
    assert "or, if a random key as `noise` is a mistake" in caught.value.fix


# Flags that are traced ------------------------------------------------------------------------------------------------


def asks(x: jax.Array, training: Any) -> Any:
    return x if training else -x


def counts(x: jax.Array, training: Any) -> Any:
    return sum(x for _ in range(training))


def chooses(x: jax.Array, training: Any) -> Any:
    return [jnp.sin, jnp.cos][training](x)


def sizes(x: jax.Array, training: Any) -> Any:
    return js.get_variable("w", [training, 3])


def names(x: jax.Array, training: Any) -> Any:
    return js.get_variable(f"w_{training}", [])


def scopes(x: jax.Array, training: Any) -> Any:
    with js.variable_scope(f"scope_{training}"):
        return js.get_variable("w", [])


def reuses(x: jax.Array, training: Any) -> Any:
    with js.variable_scope("scope", reuse=training):
        return js.get_variable("w", [])


def op_scopes(x: jax.Array, training: Any) -> Any:
    with js.variable_scope("scope", auxiliary_name_scope=training):
        return js.get_variable("w", [])


def trains(x: jax.Array, training: Any) -> Any:
    return js.get_variable("w", [], trainable=training)


def trains_variable(x: jax.Array, training: Any) -> Any:
    return js.variable(1.0, "w", trainable=training)


def normalizes(x: jax.Array, training: Any) -> Any:
    return layers.batch_normalization(x, training=training)


def normalizes_as_contrib(x: jax.Array, training: Any) -> Any:
    return layers.batch_norm(x, is_training=training)


def drops(x: jax.Array, training: Any) -> Any:
    return layers.dropout(x, training=training)


def attends(x: jax.Array, training: Any) -> Any:
    x = x[None]
    return layers.multi_head_attention(x, x, 4, 4, 4, 2, training=training)


def selects(x: jax.Array, training: Any) -> Any:
    mean = js.get_variable("mean", [3], trainable=False)
    js.assign(mean, jnp.where(training, x.mean(0), mean))
    return x - mean


def lifts(x: jax.Array, training: Any) -> Any:
    return js.lift(js.transform(asks), x, training)


FLAGS = [asks, counts, chooses, sizes, names, scopes, reuses, op_scopes, trains, trains_variable, normalizes]
FLAGS += [normalizes_as_contrib, drops, attends, selects, lifts]


@pytest.mark.parametrize("program", FLAGS, ids=lambda program: program.__name__)
def test_a_traced_flag_is_named_with_the_way_to_make_it_static(program: Callable[..., Any]) -> None:
    made = js.transform(program)
    flag: Any = 1 if program in (counts, chooses, sizes) else False
    tree = made.init(KEY, X, flag)
    with pytest.raises(js.JscopeError, match="traced") as info:
        jax.jit(made.apply)(tree, X, flag)
    assert "`training`" in str(info.value)
    assert "static_argnames='training'" in info.value.fix
    assert f"{__file__}:" in info.value.where
    if program not in (selects, reuses):  # these fail with a plain flag too, reuse=False excepted
        jax.jit(made.apply, static_argnames="training")(tree, X, training=flag)


@pytest.mark.parametrize(
    "call",
    [
        lambda made: jax.jit(made.apply)({}, X, True),
        lambda made: jax.jit(made.update)({}, X, True),
        lambda made: jax.jit(made.init)(KEY, X, True),
        lambda made: jax.jit(made.specs)(X, True),
        lambda made: jax.checkpoint(made.apply)({}, X, True),
        lambda made: jax.vmap(made.apply, (None, 0, 0))({}, X, jnp.ones(2, bool)),
        lambda made: jax.lax.scan(lambda x, flag: (made.apply({}, x, flag), None), X, jnp.ones(2, bool)),
        lambda made: jax.jit(lambda x, flag: made.apply({}, x, training=flag))(X, True),
        lambda made: jax.jit(lambda x, flag: made.apply({}, *x, training=flag))((X,), True),
    ],
)
def test_a_traced_flag_is_named_in_every_call_and_transform(call: Callable[[Any], Any]) -> None:
    with pytest.raises(js.BadTypeError, match="`training` is traced") as info:
        call(js.transform(asks))
    assert info.value.kind == "traced"
    line = inspect.getsourcelines(asks)[1] + 1
    assert info.value.where == f"{__file__}:{line}"  # where the program asks
    assert isinstance(info.value.__cause__, jax.errors.TracerBoolConversionError)


def test_flags_in_arrays_are_told_from_traced_ones() -> None:
    flag = jnp.array(True)
    for call in (js.transform(asks).specs, functools.partial(js.transform(asks).init, KEY)):
        with pytest.raises(js.BadTypeError, match="`training` is given in an array") as info:
            call(X, flag)
        assert "plain Python" in info.value.fix
    bn = js.transform(normalizes)
    with pytest.raises(js.AssignError, match="`training`") as caught:
        bn.apply(bn.init(KEY, X, False), X, flag)
    assert "plain Python, True or False" in caught.value.fix
    assert "net.update" in caught.value.fix


def test_flags_inside_other_arguments_are_named_by_their_path() -> None:
    made = js.transform(lambda x, config: asks(x, config["training"]))
    with pytest.raises(js.BadTypeError, match=r"`config\['training'\]` is traced"):
        jax.jit(made.apply)({}, X, {"training": True, "rate": 0.5})


def test_a_layer_in_a_jitted_function_says_that_its_flag_is_an_array() -> None:
    @functools.partial(jax.jit, static_argnames=())
    def block(x: jax.Array, training: Any) -> jax.Array:
        return layers.batch_normalization(layers.dropout(x, training=training), training=training)

    made = js.transform(lambda x: block(x, False))
    tree = made.init(KEY, X)
    for keys, error in (({}, js.MissingRngError), ({"rng": KEY}, js.AssignError)):
        with pytest.raises(error, match="static_argnames"):
            made.apply(tree, X, **keys)


def test_other_values_that_are_traced_are_jax_s_to_tell() -> None:
    made = js.transform(lambda x, step: x if x.sum() > 0 else -x)
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.jit(made.apply)({}, X, 3)


def asks_of_x(x: jax.Array, step: Any, training: Any = False) -> Any:
    return x if x.sum() > 0 else -x


def asks_of_both(x: jax.Array, step: Any, training: Any = False) -> Any:
    return x if x.sum() > step else -x


def asks_in_a_body(x: jax.Array, step: Any, training: Any = False) -> Any:
    return jax.lax.scan(lambda x, step: (x if step > 0 else -x, None), x, jnp.arange(2))[0]


def asks_in_a_lifted_program(x: jax.Array, step: Any, training: Any = False) -> Any:
    return js.lift(js.transform(lambda x: asks_of_x(x, 0)), x)


def asks_of_a_made_value(x: jax.Array, step: Any, training: Any = False) -> Any:
    return x if jax.jit(jnp.zeros, static_argnums=0)(()) > 0 else -x


@pytest.mark.parametrize("call", ["apply", "update", "init", "specs"])
@pytest.mark.parametrize(
    "program", [asks_of_x, asks_of_both, asks_in_a_body, asks_in_a_lifted_program, asks_of_a_made_value]
)
def test_an_argument_that_has_nothing_to_do_with_it_is_not_blamed(program: Callable[..., Any], call: str) -> None:
    made = js.transform(program)
    first = {"apply": ({},), "update": ({},), "init": (KEY,), "specs": ()}[call]
    with pytest.raises(jax.errors.TracerBoolConversionError) as info:
        jax.jit(getattr(made, call))(*first, X, jnp.int32(3), True)
    assert not isinstance(info.value, js.JscopeError)
    if first == () and program in (asks_of_x, asks_of_both):
        of = "`x`" if program is asks_of_x else "`step` and `x`"
        note = f"In specs of program '{program.__name__}', the value depends on {of}."
        assert note in info.value.__notes__


def test_of_several_arguments_the_one_that_is_asked_is_named() -> None:
    made = js.transform(lambda x, step, training: asks(x, training))
    for call in (
        lambda: made.specs(X, jnp.int32(3), jnp.array(True)),
        lambda: jax.jit(made.apply)({}, X, 3, True),
    ):
        with pytest.raises(js.BadTypeError, match="traces; `training` is") as info:
            call()
        assert "step" not in info.value.fix


def test_where_it_is_not_known_which_argument_is_asked_it_is_said_so() -> None:
    made = js.transform(asks_of_x)
    with pytest.raises(js.BadTypeError, match="among its arguments `step` is traced") as info:
        jax.jit(lambda a, b: made.apply({}, a, b))(X, 3)
    assert info.value.fix.startswith("if it comes from `step`, make it static")
    assert info.value.fix.endswith("; if not, let jnp.where or jax.lax.cond decide")


def by_place(x: jax.Array, training: Any, /) -> Any:
    return asks(x, training)


def in_the_middle(x: jax.Array, training: Any, y: Any) -> Any:
    return asks(x, training) + y


def both_ways(x: jax.Array, first: Any, /, second: Any, *, y: Any) -> Any:
    return asks(x, first) + asks(y, second)


# A program, and its arguments: what is True shall be static.
FOLLOWED: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "last": (asks, (X, True), {}),
    "by name": (asks, (X,), {"training": True}),
    "in the middle": (in_the_middle, (X, True, X), {}),
    "in the middle, by name": (in_the_middle, (X,), {"training": True, "y": X}),
    "position only": (by_place, (X, True), {}),
    "any by position": (lambda *args: asks(*args), (X, True), {}),
    "any by position, others after it": (lambda *args: in_the_middle(*args), (X, True, X), {}),
    "any by name": (lambda x, **k: asks(x, k["training"]), (X,), {"training": True}),
    "any": (lambda *args, **k: asks(*args, **k), (X,), {"training": True}),
    "two": (lambda x, a, b: asks(x, a) if a and b else x, (X, True, True), {}),
    "two, one by place": (both_ways, (X, True, True), {"y": X}),
    "two, one by place, one by name": (both_ways, (X, True), {"second": True, "y": X}),
}


@pytest.mark.parametrize("call", ["apply", "update", "init"])
@pytest.mark.parametrize("name", FOLLOWED)
def test_both_ways_to_make_a_flag_static_can_be_gone(name: str, call: str) -> None:
    """As often as there are flags: each try names the one that is asked next."""
    program, args, kwargs = FOLLOWED[name]
    made = js.transform(program)
    first = KEY if call == "init" else {}
    rng = {"rng": KEY} if call == "apply" else {}
    static: dict[str, set[Any]] = {}
    jitted = bound = getattr(made, call)
    for _ in range(2 if name.startswith("two") else 1):
        with pytest.raises(js.BadTypeError) as info:
            jitted(first, *args, **kwargs, **rng) if static else jax.jit(jitted)(first, *args, **kwargs, **rng)
        told = re.search(r"jax\.jit\(net\.(\w+), (.*?)\); for other transforms bind it before: (.*)", info.value.fix)
        assert told is not None
        assert told[1] == call
        for keyword, given in eval(f"dict({told[2]})").items():
            static.setdefault(keyword, set()).update(given if isinstance(given, tuple) else (given,))
        jitted = jax.jit(getattr(made, call), **{keyword: tuple(given) for keyword, given in static.items()})
        bound = eval(told[3].replace("...", "True"), {"functools": functools, "net": made})
    want = getattr(made, call)(first, *args, **kwargs, **rng)
    jax.tree.map(np.testing.assert_array_equal, jitted(first, *args, **kwargs, **rng), want)
    if not name.startswith("two"):
        left = {name: value for name, value in kwargs.items() if value is not True}
        got = jax.checkpoint(bound)(first, *(value for value in args if value is not True), **left, **rng)
        jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize(
    ("program", "args", "kwargs"),
    [
        (lambda *args: js.get_variable("w", [args[1]]), (X, 3), {}),
        (lambda *args: js.get_variable(f"w{args[1]}", []), (X, 3), {}),
        (lambda x, **k: layers.dense(x, k["units"]), (X,), {"units": 4}),
        (lambda x, units, /: layers.dense(x, units), (X, 4), {}),
    ],
)
def test_the_way_to_make_a_size_static_can_be_gone(program: Any, args: tuple[Any, ...], kwargs: Any) -> None:
    made = js.transform(program)
    tree = made.init(KEY, *args, **kwargs)
    with pytest.raises(js.JscopeError, match="trace") as info:
        jax.jit(made.apply)(tree, *args, **kwargs)
    told = re.search(r"(static_arg\w+=\S+) if it comes from", info.value.fix)
    assert told is not None
    jitted = jax.jit(made.apply, **eval(f"dict({told[1]})"))
    np.testing.assert_allclose(jitted(tree, *args, **kwargs), made.apply(tree, *args, **kwargs), rtol=1e-6)


@pytest.mark.parametrize("config", [{"n": 3}, [3]], ids=["dict", "list"])
@pytest.mark.parametrize("asks_in_python", [False, True])
def test_a_flag_or_size_in_a_dict_or_list_is_to_be_given_alone(config: Any, asks_in_python: bool) -> None:
    def program(x: jax.Array, config: Any) -> Any:
        (n,) = config.values() if isinstance(config, dict) else config
        return asks(x, n) if asks_in_python else js.get_variable("w", [n])

    made = js.transform(program)
    tree = made.init(KEY, X, config)
    with pytest.raises(js.BadTypeError, match="can't be a dict or a list: give it alone") as info:
        jax.jit(made.apply)(tree, X, config)
    assert "static_argnames='config'" in info.value.fix
    alone = jax.jit(lambda tree, x, config: made.apply(tree, x, {"n": config}), static_argnames="config")
    np.testing.assert_array_equal(alone(tree, X, 3), made.apply(tree, X, config))


def test_what_is_static_is_told_of_apply_where_specs_is_called() -> None:
    """As `lift` does."""
    made = js.transform(by_place)
    with pytest.raises(js.BadTypeError) as info:
        jax.jit(made.specs)(X, True)
    assert "jax.jit(net.apply, static_argnums=2)" in info.value.fix
    assert info.value.fix.endswith("lambda params, x: net.apply(params, x, ...)")
    jax.jit(made.apply, static_argnums=2)({}, X, True)


# Faults ---------------------------------------------------------------------------------------------------------------


def test_each_fault_is_listed_once_however_often_it_is_read() -> None:
    def twice(x: jax.Array) -> jax.Array:
        for _ in range(3):
            with js.variable_scope("t", reuse=js.AUTO_REUSE):
                x = x @ js.get_variable("w", [3, 3]) + js.get_variable("b", [3]) * js.get_variable("c", [3])
        return x

    made = js.transform(twice)
    tree = {"t/b": jnp.ones(4), "t/wx": jnp.ones(3), "t/c": jax.ShapeDtypeStruct((3,), jnp.float32)}
    for call in (made.apply, made.update, jax.jit(made.apply)):
        with pytest.raises(js.ParamsMismatchError) as info:
            call(tree, X) if call in (made.apply, made.update) else call({"t/b": jnp.ones(4), "t/wx": jnp.ones(3)}, X)
        about = [line.split("'")[1] for line in info.value.faults]
        assert len(about) == len(set(about)), info.value.faults
        assert set(about) >= {"t/w", "t/b", "t/c"}
    with pytest.raises(js.ParamsMismatchError) as info:
        made.init(KEY, X, warm_start={**tree, "t/extra": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert [line.split("'")[1] for line in info.value.faults] == ["t/b", "t/extra", "t/wx", "t/c"]
