"""Three networks of TF-Slim, ported: VGG-16, ResNet-50 (v1) and Inception v3.

Their variables have slim's names, shapes, order, trainable flags and regularization losses, so that slim's checkpoints
fit (`jscope.checkpoint.load_tf`). This prints what a network declares, which takes no memory and no arithmetic:

    python slim_nets.py resnet_v1_50 --classes 1000 --size 224

and with `--run` initializes it and classifies one image of random numbers.

Architectures: Simonyan and Zisserman 2014 (arXiv:1409.1556), He et al. 2015 (arXiv:1512.03385), Szegedy et al. 2015
(arXiv:1512.00567).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jscope as js
from jscope.layers import contrib as slim

Layer = Callable[[jax.Array], jax.Array]

# VGG -----------------------------------------------------------------------------------------------------------------


def vgg_arg_scope(weight_decay: float = 0.0005) -> Any:
    """The defaults that VGG is built with."""
    regularizer = slim.l2_regularizer(weight_decay)
    with js.arg_scope([slim.conv2d], activation_fn=jax.nn.relu, weights_regularizer=regularizer) as scope:
        return scope


def vgg_16(
    images: jax.Array, num_classes: int, is_training: bool = False, keep_prob: float = 0.5, scope: str = "vgg_16"
) -> jax.Array:
    """[batch, 224, 224, 3] -> [batch, num_classes]."""
    with js.variable_scope(scope, "vgg_16", [images]):
        net = images
        for number, (layers, depth) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
            net = slim.repeat(net, layers, slim.conv2d, depth, [3, 3], scope=f"conv{number}")
            net = slim.max_pool2d(net, [2, 2], scope=f"pool{number}")
        # Fully connected layers, as convolutions: larger images give a grid of predictions, of which this is the mean.
        net = slim.conv2d(net, 4096, [7, 7], padding="VALID", scope="fc6")
        net = slim.dropout(net, keep_prob, is_training=is_training, scope="dropout6")
        net = slim.conv2d(net, 4096, [1, 1], scope="fc7")
        net = slim.dropout(net, keep_prob, is_training=is_training, scope="dropout7")
        net = slim.conv2d(net, num_classes, [1, 1], activation_fn=None, scope="fc8")
        return jnp.mean(net, [1, 2])


# ResNet ---------------------------------------------------------------------------------------------------------------


def resnet_arg_scope(weight_decay: float = 0.0001, decay: float = 0.997, epsilon: float = 1e-5) -> Any:
    """The defaults that ResNets are built with."""
    with (
        js.arg_scope(
            [slim.conv2d],
            weights_regularizer=slim.l2_regularizer(weight_decay),
            weights_initializer=slim.variance_scaling_initializer(),
            normalizer_fn=slim.batch_norm,
        ),
        js.arg_scope([slim.batch_norm], decay=decay, epsilon=epsilon, scale=True),
        js.arg_scope([slim.max_pool2d], padding="SAME") as scope,
    ):
        return scope


def conv2d_same(net: jax.Array, depth: int, size: int, stride: int, scope: str) -> jax.Array:
    """A convolution padded the same way whatever the size of the image, where "SAME" depends on it."""
    if stride == 1:
        return slim.conv2d(net, depth, size, scope=scope)
    before = (size - 1) // 2
    net = jnp.pad(net, [(0, 0), (before, size - 1 - before), (before, size - 1 - before), (0, 0)])
    return slim.conv2d(net, depth, size, stride=stride, padding="VALID", scope=scope)


def bottleneck(net: jax.Array, depth: int, inner: int, stride: int) -> jax.Array:
    """A residual unit: 1x1 down to `inner` channels, 3x3, 1x1 up to `depth`, added to the input."""
    with js.variable_scope(None, "bottleneck_v1", [net]):
        if net.shape[-1] != depth:
            shortcut = slim.conv2d(net, depth, [1, 1], stride=stride, activation_fn=None, scope="shortcut")
        else:
            shortcut = net if stride == 1 else slim.max_pool2d(net, [1, 1], stride=stride, scope="shortcut")
        residual = slim.conv2d(net, inner, [1, 1], scope="conv1")
        residual = conv2d_same(residual, inner, 3, stride, scope="conv2")
        residual = slim.conv2d(residual, depth, [1, 1], activation_fn=None, scope="conv3")
        return jax.nn.relu(shortcut + residual)


def resnet_v1_50(
    images: jax.Array, num_classes: int, is_training: bool = False, scope: str = "resnet_v1_50"
) -> jax.Array:
    """[batch, height, width, 3] -> [batch, num_classes]."""
    with js.variable_scope(scope, "resnet_v1_50", [images]), js.arg_scope([slim.batch_norm], is_training=is_training):
        net = conv2d_same(images, 64, 7, stride=2, scope="conv1")
        net = slim.max_pool2d(net, [3, 3], stride=2, scope="pool1")
        for block, (inner, units, last_stride) in enumerate([(64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 1)], 1):
            for unit in range(1, units + 1):
                with js.variable_scope(f"block{block}/unit_{unit}"):
                    net = bottleneck(net, 4 * inner, inner, last_stride if unit == units else 1)
        net = jnp.mean(net, [1, 2], keepdims=True)
        net = slim.conv2d(net, num_classes, [1, 1], activation_fn=None, normalizer_fn=None, scope="logits")
        return net[:, 0, 0]


# Inception ------------------------------------------------------------------------------------------------------------


def inception_v3_arg_scope(weight_decay: float = 0.00004, decay: float = 0.9997, epsilon: float = 0.001) -> Any:
    """The defaults that Inception v3 is built with."""
    moving = {"moving_mean": ["moving_vars"], "moving_variance": ["moving_vars"]}
    with (
        js.arg_scope(
            [slim.conv2d],
            weights_regularizer=slim.l2_regularizer(weight_decay),
            weights_initializer=slim.variance_scaling_initializer(),
            normalizer_fn=slim.batch_norm,
        ),
        js.arg_scope([slim.batch_norm], decay=decay, epsilon=epsilon, variables_collections=moving) as scope,
    ):
        return scope


class Conv(NamedTuple):
    """A convolution of a branch: its scope, depth and size."""

    scope: str
    depth: int
    size: list[int]
    stride: int = 1
    padding: str = "SAME"

    def __call__(self, net: jax.Array) -> jax.Array:
        return slim.conv2d(
            net, self.depth, self.size, stride=self.stride, padding=self.padding, scope=f"Conv2d_{self.scope}"
        )


def smaller(scope: str, depth: int) -> Conv:
    """A 3x3 convolution that halves the image."""
    return Conv(scope, depth, [3, 3], 2, "VALID")


def average(net: jax.Array) -> jax.Array:
    """Averages of 3x3, of the same size."""
    return slim.avg_pool2d(net, [3, 3], stride=1, padding="SAME", scope="AvgPool_0a_3x3")


def maximum(net: jax.Array) -> jax.Array:
    """Maxima of 3x3, of half the size."""
    return slim.max_pool2d(net, [3, 3], stride=2, scope="MaxPool_1a_3x3")


def both(*layers: Layer) -> Layer:
    """The layers side by side."""
    return lambda net: jnp.concatenate([layer(net) for layer in layers], -1)


def renamed(scope: str, conv: Conv) -> Layer:
    """A convolution whose scope does not start as the others' do."""
    return lambda net: slim.conv2d(net, conv.depth, conv.size, scope=scope)


def mixed(net: jax.Array, name: str, branches: Sequence[Sequence[Layer]]) -> jax.Array:
    """Branches side by side, each a chain of layers."""
    with js.variable_scope(name):
        ends = []
        for number, branch in enumerate(branches):
            with js.variable_scope(f"Branch_{number}"):
                end = net
                for layer in branch:
                    end = layer(end)
                ends.append(end)
        return jnp.concatenate(ends, -1)


def inception_a(net: jax.Array, name: str, pooled: int) -> jax.Array:
    """Branches of 1x1, 5x5, twice 3x3, and of averages."""
    fives: list[Layer] = [Conv("0a_1x1", 48, [1, 1]), Conv("0b_5x5", 64, [5, 5])]
    if name == "Mixed_5c":  # slim's own irregularity, which its checkpoints hold
        fives = [Conv("0b_1x1", 48, [1, 1]), renamed("Conv_1_0c_5x5", Conv("", 64, [5, 5]))]
    threes = [Conv("0a_1x1", 64, [1, 1]), Conv("0b_3x3", 96, [3, 3]), Conv("0c_3x3", 96, [3, 3])]
    return mixed(net, name, [[Conv("0a_1x1", 64, [1, 1])], fives, threes, [average, Conv("0b_1x1", pooled, [1, 1])]])


def inception_b(net: jax.Array, name: str, inner: int) -> jax.Array:
    """Branches of 1x1, 7x7 once and twice, each as 1x7 and 7x1, and of averages."""
    once = [Conv("0a_1x1", inner, [1, 1]), Conv("0b_1x7", inner, [1, 7]), Conv("0c_7x1", 192, [7, 1])]
    twice = [
        Conv("0a_1x1", inner, [1, 1]),
        Conv("0b_7x1", inner, [7, 1]),
        Conv("0c_1x7", inner, [1, 7]),
        Conv("0d_7x1", inner, [7, 1]),
        Conv("0e_1x7", 192, [1, 7]),
    ]
    return mixed(net, name, [[Conv("0a_1x1", 192, [1, 1])], once, twice, [average, Conv("0b_1x1", 192, [1, 1])]])


def inception_c(net: jax.Array, name: str, second: str) -> jax.Array:
    """Branches of 1x1, of 1x3 beside 3x1 with and without a 3x3 before, and of averages."""
    flat = both(Conv("0b_1x3", 384, [1, 3]), Conv(second, 384, [3, 1]))
    deep = both(Conv("0c_1x3", 384, [1, 3]), Conv("0d_3x1", 384, [3, 1]))
    return mixed(
        net,
        name,
        [
            [Conv("0a_1x1", 320, [1, 1])],
            [Conv("0a_1x1", 384, [1, 1]), flat],
            [Conv("0a_1x1", 448, [1, 1]), Conv("0b_3x3", 384, [3, 3]), deep],
            [average, Conv("0b_1x1", 192, [1, 1])],
        ],
    )


def inception_v3(
    images: jax.Array, num_classes: int, is_training: bool = False, keep_prob: float = 0.8, scope: str = "InceptionV3"
) -> tuple[jax.Array, jax.Array]:
    """[batch, 299, 299, 3] -> logits [batch, num_classes], and those of the auxiliary classifier."""
    with js.variable_scope(scope, "InceptionV3", [images]), js.arg_scope([slim.batch_norm], is_training=is_training):
        net = smaller("1a_3x3", 32)(images)
        net = Conv("2a_3x3", 32, [3, 3], padding="VALID")(net)
        net = Conv("2b_3x3", 64, [3, 3])(net)
        net = slim.max_pool2d(net, [3, 3], stride=2, scope="MaxPool_3a_3x3")
        net = Conv("3b_1x1", 80, [1, 1], padding="VALID")(net)
        net = Conv("4a_3x3", 192, [3, 3], padding="VALID")(net)
        net = slim.max_pool2d(net, [3, 3], stride=2, scope="MaxPool_5a_3x3")
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            net = inception_a(net, name, pooled)
        # These two halve the image; slim calls their 3x3 convolutions 1x1.
        threes = [Conv("0a_1x1", 64, [1, 1]), Conv("0b_3x3", 96, [3, 3]), smaller("1a_1x1", 96)]
        net = mixed(net, "Mixed_6a", [[smaller("1a_1x1", 384)], threes, [maximum]])
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            net = inception_b(net, name, inner)
        middle = net
        sevens = [Conv("0a_1x1", 192, [1, 1]), Conv("0b_1x7", 192, [1, 7]), Conv("0c_7x1", 192, [7, 1])]
        net = mixed(
            net,
            "Mixed_7a",
            [[Conv("0a_1x1", 192, [1, 1]), smaller("1a_3x3", 320)], [*sevens, smaller("1a_3x3", 192)], [maximum]],
        )
        net = inception_c(net, "Mixed_7b", "0b_3x1")
        net = inception_c(net, "Mixed_7c", "0c_3x1")
        with js.variable_scope("AuxLogits"):
            aux = slim.avg_pool2d(middle, [5, 5], stride=3, scope="AvgPool_1a_5x5")
            aux = Conv("1b_1x1", 128, [1, 1])(aux)
            aux = Conv(f"2a_{aux.shape[1]}x{aux.shape[2]}", 768, [*aux.shape[1:3]], padding="VALID")(aux)
            aux = logits(aux, num_classes, "Conv2d_2b_1x1")
        with js.variable_scope("Logits"):
            net = jnp.mean(net, [1, 2], keepdims=True)
            net = slim.dropout(net, keep_prob, is_training=is_training, scope="Dropout_1b")
            return logits(net, num_classes, "Conv2d_1c_1x1"), aux


def logits(net: jax.Array, num_classes: int, scope: str) -> jax.Array:
    """[batch, 1, 1, n] -> [batch, num_classes]."""
    return slim.conv2d(net, num_classes, [1, 1], activation_fn=None, normalizer_fn=None, scope=scope)[:, 0, 0]


# All of them ----------------------------------------------------------------------------------------------------------


class Network(NamedTuple):
    """A network, the defaults it is built with, and the size of its images."""

    build: Callable[..., Any]
    arg_scope: Callable[[], Any]
    size: int


NETWORKS = {
    "vgg_16": Network(vgg_16, vgg_arg_scope, 224),
    "resnet_v1_50": Network(resnet_v1_50, resnet_arg_scope, 224),
    "inception_v3": Network(inception_v3, inception_v3_arg_scope, 299),
}


def program(name: str, num_classes: int, is_training: bool = False) -> Callable[[Any], Any]:
    """The network as a program from images."""
    network = NETWORKS[name]

    def classify(images: jax.Array) -> Any:
        with js.arg_scope(network.arg_scope()):
            return network.build(images, num_classes, is_training)

    return classify


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What a network of TF-Slim declares.")
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--size", type=int, help="of the image; default that of the network")
    parser.add_argument("--run", action="store_true", help="classify an image of random numbers")
    options = parser.parse_args(arguments)
    size = options.size or NETWORKS[options.network].size
    net = js.transform(program(options.network, options.classes))
    specs = net.specs(jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    print(specs)
    if options.run:
        image_key, key = jax.random.split(jax.random.key(0))
        image = jax.random.normal(image_key, (1, size, size, 3))
        outputs = jax.jit(net.apply)(specs.init(key), image)
        scores = jax.nn.softmax(outputs[0] if isinstance(outputs, tuple) else outputs)
        print(f"class {int(jnp.argmax(scores))}, with probability {float(jnp.max(scores)):.4f}")


if __name__ == "__main__":
    main()
