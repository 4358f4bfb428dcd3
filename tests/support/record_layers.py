"""Runs the cases of `layer_cases` in TensorFlow; as a script, records what it gives for `test_layers`.

    TF_USE_LEGACY_KERAS=1 python tests/support/record_layers.py

It needs the extra `jax-scope[tensorflow]`.
"""

from __future__ import annotations

import inspect
import io
import json
import logging
import os
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

from paths import DATA

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
from contrib_cells_tensorflow import make_cells
from layer_cases import CASES, COUNTED, Case, input_values, random_values

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow.compat.v1 as tf

    # Without this tf_slim would use TensorFlow's own old copy of the layers, of which parts are gone.
    tf.disable_v2_behavior()
    import tf_slim
    from tf_slim.layers import layers as slim_layers
    from tf_slim.layers import utils as slim_utils

logging.getLogger("tensorflow").setLevel(logging.ERROR)

_OLD = ("core_layers", "convolutional_layers", "normalization_layers", "pooling_layers")
_CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Convolution2DTranspose": "Conv2DTranspose",
    "Convolution3DTranspose": "Conv3DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
# Where tf_slim looks for them, and where they are no more.
slim_utils.ops.Tensor = tf.Tensor
slim_utils.control_flow_ops.cond = tf.cond
for _module in _OLD:
    _classes = {name: getattr(tf.layers, name) for name in dir(tf.layers)}
    _classes |= {old: getattr(tf.layers, new) for old, new in _CLASSES.items()}
    setattr(slim_layers, _module, types.SimpleNamespace(**_classes))


def tensorflow_names() -> Any:
    """What a program of `layer_cases` uses."""
    names = {name: getattr(tf, name) for name in dir(tf) if not name.startswith("_")}
    contrib = {name: getattr(tf_slim, name) for name in dir(tf_slim) if not name.startswith("_")}
    contrib["utils"] = slim_utils
    more = {"contrib": types.SimpleNamespace(**contrib), "arg_scope": tf_slim.arg_scope, "relu": tf.nn.relu}
    more["contrib_rnn"] = types.SimpleNamespace(**make_cells(tf, tf_slim))
    return types.SimpleNamespace(**{**names, **more})


NAMES = tensorflow_names()


def run_tensorflow(name: str, case: Case, seed: int = 0) -> dict[str, Any]:
    """As `layer_runs.run_jscope`."""
    inputs = input_values(name, case.inputs, seed)
    with warnings.catch_warnings(), tf.Graph().as_default(), tf.Session() as session:
        warnings.simplefilter("ignore")
        feeds = {key: tf.placeholder(value.dtype, value.shape) for key, value in inputs.items()}
        feed = {feeds[key]: value for key, value in inputs.items()}
        outputs = case.program(NAMES, **feeds)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        variables = tf.global_variables() + tf.local_variables()
        trainable = tf.trainable_variables()
        losses = tf.losses.get_regularization_losses()
        graph = tf.get_default_graph()
        members = {c for c in graph.get_all_collection_keys() if any(v in variables for v in items_of(graph, c))}
        found = {c: items_of(graph, c) for c in members | COUNTED}
        result: dict[str, Any] = {
            "variables": [[v.op.name, v.dtype.base_dtype.name, v.shape.as_list(), v in trainable] for v in variables],
            "collections": {
                c: len(items) if c in COUNTED else [v.op.name for v in items] for c, items in found.items() if items
            },
        }
        load_random_values(variables, seed, session)
        wanted: dict[str, Any] = {"outputs": tf.nest.flatten(outputs), "losses": losses}
        if case.gradients:
            objective = sum(tf.reduce_sum(output**2) for output in wanted["outputs"])
            wanted["gradients"] = [tf.convert_to_tensor(g) for g in tf.gradients(objective, trainable)]
        result |= session.run(wanted, feed)
        if case.updates:
            load_random_values(variables, seed, session)  # the first run may have updated in place
            updates = [tf.get_collection(key) for key in (tf.GraphKeys.UPDATE_OPS, "other")]
            session.run([wanted["outputs"], updates], feed)
            result["updates"] = session.run(variables)
        return result


def load_random_values(variables: list[Any], seed: int, session: Any) -> None:
    """Gives each variable the values of its name."""
    for variable in variables:
        values = random_values(variable.op.name, variable.shape.as_list(), seed)
        variable.load(values.astype(variable.dtype.base_dtype.as_numpy_dtype), session)


def items_of(graph: Any, key: Any) -> list[Any]:
    """The items of a collection named by a string."""
    return graph.get_collection(key) if isinstance(key, str) else []


def signatures() -> dict[str, list[list[Any]]]:
    """The arguments of the functions and cells that jscope has, with those of their defaults that JSON can hold."""
    import jscope.layers

    places = {"layers": (tf.layers, tf.nn, tf.nn.rnn_cell), "contrib": (tf_slim,)}
    found = {}
    for place, names in (("layers", jscope.layers.__all__), ("contrib", jscope.layers.contrib.__all__)):
        for name in names:
            function: Any = next((getattr(p, name) for p in places[place] if hasattr(p, name)), None)
            if function is None or name in ("arg_scope", "add_arg_scope", "arg_scoped_arguments", "LSTMStateTuple"):
                continue  # jscope's own, or no function of arguments by name
            parameters = inspect.signature(function).parameters.values()
            found[f"{place}.{name}"] = [
                [p.name, p.default if isinstance(p.default, PLAIN) else "..."]
                for p in parameters
                if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            ]
    return found


PLAIN = (type(None), bool, int, float, str, tuple)
ARRAYS = ("outputs", "losses", "gradients", "updates")


def record() -> None:
    """Writes `data/layers.json` and `data/layers.npz`."""
    write_record("layers", CASES, {"_signatures": signatures()})


def write_record(file: str, cases: dict[str, Case], more: dict[str, Any]) -> None:
    """Runs cases and writes what they give to a file of notes, which takes `more` too, and one of arrays."""
    notes: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, case in cases.items():
        if case.error is not None:
            try:
                run_tensorflow(name, case)
            except case.error as error:
                notes[name] = {"error": type(error).__name__}
                continue
            raise SystemExit(f"{name} raises nothing in TensorFlow")
        result = run_tensorflow(name, case)
        notes[name] = {key: result[key] for key in ("variables", "collections")}
        for kind in ARRAYS:
            for number, value in enumerate(result.get(kind, [])):
                arrays[f"{name}.{kind}.{number}"] = np.asarray(value)
    notes |= more
    lines = [f'  "{name}": {json.dumps(note, sort_keys=True)}' for name, note in notes.items()]
    (DATA / f"{file}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    save_arrays(DATA / f"{file}.npz", arrays)
    print(f"{len(cases)} cases, {len(arrays)} arrays")


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz that is the same each time it is made."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, value)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)  # a fixed date


if __name__ == "__main__":
    record()
