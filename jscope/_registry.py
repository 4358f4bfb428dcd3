"""Which variables a running program has, and the four ways to find one: by key, name, array and collection. Floor 2."""

from __future__ import annotations

import weakref
from typing import Any

from ._errors import BadArgumentError, BadNameError, UnknownNameError, user_line
from ._names import matcher, near
from ._specs import VariableSpec
from ._variable import Variable


class Registry:
    """The variables of one run.

    Attributes:
      by_key: store key -> variable, of those that can be shared.
      by_name: op name -> variable, of all, in order of creation.
      extras: how many variables that can't be shared there are, and items that the program added to collections.
    """

    __slots__ = ("_by_id", "_collections", "_not_indexed", "by_key", "by_name", "extras")

    def __init__(self) -> None:
        self.by_key: dict[Any, Variable] = {}
        self.by_name: dict[str, Variable] = {}
        self._by_id: dict[int, tuple[Any, Variable | None]] = {}
        self._not_indexed: list[tuple[Any, Variable]] = []
        self._collections: dict[str, list[Any]] = {}
        self.extras = 0

    def taken(self, name: str, scope: str) -> BadNameError:
        """The error of an op name that a variable has already; only names with a final slash are not made unique."""
        return BadNameError(
            f"There already is a variable with the op name '{name}'.",
            exists=self.by_name[name].origin(),
            scope=scope,
            where=user_line(),
            fix="don't end names in a slash",
        )

    def add(self, variable: Variable, shared: bool) -> None:
        """Adds a new variable, to its collections too; `shared` if reuse may find it."""
        collections = self._collections
        for collection in variable.collections:
            if collection in collections:
                collections[collection].append(variable)
            else:
                collections[collection] = [variable]
        self.by_name[variable.name] = variable
        if shared:
            self.by_key[variable.key] = variable
        else:
            self.extras += 1

    # By array ---------------------------------------------------------------------------------------------------------

    def remember(self, value: Any, variable: Variable) -> None:
        """Notes that this very object is a value of the variable."""
        self._not_indexed.append((value, variable))

    def remember_weakly(self, value: Any, variable: Variable) -> weakref.ref[Any]:
        """The same of a value that is bound to an inner trace, which may not be kept longer than the trace."""
        self._index()
        reference = weakref.ref(value)
        self._by_id[id(value)] = (reference, variable)
        return reference

    def _index(self) -> None:
        """Enters the arrays into the index; put off until one is looked for, which most programs never do."""
        for value, variable in self._not_indexed:
            known = self._entry(value)
            ambiguous = known is not None and known[1] is not variable
            # The array is kept, so that its id is not given to another one.
            self._by_id[id(value)] = (value, None if ambiguous else variable)
        self._not_indexed.clear()

    def _known(self, value: Any) -> tuple[Any, Variable | None] | None:
        self._index()
        return self._entry(value)

    def _entry(self, value: Any) -> tuple[Any, Variable | None] | None:
        known = self._by_id.get(id(value))
        if known is None:
            return None
        kept = known[0]
        return known if (kept() if isinstance(kept, weakref.ref) else kept) is value else None

    def knows(self, value: Any) -> bool:
        """Whether this very object is the value of a variable."""
        return self._known(value) is not None

    def find(self, reference: Any, call: str, scope: str) -> Variable:
        """The variable meant by an array, a `VariableSpec` or a full name.

        Raises:
          UnknownNameError: for a name that is not declared so far.
          BadArgumentError: for an array that is no variable's, or several variables'.
        """
        if isinstance(reference, str | VariableSpec):
            name = reference if isinstance(reference, str) else reference.name
            variable = self.by_name.get(name)
            if variable is not None:
                return variable
            raise UnknownNameError(
                f"{call}: no variable '{name}' has been declared in this program so far.",
                kind="unknown_name",
                scope=scope,
                where=user_line(),
                near=near(name, self.by_name),
                fix="give the variable's name without ':0', which TF1 adds to name its value"
                if name.endswith(":0")
                else "give the full name of a variable that get_variable has returned before",
            )
        known = self._known(reference)
        if known is None:
            raise BadArgumentError(
                f"{call}: this {type(reference).__name__} is no array that get_variable gave in this program.",
                kind="not_a_variable",
                scope=scope,
                where=user_line(),
                fix="pass the very object that get_variable returned, its VariableSpec or its full name",
            )
        if known[1] is None:
            raise BadArgumentError(
                f"{call}: this array is the value of several variables, so it does not tell which is meant.",
                kind="ambiguous",
                scope=scope,
                where=user_line(),
                fix="pass the full name",
            )
        return known[1]

    # By collection ----------------------------------------------------------------------------------------------------

    def collect(self, collection: str, item: Any) -> None:
        """Appends to a collection."""
        self._collections.setdefault(collection, []).append(item)

    def collected(self, collection: str, scope: str | None = None) -> list[Any]:
        """The items; `scope` is matched at the start of TF1's `.name`, full name + ":0", which only variables have."""
        items = self._collections.get(collection, [])
        if scope is None:
            return list(items)
        match = matcher(scope).match
        return [item for item in items if isinstance(item, Variable) and match(item.name + ":0")]

    def count(self, collection: str) -> int:
        """How many items a collection has."""
        return len(self._collections.get(collection, ()))
