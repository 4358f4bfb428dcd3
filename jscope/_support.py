"""The one private door of the rooms: what layers, checkpoints and the test kit use from inside. Floor 1.

Everything else that a room needs is public. Nothing outside the rooms imports this file.
"""

from __future__ import annotations

from ._callsite import user_line
from ._compat import is_sharding_error, jit_inlined
from ._names import near
from ._show import format_bytes, printable, short_type, shown, table, table_lines

__all__ = [
    "format_bytes",
    "is_sharding_error",
    "jit_inlined",
    "near",
    "printable",
    "short_type",
    "shown",
    "table",
    "table_lines",
    "user_line",
]
