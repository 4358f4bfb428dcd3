"""Checkpoints of TensorFlow, read and written without TensorFlow.

A room: it may use jscope's public names, never jscope's private modules nor another room. `import jscope` does not
import it. The extra `checkpoint` makes checksums fast and reads compressed files; nothing else needs it.
"""

from __future__ import annotations

from .load import list_tf, load_tf
from .loaded import Checkpoint, CheckpointList
from .save import save_tf

__all__ = ["Checkpoint", "CheckpointList", "list_tf", "load_tf", "save_tf"]

# Tracebacks, pickles and documentation name what users import, not the file that it happens to be written in.
for _name in __all__:
    globals()[_name].__module__ = __name__
