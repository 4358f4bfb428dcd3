"""An interpreter of the recorded scope programs (tests/data/*.jsonl): runs one and records what TensorFlow would.

Where a program makes an ordinary operation, TensorFlow's op-name table counts it and jscope can't see it; `add`
therefore opens a `name_scope` of the operation's name in its place, so that the numbering agrees.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope._ambient import current

# What jscope leaves out: TF1's variables cut in parts, other threads inside one graph, switching between graphs.
LEFT_OUT = {"part", "thread", "graph"}


def load(path: Path) -> list[dict[str, Any]]:
    with path.open() as lines:
        return [json.loads(line) for line in lines]


class UserError(Exception):
    """What the statement `raise` raises."""


def error_class(error: BaseException) -> str:
    """The name TensorFlow's error has: the builtin under jscope's class."""
    if isinstance(error, js.JscopeError):
        return next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")
    return type(error).__name__


def error_kind(error: BaseException) -> str:
    if isinstance(error, js.JscopeError):
        return error.kind
    if isinstance(error, UserError):
        return "user"
    # The only plain errors in these programs come from calling an initializer with arguments it does not take.
    return "init_value" if isinstance(error, TypeError) else "other"


def reuse_of(value: Any) -> Any:
    return js.AUTO_REUSE if value == "auto" else value


def reuse_name(value: Any) -> str:
    return "auto" if value is js.AUTO_REUSE else str(value).lower()


def identity(value: Any) -> Any:
    return value


def initializer_of(spec: Any) -> Any:
    if spec is None:
        return None
    if isinstance(spec, int | float):
        return js.constant_initializer(spec)
    if "const" in spec:
        value = np.asarray(spec["const"])
        default = {"f": "float32", "i": "int32"}.get(value.dtype.kind, value.dtype.name)
        return jnp.asarray(value, spec.get("dtype") or default)
    if "np" in spec:
        return np.array(spec["np"], spec.get("dtype"))
    if "py" in spec:
        return spec["py"]
    if "class" in spec:
        return {"zeros": js.zeros_initializer, "ones": js.ones_initializer}[spec["class"]]
    if "inst" in spec:
        return {"zeros": js.zeros_initializer, "ones": js.ones_initializer}[spec["inst"]]()
    if "fn0" in spec:
        return lambda: spec["fn0"]
    # The recorded callable is tf.constant(X, dtype, shape), which refuses floats for integers.
    return lambda key, shape, dtype: js.constant_initializer(spec["fn"])(key, shape, dtype)


def regularizer_of(spec: Any) -> Any:
    if spec is None:
        return None
    if spec == "none":
        return js.no_regularizer

    def regularizer(value: Any) -> Any:
        return spec * jnp.sum(value.astype(jnp.float32))

    regularizer.scale = spec
    return regularizer


class Interpreter:
    """One run of one program, inside whatever jscope program is open.

    Args:
      concrete: whether the arrays have values to record.
    """

    def __init__(self, concrete: bool) -> None:
        self.concrete = concrete
        self.events: list[dict[str, Any]] = []
        self.scopes: dict[str, Any] = {}
        self.variables: dict[str, Any] = {}
        self.templates: dict[str, Any] = {}
        self.entered: dict[str, Any] = {}
        self.seen: list[Any] = []
        self.last_float: Any = None

    def trace(self, program: list[dict[str, Any]]) -> dict[str, Any]:
        aborted = None
        try:
            self.run(program)
        except Exception as error:
            if not isinstance(error, js.JscopeError | UserError | TypeError):
                raise
            aborted = {"error": error_class(error), "kind": error_kind(error)}
        losses = []
        for spec in current("test").specs():
            if spec.regularizer is not None and spec.regularizer is not js.no_regularizer:
                losses.append({"var": spec.name, "scale": spec.regularizer.scale})
        assert len(js.get_regularization_losses()) == len(losses)
        return {
            "events": self.events,
            "aborted": aborted,
            "globals": [v.name for v in js.global_variables()],
            "trainables": [v.name for v in js.trainable_variables()],
            "locals": [v.name for v in js.local_variables()],
            "reg_losses": losses,
        }

    def run(self, body: list[dict[str, Any]]) -> None:
        for statement in body:
            getattr(self, "do_" + statement["op"])(statement)

    def record(self, statement: dict[str, Any], field: str, call: Callable[[], Any], op: str = "") -> Any:
        """Runs `call`; records an error of the statement itself before it travels on."""
        try:
            return call()
        except Exception as error:
            event = {"op": op or statement["op"], field: statement.get("name" if field == "arg" else field)}
            if statement["op"] in ("scope", "enter") and statement.get("name") is None:
                event["default_name"] = statement.get("default_name")
            self.events.append({**event, "error": error_class(error), "kind": error_kind(error)})
            raise

    def scope(self, ref: str | None) -> Any:
        return js.get_variable_scope() if ref in (None, "@current") else self.scopes.get(ref)

    def skip(self, statement: dict[str, Any], field: str = "ref") -> None:
        self.events.append({"op": statement["op"], field: statement[field], "skipped": True})

    def getter_of(self, spec: Any) -> Any:
        if spec is None:
            return None
        if spec == "bad":
            return 3
        what, _, argument = spec.partition(":")

        def getter(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            if what == "log":
                event = {"op": "getter", "tag": argument, "name": name, "reuse": reuse_name(kwargs["reuse"])}
                self.events.append(event)
            elif what == "suffix":
                name += argument
            elif what == "notrain":
                kwargs["trainable"] = False
            elif what == "auto":
                kwargs["reuse"] = js.AUTO_REUSE
            return getter(name, *args, **kwargs)

        return getter

    # Statements -------------------------------------------------------------------------------------------------------

    def scope_options(self, s: dict[str, Any]) -> dict[str, Any]:
        return {
            "reuse": reuse_of(s.get("reuse")),
            "initializer": initializer_of(s.get("init")),
            "dtype": s.get("dtype"),
            "regularizer": regularizer_of(s.get("reg")),
            "custom_getter": self.getter_of(s.get("getter")),
            "constraint": identity if s.get("constraint") else None,
            "auxiliary_name_scope": s.get("aux", True),
        }

    def within(self, s: dict[str, Any], target: Any, field: str) -> None:
        opened = self.record(s, field, lambda: self.enter(s, target))
        try:
            self.run(s["body"])
        except BaseException as error:
            opened.__exit__(type(error), error, error.__traceback__)
            raise
        opened.__exit__(None, None, None)

    def enter(self, s: dict[str, Any], target: Any) -> Any:
        opened = js.variable_scope(target, s.get("default_name"), **self.scope_options(s))
        entered = opened.__enter__()
        if s.get("capture"):
            self.scopes[s["capture"]] = entered
        return opened

    def do_scope(self, s: dict[str, Any]) -> None:
        self.within(s, s["name"], "name")

    def do_scope_obj(self, s: dict[str, Any]) -> None:
        target = self.scope(s["ref"])
        if target is None:
            return self.skip(s)
        self.within(s, target, "ref")

    def do_enter(self, s: dict[str, Any]) -> None:
        self.entered[s["bind"]] = self.record(s, "name", lambda: self.enter(s, s["name"]), op="scope")

    def do_exit(self, s: dict[str, Any]) -> None:
        self.record(s, "ref", lambda: self.entered[s["ref"]].__exit__(None, None, None))

    def do_capture(self, s: dict[str, Any]) -> None:
        self.scopes[s["bind"]] = js.get_variable_scope()

    def do_get(self, s: dict[str, Any], get: Callable[..., Any] = js.get_variable) -> None:
        variable = self.record(
            s,
            "arg",
            lambda: get(
                s["name"],
                shape=s.get("shape"),
                dtype=s.get("dtype"),
                initializer=initializer_of(s.get("init")),
                regularizer=regularizer_of(s.get("reg")),
                trainable=s.get("trainable"),
                collections=s.get("collections"),
                custom_getter=self.getter_of(s.get("getter")),
                constraint=identity if s.get("constraint") else None,
            ),
        )
        self.made(s, variable)

    def do_get_local(self, s: dict[str, Any]) -> None:
        self.do_get(s, js.get_local_variable)

    def do_variable(self, s: dict[str, Any]) -> None:
        make = lambda: js.variable(s["value"], s.get("name"), s.get("trainable", True), s.get("dtype"))  # noqa: E731
        self.made(s, self.record(s, "arg", make))

    def made(self, s: dict[str, Any], variable: Any) -> None:
        spec = current("test").find(variable, "test").spec()
        assert js.name_of(variable) == spec.name
        new = not any(variable is other for other in self.seen)
        if new:
            self.seen.append(variable)
        number = next(i for i, other in enumerate(self.seen) if variable is other)
        if spec.initializer == js.glorot_uniform_initializer():
            value: Any = "glorot"
        elif self.concrete:
            value = np.asarray(variable.astype(jnp.float64) if variable.dtype == jnp.bfloat16 else variable).tolist()
        else:
            value = ("of", spec.name)
        event = {
            "op": s["op"],
            "arg": s.get("name"),
            "key": spec.key,
            "id": number,
            "new": new,
            "shape": list(variable.shape),
            "dtype": variable.dtype.name,
            "name": spec.name,
            "trainable": spec.trainable,
            "init": value,
        }
        assert (spec.shape, spec.dtype) == (variable.shape, variable.dtype)
        if spec.constraint is not None:
            event["constraint"] = True
        self.events.append(event)
        if s.get("bind"):
            self.variables[s["bind"]] = variable
        if jnp.issubdtype(variable.dtype, jnp.floating):
            self.last_float = variable

    def do_add(self, s: dict[str, Any]) -> None:
        def op_name() -> str:
            with js.name_scope(s.get("name") or "add") as scope:
                return scope.removesuffix("/")

        self.events.append({"op": "add", "name": self.record(s, "name", op_name)})

    def do_inspect(self, s: dict[str, Any]) -> None:
        scope = self.scope(s.get("ref"))
        if scope is None:
            return self.skip(s)
        dtype = scope.dtype
        self.events.append(
            {
                "op": "inspect",
                "scope": scope.name,
                "reuse": reuse_name(scope.reuse),
                "original_name_scope": scope.original_name_scope,
                "name_scope": current("test").scopes.op_scope,
                "dtype": dtype if isinstance(dtype, str) else dtype.name,
                "has_init": scope.initializer is not None,
                "has_reg": scope.regularizer is not None,
                "has_getter": scope.custom_getter is not None,
            }
        )

    def do_reuse_variables(self, s: dict[str, Any]) -> None:
        scope = self.scope(s.get("ref"))
        if scope is None:
            return self.skip(s)
        scope.reuse_variables()

    def do_set(self, s: dict[str, Any]) -> None:
        scope = self.scope(s.get("ref"))
        if scope is None:
            return self.skip(s)
        value = s["value"]
        {
            "init": lambda: scope.set_initializer(initializer_of(value)),
            "dtype": lambda: scope.set_dtype(value),
            "reg": lambda: scope.set_regularizer(regularizer_of(value)),
            "getter": lambda: scope.set_custom_getter(self.getter_of(value)),
        }[s["what"]]()

    def do_name_scope(self, s: dict[str, Any]) -> None:
        name = s.get("name")
        if "orig" in s:
            scope = self.scope(s["orig"])
            if scope is None:
                return self.skip(s, "orig")
            name = scope.original_name_scope
        opened = js.name_scope(name)
        self.record(s, "name", opened.__enter__)
        try:
            self.run(s["body"])
        except BaseException as error:
            opened.__exit__(type(error), error, error.__traceback__)
            raise
        opened.__exit__(None, None, None)

    def do_collection(self, s: dict[str, Any]) -> None:
        keys = {
            "globals": js.GraphKeys.GLOBAL_VARIABLES,
            "trainables": js.GraphKeys.TRAINABLE_VARIABLES,
            "locals": js.GraphKeys.LOCAL_VARIABLES,
        }
        key = keys.get(s["key"], s["key"])
        if s.get("ref") is not None:
            scope = self.scope(s["ref"])
            if scope is None:
                return self.skip(s)
            items = scope.get_collection(key)
        else:
            items = js.get_collection(key, s.get("match"))
        self.events.append({"op": "collection", "key": s["key"], "names": [item.name for item in items]})

    def do_template_def(self, s: dict[str, Any]) -> None:
        make = lambda: js.make_template(  # noqa: E731
            s["name"],
            lambda: self.run(s["body"]),
            create_scope_now_=bool(s.get("create_scope_now")),
            unique_name_=s.get("unique_name"),
            custom_getter_=self.getter_of(s.get("getter")),
        )
        self.templates[s["bind"]] = self.record(s, "bind", make)

    def do_template_call(self, s: dict[str, Any]) -> None:
        template = self.templates.get(s["ref"])
        if template is None:
            return self.skip(s)
        self.record(s, "ref", template)
        self.events.append({"op": "template_call", "ref": s["ref"], "scope": template.variable_scope.name})

    def do_try(self, s: dict[str, Any]) -> None:
        event = {"op": "try", "error": None}
        try:
            self.run(s["body"])
        except Exception as error:
            if not isinstance(error, js.JscopeError | UserError | TypeError):
                raise
            event = {"op": "try", "error": error_class(error), "kind": error_kind(error)}
        self.events.append(event)

    def do_raise(self, s: dict[str, Any]) -> None:
        raise UserError


def run_in_build(program: list[dict[str, Any]]) -> dict[str, Any]:
    """The trace of the program under `js.build`."""
    with js.build(jax.random.key(0)):
        return Interpreter(concrete=True).trace(program)


def run_in_transform(program: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], js.Params]:
    """The traces of `specs`, of `init`'s own passes and of two `apply`s, and what `init` gave."""
    traces: list[dict[str, Any]] = []
    concrete = False

    def run() -> None:
        traces.append(Interpreter(concrete).trace(program))

    net = js.transform(run)
    net.specs()
    params = net.init(jax.random.key(0))
    concrete = True
    net.apply(params)
    net.apply(params)  # the second time from the script of the first, as far as that goes
    return traces, params
