"""ninjax: modules by name, `nj.pure`. Its annotations are types at run time, hence no import of annotations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ninjax as nj

from models import Model, inputs, maths


def model(program: Callable[[jax.Array], jax.Array], x: jax.Array) -> Model:
    pure = nj.pure(program)

    def init(key: jax.Array) -> dict[str, jax.Array]:
        # As `nj.init`, which compiles it always. ninjax takes keys of the old kind.
        return pure({}, x, seed=jax.random.key_data(key), create=True, modify=True, ignore=True)[0]

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return pure(params, x)[1]

    return Model(init, apply)


def deep(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        for i in range(layers):
            x = Layer(name=f"layer_{i}")(x)
        return x

    return model(program, inputs("deep", width))


def shared(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        layer = Layer(name="layer")
        for _ in range(layers):
            x = layer(x)
        return x

    return model(program, inputs("shared", width))


def transformer(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        for i in range(layers):
            x = Block(name=f"layer_{i}")(x)
        return x

    return model(program, inputs("transformer", width))


def normal(shape: tuple[int, ...]) -> jax.Array:
    return maths.normal(nj.seed(), shape)


class Dense(nj.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        return maths.dense(x, self.value("w", normal, (width, width)), self.value("b", jnp.zeros, width))


class Mlp(nj.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.sub("dense", Dense)(x)


class Layer(nj.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.sub("mlp", Mlp)(x)


class Norm(nj.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return maths.norm(x, self.value("scale", jnp.ones, x.shape[-1]), self.value("bias", jnp.zeros, x.shape[-1]))


class Project(nj.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.value("w", normal, (x.shape[-1], x.shape[-1]))


class Linear(nj.Module):
    size: int

    def __call__(self, x: jax.Array) -> jax.Array:
        w = self.value("w", normal, (x.shape[-1], self.size))
        return maths.linear(x, w, self.value("b", jnp.zeros, self.size))


class Attention(nj.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = self.sub("q", Project)(x), self.sub("k", Project)(x), self.sub("v", Project)(x)
        return self.sub("o", Project)(maths.attend(q, k, v))


class Hidden(nj.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        h = jnp.tanh(self.sub("up", Linear, size=maths.WIDER * x.shape[-1])(x))
        return self.sub("down", Linear, size=x.shape[-1])(h)


class Block(nj.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.sub("attn", Attention)(self.sub("attn_norm", Norm)(x))
        return x + self.sub("mlp", Hidden)(self.sub("mlp_norm", Norm)(x))
