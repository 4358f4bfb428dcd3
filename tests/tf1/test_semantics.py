"""Every row of TensorFlow's recorded semantics is a test of `test_semantics_*.py`, or left out here with its reason."""

import re
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
from tf1_rows import matches

import jscope as js

# How many rows the record has under each letter; they are numbered from 01 without gaps.
ROWS = {
    "N": 15, "R": 25, "E": 27, "B": 7, "S": 12, "D": 22, "C": 26, "O": 20,
    "V": 12, "I": 21, "T": 7, "G": 14, "K": 16, "X": 18, "Z": 17, "M": 17,
}  # fmt: skip

LEFT_OUT = {
    "E21": "variables cut into TF1's counted parts: jscope refuses counts (X17) and keeps whole variables",
    "E27": "values of unknown shape (placeholders): JAX has none",
    "O10": "the graph's list of operations, initializers and assignments included: JAX has no graph",
    "O11": "the graph's list of operations: JAX has no graph",
    "O14": "the names that TensorFlow gives to ordinary operations: jscope can't see them",
    "V08": "repr of a variable object: get_variable returns a plain jax.Array",
    "V09": "repr of a resource variable object: get_variable returns a plain jax.Array",
    "G11": "op names of the two calls of a regularizer: jscope calls it when losses are asked for, once",
    "K14": "synchronization of distribution strategies: no such argument",
    "X13": "variables cut into TF1's counted parts: jscope refuses counts (X17) and keeps whole variables",
    "X15": "reuse of variables cut into parts: jscope refuses counts (X17)",
    "X16": "sizes of uneven parts: jscope refuses counts (X17)",
    "X18": "variable_creator_scope: jscope has custom getters only",
    "Z06": "two threads in one graph: a jscope program belongs to its thread",
    "Z07": "two threads in one graph: a jscope program belongs to its thread",
    "Z08": "two threads in one graph: a jscope program belongs to its thread",
    "Z09": "two threads in one graph: a jscope program belongs to its thread",
    "Z13": "variable_op_scope, deprecated in TF1 already: jscope has variable_scope only",
    "Z14": "_pure_variable_scope, private in TF1: what shows of it outside is tested in M15 and M16",
}


def test_every_row_is_tested_or_left_out():
    rows = {f"{letter}{number:02}" for letter, count in ROWS.items() for number in range(1, count + 1)}
    assert len(rows) == 276
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_semantics_*.py")]
    names = [name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)]
    assert len(names) == len(set(names))
    tested = Counter(re.findall(r"test_([A-Z]\d\d)_", " ".join(names)))
    assert {row for row, times in tested.items() if times > 1} <= {"M04"}  # one test for each of its columns
    assert not set(tested) & set(LEFT_OUT)
    assert set(tested) | set(LEFT_OUT) == rows
    assert all(len(reason) > 20 for reason in LEFT_OUT.values())


def test_unknown_values_match_anything_and_nothing_else_does():
    assert matches(["a ? b", "c"], ["a 1.0 b", "c"])
    assert matches(["[?, ?] d"], ["[1.0, 2.0] d"])
    for found in (["a ? b"], ["a 1.0 c", "c"], ["a ? c", "c"], ["a 1.0 b"], ["a 1.0 b", "c", "d"], [""], []):
        assert not matches(found, ["a 1.0 b", "c"])
    assert not matches(["a.b"], ["axb"])


def test_scope_left_open_by_a_program_does_not_reach_jax_names_outside():
    def program():
        js.variable_scope("left_open").__enter__()  # as a generator does that is never resumed (Z15)

    def caller(x):
        js.transform(program).apply({})
        return jnp.sin(x)

    with jax.named_scope("here"):  # puts the name stack back
        text = jax.jit(caller).lower(1.0).as_text(debug_info=True)
    assert "/sin" in text
    assert "left_open" not in re.findall(r'"([^"]*/sin)"', text)[0]
