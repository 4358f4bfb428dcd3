"""`python -m jscope`: checkpoints from the shell, and what a program declares. Rooms have all of it."""

from __future__ import annotations

import io
import sys

from jscope.checkpoint.command import main
from jscope.seeing.command import add as add_report

if __name__ == "__main__":
    for _stream in (sys.stdout, sys.stderr):
        if isinstance(_stream, io.TextIOWrapper):
            _stream.reconfigure(errors="backslashreplace")  # names may have letters that the terminal has not
    sys.exit(main(sys.argv[1:], [add_report]))
