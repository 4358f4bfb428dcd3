"""The grammar of names, against plain models of what TensorFlow keeps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscope import BadArgumentError, BadNameError
from jscope._names import OpNames, ScopeCounts, join, matcher, near, split

parts = st.sampled_from(["a", "b", "d", "ab", ""])
names = st.lists(parts, min_size=1, max_size=3).map("/".join)


@given(names)
def test_split_loses_nothing(name):
    assert "/".join(split(name)) == name


def test_join():
    assert (join("", "v"), join("a/b", "v"), join("a", ""), join("a/", "v")) == ("v", "a/b/v", "a/", "a//v")


def test_near_ignores_case_and_is_ordered():
    assert near("Kernel", ["bias", "kernel", "kernal"]) == ["kernel", "kernal"]
    assert near("zzz", ["bias"]) == []


@pytest.mark.parametrize("bad", ["(", None, 3])
def test_matcher_refuses(bad):
    with pytest.raises(BadArgumentError, match="regular expression"):
        matcher(bad)


class TestOpNames:
    def test_as_recorded(self):
        table = OpNames()
        assert [table.unique(n) for n in ["a", "a", "a_1", "a", "a_1"]] == ["a", "a_1", "a_1_1", "a_2", "a_1_2"]
        assert [OpNames().unique(n) for n in ["a_1"]] == ["a_1"]
        table = OpNames()
        assert [table.unique(n) for n in ["a_1", "a", "a", "A"]] == ["a_1", "a", "a_2", "A_3"]

    @given(st.lists(st.sampled_from(["a", "A", "a_1", "a_1_1", "b"]), max_size=30))
    def test_never_twice(self, asked):
        table = OpNames()
        given_out = [table.unique(name) for name in asked]
        assert len({name.lower() for name in given_out}) == len(asked)

    @given(st.lists(st.sampled_from(["a", "A", "a_1", "a_2", "a_1_1", "b"]), max_size=30))
    def test_equals_tensorflows_way_of_counting(self, asked):
        taken, table = {}, OpNames()
        for name in asked:
            key = base = name.lower()
            count = start = taken.get(key, 0)
            taken[key] = count + 1
            while count and key in taken:
                key = f"{base}_{count}"
                count += 1
            if start:
                taken[key] = 1
            assert table.unique(name) == (f"{name}_{count - 1}" if start else name)

    def test_is_linear(self):
        looked_up = 0

        class Counting(dict):
            def __contains__(self, key):
                nonlocal looked_up
                looked_up += 1
                return super().__contains__(key)

        table = OpNames()
        table._taken = Counting()
        for i in range(500):
            table.unique(f"scope_{i}")
        for _ in range(500):
            table.unique("scope")
        assert looked_up < 4 * 1000

    def test_open(self):
        table = OpNames()
        assert table.open("", "a") == "a"
        assert table.open("a", "b") == "a/b"
        assert table.open("q", "a/") == "a"  # absolute, and not made unique
        assert table.open("q", "") == ""
        for scope, bad in (("", "_a"), ("", "/a"), ("", "a b"), ("s", "a b"), ("", "é"), ("", "a\n"), ("s", "a\n")):
            with pytest.raises(BadNameError):
                table.open(scope, bad)
        assert table.open("", "a b".replace(" ", "_")) == "a_b"  # nothing was taken by the refused
        assert table.open("s", "_a") == "s/_a"


class CountTable:
    """TensorFlow's own book-keeping: a count per name, set to zero below a scope that is left, copied and put back."""

    def __init__(self):
        self.counts = {}

    def open(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1

    def leave(self, name):
        for key in self.counts:
            if key.startswith(name + "/"):
                self.counts[key] = 0

    def mark(self):
        return dict(self.counts)

    def roll_back(self, mark):
        self.counts = mark

    def unique(self, scope, name):
        full = join(scope, name)
        if not self.counts.get(full):
            return name
        number = 1
        while self.counts.get(f"{full}_{number}"):
            number += 1
        return f"{name}_{number}"


@given(
    st.lists(st.tuples(st.sampled_from(["open", "leave", "unique", "open_unique", "mark", "back"]), names), max_size=60)
)
@settings(max_examples=300, deadline=None)
def test_scope_counts_equal_tensorflows_table(steps):
    ours, model = ScopeCounts(), CountTable()
    marks = []
    for what, name in steps:
        if what in ("open", "leave"):
            ours.written.append(name if what == "open" else (name,))
            getattr(model, what)(name)
        elif what == "mark":
            marks.append((ours.mark(), model.mark()))
        elif what == "back" and marks:
            ours_mark, model_mark = marks.pop()
            ours.roll_back(ours_mark)
            model.roll_back(model_mark)
        elif what in ("unique", "open_unique"):
            scope, _, last = name.rpartition("/")
            found = ours.unique(scope, last)
            assert found == model.unique(scope, last)
            if what == "open_unique":
                ours.written.append(join(scope, found))
                model.open(join(scope, found))


def test_default_names_are_linear():
    class Counting(dict):
        looked_up = 0

        def get(self, *args):
            Counting.looked_up += 1
            return super().get(*args)

    counts = ScopeCounts()
    counts._opened = Counting()
    for i in range(2000):
        name = counts.unique("s", "d")
        assert name == (f"d_{i}" if i else "d")
        counts.written.append(f"s/{name}")
    assert Counting.looked_up < 8 * 2000
