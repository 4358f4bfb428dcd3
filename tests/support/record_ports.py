"""Runs the cases of `port_cases`, `train_cases`, `optimizer_cases` and `recipe_cases` in TensorFlow, and records them.

    TF_USE_LEGACY_KERAS=1 python tests/support/record_ports.py

It needs the extra `jax-scope[tensorflow]`.
"""

from __future__ import annotations

import json
import types
import warnings
from typing import Any

import numpy as np
import optimizer_cases
import port_cases
import recipe_cases
import train_cases
from layer_cases import random_values
from paths import DATA
from record_layers import load_random_values, save_arrays, tf, write_record
from tensorflow.python.training import moving_averages

NAMES = types.SimpleNamespace(
    **{name: getattr(tf, name) for name in dir(tf) if not name.startswith("_")},
    of=lambda variable: variable.op.name,
    assign_moving_average=moving_averages.assign_moving_average,
)


def run_steps(name: str, program: Any, seed: int = 0) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a case of `train_cases` declares and notes, and the values of its variables after each step."""
    with warnings.catch_warnings(), tf.Graph().as_default(), tf.Session() as session:
        warnings.simplefilter("ignore")
        # Variables of the newer kind, which are read when it is their turn.
        with tf.variable_scope("", use_resource=True):
            x = tf.placeholder(tf.float32, train_cases.SHAPE)
            ops, notes = program(NAMES, x)
        variables = tf.global_variables() + tf.local_variables()
        session.run(tf.global_variables_initializer())
        load_random_values(variables, seed, session)
        arrays = {}
        for step in range(train_cases.STEPS):
            session.run(ops, {x: random_values(f"{name}/{step}", train_cases.SHAPE, seed)})
            for variable, value in zip(variables, session.run(variables), strict=True):
                arrays[f"{name}.{step}.{variable.op.name}"] = value
        trainable = tf.trainable_variables()
        return {
            "variables": [[v.op.name, v.dtype.base_dtype.name, v.shape.as_list(), v in trainable] for v in variables],
            "notes": notes,
        }, arrays


def record_train() -> None:
    """Writes `data/train.json` and `data/train.npz`."""
    notes, arrays = {}, {}
    for name, program in train_cases.CASES.items():
        notes[name], more = run_steps(name, program)
        arrays |= more
    (DATA / "train.json").write_text(json.dumps(notes, indent=1) + "\n")
    save_arrays(DATA / "train.npz", arrays)
    print(f"{len(notes)} cases, {len(arrays)} arrays")


def train_by_optimizers(prefix: str, *, restores: bool = False) -> dict[str, np.ndarray]:
    """Trains by each optimizer from the first step, or from a checkpoint as the one that it saves on the way.

    Returns:
      The variables after each step behind the checkpoint: `STEP.NAME` -> value.
    """
    arrays = {}
    with warnings.catch_warnings(), tf.Graph().as_default(), tf.Session() as session:
        warnings.simplefilter("ignore")
        x = tf.placeholder(tf.float32, optimizer_cases.SHAPES["a/w"])
        step = tf.train.create_global_step()
        ops = [tf.assign_add(step, 1)]
        for scope, optimizer in optimizer_cases.OPTIMIZERS.items():
            with tf.variable_scope(scope):
                variables = {
                    name: tf.get_variable(name, initializer=value)
                    for name, value in optimizer_cases.first_values(scope).items()
                }
            loss = optimizer_cases.loss(variables, x, tf.reduce_sum)
            ops.append(optimizer.tensorflow(tf.train).minimize(loss, var_list=list(variables.values())))
        session.run(tf.global_variables_initializer())
        if restores:
            tf.train.Saver().restore(session, prefix)
        first = optimizer_cases.STEPS_BEFORE if restores else 0
        for number in range(first, optimizer_cases.STEPS_BEFORE + optimizer_cases.STEPS_AFTER):
            if number == optimizer_cases.STEPS_BEFORE and not restores:
                tf.train.Saver().save(session, prefix, write_meta_graph=False, write_state=False)
            session.run(ops, {x: optimizer_cases.inputs(number)})
            if number >= optimizer_cases.STEPS_BEFORE:
                for variable, value in zip(tf.global_variables(), session.run(tf.global_variables()), strict=True):
                    arrays[f"{number + 1}.{variable.op.name}"] = value
    return arrays


def run_recipes() -> dict[str, np.ndarray]:
    """What TensorFlow's schedules and losses give: `KIND.NAME` -> values."""
    with warnings.catch_warnings(), tf.Graph().as_default(), tf.Session() as session:
        warnings.simplefilter("ignore")
        step = tf.placeholder(tf.int32, [])
        steps = range(recipe_cases.SCHEDULE_STEPS)
        schedules = {name: make(tf.train, step) for name, (make, _) in recipe_cases.SCHEDULES.items()}
        losses = {f"loss.{name}": make(tf) for name, (make, _) in recipe_cases.LOSSES.items()}
        rates = {
            f"schedule.{name}": np.array([session.run(rate, {step: n}) for n in steps])
            for name, rate in schedules.items()
        }
        return rates | session.run(losses)


def main() -> None:
    """Writes all of it."""
    save_arrays(DATA / "optimizers.npz", train_by_optimizers(str(DATA / "optimizers.ckpt")))
    save_arrays(DATA / "recipes.npz", run_recipes())
    write_record("ports", port_cases.CASES, {})
    record_train()


if __name__ == "__main__":
    main()
