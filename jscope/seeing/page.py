"""The sharing picture as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import string
from importlib import resources

import jscope as js
from jscope._support import format_bytes, printable, write_text

from .data import picture_data

_TABLE_ROWS = 400  # in what is shown without JavaScript


def to_html(specs: js.Specs, *, path: str | os.PathLike[str] | None = None, title: str = "") -> str:
    """See `Specs.to_html`."""
    style, script = (
        resources.files("jscope.seeing").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    template = string.Template(resources.files("jscope.seeing").joinpath("page.html").read_text("utf-8"))
    page = template.substitute(
        title=html.escape(printable(title) or "The variables of a program"),
        totals=html.escape(_totals(specs)),
        style=style,
        script=script,
        # The page runs this script and no other, whatever gets into it.
        style_hash=_hash(style),
        script_hash=_hash(script),
        table=html.escape(specs.table(depth=None if len(specs) <= _TABLE_ROWS else 2)),
        data=_json(picture_data(specs.values())),
    )
    if path is not None:
        write_text(path, page)
    return page


def _totals(specs: js.Specs) -> str:
    frozen = sum(spec.bytes for spec in specs.values() if not spec.trainable)
    parts = [f"{len(specs):,} variable{'s' * (len(specs) != 1)}", f"{specs.size:,} elements", format_bytes(specs.bytes)]
    shared = sum(bool(spec.used_at) for spec in specs.values())
    parts += [f"{shared:,} shared"] * bool(shared) + [f"{format_bytes(frozen)} frozen"] * bool(frozen)
    return ", ".join(parts)


def _json(value: object) -> str:
    """JSON that can stand inside a script element: nothing in it ends the element or begins another."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
