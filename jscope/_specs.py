"""`Specs`: what a program declares, without any array of it. Floor 1."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._callsite import user_line
from ._comparison import Comparison
from ._declared import united
from ._errors import (
    BadArgumentError,
    BadTypeError,
    ParamsMismatchError,
    UnknownNameError,
    add_place,
)
from ._initial_values import Drawers, check_key
from ._leaves import DELETED, without_value
from ._mismatch import mismatch, mismatch_error, without_values
from ._names import near
from ._params import Params
from ._partitions import Rules, copied, out_of_mesh, placed_by, placements, shardings_for, shardings_of, typed
from ._see import seeing
from ._show import count_of, format_bytes, short, short_type
from ._table import specs_table
from ._values import FromProgram, InitialValue, check_loss, sum_of_losses
from ._variable_spec import VariableSpec

_log = logging.getLogger("jscope")

# Finding close names is slow against thousands of names; nobody reads more suggestions than this.
_SUGGESTIONS = 20


class Specs(Mapping[str, VariableSpec]):
    """What a program declares: full name -> `VariableSpec`, in order of creation. Immutable; `str()` is a table.

    TF1's nearest thing is the list of `tf.global_variables()` after the graph is built.

    Example:
      >>> specs = js.transform(lambda x: x @ js.get_variable("w", [2, 3])).specs(jnp.ones((1, 2)))
      >>> list(specs), specs.size, specs.bytes
      (['w'], 6, 24)
    """

    __slots__ = ("_by_name",)

    def __init__(self, variables: Iterable[VariableSpec] = ()) -> None:
        variables = list(variables)
        if not all(isinstance(spec, VariableSpec) for spec in variables):
            odd = next(spec for spec in variables if not isinstance(spec, VariableSpec))
            raise BadTypeError(
                f"Specs are made from VariableSpecs, not {short(odd)}.",
                kind="not_a_spec",
                where=user_line(),
                fix="give the specs of a mapping, not its names: Specs(mapping.values())",
            )
        self._by_name = {spec.name: spec for spec in variables}

    def __getitem__(self, name: str) -> VariableSpec:
        spec = self._by_name.get(name)
        if spec is None:
            raise UnknownNameError(
                f"The program declares no variable {name!r}.",
                kind="unknown_name",
                where=user_line(),
                near=near(str(name), self._by_name),
                fix="use one of its full names: print(specs) lists them",
            )
        return spec

    # Mapping's own would catch the error, whose close names take long to find.
    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def get(self, name: str, default: Any = None) -> Any:
        """The spec of that name, or `default`."""
        return self._by_name.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __or__(self, other: Specs) -> Specs:
        """What two programs declare together, for one tree that serves both; a variable that both declare counts once.

        Raises:
          BadArgumentError: for names that the two declare differently: another shape, dtype, initializer, ...; the
            message shows both and where they were made.

        Example:
          >>> def linear(name):
          ...     def program(x):
          ...         with js.variable_scope(name): return x @ js.get_variable("w", [2, 2])
          ...     return js.transform(program)
          >>> generator, critic, x = linear("generator"), linear("critic"), jnp.ones((1, 2))
          >>> (generator.specs(x) | critic.specs(x)).init(jax.random.key(0))
          Params({critic: {w: f32[2,2]}, generator: {w: f32[2,2]}})
        """
        if not isinstance(other, Specs):
            return NotImplemented
        return Specs(united(self._by_name, other._by_name))

    @property
    def size(self) -> int:
        """Number of elements of all variables."""
        return sum(spec.size for spec in self.values())

    @property
    def bytes(self) -> int:
        """Bytes that all variables take."""
        return sum(spec.bytes for spec in self.values())

    def abstract(self, shardings: Any = None) -> Params:
        """A tree of `jax.ShapeDtypeStruct`s: what orbax and `jax.eval_shape` users restore into.

        Args:
          shardings: where the values shall lie, by name, as `shardings` gives it; or one sharding for all.

        Raises:
          BadArgumentError: if `shardings` has other names.

        Example:
          >>> js.transform(lambda: js.get_variable("v", [2])).specs().abstract()
          Params({v: f32[2]})
        """
        if shardings is None:
            return Params({name: spec.abstract() for name, spec in self.items()})
        given = shardings_for(self, shardings, "specs.abstract")
        structs = {
            name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=given[name]) for name, spec in self.items()
        }
        return Params(structs)

    def shardings(self, mesh: Any, rules: Rules | None = None) -> Params:
        """Where each variable lies on a mesh of devices: a tree of `jax.sharding.NamedSharding`s.

        A variable without a partition is on every device. Flax: `nn.logical_to_mesh_sharding`; Haliax: `named_jit` with
        an axis mapping. Those replicate what is misspelt; here it is an error.

        Args:
          mesh: a `jax.sharding.Mesh` (`jax.make_mesh`) or an abstract one.
          rules: name of an axis in the program -> axis of the mesh, several of them, or None not to cut along it. A
            name without a rule has to be an axis of the mesh itself.

        Raises:
          BadArgumentError: for axes without a rule, axes that the mesh does not have, one that cuts two dimensions of a
            variable, and sizes that can't be cut into equal parts: all faults of all variables in one error.
          BadTypeError: for what is no mesh.

        Example:
          >>> net = js.transform(lambda: js.get_variable("w", [4, 8], partitioner=jax.P("embed", "mlp")))
          >>> mesh = jax.make_mesh((1,), ("model",))
          >>> tuple(net.specs().shardings(mesh, {"embed": None, "mlp": "model"})["w"].spec)
          (None, 'model')
        """
        return shardings_of(self, mesh, rules)

    def init(self, key: jax.Array, *, warm_start: Mapping[str, Any] | None = None, out_shardings: Any = None) -> Params:
        """All initial values, each from `key` and its own name, shape, dtype and initializer alone.

        Args:
          key: a JAX random key.
          warm_start: a tree of values to keep; only what it lacks is made. It must fit (see `compare`); what was kept
            and made is logged to the logger "jscope".
          out_shardings: where the values shall lie: what `shardings` gives, or one `jax.sharding.Sharding` for all.
            Each device makes its own part; the values are the same to the bit. Default: on JAX's default device.

        Raises:
          BadArgumentError: if `out_shardings` has other names, or other devices than a key that is bound to some.
          ParamsMismatchError: if something in `warm_start` is not declared, or has another shape or dtype.
          InitializerError: if the program computes an initial value; `net.init` can.
          BadTypeError: for what is no JAX random key, and for a `warm_start` that is no tree.

        Example:
          >>> specs = js.transform(lambda: js.get_variable("v", [2])).specs()
          >>> specs.init(jax.random.key(0), warm_start={"v": jnp.ones(2)})["v"]
          Array([1., 1.], dtype=float32)
        """
        check_key(key, "specs.init")
        placed = None if out_shardings is None else placements(self, out_shardings, key, "specs.init(out_shardings=)")
        with Drawers(key) as drawers:
            return self.init_with(drawers, {}, warm_start, placed)

    def init_with(
        self,
        drawers: Drawers,
        computed: Mapping[str, jax.Array],
        warm_start: Mapping[str, Any] | None = None,
        placed: Mapping[str, Any] | None = None,
    ) -> Params:
        """As `init`, with what draws the values, those that the program computed, and a sharding for each name."""
        given = Params() if warm_start is None else params_of(warm_start, "warm_start")
        if warm_start is not None:
            report = self.compare(given)
            faults = report.faults(allow_missing=True) + without_values(report, given)
            if faults:
                raise ParamsMismatchError(
                    f"warm_start does not fit the program: {count_of(faults)}.",
                    kind="params_mismatch",
                    faults=faults,
                    where=user_line(),
                    fix="rename or drop what is not declared (params.select), convert what has a wrong shape or dtype",
                )
            _log.info("warm start: %d kept, %d made\n%s", len(report.kept), len(report.missing), report)
        with out_of_mesh(drawers.key):
            return Params(self._values(drawers, computed, given.flat(), placed or {}))

    def _values(
        self, drawers: Drawers, computed: Mapping[str, Any], kept: Mapping[str, Any], placed: Mapping[str, Any]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, spec in self.items():
            source = kept.get(name, computed.get(name))
            if source is not None:
                # A copy: every leaf is a buffer of its own, so that donating the tree donates nobody else's array.
                values[name] = copied(source, spec.dtype, placed.get(name))
            elif isinstance(spec.initializer, InitialValue):
                values[name] = copied(spec.initializer.array, spec.dtype, placed.get(name))
            elif isinstance(spec.initializer, FromProgram):
                values[name] = spec.initial_value(drawers.key)
            else:
                drawers.expect(spec.initializer, spec.shape, spec.dtype, placed.get(name))
        for name, spec in self.items():  # in order of creation, as what an initializer raises comes
            if name not in values:
                try:
                    values[name] = drawers.draw(spec.initializer, spec.shape, spec.dtype, name, placed.get(name))
                except Exception as error:
                    add_place(error, f"the initial value of '{name}', asked for at {spec.created_at}")
                    raise
        return {name: typed(value, placed.get(name)) for name, value in values.items()} if placed else values

    def compare(self, params: Mapping[str, Any]) -> Comparison:
        """How `params` fits: what would be kept, is missing, is not declared, or has the wrong shape or dtype.

        Example:
          >>> print(js.transform(lambda: js.get_variable("kernel", [2])).specs().compare({"kernl": 1.0}))
          state       name    note
          missing     kernel  near: 'kernl'
          unexpected  kernl   near: 'kernel'
        """
        given = params_of(params, "compare").flat()
        kept, missing, mismatched = [], [], {}
        for name, spec in self.items():
            if name not in given:
                missing.append(name)
                continue
            fault = mismatch(given[name], spec.shape, spec.dtype)
            if fault:
                mismatched[name] = fault
            else:
                kept.append(name)
        unexpected = [name for name in given if name not in self._by_name]
        suggestions = {name: tuple(near(name, unexpected)) for name in missing[:_SUGGESTIONS]}
        suggestions |= {name: tuple(near(name, missing)) for name in unexpected[:_SUGGESTIONS]}
        return Comparison(tuple(kept), tuple(missing), tuple(unexpected), mismatched, suggestions)

    def check(self, params: Mapping[str, Any], *, allow_unexpected: bool = False) -> None:
        """Raises unless `params` holds exactly what is declared, every fault in one error.

        Args:
          params: the tree.
          allow_unexpected: with True it may hold more than that: another program's variables.

        Raises:
          ParamsMismatchError: for names missing or not declared, wrong shapes and dtypes, and arrays that are deleted.

        Example:
          >>> js.transform(lambda: js.get_variable("v", [2])).specs().check({"v": jnp.ones(2)})
        """
        report = self.compare(params)
        faults = report.faults(allow_unexpected=allow_unexpected)
        faults += [fault for fault in without_values(report, Params(params)) if DELETED in fault]
        if faults:
            raise mismatch_error(faults)

    def select(self, params: Mapping[str, Any]) -> tuple[Params, Params]:
        """`(declared, rest)`: this program's variables, and what else is in the tree; `declared | rest` gives it back.

        Raises:
          ParamsMismatchError: for variables that the tree lacks, and wrong shapes and dtypes.

        Example:
          >>> net = js.transform(lambda: js.get_variable("w", []))
          >>> [part.names for part in net.specs().select({"w": 1.0, "other": 2.0})]
          [('w',), ('other',)]
        """
        if isinstance(params, str):
            raise BadTypeError(
                f"specs.select takes a tree of parameters, not {short(params)}.",
                kind="not_a_mapping",
                where=user_line(),
                fix="params.select(pattern) chooses from a tree by names",
            )
        tree = params_of(params, "select")
        self.check(tree, allow_unexpected=True)
        return tree.select(lambda name, _: name in self._by_name)

    def split(self, params: Mapping[str, Any], *, allow_unexpected: bool = False) -> tuple[Params, Params]:
        """`(trainable, rest)`; `trainable | rest` gives the tree back.

        Args:
          params: the tree, or a part of it.
          allow_unexpected: with True, names that are not declared go to the rest: another program trains them.

        Raises:
          ParamsMismatchError: for names that are not declared.

        Example:
          >>> def program(): js.get_variable("w", []); js.get_variable("count", [], trainable=False)
          >>> trainable, rest = js.transform(program).specs().split({"w": 1.0, "count": 0.0})
          >>> trainable.names, rest.names
          (('w',), ('count',))
        """
        tree = self._declared(params, "split", allow_unexpected)
        return tree.select(lambda name, _: name in self._by_name and self._by_name[name].trainable)

    def regularization_loss(self, params: Mapping[str, Any], *, allow_unexpected: bool = False) -> jax.Array:
        """The sum of all regularizers on the values in `params`: a float32 scalar, 0 where there are none.

        TF1: `tf.losses.get_regularization_loss()`.

        Args:
          params: the tree, or a part of it.
          allow_unexpected: with True, names that are not declared are left out.

        Raises:
          ParamsMismatchError: for names that are not declared, and for what has a regularizer and no value.
          BadArgumentError: for a regularizer that gives no scalar.

        Example:
          >>> program = lambda: js.get_variable("w", [2], regularizer=lambda w: jnp.sum(w**2))
          >>> float(js.transform(program).specs().regularization_loss({"w": jnp.ones(2)}))
          2.0
        """
        regularized = [name for name, spec in self.items() if spec.regularizer is not None]
        given = self._declared(params, "regularization_loss", allow_unexpected, regularized).flat()
        losses = [jnp.float32(0.0)]
        for name, spec in self.items():
            loss = spec.regularizer(given[name]) if spec.regularizer is not None and name in given else None
            if loss is None:
                continue
            check_loss(loss, name, f"made at {spec.created_at}")
            losses.append(loss)
        return sum_of_losses(losses)

    def constrain(self, params: Mapping[str, Any], *, allow_unexpected: bool = False) -> Params:
        """The tree with every constraint applied, as TF1's optimizers do after a step.

        Args:
          params: the tree, or a part of it.
          allow_unexpected: with True, names that are not declared are left as they are.

        Raises:
          ParamsMismatchError: for names that are not declared, and for what has a constraint and no value.
          BadArgumentError: for a constraint that gives another shape or dtype than it gets.

        Example:
          >>> program = lambda: js.get_variable("w", [2], constraint=lambda w: jnp.clip(w, 0, 1))
          >>> js.transform(program).specs().constrain({"w": jnp.array([-1.0, 2.0])})["w"]
          Array([0., 1.], dtype=float32)
        """

        def constrained(name: str, value: Any) -> Any:
            spec = self._by_name.get(name)
            if spec is None or spec.constraint is None:
                return value
            result = spec.constraint(value)
            # What is no JAX array yet is of the declared dtype as soon as JAX computes with it.
            dtype = value.dtype if isinstance(value, jax.Array) else spec.dtype
            if mismatch(result, np.shape(value), dtype):
                raise BadArgumentError(
                    f"The constraint of '{name}' gave {short_type(result)} for {short_type(value)}.",
                    kind="bad_constraint",
                    exists=f"made at {spec.created_at}",
                    where=user_line(),
                    fix="let it return an array of the shape and dtype that it is called with",
                )
            return result

        limited = [name for name, spec in self.items() if spec.constraint is not None]
        return self._declared(params, "constrain", allow_unexpected, limited).map_with_name(constrained)

    def _declared(
        self, params: Mapping[str, Any], call: str, allow_unexpected: bool, used: Iterable[str] = ()
    ) -> Params:
        """The tree, if it holds what is declared, and values of what is `used`, as far as it has it."""
        tree = params_of(params, call)
        unknown = [f"'{name}' is not declared" for name in tree.names if name not in self._by_name]
        if unknown and not allow_unexpected:
            fix = f"where other programs share the tree: {call}(params, allow_unexpected=True); else mend the names"
            raise mismatch_error(unknown, fix=fix)
        leaves = tree.flat()
        given = ((name, leaves[name]) for name in used if name in leaves)
        whys = ((name, "is None" if leaf is None else without_value(leaf)) for name, leaf in given)
        if faults := [f"'{name}' {why}" for name, why in whys if why]:
            raise mismatch_error(faults, fix=f"give {call} the values, or leave these variables out of the tree")
        return tree

    def __repr__(self) -> str:
        return f"<Specs: {len(self)} variables, {self.size:,} elements, {format_bytes(self.bytes)}>"

    def table(self, shardings: Any = None, *, depth: int | None = None, width: int = 120) -> str:
        """A table for a terminal: the variables under their scopes, with the totals of each scope. `str()` gives it.

        Initializers are shown with the arguments that are not their defaults, partitions where there are any. A `?`
        after the reads marks what was made under AUTO_REUSE, is read once, and is near another name: a misspelling
        makes a new variable. Keras has `model.summary()` for this, Flax `nn.tabulate`.

        With shardings it says where the variables lie instead: the axes that the program names, how each dimension is
        cut along the axes of the mesh, and the bytes on each device.

        Args:
          shardings: where the values shall lie, by name, as `shardings` gives it; or one sharding for all.
          depth: with a number, only the totals of scopes, down to that depth, and the variables outside of those.
          width: columns that the table may take, at least 80; longer texts are cut.

        Raises:
          BadArgumentError: if `shardings` has other names, or one of them does not fit the shape of its variable.

        Example:
          >>> def program():
          ...     with js.variable_scope("tower"):
          ...         js.get_variable("w", [2, 3], initializer=js.random_normal_initializer(stddev=0.05))
          >>> print(js.transform(program).specs().table(depth=1))
          variable  type  trainable  initializer  reads  created at
          tower/    1 variable, 6 elements, 24 B
          1 variable, 6 elements, 24 B
          >>> specs = js.transform(lambda: js.get_variable("w", [2, 3], partitioner=jax.P("embed", "mlp"))).specs()
          >>> mesh = jax.sharding.AbstractMesh((2,), ("data",))
          >>> print(specs.table(specs.shardings(mesh, {"embed": "data", "mlp": None})))
          variable  type      axes              spec            on each device
          w         f32[2,3]  ('embed', 'mlp')  ('data', None)  12 B
          1 variable, 6 elements, 24 B, 12 B on each device
        """
        placed = None if shardings is None else placed_by(self, shardings, "specs.table")
        return specs_table(self.values(), depth, width, placed)

    def __str__(self) -> str:
        return self.table()

    def to_html(self, *, path: str | os.PathLike[str] | None = None, title: str = "") -> str:
        """The sharing picture as one HTML page that needs nothing else: it works from disk, without a network.

        Scopes are nested boxes that can be folded, variables squares as large as their bytes, and an edge goes from
        each line that reads a variable to that variable; shared ones stand out. `python -m jscope report` writes it
        from the shell.

        Args:
          path: a file to write it to, too.
          title: its title.

        Returns:
          The page's text.

        Example:
          >>> page = js.transform(lambda: js.get_variable("v", [2])).specs().to_html(title="one variable")
          >>> page.startswith("<!doctype html>"), "<title>one variable</title>" in page
          (True, True)
        """
        return seeing().to_html(self, path=path, title=title)

    def to_text(self, *, depth: int | None = None, width: int = 120) -> str:
        """The sharing picture for a terminal: a bar for the bytes, an arrow from each line that reads a variable.

        Args:
          depth: with a number, only the totals of scopes, down to that depth, and the variables outside of those.
          width: columns that it may take.

        Example:
          >>> def program():
          ...     js.get_variable("w", [4])
          ...     with js.variable_scope(js.get_variable_scope(), reuse=True):
          ...         return js.get_variable("w", [4])
          >>> print(js.transform(program).specs().to_text().splitlines()[-1])
          1 variable, 4 elements, 16 B, 1 shared
        """
        return seeing().to_text(self, depth=depth, width=width)

    def _repr_html_(self) -> str:
        return seeing().fragments.specs(self)

    def __treescope_repr__(self, path: Any, subtree_renderer: Any) -> Any:
        """How treescope shows it: as a foldable mapping by full name."""
        from treescope import repr_lib

        return repr_lib.render_dictionary_wrapper(
            object_type=Specs, wrapped_dict=self._by_name, path=path, subtree_renderer=subtree_renderer
        )


def params_of(tree: Any, what: str) -> Params:
    """The `Params` that a user's argument stands for.

    Raises:
      BadTypeError: if it is no mapping, or `Specs`.
    """
    if isinstance(tree, Params):
        return tree
    if isinstance(tree, Mapping) and not isinstance(tree, Specs):
        return Params(tree)
    is_path = isinstance(tree, str | os.PathLike)
    raise BadTypeError(
        f"{what} takes a tree of parameters: these Specs say what is declared, not its values."
        if isinstance(tree, Specs)
        else f"{what} takes a tree of parameters, a Params or a mapping, not a {type(tree).__name__}.",
        kind="not_a_mapping",
        where=user_line(),
        fix="read it first: jscope.checkpoint.load(path)" if is_path else "pass what net.init or specs.init gave",
    )
