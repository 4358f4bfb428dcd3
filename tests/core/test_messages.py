"""Errors: for each kind its class, TF1's class, its text, fields and pickle; and that something raises it."""

from __future__ import annotations

import inspect
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope import _errors, checkpoint
from jscope._names import near

KEY = jax.random.key(0)
HERE = __file__


def build(f):
    def run():
        with js.build(KEY):
            f()

    return run


def scoped(name, f, **options):
    def run():
        with js.variable_scope(name, **options):
            f()

    return run


def exists():
    js.get_variable("v", [2])
    js.get_variable("v", [2])


def missing():
    with js.variable_scope("tower"):
        js.get_variable("kernel", [2])
    with js.variable_scope("tower", reuse=True):
        js.get_variable("kernl", [2])


def wrong_shape():
    with js.variable_scope("a", reuse=js.AUTO_REUSE):
        js.get_variable("v", [2])
        js.get_variable("v", [3])


def wrong_dtype():
    with js.variable_scope("a", reuse=js.AUTO_REUSE):
        js.get_variable("v", [2], jnp.int32)
        js.get_variable("v", [2])


def out_of_order():
    a, b = js.variable_scope("a"), js.variable_scope("b")
    a.__enter__()
    b.__enter__()
    try:
        a.__exit__(None, None, None)
    finally:
        b.__exit__(None, None, None)
        a.__exit__(None, None, None)


def template_trainable():
    t = js.make_template("t", lambda: js.variable(1.0, "x"))
    t()
    t()


def item_assignment():
    js.Params({"a": 1})["a"] = 2


def donated():
    """An array whose memory a jitted function has taken."""
    x = jnp.ones(2)
    jax.jit(lambda x: x + 1, donate_argnums=0)(x)
    return x


net = js.transform(lambda: js.get_variable("kernel", [2]))
takes_x = js.transform(lambda x, training=False: -x if training else x)
MESH = jax.sharding.AbstractMesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def partitioned(*axes):
    return js.transform(lambda: js.get_variable("v", [8], partitioner=jax.P(*axes)))


def other_partition():
    with js.build(KEY), js.variable_scope("s", reuse=js.AUTO_REUSE):
        js.get_variable("v", [8], partitioner=jax.P("a"))
        js.get_variable("v", [8], partitioner=jax.P("b"))


def in_shard_map():
    """The body is given a fourth of the variable, and the program asks for all of it."""
    body = partitioned("data").apply
    jax.eval_shape(
        jax.shard_map(body, mesh=MESH, in_specs=({"v": jax.P("data")},), out_specs=jax.P()), {"v": jnp.ones(8)}
    )


def traced(program):
    """Runs a program under jit with True for its flag."""
    return lambda: jax.jit(js.transform(program).apply)({}, True)


# what raises, jscope's class, TF1's (or Python's) class, kind, a piece of the text, a piece of the fix
CASES = {
    "exists": (build(exists), js.VariableExistsError, ValueError, "exists", "'v' already exists", "js.AUTO_REUSE"),
    "missing": (build(missing), js.VariableNotFoundError, ValueError, "missing", "'tower/kernl' does not exist", "AUTO_REUSE"),
    "shape": (build(wrong_shape), js.ShapeMismatchError, ValueError, "shape_mismatch", "shape (3,), but it has", "leave shape out"),
    "dtype": (build(wrong_dtype), js.DtypeMismatchError, ValueError, "dtype_mismatch", "dtype float32, but it", "dtype=int32"),
    "no_shape": (build(lambda: js.get_variable("v")), js.InitializerError, ValueError, "no_shape", "shape must be given", "shape="),
    "const_shape": (build(lambda: js.get_variable("v", [2], initializer=1.0)), js.InitializerError, ValueError, "const_shape", "constant", "leave shape out"),
    "init_dtype": (build(lambda: js.get_variable("v", initializer=1, dtype=jnp.float32)), js.InitializerError, ValueError, "init_dtype", "dtype int32, but dtype float32", "leave dtype out"),
    "bad_init": (build(lambda: js.get_variable("v", [None], initializer=js.ones_initializer())), js.InitializerError, ValueError, "bad_init", "needs a shape", "full shape"),
    "no_default_init": (build(lambda: js.get_variable("v", [1], jnp.complex64)), js.InitializerError, ValueError, "no_default_init", "complex64", "give an initializer"),
    "init_shape": (build(lambda: js.get_variable("v", [2], initializer=lambda k, s, d: jnp.ones(3, d))), js.InitializerError, ValueError, "init_value", "gave float32[3], but float32[2]", "init(key, shape, dtype)"),
    "init_result_dtype": (build(lambda: js.get_variable("v", [2], initializer=lambda k, s, d: jnp.ones(s, jnp.int32))), js.InitializerError, ValueError, "init_value", "gave int32[2]", "init(key, shape, dtype)"),
    "too_many": (build(lambda: js.get_variable("v", [1], initializer=js.constant_initializer([1.0, 2.0]))), js.InitializerError, ValueError, "init_value", "has 2 values", "as many values"),
    "float_for_int": (build(lambda: js.get_variable("v", [1], jnp.int32, js.constant_initializer(3.0))), js.BadInitialValueTypeError, TypeError, "init_value", "can't fill", "int32|float"),
    "dict_as_value": (build(lambda: js.get_variable("v", initializer={})), js.BadInitialValueTypeError, TypeError, "init_value", "type dict", "a number"),
    "bad_name": (build(lambda: js.get_variable("a b", [])), js.BadNameError, ValueError, "bad_name", "'a b' is not a valid name at the root", "TF1's pattern"),
    "bad_scope_name": (build(scoped("s", scoped("a b", None))), js.BadNameError, ValueError, "bad_name", "'a b' is not a valid name inside a scope", "TF1's pattern"),
    "name_type": (build(scoped("s", lambda: js.get_variable(5, []))), js.BadTypeError, TypeError, "bad_name_type", "is a string, not 5", "give a string"),
    "scope_type": (build(scoped(5, None)), js.BadTypeError, TypeError, "bad_scope_type", "string or a scope object, not 5", "give a name"),
    "no_name": (lambda: js.variable_scope(None), js.BadTypeError, TypeError, "no_name", "needs a name", "give a name"),
    "bad_reuse": (lambda: js.variable_scope("a", reuse=1), js.BadArgumentError, ValueError, "bad_reuse", "not 1", "four"),
    "reuse_default": (build(scoped(None, None, default_name="d", reuse=True)), js.BadArgumentError, ValueError, "reuse_default_name", "default name", "give the scope's name"),
    "bad_aux": (lambda: js.variable_scope("a", auxiliary_name_scope=1), js.BadTypeError, TypeError, "bad_aux", "True or False, not 1", "True or False"),
    "bad_getter": (build(scoped("s", lambda: js.get_variable("v", []), custom_getter=3)), js.BadArgumentError, ValueError, "bad_getter", "not callable: 3", "getter(name"),
    "bad_constraint": (build(lambda: js.get_variable("v", [], constraint=3)), js.BadArgumentError, ValueError, "bad_constraint", "not callable: 3", "function"),
    "bad_regularizer": (build(lambda: js.get_variable("v", [], regularizer=3)), js.BadTypeError, TypeError, "bad_regularizer", "not callable: 3", "no_regularizer"),
    "bad_collections": (build(lambda: js.get_variable("v", [], collections="c")), js.BadArgumentError, ValueError, "bad_collections", "'c', not a list", "list of strings"),
    "counts": (build(lambda: js.get_variable("v", [4], partitioner=lambda shape, dtype: [2])), js.BadArgumentError, ValueError, "bad_partition", "gave [2]", "jax.P"),
    "bad_partitioner": (build(lambda: js.get_variable("v", [4], partitioner=3)), js.BadArgumentError, ValueError, "bad_partition", "not callable: 3", "jax.P"),
    "negative": (build(lambda: js.get_variable("v", [-1])), js.BadArgumentError, ValueError, "bad_shape", "negative", ">= 0"),
    "bad_shape": (build(lambda: js.get_variable("v", [2.5])), js.BadTypeError, TypeError, "bad_shape", "[2.5] is not a shape", "list or tuple"),
    "bad_dtype": (build(lambda: js.get_variable("v", [], "floaty")), js.BadTypeError, TypeError, "bad_dtype", "'floaty' is not a dtype", "bfloat16"),
    "dtype_of_initializer": (build(lambda: js.get_variable("v", [3], js.zeros_initializer())), js.BadTypeError, TypeError, "bad_dtype", "is not a dtype", "by name: initializer="),
    "too_wide": (build(lambda: js.get_variable("v", initializer=np.int64(2**40))), js.BadInitialValueTypeError, TypeError, "init_value", "can't be held by dtype int32", "fits"),
    "init_by_name": (build(lambda: js.get_variable("v", [2], initializer="zeros")), js.InitializerError, ValueError, "const_shape", "a constant", "js.zeros_initializer()"),
    "init_factory": (build(lambda: js.get_variable("v", [2, 2], initializer=jax.nn.initializers.lecun_normal)), js.BadInitialValueTypeError, TypeError, "init_value", "gave a function, no array", "call it"),
    "init_nothing": (build(lambda: js.get_variable("v", [2], initializer=lambda key, shape, dtype: None)), js.InitializerError, ValueError, "init_value", "gave None", "return an array"),
    "seed": (lambda: js.random_normal_initializer(seed="a"), js.BadTypeError, TypeError, "bad_seed", "an integer, not 'a'", "seed=0"),
    "variable_name": (build(lambda: js.variable(1.0, False)), js.BadTypeError, TypeError, "bad_name_type", "is a string, not False", "trainable=False"),
    "partitioner_form": (build(lambda: js.get_variable("v", [4], partitioner=lambda s, d: jax.P("a"))), js.BadTypeError, TypeError, "bad_partition", "(s, d), not (shape, dtype)", "shape, dtype"),
    "assign_nothing": (build(lambda: js.assign(js.get_variable("v", []), None)), js.BadTypeError, TypeError, "not_an_array", "'v' is assigned None, which is no array", "an array"),
    "assign_text": (build(lambda: js.assign(js.get_variable("v", []), "one")), js.BadTypeError, TypeError, "not_an_array", "'v' is assigned 'one'", "an array"),
    "assign_too_wide": (build(lambda: js.assign(js.get_variable("v", [], jnp.int32), np.int64(2**40))), js.BadInitialValueTypeError, TypeError, "init_value", "can't be held by dtype int32", "fits"),
    "no_key": (lambda: net.init(3), js.BadTypeError, TypeError, "bad_key", "init takes a JAX random key, not a int", "jax.random.key(0)"),
    "array_as_key": (lambda: net.init(jnp.ones(3)), js.BadTypeError, TypeError, "bad_key", "not float32[3]", "jax.random.key(0)"),
    "many_keys": (lambda: net.init(jax.random.split(KEY, 2)), js.BadTypeError, TypeError, "bad_key", "one JAX random key, not 2", "jax.vmap"),
    "key_of_specs": (lambda: net.specs().init(3), js.BadTypeError, TypeError, "bad_key", "specs.init takes a JAX random key, not a int", "jax.random.key(0)"),
    "key_of_spec": (lambda: net.specs()["kernel"].initial_value(3), js.BadTypeError, TypeError, "bad_key", "initial_value takes a JAX random key, not a int", "jax.random.key(0)"),
    "key_of_apply": (lambda: net.apply({"kernel": jnp.ones(2)}, rng=jnp.ones(2)), js.BadTypeError, TypeError, "bad_key", "rng= takes a JAX random key, not float32[2]", "jax.random.key(0)"),
    "stream": (lambda: js.transform(lambda: js.next_key(KEY)).apply({}, rng=KEY), js.BadTypeError, TypeError, "bad_name_type", "next_key takes the name of a stream", "rng="),
    "specs_as_tree": (lambda: net.apply(net.specs()), js.BadTypeError, TypeError, "not_a_mapping", "declared, not its values", "net.init"),
    "abstract_start": (lambda: net.init(KEY, warm_start=net.specs().abstract()), js.ParamsMismatchError, ValueError, "params_mismatch", "does not fit", "convert"),
    "key_of_three": (lambda: net.init(jnp.zeros(3, jnp.uint32)), js.BadTypeError, TypeError, "bad_key", "not uint32[3]", "jax.random.key(0)"),
    "listed_collections": (build(lambda: js.get_variable("v", [], collections=[["a"]])), js.BadArgumentError, ValueError, "bad_collections", "not a list of names", "list of strings"),
    "collection_of_a_list": (build(lambda: js.get_collection(["a"])), js.BadTypeError, TypeError, "bad_name_type", "is a string, not ['a']", "give a string"),
    "specs_as_start": (lambda: net.init(KEY, warm_start=net.specs()), js.BadTypeError, TypeError, "not_a_mapping", "declared, not its values", "net.init"),
    "file_as_start": (lambda: net.init(KEY, warm_start="model.safetensors"), js.BadTypeError, TypeError, "not_a_mapping", "warm_start takes a tree of parameters, a Params or a mapping, not a str", "load"),
    "loss_no_scalar": (lambda: js.transform(lambda: js.get_variable("v", [2], regularizer=lambda w: w)).specs().regularization_loss({"v": jnp.ones(2)}), js.BadArgumentError, ValueError, "bad_regularizer", "regularizer of 'v' gave f32[2], no scalar", "jnp.sum"),
    "part_of_a_variable": (in_shard_map, js.ParamsMismatchError, ValueError, "params_mismatch", "do not fit the program: 1 fault", "gather the parts"),
    "table_on_a_mesh": (lambda: net.specs().table(jax.sharding.NamedSharding(MESH, jax.P("data"))), js.BadArgumentError, ValueError, "bad_shardings", "do not fit the shapes of the variables: 1 fault", "shardings(mesh, rules)"),
    "axis_without_rule": (lambda: partitioned("embd").specs().shardings(MESH, {"embed": "data"}), js.BadArgumentError, ValueError, "bad_shardings", "do not fit the mesh {'data': 4}: 1 fault", "correct the partitioners or the rules"),
    "axes_without_dimension": (lambda: partitioned("embed", "mlp").specs(), js.BadArgumentError, ValueError, "bad_partition", "names 2 axes", "axes_partitioner"),
    "other_partition": (other_partition, js.BadArgumentError, ValueError, "partition_mismatch", "was made with P", "same partitioner|leave"),
    "shardings_of_others": (lambda: partitioned("data").init(KEY, out_shardings={"w": jax.sharding.NamedSharding(MESH, jax.P())}), js.BadArgumentError, ValueError, "bad_shardings", "do not fit the program: 2 faults", "of this very program"),
    "constrained": (lambda: js.transform(lambda: js.get_variable("v", [2], constraint=lambda w: jnp.ones(5))).specs().constrain({"v": jnp.ones(2)}), js.BadArgumentError, ValueError, "bad_constraint", "constraint of 'v' gave f32[5] for f32[2]", "shape and dtype"),
    "constrained_away": (lambda: js.transform(lambda: js.get_variable("v", [2], constraint=lambda w: None)).specs().constrain({"v": jnp.ones(2)}), js.BadArgumentError, ValueError, "bad_constraint", "constraint of 'v' gave None for f32[2]", "shape and dtype"),
    "collection_name": (build(lambda: js.add_to_collection(["mine"], 1)), js.BadTypeError, TypeError, "bad_name_type", "collection's name is a string, not ['mine']", "string"),
    "reserved_start": (lambda: js.transform(lambda warm_start: warm_start), js.BadNameError, ValueError, "reserved", "'warm_start'", "init(key, ..., warm_start=tree)"),
    "replace_scope": (lambda: js.Params({"a": {"b": 1}}).replace({"a": {"b": 2}}), js.UnknownNameError, KeyError, "unknown_name", "has no variable 'a'", "'a' is a scope"),
    "tensor_name": (build(lambda: (js.get_variable("v", []), js.value("v:0"))), js.UnknownNameError, KeyError, "unknown_name", "no variable 'v:0'", "without ':0'"),
    "no_value": (build(lambda: js.variable(None)), js.InitializerError, ValueError, "no_value", "needs an initial value", "number"),
    "variable_initializer": (build(lambda: js.variable(js.zeros_initializer())), js.InitializerError, ValueError, "bad_init", "zeros_initializer() without arguments, and it takes some", "js.get_variable(name, shape, initializer=...)"),
    "variable_class": (build(lambda: js.variable(js.zeros_initializer)), js.InitializerError, ValueError, "bad_init", "zeros_initializer() without arguments, and it takes some", "js.get_variable(name, shape, initializer=...)"),
    "variable_function": (build(lambda: js.variable(lambda key, shape, dtype: 1.0)), js.InitializerError, ValueError, "bad_init", "<lambda> without arguments, and it takes some", "js.get_variable(name, shape, initializer=...)"),
    "variable_text": (build(lambda: js.variable("x")), js.BadInitialValueTypeError, TypeError, "init_value", "type str does not convert", "a (nested) list of numbers, or an array"),
    "assign_deleted": (build(lambda: js.assign(js.get_variable("v", [2]), donated())), js.BadArgumentError, ValueError, "deleted", "'v' is assigned an array that is deleted", "donate_argnums"),
    "deleted_value": (build(lambda: js.get_variable("v", initializer=donated())), js.BadArgumentError, ValueError, "deleted", "'initial value' f32[2] is deleted", "donate_argnums"),
    "deleted_leaf": (lambda: net.apply({"kernel": donated()}), js.ParamsMismatchError, ValueError, "params_mismatch", "do not fit the program: 1 fault", "donate_argnums"),
    "no_values": (lambda: js.transform(lambda: js.get_variable("v", [2], regularizer=jnp.sum)).specs().regularization_loss({"v": None}), js.ParamsMismatchError, ValueError, "params_mismatch", "do not fit the program: 1 fault", "give regularization_loss the values"),
    "nesting": (build(out_of_order), js.ScopeExitError, RuntimeError, "nesting", "Improper nesting", "reverse order"),
    "template": (build(template_trainable), js.TemplateError, ValueError, "template_trainable", "after its first", "get_variable"),
    "template_name": (lambda: js.make_template(None, print), js.BadArgumentError, ValueError, "template_name", "needs a name", "name_="),
    "template_function": (lambda: js.make_template("t", 3), js.BadTypeError, TypeError, "not_a_function", "'t' takes a function, not 3", "get_variable"),
    "key_of_bind": (lambda: js.bind({}, rng=3), js.BadTypeError, TypeError, "bad_key", "rng= takes a JAX random key, not a int", "jax.random.key(0)"),
    "outside": (lambda: js.get_variable("v", []), js.OutsideProgramError, RuntimeError, "outside", "outside any program", "js.transform"),
    "reserved": (lambda: js.transform(lambda rng: rng), js.BadNameError, ValueError, "reserved", "'rng'", "rename"),
    "params": (lambda: net.apply({}), js.ParamsMismatchError, ValueError, "params_mismatch", "do not fit", "compare"),
    "unknown": (lambda: js.Params({"a": 1})["b"], js.UnknownNameError, KeyError, "unknown_name", "'b' is neither", "params.names"),
    "unknown_variable": (build(lambda: js.value("b")), js.UnknownNameError, KeyError, "unknown_name", "no variable 'b'", "full name"),
    "not_a_variable": (build(lambda: js.name_of(jnp.ones(2))), js.BadArgumentError, ValueError, "not_a_variable", "no array that get_variable gave", "VariableSpec"),
    "item_assignment": (item_assignment, js.BadTypeError, TypeError, "immutable", "immutable", "params.replace"),
    "assign": (lambda: js.transform(lambda: js.assign(js.get_variable("v", []), 1.0)).apply({"v": 0.0}), js.AssignError, RuntimeError, "assign", "gives no tree back", "net.update"),
    "no_rng": (lambda: js.transform(js.next_key).apply({}), js.MissingRngError, RuntimeError, "no_rng", "given no rng", "rng=jax.random.key(0)"),
    "inner": (build(lambda: jax.jit(lambda: js.get_variable("v", []))()), js.TransformError, RuntimeError, "inner_call", "inside a JAX transform", "js.transform"),
    "checkpoint": (lambda: checkpoint.load_tf("nowhere/model.ckpt"), js.CheckpointError, ValueError, "not_found", "no checkpoint nowhere/model.ckpt", "prefix"),
    "key_second": (lambda: takes_x.apply({}, KEY, jnp.ones(2), True), js.BadTypeError, TypeError, "bad_call", "does not take: ", "keys go by keyword"),
    "key_as_input": (lambda: takes_x.apply({}, KEY, jnp.ones(2)), js.BadTypeError, TypeError, "bad_call", "a random key as `x`", "keys go by keyword"),
    "no_tree": (lambda: takes_x.apply(), js.BadTypeError, TypeError, "bad_call", "takes a tree of parameters as its first", "call it as net.apply(params, x"),
    "no_inputs": (lambda: takes_x.init(KEY), js.BadTypeError, TypeError, "bad_call", "missing 1 required positional argument: 'x'", "give inputs too"),
    "called": (lambda: takes_x(jnp.ones(2)), js.BadTypeError, TypeError, "not_a_function", "is called", "net.apply(params, ...)"),
    "traced_flag": (lambda: jax.jit(takes_x.apply)({}, jnp.ones(2), True), js.BadTypeError, TypeError, "traced", "`training` is traced", "static_argnames='training'"),
    "traced_size": (traced(lambda n: js.get_variable("v", [n])), js.BadTypeError, TypeError, "bad_shape", "a size that JAX traces", "static_argnames='n'"),
    "traced_reuse": (traced(lambda n: js.variable_scope("a", reuse=n)), js.BadArgumentError, ValueError, "bad_reuse", "must be True", "static_argnames='n'"),
    "traced_aux": (traced(lambda n: js.variable_scope("a", auxiliary_name_scope=n)), js.BadTypeError, TypeError, "bad_aux", "must be True", "static_argnames='n'"),
    "traced_name": (traced(lambda n: js.get_variable(f"v{n}", [])), js.BadNameError, ValueError, "bad_name", "is not a valid name", "static_argnames='n'"),
    "trainable_text": (build(lambda: js.get_variable("v", [], trainable="False")), js.BadTypeError, TypeError, "bad_trainable", "trainable= of 'v' is neither True nor False, but 'False'", "True or False"),
    "traced_trainable": (traced(lambda n: js.get_variable("v", [], trainable=n)), js.BadTypeError, TypeError, "traced", "trainable= of 'v' is traced", "static_argnames='n'"),
    "init_form": (build(lambda: js.get_variable("v", [2], initializer=lambda shape, dtype: jnp.ones(shape))), js.BadTypeError, TypeError, "init_value", "this one takes (shape, dtype)", "lambda key, shape, dtype"),
    "program_made": (lambda: js.transform(net), js.BadTypeError, TypeError, "not_a_program", "takes a function, not <jscope program", "which is its __wrapped__"),
    "call_of_a_program": (lambda: js.transform(net.specs), js.BadTypeError, TypeError, "not_a_program", "takes a function, not <specs of <jscope program", "which is its __wrapped__"),
    "template_name_now": (build(lambda: js.make_template(3, print, create_scope_now_=True)), js.BadTypeError, TypeError, "bad_name_type", "default name is a string, not 3", "give a string"),
    "template_scope_now": (build(lambda: js.make_template("t", print, True, 3)), js.BadTypeError, TypeError, "bad_name_type", "template's scope is a string, not 3", "give a string"),
    "default_name": (build(scoped(None, None, default_name=3, auxiliary_name_scope=False)), js.BadTypeError, TypeError, "bad_name_type", "default name is a string, not 3", "give a string"),
    "axes_of_nothing": (lambda: js.axes_partitioner(None), js.BadTypeError, TypeError, "bad_partition", "takes pairs of a pattern and a jax.P, not None", 'jax.P("embed", "mlp")'),
    "specs_of_names": (lambda: js.Specs(net.specs()), js.BadTypeError, TypeError, "not_a_spec", "made from VariableSpecs, not 'kernel'", "Specs(mapping.values())"),
    "defaults_of_a_function": (lambda: js.arg_scope({print: 3}), js.BadTypeError, TypeError, "arg_scope", "a dict of its arguments, not 3", "arg_scope([function], **arguments)"),
    "pattern": (lambda: js.Params({}).select("("), js.BadArgumentError, ValueError, "bad_pattern", "regular expression", "re.escape"),
}  # fmt: skip


def caught(raises):
    with pytest.raises(js.JscopeError) as info:
        raises()
    return info.value


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name):
    raises, ours, theirs, kind, text, fix = CASES[name]
    error = caught(raises)
    assert type(error) is ours
    assert isinstance(error, theirs)
    assert error.kind == kind
    assert text in error.what
    assert any(part in error.fix for part in fix.split("|"))
    message = str(error)
    assert message.startswith(error.what)
    assert message.count("Fix: ") == 1
    assert message.splitlines()[-1].strip() == f"Fix: {error.fix}"
    assert error.where.startswith(HERE + ":"), error.where  # the user's own line, not jscope's nor JAX's
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == message


def test_every_class_is_raised_by_a_case():
    classes = {c for c in vars(_errors).values() if inspect.isclass(c) and issubclass(c, js.JscopeError)}
    assert classes - {js.JscopeError} == {case[1] for case in CASES.values()}


def test_every_class_is_also_a_builtin():
    for case in CASES.values():
        assert issubclass(case[1], js.JscopeError)
        assert any(c.__module__ == "builtins" and c not in (Exception, BaseException, object) for c in case[1].__mro__)


def line():
    return sys._getframe(1).f_lineno


def test_word_by_word():
    with js.build(KEY), js.variable_scope("tower"):
        made = line() + 1
        js.get_variable("kernel", [2, 3])
        failed = line() + 2
        with pytest.raises(js.VariableExistsError) as info:
            js.get_variable("kernel", [2, 3])
        assert str(info.value) == (
            "Variable 'tower/kernel' already exists, and reuse is off here.\n"
            f"  Asked:  get_variable('tower/kernel', shape=(2, 3), dtype=float32) with reuse=False in scope 'tower' at {HERE}:{failed}\n"
            f"  Exists: 'tower/kernel' f32[2,3], made at {HERE}:{made}\n"
            "  Fix: to share it, enter the scope with reuse=True or js.AUTO_REUSE; else use another name or scope"
        )  # fmt: skip
        failed = line() + 2
        with pytest.raises(js.VariableNotFoundError) as info, js.variable_scope("", reuse=True):
            js.get_variable("Kernel", [2])
        assert str(info.value).startswith(
            "Variable 'tower//Kernel' does not exist, and reuse=True makes no new ones.\n"
        )
        assert "  Near:   'tower/kernel'\n" in str(info.value)
        assert info.value.where == f"{HERE}:{failed}"


def test_jax_frames_are_skipped():
    """The user's line is found also where JAX's own code calls jscope's."""
    with pytest.raises(js.OutsideProgramError) as info:
        jax.jit(js.get_variable, static_argnums=(0, 1))("v", ())
    assert info.value.where.startswith(HERE)


def test_apply_tells_where_a_scope_rule_fails():
    def program(twice):
        js.get_variable("v", [])
        if twice:
            js.get_variable("v", [])

    program_ = js.transform(program)
    params = program_.init(KEY, False)
    error = caught(lambda: program_.apply(params, True))
    assert type(error) is js.VariableExistsError
    assert f"made at {HERE}:" in error.exists


@pytest.mark.parametrize(
    "call",
    [
        lambda: js.get_variable("x", [2], "flt"),
        lambda: js.get_variable("x", [-1]),
        lambda: js.get_variable("x", "ab"),
        lambda: js.get_variable("x", initializer="zeros"),
        lambda: js.variable("zeros", "x"),
        lambda: js.variable(1.5, "x", dtype="int32"),
        lambda: js.assign(js.get_variable("x", [], jnp.int32), 1.5),
        lambda: js.assign(js.get_variable("x", [1], jnp.int32), [1.5]),
    ],
)
def test_what_can_not_be_read_is_told_with_the_call(call):
    with js.build(KEY), js.variable_scope("in_here"):
        error = caught(call)
    assert "x'" in error.asked
    assert error.scope == "in_here"
    assert error.where.startswith(f"{HERE}:")


def test_a_bad_call_loses_nothing():
    with js.build(KEY) as built:
        js.get_variable("a", [2])
        before = built.params
        for name in ("exists", "no_shape", "bad_dtype", "bad_getter", "const_shape", "bad_scope_name", "counts"):
            with pytest.raises(js.JscopeError):
                CASES[name][0]()
        assert built.params == before
        assert js.get_variable_scope().name == ""


def test_templates_say_where_they_were_made():
    made = line() + 1
    template = js.make_template("t", lambda fails: js.get_variable("v", [2], initializer=3) if fails else 1 / 0)
    with js.build(KEY):
        with pytest.raises(js.InitializerError) as info:  # one of ours says it in its text
            template(True)
        assert f"\n  In:     template 't', defined at {HERE}:{made}\n" in str(info.value)
        assert not hasattr(info.value, "__notes__")
        with pytest.raises(ZeroDivisionError) as other:  # what is not ours keeps its text, and gets a note
            template(False)
    assert other.value.__notes__ == [f"in template 't', defined at {HERE}:{made}"]


def fails(key, shape, dtype):
    raise KeyError("mine")


def gives_none(key, shape, dtype):
    return None


@pytest.mark.parametrize("initializer", [fails, gives_none])
def test_what_an_initializer_raises_says_for_which_variable(initializer):
    def program():
        with js.variable_scope("a"):
            return js.get_variable("v", [2], initializer=initializer)

    asked = f"{HERE}:{program.__code__.co_firstlineno + 2}"
    made = js.transform(program)
    error = KeyError if initializer is fails else js.InitializerError
    for call in (lambda: made.init(KEY), made.specs, lambda: made.apply({}), build(program)):
        with pytest.raises(error) as info:
            call()
        text = f"the initial value of 'a/v', asked for at {asked}"
        if initializer is fails:
            assert f"in {text}" in info.value.__notes__
        else:
            assert str(info.value).count(f"  In:     {text}\n") == 1


def test_narrowed_dtypes_warn():
    with js.build(KEY) as built:
        asked = line() + 2
        with pytest.warns(UserWarning, match="float64 is float32 here") as warned:
            js.get_variable("v", [], jnp.float64)
    assert (warned[0].filename, warned[0].lineno) == (HERE, asked)
    assert built.specs["v"].dtype == jnp.float32


def test_reuse_reads_as_it_is_written():
    with js.build(KEY), js.variable_scope("a", reuse=js.AUTO_REUSE), pytest.raises(js.InitializerError) as info:
        js.get_variable("v")
    assert "with reuse=AUTO_REUSE in scope 'a'" in str(info.value)
    assert f"{js.AUTO_REUSE}" == "AUTO_REUSE"


def test_calls_outside_are_named_as_they_are_written():
    for call in ("global_variables", "trainable_variables", "local_variables"):
        with pytest.raises(js.OutsideProgramError, match=f"^{call} is called outside any program"):
            getattr(js, call)()


@pytest.mark.parametrize("value", [np.int64(2**40), np.array([2**40]), np.uint64(2**33)])
def test_integers_that_do_not_fit_are_never_cut_off(value):
    """Where JAX's 64-bit mode is off, they are refused wherever they come in, as Python's are."""
    shape = list(np.shape(value))
    program = js.transform(lambda: js.get_variable("n", shape, jnp.int32, trainable=False))
    for call in (
        lambda: program.specs().check({"n": value}),
        lambda: program.apply({"n": value}),
        lambda: program.init(KEY, warm_start={"n": value}),
    ):
        with pytest.raises(js.ParamsMismatchError, match=r"'n': .* can't be held by dtype u?int32"):
            call()
    fits = np.asarray(value).astype(np.int64) % 100
    assert program.apply({"n": fits}).dtype == jnp.int32
    assert program.init(KEY, warm_start={"n": fits})["n"].tolist() == fits.tolist()
    with pytest.raises(js.BadInitialValueTypeError, match="can't be held"):
        js.transform(lambda: js.variable(value)).specs()


def test_assigning_takes_what_get_variable_takes(recwarn):
    def program(value):
        js.assign(js.get_variable("v", [2]), value)

    for value in (np.ones(2), [1.0, 1.0], (1, 1.0), np.ones(2, np.float32), jnp.ones(2)):
        _, tree = js.transform(program).update({"v": jnp.zeros(2)}, value)
        assert tree["v"].tolist() == [1, 1]
        assert tree["v"].dtype == jnp.float32
    assert not recwarn.list


def test_trees_that_begin_too_high_or_too_low():
    """The same names with a scope more or less are close names."""
    tree = {"model": {"kernel": jnp.ones(2)}}
    with pytest.raises(js.ParamsMismatchError, match=r"'kernel' is missing \(near: 'model/kernel'\)"):
        net.apply(tree)
    assert near("tower/w", ["other/w", "model/tower/w"])[0] == "model/tower/w"
    assert near("model/tower/w", ["tower/w", "b"]) == ["tower/w"]


@pytest.mark.parametrize(
    ("initializer", "parameters"),
    [
        (lambda shape, dtype: jnp.ones(shape, dtype), "(shape, dtype)"),
        (lambda shape, dtype=None, partition_info=None: jnp.ones(shape), "(shape, dtype, partition_info)"),
        (lambda: 1.0, "()"),
    ],
)
def test_initializers_of_another_form_are_told_how_they_are_called(initializer, parameters):
    """The error stays a TypeError, as in TF1."""
    program = js.transform(lambda: js.get_variable("v", [2], initializer=initializer))
    for call in (program.specs, lambda: program.init(KEY), lambda: program.apply({})):
        with pytest.raises(TypeError) as info:
            call()
        text = str(info.value)
        assert f"this one takes {parameters}.\n" in text
        assert "Fix: wrap it" in text
        assert "the initial value of 'v', asked for at" in text
