"""Functions that one call of a function of JAX calls several times: one body, given the same each time. Floor 2.

`lax.scan` traces its function again if the carry changes its type in it; `lax.map` calls its function once more for the
rows left over; a solver calls its function at many places. For the program these are one body: in each *turn* it is
given the names, keys and variables that it was given in the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

from .._callsite import user_line
from .._errors import TransformError
from .._stack import UNTOLD, calls_between


class Body:
    """A function that runs because a function of JAX called it; it may be called again.

    Args:
      outer: the body around it, None if that is the program itself.
      is_untold: whether it may be several functions, which can't be told apart.
    """

    __slots__ = ("_asked", "_given", "_is_untold", "_number", "_outer", "_turn")

    def __init__(self, outer: Body | None, is_untold: bool) -> None:
        self._outer = outer
        self._is_untold = is_untold
        self._turn: Any = None
        self._number = 0
        self._given: dict[Any, list[Any]] = {}  # what was asked -> the answers, in order
        self._asked: dict[Any, int] = {}  # what was asked -> how often, in this turn

    def begin(self, turn: Any) -> None:
        """Notes which turn runs now; another one than before starts from the beginning."""
        if turn != self._turn:
            self._turn = turn
            self._number += 1
            self._asked = {}

    def take(self, asked: Any, take: Callable[[], Any]) -> Any:
        """What this body was given at this place in its first turn; in the first one, what is taken now.

        Raises:
          TransformError: if it can't be told whose turn this is.
        """
        if self._is_untold:
            raise _untold()
        number = self._asked.get(asked, 0) + 1
        given = self._given.setdefault(asked, [])
        if number > len(given):
            given.append(take() if self._outer is None else self._outer.take(asked, take))
        self._asked[asked] = number  # not where nothing could be taken: the program may catch the error and go on
        return given[number - 1]

    def repeats(self) -> bool:
        """Whether this is not the first turn, of this body or of one around it."""
        return self._number > 1 or (self._outer is not None and self._outer.repeats())

    def mark(self) -> Mark:
        """Put on what is made now."""
        return {self: self._number} if self._outer is None else {**self._outer.mark(), self: self._number}

    def made_earlier(self, mark: Mark) -> bool:
        """Whether an earlier turn made what has this mark, so that this turn is still to make it.

        Raises:
          TransformError: if it can't be told whose turn this is.
        """
        body: Body | None = self
        while body is not None:
            if mark.get(body, body._number) < body._number:
                if body._is_untold:
                    raise _untold()
                return True
            body = body._outer
        return False


def _untold() -> TransformError:
    return TransformError(
        "One call of a function of JAX was given functions here that can't be told apart, such as partials of one; "
        "so it can't be told which names, keys and variables are whose.",
        kind="untold",
        where=user_line(),
        fix="give functions of their own: lambda state: body(k, state), say, for functools.partial(body, k)",
    )


# The bodies in which something was made, and in which turns.
Mark = dict[Body, int]
NO_BODY: Mark = {}


def mark_in(body: Body | None) -> Mark:
    """The mark of what is made in this body, or in the program itself."""
    return NO_BODY if body is None else body.mark()


def body_of(caller: FrameType, run: object, outer: FrameType | None, around: Body | None) -> Body | None:
    """The body that a call comes from; None if that is the program itself.

    Args:
      caller: the frame of the call.
      run: stands for the run.
      outer: a frame further out, in the same run, whose body is known to be `around`.
    """
    calls, is_met = calls_between(caller, outer)
    body = around if is_met else None
    for call in calls:
        bodies = call.notes.setdefault(run, {})
        inner = bodies.get(call.function)
        if inner is None:
            inner = bodies[call.function] = Body(body, call.function is UNTOLD)
        inner.begin(call.turn)
        body = inner
    return body
