"""What the sharing picture shows, as plain data: variables, the places that read them, and which name is doubtful."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

import jscope as js
from jscope._support import initializer_text, misspelt, partition_text, printable, short_place, short_type

TIMES = "\N{MULTIPLICATION SIGN}"


def picture_data(specs: Iterable[js.VariableSpec]) -> dict[str, Any]:
    """Everything that the page needs, ready for JSON.

    Returns:
      `variables`: for each one its name, type, bytes, elements, whether it is frozen, initializer, reads (pairs of the
      number of a place and how often), the name it is near, and what else there is to say; `places`: for each one the
      file's name, the line, and both with folders; `bytes`: of all.
    """
    specs = list(specs)
    near = misspelt(specs)
    numbers: dict[str, int] = {}
    variables = []
    for spec in specs:
        reads = [(numbers.setdefault(place, len(numbers)), count) for place, count in reads_of(spec).items()]
        variables.append(
            [
                printable(spec.name),
                short_type(spec),
                spec.bytes,
                f"{spec.size:,}",
                not spec.trainable,
                printable(initializer_text(spec.initializer)) if spec.initializer is not None else "",
                reads,
                printable(near[spec.name][1]) if spec.name in near else "",
                _more(spec),
            ]
        )
    return {
        "variables": variables,
        "places": [dict(zip(("file", "line", "full"), split_place(place), strict=True)) for place in numbers],
        "bytes": sum(spec.bytes for spec in specs),
    }


def reads_of(spec: js.VariableSpec) -> Counter[str]:
    """The places that read it, the one that made it first, and how often; none where nobody knows."""
    return Counter(place for place in (spec.created_at, *spec.used_at) if place)


def reads_text(reads: Counter[str]) -> str:
    """The lines that read, each with how often where that is more than once."""
    return ", ".join(short_place(place) + f" {TIMES}{count}" * (count > 1) for place, count in reads.items())


def split_place(place: str) -> tuple[str, str, str]:
    """(the file's name, the line with what stands before it, both with folders) of a `file:line` or a notebook cell."""
    file, separator, line = place.rpartition(":" if place.rpartition(":")[2].isdigit() else ",")
    name = os.path.basename(file.replace("\\", "/"))
    return printable(name), printable(separator + line), printable(place)


def _more(spec: js.VariableSpec) -> dict[str, str]:
    """What is said of it when somebody asks, as far as it is not the usual."""
    usual = js.GraphKeys.GLOBAL_VARIABLES, js.GraphKeys.TRAINABLE_VARIABLES
    collections = [name for name in spec.collections if name not in usual]
    more = {
        "store key": spec.key if spec.key is not None and spec.key != spec.name else "",
        "partition": partition_text(spec.partition),
        "collections": ", ".join(map(str, collections)),
        "regularizer": "" if spec.regularizer is None else initializer_text(spec.regularizer),
        "constraint": "" if spec.constraint is None else initializer_text(spec.constraint),
    }
    return {what: printable(text) for what, text in more.items() if text}
