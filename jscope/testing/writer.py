"""`scope_programs`: random programs, written statement by statement. Public names of jscope only.

A valid program is valid by TensorFlow's rules, which this file knows on its own: it never asks jscope what works.
"""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .programs import ScopeProgram, Statement
from .strategies import names, scope_names

_AUTO = "js.AUTO_REUSE"

# Every statement takes few draws, and means the same whatever stands before it: so hypothesis can leave it out.
_KINDS = st.sampled_from(
    ("stop", "stop")
    + 3 * ("get",)
    + 3 * ("get_existing",)
    + 2 * ("open_by_name", "open_again", "call_template")
    + ("open_by_default_name", "open_name_scope", "reuse_variables", "variable", "make_template")
)
# (reuse, another option, whether the scope object is kept); more than one option at a time is rare.
_OPTIONS = st.sampled_from(
    [(reuse, "", kept) for kept in (False, True) for reuse in (_AUTO, "", "True", "False")]
    + [(reuse, "initializer=js.ones_initializer()", False) for reuse in (_AUTO, "")]
)
# Few, and one dtype mostly: JAX compiles an initializer once for each.
_TYPES = st.sampled_from(
    [(shape, "float32") for shape in ((), (2,), (0,), (2, 3), (1, 2, 2))]
    + [(shape, dtype) for dtype in ("int32", "bfloat16", "bool") for shape in ((), (2,))]
)

# Default names are made unique while the program runs. Other names keep clear of them, so that they never meet.
_DEFAULT_NAMES = ("conv", "dense")

# What TF1 refuses, at the root at least.
_BAD_NAMES = ("_w", "a b", "")


def scope_programs(
    *, valid: bool = True, max_statements: int = 10, max_depth: int = 3, odd_names: bool = True
) -> SearchStrategy[ScopeProgram]:
    """Whole random programs: nested scopes by name, default name and scope object, every kind of reuse, templates.

    Args:
      valid: True for programs that break none of TF1's rules; False for any, in which each statement swallows its
        `JscopeError` and notes its class.
      max_statements: most statements, those in scopes counted.
      max_depth: how deep scopes are nested.
      odd_names: whether names may be odd ones, as in `names`.

    Returns:
      A strategy for `ScopeProgram`.

    Example:
      >>> from hypothesis import given, settings
      >>> from jscope.testing import scope_programs
      >>> @given(scope_programs())
      ... @settings(max_examples=10, deadline=None)
      ... def test(program):
      ...     net = js.transform(program)
      ...     assert net.init(jax.random.key(0)).names == tuple(sorted(net.specs()))
      >>> test()
    """
    return _programs(valid, max_statements, max_depth, odd_names)


@st.composite
def _programs(draw: st.DrawFn, valid: bool, max_statements: int, max_depth: int, odd_names: bool) -> ScopeProgram:
    writer = _Writer(draw, valid, max_statements, max_depth, odd_names)
    return ScopeProgram(writer.block(_Scope("", "False"), 0))


@dataclasses.dataclass
class _Scope:
    """A scope object as it will be when the program runs.

    Attributes:
      name: its full name; the part that a default name will have is written `<number>`.
      reuse: `"False"`, `"True"` or `"js.AUTO_REUSE"`, and changes as that of the scope object does.
      is_fresh: whether nobody can have opened a scope of that name before.
    """

    name: str
    reuse: str
    is_fresh: bool = True

    def key(self, name: str) -> str:
        return f"{self.name}/{name}" if self.name else name


class _Writer:
    """Draws statements one after another, with what they will have done when the program runs.

    Attributes:
      types: last part of a variable's name -> (shape, dtype), the same all over a valid program.
      keys: store keys of the variables that exist for sure.
      bound: scope objects that variables of the program hold, by the name of that variable.
      templates: templates that can be called.
      in_template: whether the statements being drawn will run several times.
      defaults_are_fresh: whether a default name at the root is one that was not used before. No longer once the root is
        entered again through its scope object: on leaving it, TF1 forgets which names were used inside.
    """

    def __init__(self, draw: st.DrawFn, valid: bool, max_statements: int, max_depth: int, odd_names: bool) -> None:
        self.draw = draw
        self.valid = valid
        self.left = max_statements
        self.max_depth = max_depth
        self.variable_names = _names(("w", "b"), names(odd=odd_names), valid)
        self.scope_names = _names(("a", "b"), scope_names(odd=odd_names), valid)
        self.types: dict[str, tuple[tuple[int, ...], str]] = {}
        self.keys: set[str] = set()
        self.bound: dict[str, _Scope] = {}
        self.templates: list[str] = []
        self.count = 0
        self.in_template = False
        self.defaults_are_fresh = True

    def block(self, scope: _Scope, depth: int) -> tuple[Statement, ...]:
        """The statements inside `scope`."""
        statements: list[Statement] = []
        templates = list(self.templates)
        while self.left > 0:
            kind = self.draw(_KINDS.filter(lambda kind: self.fits(kind, scope, depth)))
            if kind == "stop":
                break
            self.left -= 1
            statements += getattr(self, kind)(scope, depth)
        if not self.valid:
            self.templates = templates  # those made inside are not bound if entering the scope around them fails
        return tuple(statements)

    def fits(self, kind: str, scope: _Scope, depth: int) -> bool:
        """Whether a statement of this kind may come next."""
        if kind.startswith("open") and depth == self.max_depth:
            return False
        match kind:
            case "get":
                return not self.valid or scope.reuse == _AUTO or (scope.reuse == "False" and scope.is_fresh)
            case "get_existing":
                return scope.reuse != "False" and bool(self.existing(scope))
            case "open_again":
                return not self.in_template
            case "make_template":
                return depth < self.max_depth and not self.in_template and not (self.valid and scope.reuse == "True")
            case "call_template":
                return bool(self.templates) and not self.in_template
            case "reuse_variables":
                return not self.valid or bool(self.existing(scope))
            case _:
                return True

    def statement(self, code: str, body: tuple[Statement, ...] = ()) -> Statement:
        return Statement(code, body, guarded=not self.valid)

    def number(self) -> int:
        self.count += 1
        return self.count - 1

    # Variables --------------------------------------------------------------------------------------------------------

    def existing(self, scope: _Scope) -> list[str]:
        """Names by which this scope finds what exists for sure."""
        start = scope.key("")
        names = [key.removeprefix(start) for key in self.keys if key.startswith(start)]
        return sorted(name for name in names if name and "<" not in name)

    def get(self, scope: _Scope, depth: int) -> list[Statement]:
        name, drawn = self.draw(self.variable_names), self.draw(_TYPES)
        if self.valid and scope.reuse == "False":
            while scope.key(name) in self.keys:
                name += "_x"
        last = name.rpartition("/")[2]
        if last not in self.types or not self.valid:
            self.types[last] = drawn
        return [self.got(scope, name)]

    def get_existing(self, scope: _Scope, depth: int) -> list[Statement]:
        name = self.draw(st.sampled_from(self.existing(scope)))
        return [self.got(scope, name, with_shape=self.draw(st.booleans()))]

    def got(self, scope: _Scope, name: str, with_shape: bool = True) -> Statement:
        self.keys.add(scope.key(name))
        shape, dtype = self.types[name.rpartition("/")[2]]
        arguments = [f'"{_escaped(name)}"']
        if with_shape:
            arguments.append(str(list(shape)))
        # Under reuse, too, what is not given is the scope's: float32.
        if dtype != "float32":
            arguments.append(f"dtype=jnp.{dtype}")
        return self.statement(f"note(js.get_variable({', '.join(arguments)}))")

    def variable(self, scope: _Scope, depth: int) -> list[Statement]:
        name = self.draw(self.variable_names)
        value = self.draw(st.sampled_from(("0.0", "1", "[1.0, 2.0]", "True")))
        # A template that makes a trainable one in a later call is refused.
        options = ", trainable=False" if self.in_template and self.valid else ""
        return [self.statement(f'note(js.variable({value}, name="{_escaped(name)}"{options}))')]

    # Scopes -----------------------------------------------------------------------------------------------------------

    def open(self, target: str, options: list[str], kept: bool, scope: _Scope, depth: int) -> list[Statement]:
        code = f"with js.variable_scope({', '.join([target, *(option for option in options if option)])})"
        if self.in_template or not kept:
            return [self.statement(code + ":", self.block(scope, depth + 1))]
        label = f"scope_{self.number()}"
        self.bound[label] = scope
        statement = self.statement(f"{code} as {label}:", self.block(scope, depth + 1))
        if not self.valid:
            del self.bound[label]  # not bound if entering fails
        return [statement]

    def open_by_name(self, scope: _Scope, depth: int) -> list[Statement]:
        name, (reuse, other, kept) = self.draw(self.scope_names), self.draw(_OPTIONS)
        inner = _Scope(scope.key(name), _resolved(reuse, scope), scope.is_fresh)
        return self.open(f'"{_escaped(name)}"', [_given(reuse), other], kept, inner, depth)

    def open_by_default_name(self, scope: _Scope, depth: int) -> list[Statement]:
        name, kept = self.draw(st.sampled_from(_DEFAULT_NAMES)), self.draw(st.booleans())
        return self.open(f'None, "{name}"', [], kept, self.default(scope, depth), depth)

    def default(self, scope: _Scope, depth: int) -> _Scope:
        is_fresh = depth == 0 and self.defaults_are_fresh
        return _Scope(scope.key(f"<{self.number()}>"), scope.reuse, is_fresh)

    def open_again(self, scope: _Scope, depth: int) -> list[Statement]:
        current = "js.get_variable_scope()"
        target, (reuse, other, kept) = self.draw(st.sampled_from([*self.bound, current])), self.draw(_OPTIONS)
        captured = scope if target == current else self.bound[target]
        self.defaults_are_fresh &= captured.name != ""
        inner = _Scope(captured.name, _resolved(reuse, captured), captured.is_fresh)
        return self.open(target, [_given(reuse), other], kept, inner, depth)

    def open_name_scope(self, scope: _Scope, depth: int) -> list[Statement]:
        if self.bound and self.draw(st.booleans()):
            target = f"{self.draw(st.sampled_from(sorted(self.bound)))}.original_name_scope"
        else:
            target = f'"{_escaped(self.draw(self.scope_names))}"'
        return [self.statement(f"with js.name_scope({target}):", self.block(scope, depth + 1))]

    def reuse_variables(self, scope: _Scope, depth: int) -> list[Statement]:
        scope.reuse = "True"
        return [self.statement("js.get_variable_scope().reuse_variables()")]

    # Templates --------------------------------------------------------------------------------------------------------

    def make_template(self, scope: _Scope, depth: int) -> list[Statement]:
        number, default_name = self.number(), self.draw(st.sampled_from(_DEFAULT_NAMES))
        self.in_template = True
        body = self.block(self.default(scope, depth), depth + 1)
        self.in_template = False
        self.templates.append(f"template_{number}")
        return [
            Statement(f"def body_{number}():", body),
            Statement(f'template_{number} = js.make_template("{default_name}", body_{number})'),
            self.statement(f"template_{number}()"),
        ]

    def call_template(self, scope: _Scope, depth: int) -> list[Statement]:
        return [self.statement(f"{self.draw(st.sampled_from(self.templates))}()")]


def _names(common: tuple[str, ...], others: SearchStrategy[str], valid: bool) -> SearchStrategy[str]:
    # Few names make many meetings.
    some = st.sampled_from(common)
    found = some | some | others if valid else some | some | others | st.sampled_from(_BAD_NAMES)
    return found.filter(lambda name: not any(part.startswith(_DEFAULT_NAMES) for part in name.split("/")))


def _resolved(reuse: str, outer: _Scope) -> str:
    """TF1: False means to inherit."""
    return outer.reuse if reuse in ("", "False") else reuse


def _given(reuse: str) -> str:
    return f"reuse={reuse}" if reuse else ""


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\")
