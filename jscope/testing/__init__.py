"""For tests of programs: hypothesis strategies, and assertions about variables. Needs the extra `testing`.

A room: it may use jscope's public names and hypothesis, never jscope's private modules nor another room. `import
jscope` does not import it.

The strategies give names (`names`, `scope_names`), shapes, dtypes, arrays, trees (`params`) and whole random programs
(`scope_programs`) whose `repr` is their source. The assertions raise an `AssertionError` that shows what differs.
"""

from __future__ import annotations

try:
    import hypothesis as hypothesis
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'jscope.testing needs hypothesis, which is not installed: pip install "jax-scope[testing]"', name="hypothesis"
    ) from error

from .assertions import assert_golden, assert_order_independent, assert_pure, assert_same_variables
from .programs import ScopeProgram, Statement
from .strategies import arrays, dtypes, names, params, scope_names, shapes
from .writer import scope_programs

__all__ = [
    "ScopeProgram",
    "Statement",
    "arrays",
    "assert_golden",
    "assert_order_independent",
    "assert_pure",
    "assert_same_variables",
    "dtypes",
    "names",
    "params",
    "scope_names",
    "scope_programs",
    "shapes",
]

# Tracebacks, pickles and documentation name what users import, not the file that it happens to be written in.
for _name in __all__:
    globals()[_name].__module__ = __name__
