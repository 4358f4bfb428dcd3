"""The optimizers that TF1 and optax both have. Each trains variables of its own, in a scope of its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from layer_cases import random_values

STEPS_BEFORE, STEPS_AFTER = 3, 3  # the checkpoint is saved between them
SHAPES = {"a/w": (2, 3), "b": (3,)}
EPSILON = 1e-3  # where TF1 and optax mean the same by it: large, so that a difference would show


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """One optimizer.

    Attributes:
      tensorflow: makes it in TF1, of `tf.train`.
      optax: makes it in optax, of the module.
      name: of the slots in TF1, if it has another than its own.
    """

    tensorflow: Callable[[Any], Any]
    optax: Callable[[Any], Any]
    name: str | None = None


OPTIMIZERS = {
    "adam": Optimizer(lambda t: t.AdamOptimizer(0.1, 0.8, 0.99), lambda o: o.adam(0.1, 0.8, 0.99)),
    "named": Optimizer(lambda t: t.MomentumOptimizer(0.1, 0.9, name="Mine"), lambda o: o.sgd(0.1, 0.9), "Mine"),
    "sgd": Optimizer(lambda t: t.GradientDescentOptimizer(0.1), lambda o: o.sgd(0.1)),
    "momentum": Optimizer(lambda t: t.MomentumOptimizer(0.1, 0.9), lambda o: o.sgd(0.1, 0.9)),
    "nesterov": Optimizer(
        lambda t: t.MomentumOptimizer(0.1, 0.9, use_nesterov=True), lambda o: o.sgd(0.1, 0.9, nesterov=True)
    ),
    "rmsprop": Optimizer(
        lambda t: t.RMSPropOptimizer(0.1, 0.8, epsilon=EPSILON),
        lambda o: o.rmsprop(0.1, 0.8, EPSILON, initial_scale=1.0),
    ),
    "rmsprop_momentum": Optimizer(
        lambda t: t.RMSPropOptimizer(0.1, 0.8, 0.5, EPSILON),
        lambda o: o.rmsprop(0.1, 0.8, EPSILON, initial_scale=1.0, momentum=0.5),
    ),
    "centered": Optimizer(
        lambda t: t.RMSPropOptimizer(0.1, 0.8, 0.5, EPSILON, centered=True),
        lambda o: o.rmsprop(0.1, 0.8, EPSILON, initial_scale=1.0, momentum=0.5, centered=True),
    ),
    "adagrad": Optimizer(lambda t: t.AdagradOptimizer(0.1, 0.2), lambda o: o.adagrad(0.1, 0.2, eps=0.0)),
    "adadelta": Optimizer(lambda t: t.AdadeltaOptimizer(0.1, 0.9, EPSILON), lambda o: o.adadelta(0.1, 0.9, EPSILON)),
}


def loss(variables: dict[str, Any], x: Any, total: Callable[[Any], Any]) -> Any:
    """What is minimized, of variables by name; `total` sums an array up."""
    return total((variables["a/w"] * x - variables["b"]) ** 2)


def first_values(scope: str) -> dict[str, np.ndarray]:
    return {name: random_values(f"{scope}/{name}", shape) for name, shape in SHAPES.items()}


def inputs(step: int) -> np.ndarray:
    return random_values(f"inputs/{step}", SHAPES["a/w"])
