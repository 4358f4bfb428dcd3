"""The public surface is what `jscope/__init__.py` re-exports, and nothing else."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import jscope as js


def exported():
    tree = ast.parse(Path(js.__file__).read_text())
    return [alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]


def test_explicit_reexports_in_sorted_order_within_each_file():
    for node in ast.parse(Path(js.__file__).read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name == alias.asname for alias in node.names)
    assert len(exported()) == len(set(exported()))


def test_every_initializer_is_exported():
    assert set(js.initializers.__all__) <= set(exported())
    assert {name for name in exported() if name.endswith("_initializer")} == set(js.initializers.__all__)


def test_every_error_is_exported():
    from jscope import _errors

    errors = {n for n, c in vars(_errors).items() if inspect.isclass(c) and issubclass(c, js.JscopeError)}
    assert errors == {n for n in exported() if n.endswith("Error")}


def test_tf1_argument_order():
    def arguments(f):
        """In order; what can be given by keyword only is no argument of TF1's (`variable_scope(trainable=)`)."""
        parameters = inspect.signature(f).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]

    assert arguments(js.variable_scope) == [
        "name_or_scope", "default_name", "values", "initializer", "regularizer", "caching_device", "partitioner",
        "custom_getter", "reuse", "dtype", "use_resource", "constraint", "auxiliary_name_scope",
    ]  # fmt: skip
    assert arguments(js.get_variable) == [
        "name", "shape", "dtype", "initializer", "regularizer", "trainable", "collections", "caching_device",
        "partitioner", "validate_shape", "use_resource", "custom_getter", "constraint",
    ]  # fmt: skip
    assert arguments(js.get_local_variable) == arguments(js.get_variable)
    assert arguments(js.variable) == ["initial_value", "name", "trainable", "dtype", "collections"]
    assert arguments(js.make_template) == [
        "name_", "func_", "create_scope_now_", "unique_name_", "custom_getter_", "kwargs",
    ]  # fmt: skip
    assert arguments(js.name_scope) == ["name", "default_name", "values"]


def test_every_public_function_is_typed():
    for name in exported():
        thing = getattr(js, name)
        if inspect.isfunction(thing):
            assert "return" in thing.__annotations__, name
            for argument in inspect.signature(thing).parameters:
                assert argument in thing.__annotations__, f"{name}({argument})"
