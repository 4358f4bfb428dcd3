"""TensorFlow 1's `tf.train`, as far as it is about variables: moving averages, the global step, optimizers' slots.

A room of its own because TF1 has them in a module of its own: none is a layer, and none is needed to read a
checkpoint. It may use jscope's public names, never jscope's private modules nor another room. `import jscope` does not
import it. What trains is optax, an extra.
"""

from __future__ import annotations

from .averages import ExponentialMovingAverage, assign_moving_average
from .global_step import create_global_step, get_global_step, get_or_create_global_step
from .slots import from_tf_slots, to_tf_slots

__all__ = [
    "ExponentialMovingAverage",
    "assign_moving_average",
    "create_global_step",
    "from_tf_slots",
    "get_global_step",
    "get_or_create_global_step",
    "to_tf_slots",
]

# Tracebacks, pickles and documentation name what users import, not the file that it happens to be written in.
for _name in __all__:
    globals()[_name].__module__ = __name__
