"""`Params`: the immutable tree of parameters, one pytree node over an interned layout of names. Floor 1."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.export

from ._callsite import user_line
from ._errors import BadArgumentError, BadNameError, BadTypeError, ParamsMismatchError, UnknownNameError
from ._layout import Layout, differences
from ._leaves import as_name, bad_type, check_here, itemsize_of, not_a_mapping, pairs, same_leaf, size_of, type_of
from ._names import matcher, near, split
from ._see import seeing
from ._show import nested, short, short_type, shortened, some

_MISSING: Any = object()
_MOST_SHOWN = 2_000  # leaves in a repr: nobody reads more


class Params(Mapping[str, Any]):
    """An immutable nested mapping from scope and variable names to arrays.

    `params["tower"]["kernel"]`, `params["tower/kernel"]` and `params["tower"]` (a sub-tree) all work, and iteration
    gives the top-level keys. To JAX it is one node: its leaves in sorted order of their full names.

    `len(params)` counts the top-level keys, as iteration gives them: the number of leaves is `len(params.names)`, that
    of their elements `params.size`.

    Args:
      tree: a nested or flat mapping, or its (name, value) pairs, as of a dict; the leaves are kept as they are (arrays,
        `None`, labels, shardings, ...).

    Raises:
      BadNameError: if two entries of `tree` have one full name.
      BadTypeError: if `tree` is neither mapping nor pairs, or a key is no string.

    Example:
      >>> import jax.numpy as jnp, jscope as js
      >>> params = js.Params({"tower": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}})
      >>> params
      Params({tower: {bias: f32[3], kernel: f32[2,3]}})
      >>> params["tower/bias"].shape, params["tower"].names, list(params)
      ((3,), ('bias', 'kernel'), ['tower'])
      >>> len(params), len(params.names), params.size, params.bytes
      (1, 2, 9, 36)

    Where a variable and a scope have one name, `params[name]` (hence `items()`) is the variable: `scope(name)` gives
    the scope, and `flat()` everything.

    Checkpoints of orbax: a tree saved as `Params` is restored into a `Params` of `jax.ShapeDtypeStruct`s
    (`specs.abstract()`), or without a target as a flat dict, which `Params(...)` takes. One saved as nested dicts is
    restored into `specs.abstract().to_dict()`, then `Params(...)`.
    """

    __slots__ = ("__weakref__", "_layout", "_leaves")

    _layout: Layout
    _leaves: tuple[Any, ...]

    def __new__(cls, tree: Mapping[str, Any] | Iterable[tuple[str, Any]] = {}, /) -> Params:
        if isinstance(tree, Params):
            return tree
        flat: dict[str, Any] = {}
        # The items of a Params lack a scope that has the name of a variable.
        _flatten_pairs(tree.items() if isinstance(tree, Mapping) else pairs(tree), "", flat)
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

    @property
    def size(self) -> int:
        """The number of elements of all leaves: of arrays and of what describes them, and one for each number."""
        return sum(map(size_of, self._leaves))

    @property
    def bytes(self) -> int:
        """The bytes that the elements take; those of a Python number as JAX makes an array of it."""
        return sum(size_of(leaf) * itemsize_of(leaf) for leaf in self._leaves)

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
            what = f"{shortened(repr(name))} is neither a variable nor a scope of this tree."
            raise self._unknown(what, str(name), "use one of `params.names`", exists=some(self._layout.children))
        return make(inner, self._leaves[start:stop])

    def _unknown(self, what: str, name: str, fix: str, exists: str = "") -> UnknownNameError:
        # Where a variable is meant, the scope of that very name is no help.
        close = lambda: [place for place in near(name, self._layout.places()) if place != name]  # noqa: E731
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
                if not isinstance(node, dict):  # in sorted order the variable comes first
                    scope = "/".join(scopes[: depth + 1])
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
            raise not_a_mapping("replace takes", changes)
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

    def replace_scope(self, name: str, tree: Mapping[str, Any]) -> Params:
        """This tree with all that is in scope `name` replaced: a target network by what it follows, say.

        TF1: `tf.assign` for each pair of variables of two scopes.

        Args:
          name: a scope of this tree.
          tree: by names relative to the scope. It holds the same names, shapes and dtypes as the scope does: a tree of
            another model, or of half of it, is refused. (`params.drop(name) | {name: tree}` takes any.)

        Raises:
          UnknownNameError: if the tree has no such scope.
          ParamsMismatchError: for names that one of both lacks, other shapes and dtypes; all faults at once.

        Example:
          >>> params = js.Params({"online": {"w": jnp.ones(2)}, "target": {"w": jnp.zeros(2)}})
          >>> params.replace_scope("target", params["online"])["target/w"]
          Array([1., 1.], dtype=float32)
        """
        old, new = self.scope(name), Params(tree)
        faults = differences(old._layout, new._layout, f"scope '{name}'", "the new tree")
        faults += [
            f"'{each}' is {short_type(new[each])}, in scope '{name}' {short_type(leaf)}"
            for each, leaf in old.flat().items()
            if each in new._layout.index and type_of(leaf) != type_of(new[each])
        ]
        if faults:
            raise ParamsMismatchError(
                f"replace_scope: the tree is not one of scope '{name}'.",
                kind="other_tree",
                faults=faults,
                where=user_line(),
                fix=f"give a tree of its names, shapes and dtypes, such as params[{name!r}].map_with_name(...)",
            )
        start, _, _ = self._layout.scope(name)
        leaves = (*self._leaves[:start], *new._leaves, *self._leaves[start + len(new._leaves) :])
        return make(self._layout, leaves)

    def drop(self, *names: str) -> Params:
        """This tree without these variables and scopes: of each name the variable, and all that is in the scope.

        Raises:
          UnknownNameError: for names that the tree lacks; nothing is dropped then.

        Example:
          >>> js.Params({"tower": {"w": 1, "b": 2}, "head": {"w": 3, "b": 4}}).drop("tower", "head/b").flat()
          {'head/w': 3}
        """
        flat = self.flat()
        for name in names:
            if name not in self:
                what = f"drop: {name!r} is neither a variable nor a scope of this tree."
                fix = "use names of the tree; select(pattern) takes it apart by a regular expression"
                raise self._unknown(what, str(name), fix, exists=some(self._layout.children))
            start, stop, _ = self._layout.scope(name)
            for each in (name, *self._layout.names[start:stop]):
                flat.pop(each, None)
        return _of_flat(flat)

    def __or__(self, other: Mapping[str, Any]) -> Params:
        """Both trees in one; where both have a name, the right one's leaf."""
        if not isinstance(other, Mapping):
            return NotImplemented
        return _of_flat(self.flat() | Params(other).flat())

    def __ror__(self, other: Mapping[str, Any]) -> Params:
        if not isinstance(other, Mapping):
            return NotImplemented
        return Params(other) | self

    def map_with_name(self, f: Callable[..., Any], *others: Mapping[str, Any]) -> Params:
        """The tree of `f(full name, leaf)`, or of `f(full name, leaf, leaf of another tree, ...)`.

        Args:
          f: called for each leaf, in sorted order of the names.
          others: trees of the very same names.

        Raises:
          ParamsMismatchError: for names that one of the trees lacks.

        Example:
          >>> tree = js.Params({"a": {"b": 1.0}})
          >>> tree.map_with_name(lambda name, leaf: f"{name}={leaf}").flat()
          {'a/b': 'a/b=1.0'}
          >>> tree.map_with_name(lambda name, mean, new: 0.9 * mean + 0.1 * new, {"a/b": 2.0}).flat()
          {'a/b': 1.1}
        """
        trees = [Params(other) for other in others]
        for number, tree in enumerate(trees, 2):
            if tree._layout is not self._layout:
                raise ParamsMismatchError(
                    "map_with_name: the trees have different names.",
                    kind="other_tree",
                    faults=differences(self._layout, tree._layout, "the first tree", f"tree {number}"),
                    where=user_line(),
                    fix="give trees of the same names: scopes, params['scope'], have names of their own",
                )
        return make(self._layout, tuple(map(f, self._layout.names, self._leaves, *(tree._leaves for tree in trees))))

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
                what = f"like takes a mapping or (pattern, label) pairs, not {short(labels)}."
                fix = 'write like({"scope": label}) or like([("pattern", label)])'
                raise bad_type(what, "bad_labels", fix) from None
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
        return self._layout is other._layout and all(map(same_leaf, self._layout.names, self._leaves, other._leaves))

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash, as in a dict

    def __copy__(self) -> Params:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Params:
        any(map(check_here, self._layout.names, self._leaves))  # which raises for what is deleted
        return make(self._layout, copy.deepcopy(self._leaves, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        for name, leaf in zip(self._layout.names, self._leaves, strict=True):
            check_here(name, leaf, "it can't be pickled", "save it with orbax, where each process writes what it has")
        return make, (self._layout, self._leaves)

    def __setitem__(self, name: str, value: Any) -> None:
        fix = f"make a new tree: params = params.replace({{{name!r}: ...}})"
        raise bad_type(f"Params is immutable: {name!r} can't be set.", "immutable", fix)

    def __delitem__(self, name: str) -> None:
        fix = f"make a new tree: params = params.drop({name!r})"
        raise bad_type(f"Params is immutable: {name!r} can't be deleted.", "immutable", fix)

    def __repr__(self) -> str:
        names, more = self._layout.names[:_MOST_SHOWN], len(self._leaves) - _MOST_SHOWN
        text = nested({name: short_type(leaf) for name, leaf in zip(names, self._leaves, strict=False)})
        return f"Params({text}{f' and {more} more' if more > 0 else ''})"

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


def _flatten_pairs(pairs: Iterable[tuple[Any, Any]], scope: str, flat: dict[str, Any]) -> None:
    for key, value in pairs:
        if not isinstance(key, str):
            what = f"Names in a tree of parameters are strings, not {short(key)}."
            raise bad_type(what, "bad_name_type", f"use {as_name(key)!r}")
        name = scope + key
        if isinstance(value, Mapping):
            _flatten_pairs((value.flat() if isinstance(value, Params) else value).items(), name + "/", flat)
        elif name in flat:
            raise BadNameError(
                f"'{name}' is given twice.",
                kind="twice",
                where=user_line(),
                fix="give each variable once",
            )
        else:
            flat[name] = value


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
