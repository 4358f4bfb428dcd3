"""The one private door of the rooms: what layers, checkpoints and the test kit use from inside. Floor 1.

Everything else that a room needs is public. Nothing outside the rooms imports this file.
"""

from __future__ import annotations

from ._atomic import flush, flush_directory, left_over, new_file, permissions, replacement, write_text
from ._callsite import user_line
from ._compat import is_sharding_error, jit_inlined, run_watched
from ._describe import initializer_text
from ._leaves import check_here, is_elsewhere, without_value
from ._misspelt import misspelt
from ._names import matcher, near
from ._partitions import misplaced
from ._see import seeing
from ._show import count_of, format_bytes, printable, short_type, shortened, shown, table, table_lines
from ._table import Scope, cut, partition_text, short_place
from ._values import as_dtype, single_or_wider

__all__ = [
    "Scope",
    "as_dtype",
    "check_here",
    "count_of",
    "cut",
    "flush",
    "flush_directory",
    "format_bytes",
    "initializer_text",
    "is_elsewhere",
    "is_sharding_error",
    "jit_inlined",
    "left_over",
    "matcher",
    "misplaced",
    "misspelt",
    "near",
    "new_file",
    "partition_text",
    "permissions",
    "printable",
    "replacement",
    "run_watched",
    "seeing",
    "short_place",
    "short_type",
    "shortened",
    "shown",
    "single_or_wider",
    "table",
    "table_lines",
    "user_line",
    "without_value",
    "write_text",
]
