"""The table of docs/how-to/test.md, from what two runs of tests/rooms/test_testing_planted.py wrote.

JSCOPE_PLANTED=new.jsonl python -m pytest -m "slow or not slow" tests/rooms/test_testing_planted.py
python tests/support/planted/table.py new.jsonl old.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def rows(new: Path, old: Path) -> list[str]:
    """A row for each fault that is found, with the seconds of both runs, and a line for each that is not."""
    first, second = ([json.loads(line) for line in path.read_text().splitlines()] for path in (new, old))
    seconds = {(name, library): time for name, library, _, _, time, _ in second}
    table, missed = [], []
    for name, library, assertion, found, time, lines in first:
        if found:
            table.append(
                f"| {name} | {library} | `{assertion}` | {time:.1f} | {seconds[name, library]:.1f} | {lines} |"
            )
        else:
            missed.append(f"* {name} ({library}): {assertion}.")
    return [*table, "", *missed]


if __name__ == "__main__":
    print("\n".join(rows(*map(Path, sys.argv[1:3]))))
