"""`Params`: the immutable tree of parameters, one pytree node over an interned layout of names. Floor 1."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from ._callsite import user_line
from ._errors import BadArgumentError, BadNameError, BadTypeError, UnknownNameError
from ._layout import Layout
from ._names import matcher, near, split
from ._see import seeing
from ._show import nested, short_type, some

_MISSING: Any = object()


class Params(Mapping[str, Any]):
    """An immutable nested mapping from scope and variable names to arrays.

    `params["tower"]["kernel"]`, `params["tower/kernel"]` and `params["tower"]` (a sub-tree) all work, and iteration
    gives the top-level keys. To JAX it is one node: its leaves in sorted order of their full names.

    Args:
      tree: a nested or flat mapping; its leaves are kept as they are (arrays, `None`, labels, shardings, ...).

    Raises:
      BadNameError: if two entries of `tree` have one full name.
      BadTypeError: if `tree` is no mapping or a key is no string.

    Example:
      >>> import jax.numpy as jnp, jscope as js
      >>> params = js.Params({"tower": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}})
      >>> params
      Params({tower: {bias: f32[3], kernel: f32[2,3]}})
      >>> params["tower/bias"].shape, params["tower"].names, list(params)
      ((3,), ('bias', 'kernel'), ['tower'])

    Where a variable and a scope have one name, `params[name]` (hence `items()`) is the variable: `scope(name)` gives
    the scope, and `flat()` everything.

    Checkpoints of orbax: a tree saved as `Params` is restored into a `Params` of `jax.ShapeDtypeStruct`s
    (`specs.abstract()`), or without a target as a flat dict, which `Params(...)` takes. One saved as nested dicts is
    restored into `specs.abstract().to_dict()`, then `Params(...)`.
    """

    __slots__ = ("__weakref__", "_layout", "_leaves")

    _layout: Layout
    _leaves: tuple[Any, ...]

    def __new__(cls, tree: Mapping[str, Any] = {}, /) -> Params:
        if isinstance(tree, Params):
            return tree
        flat: dict[str, Any] = {}
        _flatten_mapping(tree, "", flat)
        return _of_flat(flat)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Params:
        """The same as `Params(tree)`: from any nested or flat mapping.

        Example:
          >>> js.Params.from_dict({"a/b": 1, "a": {"c": 2}}).to_dict()
          {'a': {'b': 1, 'c': 2}}
        """
        return cls(tree)

    # Reading ----------------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The full names of all leaves, sorted."""
        return self._layout.names

    def __getitem__(self, name: str) -> Any:
        index = self._layout.index.get(name)
        if index is not None:
            return self._leaves[index]
        return self.scope(name)

    def scope(self, name: str) -> Params:
        """The sub-tree below scope `name`, also where a variable has that very name.

        Raises:
          UnknownNameError: if no name starts with `name/`.

        Example:
          >>> tree = js.Params({"a": 1, "a/b": 2})
          >>> tree["a"], tree.scope("a").to_dict()
          (1, {'b': 2})
        """
        inner = None
        if isinstance(name, str):
            start, stop, inner = self._layout.scope(name)
        if inner is None:
            what = f"{name!r} is neither a variable nor a scope of this tree."
            raise self._unknown(what, str(name), "use one of `params.names`", exists=some(self._layout.children))
        return make(inner, self._leaves[start:stop])

    def _unknown(self, what: str, name: str, fix: str, exists: str = "") -> UnknownNameError:
        names: dict[str, None] = {}  # of variables and of all scopes around them
        for full in self._layout.names:
            parts = split(full)
            names.update((("/".join(parts[:k])), None) for k in range(1, len(parts) + 1))
        # Where a variable is meant, the scope of that very name is no help.
        close = [place for place in near(name, names) if place != name]
        return UnknownNameError(what, kind="unknown_name", where=user_line(), exists=exists, near=close, fix=fix)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.children)

    def __len__(self) -> int:
        return len(self._layout.children)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._layout.index or self._layout.scope(name)[2] is not None)

    def get(self, name: str, default: Any = None) -> Any:
        """`self[name]`, or `default` where there is neither a variable nor a scope of that name."""
        # Mapping's own would catch the error, whose close names take long to find.
        return self[name] if name in self else default  # noqa: SIM401 (that is this method)

    def flat(self) -> dict[str, Any]:
        """A plain dict from full name to leaf, sorted by name: what safetensors and `np.savez` take.

        Example:
          >>> js.Params({"a": {"b": 1}}).flat()
          {'a/b': 1}
        """
        return dict(zip(self._layout.names, self._leaves, strict=True))

    def to_dict(self, flat: bool = False) -> dict[str, Any]:
        """Plain dicts, nested, or with `flat=True` one dict by full name.

        Raises:
          BadNameError: if a variable and a scope have one name, so that no nested dict can hold both.
        """
        if flat:
            return self.flat()
        tree: dict[str, Any] = {}
        for name, leaf in zip(self._layout.names, self._leaves, strict=True):
            *scopes, last = split(name)
            node = tree
            for depth, part in enumerate(scopes):
                node = node.setdefault(part, {})
                scope = "/".join(scopes[: depth + 1])
                if scope in self._layout.index:
                    raise BadNameError(
                        f"'{scope}' is a variable and '{name}' lies in a scope of that name: "
                        "a nested dict can't hold both.",
                        kind="name_and_scope",
                        where=user_line(),
                        fix="use to_dict(flat=True)",
                    )
            node[last] = leaf
        return tree

    # Making other trees -----------------------------------------------------------------------------------------------

    def replace(self, changes: Mapping[str, Any]) -> Params:
        """This tree with other leaves under the given full names.

        Raises:
          UnknownNameError: for names that the tree lacks; nothing is replaced then.

        Example:
          >>> js.Params({"a": {"b": 1, "c": 2}}).replace({"a/b": 7}).flat()
          {'a/b': 7, 'a/c': 2}
        """
        if not isinstance(changes, Mapping):
            raise _not_a_mapping("replace takes", changes)
        leaves = list(self._leaves)
        index = self._layout.index
        unknown = [name for name in changes if name not in index]
        if unknown:
            what = f"replace: the tree has no variable {', '.join(map(repr, unknown))}."
            fix = "give full names out of `params.names`; use `params | {...}` to add variables"
            if unknown[0] in self:
                fix = f"{unknown[0]!r} is a scope: give its variables by their full names, or use params | {{...}}"
            raise self._unknown(what, str(unknown[0]), fix)
        for name, leaf in changes.items():
            leaves[index[name]] = leaf
        return make(self._layout, tuple(leaves))

    def __or__(self, other: Mapping[str, Any]) -> Params:
        """Both trees in one; where both have a name, the right one's leaf."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return _of_flat(self.flat() | Params(other).flat())

    def __ror__(self, other: Mapping[str, Any]) -> Params:
        if not isinstance(other, Mapping):
            return NotImplemented
        return Params(other) | self

    def map_with_name(self, f: Callable[[str, Any], Any]) -> Params:
        """The tree of `f(full name, leaf)`.

        Example:
          >>> js.Params({"a": {"b": 1}}).map_with_name(lambda name, leaf: f"{name}={leaf}").flat()
          {'a/b': 'a/b=1'}
        """
        return make(self._layout, tuple(map(f, self._layout.names, self._leaves)))

    def select(self, which: str | Callable[[str, Any], bool]) -> tuple[Params, Params]:
        """`(chosen, rest)`: the leaves that `which` picks, and the others; `chosen | rest` gives the tree back.

        Args:
          which: a regular expression for `re.match` on the full name, or a predicate `f(name, leaf)`.

        Example:
          >>> tree = js.Params({"a": {"kernel": 1, "bias": 2}})
          >>> [part.flat() for part in tree.select(".*bias$")]
          [{'a/bias': 2}, {'a/kernel': 1}]
        """
        if callable(which):
            chooses = which
        else:
            match = matcher(which).match
            chooses = lambda name, leaf: match(name)  # noqa: E731
        chosen: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for name, leaf in zip(self._layout.names, self._leaves, strict=True):
            (chosen if chooses(name, leaf) else rest)[name] = leaf
        return _of_flat(chosen), _of_flat(rest)

    def like(self, labels: Mapping[str, Any] | Sequence[tuple[str, Any]], *, default: Any = _MISSING) -> Params:
        """A full tree of labels, masks, axes, specs or shardings, from a prefix tree or from patterns.

        What a dict gives for free (prefix trees for `in_axes`, `in_shardings`, `optax.masked`, ...) one pytree node
        can't: this spreads a prefix tree over all leaves.

        Args:
          labels: a nested mapping whose leaves each label a variable or a whole scope, the innermost winning, or a
            sequence of `(regular expression, label)` pairs, the first whose `re.match` fits a full name winning.
          default: the label of what nothing names; without it every variable must be labelled.

        Raises:
          UnknownNameError: if a name of a mapping is not in the tree.
          BadArgumentError: if a variable gets no label.
          BadTypeError: if `labels` is neither.

        Example:
          >>> tree = js.Params({"tower": {"kernel": 1, "bias": 2}, "head": {"kernel": 3}})
          >>> tree.like({"tower": 0, "head": None}).flat()
          {'head/kernel': None, 'tower/bias': 0, 'tower/kernel': 0}
          >>> tree.like([(".*bias", "no_decay")], default="decay").flat()
          {'head/kernel': 'decay', 'tower/bias': 'no_decay', 'tower/kernel': 'decay'}
        """
        leaves: list[Any] = [default] * len(self._leaves)
        if isinstance(labels, Mapping):
            self._label(Params(labels), leaves)
        else:
            try:
                rules = [(pattern, label) for pattern, label in labels]
            except (TypeError, ValueError):
                what = f"like takes a mapping or (pattern, label) pairs, not {labels!r:.80}."
                fix = 'write like({"scope": label}) or like([("pattern", label)])'
                raise _bad_type(what, "bad_labels", fix) from None
            rules = [(matcher(pattern), label) for pattern, label in rules]
            for i, name in enumerate(self._layout.names):
                for pattern, label in rules:
                    if pattern.match(name):
                        leaves[i] = label
                        break
        missing = [name for name, leaf in zip(self._layout.names, leaves, strict=True) if leaf is _MISSING]
        if missing:
            raise BadArgumentError(
                f"like: {len(missing)} of {len(leaves)} variables get no label: {some(missing)}.",
                kind="unlabelled",
                where=user_line(),
                fix="label them too, or pass default=",
            )
        return make(self._layout, tuple(leaves))

    def _label(self, labels: Params, leaves: list[Any]) -> None:
        # In sorted order a scope comes before what lies in it: the innermost label is the last one set.
        for name, label in labels.flat().items():
            index = self._layout.index.get(name)
            start, stop, inner = self._layout.scope(name)
            if index is None and inner is None:
                what = f"like: the tree has neither a variable nor a scope {name!r}."
                raise self._unknown(what, name, "use names of the tree, or (pattern, label) pairs")
            if index is not None:
                leaves[index] = label
            leaves[start:stop] = [label] * (stop - start)

    # Being a value ----------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        if not isinstance(other, Params):
            try:
                other = Params(other)
            except (BadNameError, BadTypeError):
                return False
        return self._layout is other._layout and all(map(_same_leaf, self._leaves, other._leaves))

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash, as in a dict

    def __copy__(self) -> Params:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Params:
        return make(self._layout, copy.deepcopy(self._leaves, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return make, (self._layout, self._leaves)

    def __setitem__(self, name: str, value: Any) -> None:
        fix = f"make a new tree: params = params.replace({{{name!r}: ...}})"
        raise _bad_type(f"Params is immutable: {name!r} can't be set.", "immutable", fix)

    def __delitem__(self, name: str) -> None:
        fix = "take the tree apart: gone, params = params.select(...)"
        raise _bad_type(f"Params is immutable: {name!r} can't be deleted.", "immutable", fix)

    def __repr__(self) -> str:
        return f"Params({nested({name: short_type(leaf) for name, leaf in self.flat().items()})})"

    def _repr_html_(self) -> str:
        return seeing().fragments.params(self)

    def __treescope_repr__(self, path: Any, subtree_renderer: Any) -> Any:
        """How treescope shows it: as a foldable mapping by full name."""
        from treescope import repr_lib

        return repr_lib.render_dictionary_wrapper(
            object_type=Params,
            wrapped_dict=self.flat(),
            path=path,
            subtree_renderer=subtree_renderer,
            roundtrippable=True,
        )


def make(layout: Layout, leaves: tuple[Any, ...]) -> Params:
    """The tree of these leaves, in the order of the layout's names."""
    self = object.__new__(Params)
    self._layout = layout
    self._leaves = leaves
    return self


def _of_flat(flat: Mapping[str, Any]) -> Params:
    names = tuple(sorted(flat))
    return make(Layout.of(names), tuple(flat[name] for name in names))


def _bad_type(what: str, kind: str, fix: str) -> BadTypeError:
    return BadTypeError(what, kind=kind, where=user_line(), fix=fix)


def _not_a_mapping(wanted: str, given: Any) -> BadTypeError:
    what = f"{wanted} a mapping of names, not a {type(given).__name__}."
    return _bad_type(what, "not_a_mapping", "pass a dict by name, or a Params")


def _flatten_mapping(tree: Mapping[str, Any], scope: str, flat: dict[str, Any]) -> None:
    if not isinstance(tree, Mapping):
        raise _not_a_mapping("Params are made from", tree)
    # The items of a Params lack a scope that has the name of a variable.
    for key, value in (tree.flat() if isinstance(tree, Params) else tree).items():
        if not isinstance(key, str):
            what = f"Names in a tree of parameters are strings, not {key!r}."
            raise _bad_type(what, "bad_name_type", f"use {str(key)!r}")
        name = scope + key
        if isinstance(value, Mapping):
            _flatten_mapping(value, name + "/", flat)
        elif name in flat:
            raise BadNameError(
                f"The mapping gives '{name}' twice, once nested and once by its full name.",
                kind="twice",
                where=user_line(),
                fix="give each variable once",
            )
        else:
            flat[name] = value


def _same_leaf(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if not hasattr(a, "shape") and not hasattr(b, "shape"):
        return bool(a == b)
    if not hasattr(a, "shape") or not hasattr(b, "shape"):
        # A scalar equals the number that it holds; an array and anything else are never equal.
        array, other = (a, b) if hasattr(a, "shape") else (b, a)
        return isinstance(other, int | float | complex) and array.shape == () and bool(array == other)
    if a.shape != b.shape or getattr(a, "dtype", None) != getattr(b, "dtype", None):
        return False
    if isinstance(a, jax.ShapeDtypeStruct) or isinstance(b, jax.ShapeDtypeStruct):
        return a == b
    if jnp.issubdtype(a.dtype, jax.dtypes.extended):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return bool((np.asarray(a) == np.asarray(b)).all())


# What JAX needs to know -----------------------------------------------------------------------------------------------


def _flatten(params: Params) -> tuple[tuple[Any, ...], Layout]:
    return params._leaves, params._layout


def _flatten_with_keys(params: Params) -> tuple[list[tuple[Any, Any]], Layout]:
    layout = params._layout
    return list(zip(layout.jax_keys, params._leaves, strict=True)), layout


def _unflatten(layout: Layout, leaves: Iterable[Any]) -> Params:
    return make(layout, tuple(leaves))


jax.tree_util.register_pytree_with_keys(Params, _flatten_with_keys, _unflatten, _flatten)
jax.export.register_pytree_node_serialization(
    Params,
    serialized_name="jscope.Params",
    serialize_auxdata=lambda layout: json.dumps(layout.names).encode(),
    deserialize_auxdata=lambda data: Layout.of(tuple(json.loads(data))),
)
