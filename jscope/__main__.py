"""`python -m jscope`: checkpoints from the shell. The room `jscope.checkpoint` has all of it."""

from __future__ import annotations

import io
import sys

from jscope.checkpoint.command import main

if __name__ == "__main__":
    for _stream in (sys.stdout, sys.stderr):
        if isinstance(_stream, io.TextIOWrapper):
            _stream.reconfigure(errors="backslashreplace")  # names may have letters that the terminal has not
    sys.exit(main(sys.argv[1:]))
