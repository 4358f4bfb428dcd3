"""Checkpoints: saved and loaded, in formats of others too, and fitted to a program.

A room: it may use jscope's public names and `jscope._support`, never another room. `import jscope` imports none. The
extra `checkpoint` computes checksums, without which nothing is saved and no file of TensorFlow's is read; it also reads
compressed blocks and shows how far a long read is. Nothing else needs it.
"""

from __future__ import annotations

from .assign import assign_from
from .bundle_writer import save_tf
from .loaded import Checkpoint, CheckpointList
from .opening import list_tf, load, load_tf, open
from .plan import Plan
from .report import Assigned, AssignReport
from .safetensors_file import save
from .stacking import stack, unstack
from .state import LoadedState, load_state, save_state

__all__ = [
    "Assigned",
    "AssignReport",
    "Checkpoint",
    "CheckpointList",
    "LoadedState",
    "Plan",
    "assign_from",
    "list_tf",
    "load",
    "load_state",
    "load_tf",
    "open",
    "save",
    "save_state",
    "save_tf",
    "stack",
    "unstack",
]

# Tracebacks, pickles and documentation name what users import, not the file that it happens to be written in.
for _name in __all__:
    globals()[_name].__module__ = __name__
