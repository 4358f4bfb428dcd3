"""Names with fields in them: `h.{i}.attn.{*rest}`. What one matches, another with the same fields fills in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jscope as js

from .faults import user_line

_FIELD = re.compile(r"\{([*.]?)([a-z_][a-z_0-9]*)(?:([+-])([0-9]{1,6})|:0([1-9]))?\}")
_NUMBER = "0|[1-9][0-9]{0,8}"
_MOST_NUMBER = 10**9
_TEXTS = {"*": ".+", ".": "[^./]+"}
_MOST_WAYS = 10_000  # in which a regular expression may try to match a name


class Template:
    """A name, or the form of many.

    `{i}` stands for a whole number, `{i:02}` for one that is filled up to two digits, `{i+1}` for one that counts from
    1 where another template counts from 0, `{.kind}` for a text without dots and slashes, and `{*rest}` for any text,
    dots and slashes included: one such at most.

    Attributes:
      text: as it was given.
      fields: the names of the fields.
      kinds: of the fields by name: "" for a number, "." and "*" for texts.

    Raises:
      BadArgumentError: if the text is none.
    """

    def __init__(self, text: Any) -> None:
        if not isinstance(text, str) or not text:
            raise _bad(f"A name in a plan is a text, not {text!r:.80}", "write such as 'h.{i}.ln_1.weight'")
        self.text = text
        self.fields: tuple[str, ...] = ()
        self.kinds: dict[str, str] = {}
        self._pieces: list[Any] = []
        self._each: dict[str, re.Pattern[str]] = {}
        self._texts = 0  # how many fields of text stand side by side, with no dot or slash between them
        pattern, reached, before, parted = "", 0, "", True
        for match in _FIELD.finditer(text):
            kind, name, sign, shift, width = match.groups()
            literal = text[reached : match.start()]
            if name in self.fields or (kind == "*" and "*" in self.kinds.values()):
                fix = "write each once; beside {*rest}, a text without dots and slashes is {.kind}"
                raise _bad(f"The name {text!r} has a field twice, or two that stand for any text", fix)
            if kind and (sign or width or (before and not literal)):
                raise _bad(f"The name {text!r} has a field of text that is counted, or touches another", "part them")
            reached, before = match.end(), kind
            self.fields += (name,)
            self.kinds[name] = kind
            digits = f"[0-9]{{{int(width or 1)},9}}" if width else _NUMBER
            self._each[name] = re.compile(_TEXTS.get(kind, digits), re.DOTALL)
            parted = parted or not set("./").isdisjoint(literal)
            if kind:
                self._texts, parted = self._texts + (not parted), False
            pattern += re.escape(literal) + f"(?P<{name}>{_TEXTS.get(kind, digits)})"
            self._pieces += [literal, (name, int(f"{sign or '+'}{shift or 0}"), int(width or 0))]
        pattern += re.escape(text[reached:])
        self._pieces.append(text[reached:])
        if any(set(piece) & set("{}") for piece in self._pieces if isinstance(piece, str)):
            fix = "fields are {i}, {i:02}, {i+1}, {.kind} or {*rest}"
            raise _bad(f"The name {text!r} has braces that are no field", fix)
        self._pattern = re.compile(pattern, re.DOTALL)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def match(self, name: str) -> dict[str, Any] | None:
        """The fields of a name: numbers and texts. None if it is no such name."""
        if self._texts and len(name) ** (self._texts + 1) > _MOST_WAYS:
            found = self._walked(name)
        else:
            match = self._pattern.fullmatch(name)
            found = None if match is None else match.groupdict()
        if found is None:
            return None
        for piece in self._pieces:
            if isinstance(piece, tuple) and not self.kinds[piece[0]]:
                field, shift, width = piece
                number = int(found[field]) - shift
                if number < 0 or (width and found[field] != f"{number + shift:0{width}d}"):
                    return None
                found[field] = number
        return found

    def _walked(self, name: str) -> dict[str, Any] | None:
        """What the regular expression finds, in a time that grows with the name, and not with a power of its length."""
        # For each piece, the last one first, from where on in the name all that is behind it matches.
        behind = [bytearray(len(name)) + b"\1"]
        for piece in reversed(self._pieces):
            here, after = bytearray(len(name) + 1), behind[-1]
            for start in reversed(range(len(name) + 1)):
                if isinstance(piece, str):
                    here[start] = name.startswith(piece, start) and after[start + len(piece)]
                elif not self.kinds[piece[0]]:
                    here[start] = any(after[end] for end in self._ends(piece, name, start))
                elif start < len(name) and (self.kinds[piece[0]] == "*" or name[start] not in "./"):
                    here[start] = after[start + 1] or here[start + 1]
            behind.append(here)
        if not behind.pop()[0]:
            return None
        found, start = {}, 0
        for piece in self._pieces:
            after = behind.pop()
            if isinstance(piece, str):
                start += len(piece)
            else:
                end = next(end for end in self._ends(piece, name, start) if after[end])
                found[piece[0]], start = name[start:end], end
        return found

    def _ends(self, piece: tuple[str, int, int], name: str, start: int) -> range:
        """Where a field may end that starts there, the longest first."""
        match = self._each[piece[0]].match(name, start)
        return range(0) if match is None else range(match.end(), start + max(piece[2], 1) - 1, -1)

    @property
    def literals(self) -> list[str]:
        """What is no field."""
        return [piece for piece in self._pieces if isinstance(piece, str)]

    def of_texts(self) -> Template | None:
        """The same with texts in place of numbers. None if it has no numbers."""
        if all(self.kinds.values()):
            return None
        fields = {field: f"{{{kind or '.'}{field}}}" for field, kind in self.kinds.items()}
        try:
            return Template("".join(piece if isinstance(piece, str) else fields[piece[0]] for piece in self._pieces))
        except js.BadArgumentError:  # two numbers that touch
            return None

    def fill(self, fields: Mapping[str, Any]) -> str:
        """The name with these fields."""
        parts = []
        for piece in self._pieces:
            if isinstance(piece, str):
                parts.append(piece)
            else:
                field, shift, width = piece
                value = fields[field]
                parts.append(value if isinstance(value, str) else f"{value + shift:0{width}d}")
        return "".join(parts)


def templates(given: Any) -> tuple[Template, ...]:
    """Those of one text, or of several."""
    if isinstance(given, str):
        return (Template(given),)
    if not isinstance(given, Iterable):
        raise _bad(f"Names in a plan are texts, not {given!r:.80}", "write such as 'h.{i}.ln_1.weight'")
    return tuple(map(Template, given))


def same_fields(one: Template, other: Template, *, but: str = "") -> None:
    """Raises a `BadArgumentError` if the two have not the same fields; `but` is one that only the first has."""
    if {name: kind for name, kind in one.kinds.items() if name != but} != other.kinds:
        what = f"{one.text!r} and {other.text!r} have not the same fields"
        fix = "what one name leaves open, the other has to say as well, with the same sign: else it can't be taken back"
        raise _bad(what, fix)


def _bad(what: str, fix: str) -> js.BadArgumentError:
    return js.BadArgumentError(f"{what}.", kind="bad_plan", where=user_line(), fix=fix)
