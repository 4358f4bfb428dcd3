"""`python -m jscope`: checkpoints from the shell. The room `jscope.checkpoint` has all of it."""

from __future__ import annotations

import sys

from jscope.checkpoint.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
