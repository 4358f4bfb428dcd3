"""For tests: hypothesis strategies, and assertions about functions, trees and variables. Needs the extra `testing`.

A room: it may use jscope's public names, `_support` and hypothesis, never another room. `import jscope` does not import
it.

Half of it serves any function of JAX: whether trees agree, whether a function is one, what transforms do to it, what
its parameters are used for. The other half is about programs: their variables, their scopes, how they start.
"""

from __future__ import annotations

try:
    import hypothesis as hypothesis
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'jscope.testing needs hypothesis, which is not installed: pip install "jax-scope[testing]"', name="hypothesis"
    ) from error

from .assertions import assert_order_independent, assert_pure, assert_same_variables
from .dependence import assert_causal, assert_masked, assert_rows_independent
from .functions import assert_functional, assert_strict
from .golden import assert_golden
from .gradients import assert_finite, assert_gradients, assert_trained
from .machine import TrainingMachine, profile
from .meshes import meshes, shardings
from .programs import ScopeProgram, Statement
from .sharing import assert_shared, assert_uses
from .stacks import Stack, assert_same_under, stacks
from .strategies import arrays, dtypes, names, params, scope_names, shapes
from .tracing import assert_donation_safe, assert_traces
from .trees import assert_close, assert_equal
from .values import assert_drawn, assert_round_trips
from .writer import scope_programs

__all__ = [
    "ScopeProgram",
    "Stack",
    "Statement",
    "TrainingMachine",
    "arrays",
    "assert_causal",
    "assert_close",
    "assert_donation_safe",
    "assert_drawn",
    "assert_equal",
    "assert_finite",
    "assert_functional",
    "assert_golden",
    "assert_gradients",
    "assert_masked",
    "assert_order_independent",
    "assert_pure",
    "assert_round_trips",
    "assert_rows_independent",
    "assert_same_under",
    "assert_same_variables",
    "assert_shared",
    "assert_strict",
    "assert_traces",
    "assert_trained",
    "assert_uses",
    "dtypes",
    "meshes",
    "names",
    "params",
    "profile",
    "scope_names",
    "scope_programs",
    "shapes",
    "shardings",
    "stacks",
]

# Tracebacks, pickles and documentation name what users import, not the file that it happens to be written in.
for _name in __all__:
    if _name != "profile":
        globals()[_name].__module__ = __name__
