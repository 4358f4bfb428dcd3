"""`Layer` of `tf.layers`: the base of its classes, and of classes of your own.

TF1 keeps in a layer which scope it has and what its `build` has made. A layer here may be called in many programs, so
the run keeps that: in a collection whose key is the layer, as TF1's graph keeps its store of variables in one. A call
works on a copy of the layer that has what the run keeps as attributes, and dies when the call ends.
"""

from __future__ import annotations

import contextlib
import copy
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

import jscope as js

from .by_name import Regularizer
from .faults import as_array, bad_argument
from .scopes import Asked, add_weight


class _Made(NamedTuple):
    """What one run keeps of a layer.

    Attributes:
      scope: the layer's scope.
      built: whether a call has ended well, so that later ones share the variables.
      attributes: what `build` and `call` have set on the layer; of variables, how they were asked for.
    """

    scope: js.VariableScope
    built: bool
    attributes: dict[str, Any]


class _Name(str):
    """Stands for the array of a variable that `js.get_variable` gave: its full name."""

    def again(self) -> jax.Array:
        """The current value."""
        return js.value(str(self))


class Layer:
    """The base of the layer classes. TF1: `tf.layers.Layer`. Haiku: `hk.Module`; Flax: `nn.Module`.

    A layer makes its variables at its first call in a program and shares them at every later one. Its scope is found at
    the first call: the name of the class in lower case with underscores, made unique there, so that two layers of one
    class are `dense` and `dense_1` in the order of their first calls.

    A layer of your own has `build(input_shape)`, which makes its variables by `self.add_weight` and sets them as
    attributes, and `call(inputs, ...)`, which computes; both, or `call` alone. What `build` and `call` set on `self`
    belongs to the running program: `layer.kernel` is the current value there, as custom getters give it, and
    nothing is left of it afterwards. So a layer may be made anywhere, also outside of programs, and be called in
    several of them.

    Args:
      trainable: whether the variables that `add_weight` makes are trainable; default as the scope says
        (`js.variable_scope(trainable=)`). `layer.trainable` may be set later.
      name: the default name of the scope, made unique too; default the name of the class.
      dtype: of the variables; default that of the inputs.
      _scope: the scope's name, or a scope object, used as it is. It is opened here where a program runs, else at the
        first call.
      _reuse: as `reuse` in `js.variable_scope`, for the first call; the default name is then used as it is.

    Example:
      >>> from jscope.layers import Layer
      >>> class Scale(Layer):
      ...     def build(self, input_shape):
      ...         self.factor = self.add_weight("factor", input_shape[-1:], initializer=js.ones_initializer())
      ...     def call(self, inputs):
      ...         return inputs * self.factor
      >>> scale = Scale()
      >>> def program(x):
      ...     y = scale(scale(x))
      ...     return y + Scale()(x), scale.factor
      >>> print(*js.transform(program).specs(jnp.ones((1, 2))))
      scale/factor scale_1/factor
    """

    def __init__(
        self,
        trainable: bool | None = None,
        name: str | None = None,
        dtype: Any = None,
        *,
        _scope: str | js.VariableScope | None = None,
        _reuse: Any = None,
    ) -> None:
        self.trainable = trainable
        self.name = name or snake_case(type(self).__name__)
        self.dtype = None if dtype is None else jnp.dtype(dtype)
        self._reuse = _reuse
        self._scope = _scope
        if _scope:
            try:
                with js.variable_scope(_scope) as captured:
                    self._scope = captured
            except js.OutsideProgramError:
                pass  # the first call opens it

    # The call -----------------------------------------------------------------------------------------------------

    def __call__(self, inputs: Any, *args: Any, scope: str | js.VariableScope | None = None, **kwargs: Any) -> Any:
        """What `call` gives for these inputs, in the layer's scope.

        Args:
          inputs: an array, or several in a list, tuple or dict.
          *args, **kwargs: further arguments of `call`.
          scope: the scope's name, or a scope object; of effect at the first call only.
        """
        made = self._made() or self._open_scope(scope)
        reuse = True if made.built else self._reuse
        with (
            js.variable_scope(made.scope, reuse=reuse, auxiliary_name_scope=False),
            js.name_scope(made.scope.original_name_scope),
        ):
            mine = copy.copy(self)
            vars(mine).update({name: _with_values(kept) for name, kept in made.attributes.items()})
            mine._kept_by = self._kept_by or self
            mine._weights = []
            inputs = jax.tree.map(lambda x: as_array(x, type(self).__name__), inputs)
            if mine.dtype is None:
                mine.dtype = next((x.dtype for x in jax.tree.leaves(inputs)), None)
            before = dict(vars(mine))
            if not made.built:
                mine.build(jax.tree.map(lambda x: x.shape, inputs))
            outputs = mine.call(inputs, *args, **kwargs)
            changed = {
                name: _with_names(value, mine._weights)
                for name, value in vars(mine).items()
                if name not in before or before[name] is not value
            }
        if changed or not made.built:
            self._keep(_Made(made.scope, True, {**made.attributes, **changed}))
        return outputs

    def apply(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The same as calling the layer."""
        return self(inputs, *args, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Makes the variables; called once in a program, before `call`, in the layer's scope.

        Args:
          input_shape: the shape of the inputs, a tuple; of several inputs their shapes, in a list or dict as they are.
        """

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """What the layer computes, in its scope."""
        return inputs

    # What the run keeps -------------------------------------------------------------------------------------------

    # Of the copy that a call works on: the layer itself, and what `add_weight` has given, with how it was asked for.
    _kept_by: Layer | None = None
    _weights: list[tuple[Any, Asked]] | None = None

    def _made(self) -> _Made | None:
        """What the run keeps of the layer; None before its first call."""
        kept = js.get_collection(self._kept_by or self)  # type: ignore[arg-type]  # any hashable is a key, as in TF1
        return kept[-1] if kept else None

    def _keep(self, made: _Made) -> None:
        key: Any = self._kept_by or self
        try:
            js.add_to_collection(key, made)
        except js.TransformError:
            # Arrays of the transform in progress, which are no use outside: reading one later is an AttributeError.
            lasting = {name: value for name, value in made.attributes.items() if not _is_traced(value)}
            js.add_to_collection(key, made._replace(attributes=lasting))

    def _open_scope(self, scope: Any) -> _Made:
        if self._scope:
            opened = js.variable_scope(self._scope)
        elif self._reuse:
            opened = js.variable_scope(self.name if scope is None else scope)
        else:
            opened = js.variable_scope(scope, self.name)
        with opened as found:
            pass
        made = _Made(found, False, {})
        self._keep(made)
        return made

    @property
    def built(self) -> bool:
        """Whether a call has ended well in the running program. TF1's `self.built = True` in `build` has no effect."""
        try:
            made = self._made()
        except js.OutsideProgramError:
            return False
        return made is not None and made.built

    @built.setter
    def built(self, built: bool) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        # Only for names that the layer itself does not have: what `build` and `call` have set in this run.
        if not name.startswith("__"):
            try:
                made = self._made()
            except js.OutsideProgramError:
                made = None
            if made is not None and name in made.attributes:
                return _with_values(made.attributes[name])
        raise AttributeError(
            f"{type(self).__name__!r} has no attribute {name!r}. What build() and call() set is there after the first "
            "call of the layer, in the program that called it, but for arrays computed inside a JAX transform."
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    # Variables and what is added ----------------------------------------------------------------------------------

    def add_weight(
        self,
        name: str,
        shape: Any = None,
        dtype: Any = None,
        initializer: Any = None,
        regularizer: Regularizer | str | None = None,
        trainable: bool | None = None,
        constraint: Any = None,
    ) -> jax.Array:
        """A variable of the layer, made or found in the scope in force; for `build` and `call`.

        Args:
          name, shape, initializer, regularizer, constraint: as in `js.get_variable`.
          dtype: default that of the layer.
          trainable: False for a variable that is not trainable; True has no effect in a layer that is not; default as
            the layer, else the scope says.
        """
        is_frozen = trainable is False or self.trainable is False
        shape, dtype = [] if shape is None else shape, dtype or self.dtype or jnp.float32
        weight = add_weight(
            name,
            shape,
            dtype,
            initializer=initializer,
            regularizer=regularizer,
            constraint=constraint,
            trainable=False if is_frozen else trainable or self.trainable,
        )
        if self._weights is not None:
            self._weights.append((weight, Asked(name, shape, dtype)))
        return weight

    add_variable = add_weight

    def add_update(self, updates: Any, inputs: Any = None) -> None:
        """Lists in the collection `UPDATE_OPS` what `js.assign` gave, which has been assigned already.

        Args:
          updates: an array that `js.assign` gave, or a list of them. None adds nothing.
          inputs: no effect.
        """
        for update in updates if isinstance(updates, list | tuple) else [updates]:
            if update is not None:
                js.add_to_collection(js.GraphKeys.UPDATE_OPS, update)

    def add_loss(self, losses: Any, inputs: Any = None) -> None:
        """Adds a scalar, or several, to the collection `REGULARIZATION_LOSSES`.

        Args:
          losses: a scalar, or a list of them. None adds nothing.
          inputs: no effect.
        """
        for loss in losses if isinstance(losses, list | tuple) else [losses]:
            if loss is not None:
                js.add_to_collection(js.GraphKeys.REGULARIZATION_LOSSES, loss)

    @property
    def scope_name(self) -> str:
        """The full name of the layer's scope in the running program.

        Raises:
          BadArgumentError: before the layer's first call there.
        """
        made = self._made()
        if made is None:
            raise bad_argument(
                f"The layer {self.name!r} has not been called in this program, and its first call finds its scope.",
                asked="Layer.scope_name",
                fix="call the layer first",
            )
        return made.scope.name

    def _in_scope(self, collection: str) -> list[js.VariableSpec]:
        made = self._made()
        listed = [] if made is None else js.get_collection(collection)
        prefix = f"{made.scope.name}/" if made is not None else ""
        return [v for v in listed if isinstance(v, js.VariableSpec) and v.name.startswith(prefix)]

    @property
    def trainable_variables(self) -> list[js.VariableSpec]:
        """The trainable variables in its scope, in the running program."""
        return self._in_scope(js.GraphKeys.TRAINABLE_VARIABLES)

    @property
    def non_trainable_variables(self) -> list[js.VariableSpec]:
        """The other variables in its scope."""
        trainable = {v.name for v in self.trainable_variables}
        return [v for v in self._in_scope(js.GraphKeys.GLOBAL_VARIABLES) if v.name not in trainable]

    @property
    def variables(self) -> list[js.VariableSpec]:
        """All variables in its scope, trainable ones first; none before its first call. `js.value` gives the array."""
        return self.trainable_variables + self.non_trainable_variables

    @property
    def trainable_weights(self) -> list[js.VariableSpec]:
        """The same as `trainable_variables`."""
        return self.trainable_variables

    @property
    def non_trainable_weights(self) -> list[js.VariableSpec]:
        """The same as `non_trainable_variables`."""
        return self.non_trainable_variables

    @property
    def weights(self) -> list[js.VariableSpec]:
        """The same as `variables`."""
        return self.variables

    @property
    def updates(self) -> list[js.VariableSpec]:
        """The variables in its scope that the collection `UPDATE_OPS` lists: those that batch normalization moves."""
        return self._in_scope(js.GraphKeys.UPDATE_OPS)

    @property
    def losses(self) -> list[jax.Array]:
        """The regularization losses of the variables in its scope, computed now."""
        return [] if self._made() is None else js.get_regularization_losses(f"{re.escape(self.scope_name)}/")


def snake_case(name: str) -> str:
    """The name of a class in lower case with underscores, as TF1 makes it: `Conv2DTranspose` is `conv2d_transpose`."""
    made = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    made = re.sub(r"([a-z])([A-Z])", r"\1_\2", made).lower()
    return f"private{made}" if made.startswith("_") else made


def _is_traced(value: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def _with_names(value: Any, weights: list[tuple[Any, Asked]]) -> Any:
    """Arrays of variables, and what a custom getter gave for one, replaced by what stands for them."""

    def asked(leaf: Any) -> Asked | None:
        return next((asked for weight, asked in weights if weight is leaf), None)

    def named(leaf: Any) -> Any:
        if (found := asked(leaf)) is not None:
            return found
        if isinstance(leaf, jax.Array):
            with contextlib.suppress(js.BadArgumentError):  # another array
                return _Name(js.name_of(leaf))
        return leaf

    if not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value)):
        return value
    return jax.tree.map(named, value, is_leaf=lambda leaf: asked(leaf) is not None)


def _with_values(kept: Any) -> Any:
    """The reverse of `_with_names`, with the current values."""
    if not any(isinstance(leaf, Asked | _Name) for leaf in jax.tree.leaves(kept)):
        return kept
    return jax.tree.map(lambda leaf: leaf.again() if isinstance(leaf, Asked | _Name) else leaf, kept)
