"""Which variable an array is the value of: TF1's variables are objects, and here an array stands for one. Floor 2."""

from __future__ import annotations

import weakref
from typing import Any

from .._callsite import user_line
from .._errors import BadArgumentError
from .record import NOTHING, Variable


class Arrays:
    """The arrays of one run. Looked through only when one is asked for, which most programs never do.

    Args:
      by_name: the variables of the run, in order of creation.
    """

    __slots__ = ("_by_id", "_by_name", "_seen", "_values")

    def __init__(self, by_name: dict[str, Variable]) -> None:
        self._by_name = by_name
        self._seen = 0  # so many variables have been looked at
        self._values: list[tuple[Any, Variable]] = []  # noted and not yet looked at
        # id -> (the array, or a weak reference to it; the variable that it is or was the value of). Of one alone: a
        # source gives each variable an object of its own, and so does `assign`.
        self._by_id: dict[int, tuple[Any, Variable]] = {}

    def note(self, variable: Variable) -> None:
        """Notes a value besides the first one."""
        if variable.value is not NOTHING:
            self._values.append((variable.value, variable))

    def note_weakly(self, value: Any, variable: Variable) -> weakref.ref[Any]:
        """Notes a value that is bound to an inner trace, which may not be kept longer than the trace."""
        self._look()
        reference = weakref.ref(value)
        self._by_id[id(value)] = reference, variable
        return reference

    def _look(self) -> None:
        new = list(self._by_name.values())[self._seen :] if len(self._by_name) > self._seen else []
        self._seen += len(new)
        for variable in new:
            self.note(variable)
        for value, variable in self._values:
            self._by_id[id(value)] = value, variable  # the array is kept, so that its id is not given to another one
        self._values.clear()

    def _entry(self, value: Any) -> tuple[Any, Variable] | None:
        known = self._by_id.get(id(value))
        if known is None:
            return None
        kept = known[0]
        return known if (kept() if isinstance(kept, weakref.ref) else kept) is value else None

    def knows(self, value: Any) -> bool:
        """Whether this very object is the value of a variable."""
        self._look()
        return self._entry(value) is not None

    def find(self, value: Any, call: str, scope: str) -> Variable:
        """The variable whose value this very object is.

        Raises:
          BadArgumentError: for one that is no variable's.
        """
        self._look()
        known = self._entry(value)
        if known is None:
            raise BadArgumentError(
                f"{call}: this {type(value).__name__} is no array that get_variable gave in this program.",
                kind="not_a_variable",
                scope=scope,
                where=user_line(),
                fix="pass the very object that get_variable returned, its VariableSpec or its full name",
            )
        return known[1]
