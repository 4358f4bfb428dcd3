"""The cases of `layer_cases` with other random values, in TensorFlow and in jscope side by side.

It needs the extra `jax-scope[tensorflow]`, and is skipped without it.
"""

from __future__ import annotations

import importlib.util
import warnings

import pytest
from paths import ROOT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("tensorflow")
    pytest.importorskip("tf_slim")

import jax
import numpy as np
from layer_cases import CASES, random_values
from record_layers import run_tensorflow, tf
from test_layers import check

import jscope as js

SEED = 20_000


@pytest.mark.parametrize("name", CASES)
def test_as_in_tensorflow_now(name):
    case = CASES[name]
    if case.error is not None:
        with pytest.raises(case.error):
            run_tensorflow(name, case, SEED)
    check(name, case, {} if case.error else run_tensorflow(name, case, SEED), SEED)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("resnet_v1_50", 64), ("inception_v3", 139)])
def test_networks_of_slim_compute_the_same(name, size):
    """The whole networks, in slim and ported, from the same values of the variables."""
    file = ROOT / "examples" / "slim_nets.py"
    spec = importlib.util.spec_from_file_location("slim_nets", file)
    slim_nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slim_nets)
    import tf_slim.nets

    images = random_values("images", (2, size, size, 3))

    def value(name, shape):
        # Of a size at which what comes out is neither nothing nor infinite after fifty layers.
        fan_in = int(np.prod(shape[:-1])) if len(shape) > 1 else 1
        values = random_values(name, shape)
        return values if len(shape) == 1 else values * (2 / fan_in) ** 0.5

    theirs = {"resnet_v1_50": tf_slim.nets.resnet_v1, "inception_v3": tf_slim.nets.inception_v3}[name]
    with warnings.catch_warnings(), tf.Graph().as_default(), tf.Session() as session:
        warnings.simplefilter("ignore")
        with tf_slim.arg_scope(getattr(theirs, {"resnet_v1_50": "resnet_arg_scope"}.get(name, f"{name}_arg_scope"))()):
            output, ends = getattr(theirs, name)(tf.constant(images), 10, is_training=False)
        for variable in tf.global_variables():
            variable.load(value(variable.op.name, variable.shape.as_list()), session)
        expected = [session.run(output)] + ([session.run(ends["AuxLogits"])] if name == "inception_v3" else [])
    net = js.transform(slim_nets.program(name, 10))
    params = js.Params({v.name: value(v.name, v.shape) for v in net.specs(images).values()})
    found = jax.tree.leaves(jax.jit(net.apply)(params, images))
    for mine, theirs in zip(found, expected, strict=True):
        theirs = theirs.reshape(mine.shape)
        assert abs(theirs).max() > 1e-3
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * abs(theirs).max())
