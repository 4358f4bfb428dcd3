"""What docs/tf1-to-jscope.md says of schedules, losses and clipping: by name, (in TF1, in JAX)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from layer_cases import random_values

RATE, N = 0.5, 4
BOUNDARIES, VALUES = [2, 5], [1.0, 0.5, 0.1]
SCHEDULE_STEPS = 12
SCHEDULES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "exponential": (lambda t, s: t.exponential_decay(RATE, s, N, 0.7), lambda o: o.exponential_decay(RATE, N, 0.7)),
    "staircase": (
        lambda t, s: t.exponential_decay(RATE, s, N, 0.7, staircase=True),
        lambda o: o.exponential_decay(RATE, N, 0.7, staircase=True),
    ),
    "natural": (
        lambda t, s: t.natural_exp_decay(RATE, s, N, 0.7),
        lambda o: o.exponential_decay(RATE, N, math.exp(-0.7)),
    ),
    "polynomial": (
        lambda t, s: t.polynomial_decay(RATE, s, N, 0.1, 2.0),
        lambda o: o.polynomial_schedule(RATE, 0.1, 2.0, N),
    ),
    "cosine": (lambda t, s: t.cosine_decay(RATE, s, N, 0.1), lambda o: o.cosine_decay_schedule(RATE, N, 0.1)),
    "inverse": (lambda t, s: t.inverse_time_decay(RATE, s, N, 0.7), lambda o: lambda step: RATE / (1 + 0.7 * step / N)),
    "piecewise": (
        lambda t, s: t.piecewise_constant(s, BOUNDARIES, VALUES),
        lambda o: lambda step: jnp.asarray(VALUES)[jnp.searchsorted(jnp.asarray(BOUNDARIES), step)],
    ),
}

ONEHOT = np.eye(3, dtype="f4")[[0, 2, 1, 1]]
LOGITS = random_values("logits", (4, 3))
PROBABILITIES = (1 / (1 + np.exp(-LOGITS))).astype("f4")
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5], "f4")
LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "softmax": (
        lambda tf: tf.losses.softmax_cross_entropy(ONEHOT, LOGITS, label_smoothing=0.1),
        lambda o: o.softmax_cross_entropy(LOGITS, o.smooth_labels(ONEHOT, 0.1)).mean(),
    ),
    "sparse": (
        lambda tf: tf.losses.sparse_softmax_cross_entropy(ONEHOT.argmax(1), LOGITS),
        lambda o: o.softmax_cross_entropy_with_integer_labels(LOGITS, ONEHOT.argmax(1)).mean(),
    ),
    "sigmoid": (
        lambda tf: tf.losses.sigmoid_cross_entropy(ONEHOT, LOGITS),
        lambda o: o.sigmoid_binary_cross_entropy(LOGITS, ONEHOT).mean(),
    ),
    "squared": (lambda tf: tf.losses.mean_squared_error(ONEHOT, LOGITS), lambda o: jnp.mean((LOGITS - ONEHOT) ** 2)),
    "absolute": (
        lambda tf: tf.losses.absolute_difference(ONEHOT, LOGITS),
        lambda o: jnp.mean(jnp.abs(LOGITS - ONEHOT)),
    ),
    "huber": (
        lambda tf: tf.losses.huber_loss(ONEHOT, LOGITS, delta=0.7),
        lambda o: o.huber_loss(LOGITS, ONEHOT, delta=0.7).mean(),
    ),
    "hinge": (lambda tf: tf.losses.hinge_loss(ONEHOT, LOGITS), lambda o: o.hinge_loss(LOGITS, 2 * ONEHOT - 1).mean()),
    "log": (
        lambda tf: tf.losses.log_loss(ONEHOT, PROBABILITIES),
        lambda o: -jnp.mean(ONEHOT * jnp.log(PROBABILITIES + 1e-7) + (1 - ONEHOT) * jnp.log(1 - PROBABILITIES + 1e-7)),
    ),
    "weighted": (
        lambda tf: tf.losses.sparse_softmax_cross_entropy(ONEHOT.argmax(1), LOGITS, weights=WEIGHTS),
        lambda o: (
            jnp.sum(WEIGHTS * o.softmax_cross_entropy_with_integer_labels(LOGITS, ONEHOT.argmax(1)))
            / jnp.count_nonzero(WEIGHTS)
        ),
    ),
    "clipped by the norm of all": (
        lambda tf: tf.concat(tf.clip_by_global_norm([LOGITS, 3 * ONEHOT], 2.0)[0], 0),
        lambda o: jnp.concatenate(o.clip_by_global_norm(2.0).update([LOGITS, 3 * ONEHOT], o.EmptyState())[0]),
    ),
    "clipped by its norm": (
        lambda tf: tf.clip_by_norm(LOGITS, 1.5),
        lambda o: LOGITS * 1.5 / jnp.maximum(jnp.linalg.norm(LOGITS), 1.5),
    ),
}
