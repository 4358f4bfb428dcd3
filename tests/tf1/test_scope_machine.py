"""Scopes entered, left, captured and asked for variables in any order, against TF1's own way of keeping count.

The model does what the tables of TensorFlow 1 do (`_VariableScopeStore`, `_VariableStore`): dicts that are counted up,
zeroed and copied, where jscope keeps clocks and an undo log.
"""

from __future__ import annotations

import dataclasses

import jax
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import jscope as js
from jscope import testing

# Few names, so that they meet.
COMMON = st.sampled_from(["a", "d", "a/d", "d_1"])
NAMES = COMMON | COMMON | COMMON | testing.scope_names().filter(lambda name: not name.endswith("/"))
SHAPES = st.sampled_from([(), (2,)])
REUSE = st.sampled_from([None, False, True, js.AUTO_REUSE])


@dataclasses.dataclass
class Scope:
    """What a scope object of TF1 holds."""

    name: str
    reuse: object


@dataclasses.dataclass
class Open:
    """One entered scope: how to leave it."""

    context: js.variable_scope
    scope: Scope
    handle: js.VariableScope
    restored: dict[str, int] | None


class ScopeMachine(RuleBasedStateMachine):
    """Runs line by line in `js.build`; every call's outcome is foretold by the model."""

    def __init__(self):
        super().__init__()
        self.built = js.build(jax.random.key(0))
        self.built.__enter__()
        self.counts: dict[str, int] = {}
        self.variables: dict[str, tuple[tuple[int, ...], jax.Array]] = {}
        self.stack = [Open(None, Scope("", False), js.get_variable_scope(), None)]
        self.captured: list[tuple[Scope, js.VariableScope]] = [(self.stack[0].scope, self.stack[0].handle)]

    def teardown(self):
        while len(self.stack) > 1:
            self.exit()
        self.built.__exit__(None, None, None)

    @property
    def scope(self):
        return self.stack[-1].scope

    def full(self, name):
        return f"{self.scope.name}/{name}" if self.scope.name else name

    def opened(self, context, name, reuse, captured=False):
        handle = context.__enter__()
        self.counts[name] = self.counts.get(name, 0) + 1
        self.stack.append(Open(context, Scope(name, reuse), handle, dict(self.counts) if captured else None))
        assert (handle.name, handle.reuse) == (name, reuse)

    # Scopes -----------------------------------------------------------------------------------------------------------

    @rule(name=NAMES, reuse=REUSE)
    def enter_by_name(self, name, reuse):
        self.enter(name, reuse)

    def enter(self, name, reuse):
        self.opened(js.variable_scope(name, reuse=reuse), self.full(name), reuse or self.scope.reuse)

    @rule(name=st.sampled_from(["d", "d_1"]))
    def enter_by_default_name(self, name):
        self.enter_default(name)

    def enter_default(self, name):
        unique, number = name, 0
        while self.counts.get(self.full(unique), 0) > 0:
            number += 1
            unique = f"{name}_{number}"
        self.opened(js.variable_scope(None, name), self.full(unique), self.scope.reuse)

    @rule(data=st.data(), reuse=REUSE)
    def enter_again(self, data, reuse):
        self.enter_captured(data.draw(st.sampled_from(self.captured)), reuse)

    def enter_captured(self, captured, reuse):
        scope, handle = captured
        self.opened(js.variable_scope(handle, reuse=reuse), scope.name, reuse or scope.reuse, captured=True)

    @precondition(lambda self: len(self.stack) > 1)
    @rule()
    def leave(self):
        self.exit()

    def exit(self):
        left = self.stack.pop()
        left.context.__exit__(None, None, None)
        if left.restored is not None:
            self.counts = left.restored
        else:
            self.counts.update({name: 0 for name in self.counts if name.startswith(left.scope.name + "/")})

    @rule(data=st.data(), by_name=st.booleans(), defaults=st.lists(st.sampled_from(["d", "d_1"]), max_size=3))
    def visit(self, data, by_name, defaults):
        """Opens default names in a scope and leaves them all: which numbers are taken then?"""
        if by_name:
            self.enter(data.draw(COMMON), None)
        else:
            self.enter_captured(data.draw(st.sampled_from(self.captured)), None)
        for name in defaults:
            self.enter_default(name)
            self.exit()
        self.exit()

    @precondition(lambda self: len(self.stack) > 2)
    @rule()
    def exit_out_of_order(self):
        with pytest.raises(js.ScopeExitError):
            self.stack[-2].context.__exit__(None, None, None)

    @rule()
    def capture(self):
        self.captured.append((self.scope, self.stack[-1].handle))

    @rule()
    def reuse_variables(self):
        js.get_variable_scope().reuse_variables()
        self.scope.reuse = True

    # Variables --------------------------------------------------------------------------------------------------------

    def ask(self, name, shape):
        key = self.full(name)
        expected = None
        if key not in self.variables:
            expected = js.VariableNotFoundError if self.scope.reuse is True else None
        elif self.scope.reuse is False:
            expected = js.VariableExistsError
        elif self.variables[key][0] != shape:
            expected = js.ShapeMismatchError
        if expected is not None:
            with pytest.raises(expected):
                js.get_variable(name, shape)
            return
        value = js.get_variable(name, shape, initializer=js.ones_initializer())
        if key in self.variables:
            assert value is self.variables[key][1]
        else:
            self.variables[key] = shape, value
        assert self.built.specs[js.name_of(value)].key == key

    @rule(name=NAMES, shape=SHAPES)
    def get(self, name, shape):
        self.ask(name, shape)

    @precondition(lambda self: self.variables)
    @rule(data=st.data(), shape=SHAPES)
    def get_what_may_exist(self, data, shape):
        """A name below this scope that some variable has, or just its last part."""
        key = data.draw(st.sampled_from(sorted(self.variables)))
        start = self.full("")
        self.ask(key.removeprefix(start) if key.startswith(start) and key != start else "w", shape)

    @rule(name=NAMES)
    def make_unshared(self, name):
        before = len(self.built.specs)
        js.variable(0.0, name)
        assert len(self.built.specs) == before + 1

    # What always holds ------------------------------------------------------------------------------------------------

    @invariant()
    def the_current_scope_is_the_models(self):
        scope = js.get_variable_scope()
        assert (scope.name, scope.reuse) == (self.scope.name, self.scope.reuse)
        assert scope is self.stack[-1].handle

    @invariant()
    def scope_objects_say_what_the_models_say(self):
        for scope, handle in self.captured:
            assert (handle.name, handle.reuse) == (scope.name, scope.reuse)

    @invariant()
    def the_variables_are_the_models(self):
        specs = self.built.specs
        assert {spec.key for spec in specs.values()} - {None} == set(self.variables)
        assert self.built.params.names == tuple(sorted(specs))


TestScopes = ScopeMachine.TestCase
TestScopes.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
