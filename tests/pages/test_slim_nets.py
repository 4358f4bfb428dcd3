"""The networks of TF-Slim declare what TF-Slim's own do: names, shapes, trainable flags, order, losses, updates."""

from __future__ import annotations

import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import pytest
from layer_runs import quickly
from paths import DATA, ROOT

import jscope as js

NAMES = json.loads((DATA / "slim_names.json").read_text())


@pytest.fixture(scope="module")
def slim_nets():
    spec = importlib.util.spec_from_file_location("slim_nets", ROOT / "examples" / "slim_nets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["vgg_16", "resnet_v1_50", "inception_v3"])
def test_declares_what_slim_does(slim_nets, name):
    counts = {}
    classify = slim_nets.program(name, 10, is_training=True)

    def program(images):
        outputs = classify(images)
        counts["update_ops"] = len(js.get_collection(js.GraphKeys.UPDATE_OPS))
        counts["regularization_losses"] = len(js.get_regularization_losses())
        counts["model_variables"] = len(js.get_collection(js.GraphKeys.MODEL_VARIABLES))
        return outputs

    size = slim_nets.NETWORKS[name].size
    specs = js.transform(program).specs(jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32))
    expected = NAMES[f"slim/{name}"]
    assert [[v.name, list(v.shape), v.trainable] for v in specs.values()] == [[k, *v] for k, v in expected.items()]
    counts |= {"variables": len(specs), "trainable": sum(v.trainable for v in specs.values())}
    assert counts == {**NAMES["_collections"][name], "model_variables": len(expected)}


def test_a_network_trains_and_predicts(slim_nets):
    """A step through all kinds of layers of a ResNet of two units; the whole ones take minutes to compile."""

    def program(images, is_training):
        with (
            js.arg_scope(slim_nets.resnet_arg_scope()),
            js.arg_scope([slim_nets.slim.batch_norm], is_training=is_training),
        ):
            net = slim_nets.bottleneck(images, 8, 4, 2)
            return jnp.mean(slim_nets.bottleneck(net, 8, 4, 2), [1, 2])

    net = js.transform(program)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    params = js.Params({v.name: jnp.full(v.shape, 0.1) for v in net.specs(images, True).values()})
    outputs, updated = quickly(lambda params, images: net.update(params, images, True))(params, images)
    assert outputs.shape == (2, 8)
    moved = {name for name in params.names if bool((params[name] != updated[name]).any())}
    assert moved == {name for name in params.names if "moving" in name}
    with pytest.raises(js.AssignError, match="update"):
        jax.eval_shape(lambda params, images: net.apply(params, images, True), params, images)
    assert jax.eval_shape(lambda params, images: net.apply(params, images, False), params, images).shape == (2, 8)


def test_main(slim_nets, capsys):
    slim_nets.main(["resnet_v1_50", "--classes", "10", "--size", "32"])
    printed = capsys.readouterr().out
    names, scopes = [], []
    for line in printed.splitlines():
        if re.match(r" *\S+ +(f32\[|\d+ variables, )", line):  # a variable, or a scope with its total
            word, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
            scopes = [*scopes[:depth], word]
            names += ["".join(scopes)] * (not word.endswith("/"))
    assert "resnet_v1_50/block4/unit_3/bottleneck_v1/conv3/BatchNorm/moving_variance" in names
    assert len(set(names)) == len(names) == 267
    assert "267 variables" in printed


@pytest.mark.slow
def test_main_runs_a_network(slim_nets, capsys):
    slim_nets.main(["resnet_v1_50", "--classes", "10", "--size", "32", "--run"])
    assert "with probability" in capsys.readouterr().out
