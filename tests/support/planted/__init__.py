"""Faults that people make in models, each beside the right model, with the assertion that tells them apart.

A fault is a function of `wrong`: it makes the model, with the fault or without, and tests it as its author would. So
the fault is the one place where `wrong` stands, and the right model must pass the very same test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

FAULTS: list[Fault] = []


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault and the test that finds it.

    Attributes:
      name: what is wrong, in a few words.
      library: what the model is written in.
      assertion: what finds it; why it can't be found, where `found` is False.
      check: runs the test: of the wrong model, given True, else of the right one.
      found: whether it is found.
      quick: whether the default suite runs it.
    """

    name: str
    library: str
    assertion: str
    check: Callable[[bool], None]
    found: bool = True
    quick: bool = False


def fault(
    name: str, library: str, assertion: str, *, found: bool = True, quick: bool = False
) -> Callable[[Callable[[bool], None]], Callable[[bool], None]]:
    """Lists a function as a fault."""

    def listed(check: Callable[[bool], None]) -> Callable[[bool], None]:
        FAULTS.append(Fault(name, library, assertion, check, found, quick))
        return check

    return listed


def all_faults() -> list[Fault]:
    """All of them; importing the models lists them."""
    from . import haiku_models, jscope_models, linen_models, nnx_models, plain  # noqa: F401

    return sorted(FAULTS, key=lambda fault: (fault.library.lower(), fault.name))
