"""One declared variable of a run: what is known of it, and its value. And what is in collections besides. Floor 2."""

from __future__ import annotations

from typing import Any

from .._callsite import Place, located
from .._show import short_type
from .._variable_spec import VariableSpec
from .bodies import NO_BODY, Mark

GLOBAL_VARIABLES = "variables"
TRAINABLE_VARIABLES = "trainable_variables"
LOCAL_VARIABLES = "local_variables"
REGULARIZATION_LOSSES = "regularization_losses"

NOTHING: Any = object()

_USUAL = {True: (GLOBAL_VARIABLES, TRAINABLE_VARIABLES), False: (GLOBAL_VARIABLES,)}


class Variable:
    """A variable and its value in this run. What is asked rarely is worked out when it is asked: see `spec`.

    Attributes:
      collections: those it is in, None for the usual ones: the global one and, if it is trainable, the trainable one.
      made_at: where the user made it.
      read_at: where the user read it later.
      auto_reuse: whether it was made under AUTO_REUSE.
      value: its value where that is good in every trace; `NOTHING` while there is none.
      inner: level -> weak reference to the value, for values that are bound to one trace.
      bound: whether a value is bound to the trace it is made in.
      carried: the run's refs, if JAX carries its value in one of them, else None.
      assigned: whether the program assigned it.
      mark: the body that made it, and the turn.
    """

    # No slots: what has a default here need not be set, and most variables leave it so.
    read_at: list[Place | None] | None = None
    auto_reuse = False
    value: Any = NOTHING
    inner: dict[int, Any] | None = None
    bound = False
    carried: Any = None
    assigned = False
    mark: Mark = NO_BODY

    def __init__(
        self,
        name: str,
        key: Any,
        shape: Any,
        dtype: Any,
        initializer: Any,
        trainable: bool,
        collections: tuple[str, ...] | None,
        regularizer: Any,
        constraint: Any,
        partition: Any,
        made_at: Place | None,
    ) -> None:
        self.name = name
        self.key = key
        self.shape = shape
        self.dtype = dtype
        self.initializer = initializer
        self.trainable = trainable
        self.collections = collections
        self.regularizer = regularizer
        self.constraint = constraint
        self.partition = partition
        self.made_at = made_at

    def forget(self) -> None:
        """Lets go of the values known so far: another one is assigned."""
        self.value = NOTHING
        self.inner = None

    def listed_in(self) -> tuple[str, ...]:
        """The collections it is in."""
        if self.collections is None:
            return _USUAL[self.trainable]
        return self.collections

    def spec(self) -> VariableSpec:
        """What is known of it so far, as a value."""
        return VariableSpec(
            self.name,
            self.key,
            self.shape,
            self.dtype,
            self.initializer,
            self.trainable,
            self.listed_in(),
            self.regularizer,
            self.constraint,
            self.partition,
            located(self.made_at),
            tuple(map(located, self.read_at or ())),
            self.auto_reuse,
        )

    def origin(self) -> str:
        """What it is and where it was first made, for messages."""
        made = f", made at {located(self.made_at)}" if self.made_at else ""
        return f"'{self.name}' {short_type(self)}{made}"


class Collected:
    """An item that the program added to a collection.

    Attributes:
      collection, item: as given.
      after: how many variables there were.
      mark: the body that added it, and the turn.
    """

    __slots__ = ("after", "collection", "item", "mark")

    def __init__(self, collection: str, item: Any, after: int) -> None:
        self.collection = collection
        self.item = item
        self.after = after
        self.mark: Mark = NO_BODY
