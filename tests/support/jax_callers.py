"""JAX's public functions that take a function and call it while a program runs, as data.

A row (`Caller`) says how a function of an array is put under one of them, and how often JAX calls that function in one
call. `tests/laws/test_one_body.py` puts a body with jscope calls under every row. The rows were found by going through
the public modules of JAX with `inspect`, looking for parameters that take a function; `LEFT_OUT` names the ones that
have no row, each with the reason.

A body is a function of one array (or of a tree, where `trees` is set) that gives an array of the same shape. Where JAX
wants another signature, the row adapts it, and what JAX is given goes through `wrap`, so that decorators and partials
stand where a user would write them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.custom_batching
import jax.custom_derivatives
import jax.numpy as jnp
import jax.scipy.linalg
import jax.scipy.optimize
import jax.scipy.sparse.linalg
import jax.test_util
from jax import lax
from jax.ad_checkpoint import print_saved_residuals
from jax.example_libraries import optimizers, stax
from jax.experimental import checkify, sparse
from jax.experimental.jet import jet
from jax.experimental.ode import initial_step_size, odeint, runge_kutta_step
from jax.experimental.sparse.linalg import lobpcg_standard

Body = Callable[[Any], Any]
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
Build = Callable[..., Callable[[Any], Any]]

MODES = ("eager", "jit", "disable_jit", "grad")
OLD = jax.__version_info__ < (0, 11)


@dataclass(frozen=True)
class Caller:
    """One way in which a public function of JAX calls functions that it is given.

    Attributes:
      name: the function as a user writes it, and what is special about this row.
      build: `(wrap, *bodies) -> call`; `call(x)` calls the function of JAX once.
      bodies: how many functions it is given.
      kind: "body" (several calls are one body), "branches" (one of them is run), or "written" (each call is a call of
        its own, as in a loop of Python).
      shape: the shape of the array that the call takes.
      weak: the array is a Python integer, so that a carry changes its type.
      trees: the body may take trees.
      arrays: what JAX hands the function, and gets from it, is arrays alone, so that it may be jitted.
      named: JAX asks for the `__name__` of the function, so that no `functools.partial` goes.
      limit: "closes over nothing" (JAX itself refuses a function that closes over arrays), "concrete" (JAX wants to see
        numbers), "untraced" (JAX refuses the call while it traces), or "" for none.
    """

    name: str
    build: Build
    bodies: int = 1
    kind: str = "body"
    shape: tuple[int, ...] = (5,)
    weak: bool = False
    trees: bool = False
    arrays: bool = True
    named: bool = False
    limit: str = ""

    def __repr__(self) -> str:
        return self.name

    def argument(self) -> Any:
        """What `call` takes: small and positive, so that solvers converge."""
        if self.weak:
            return 1
        size = 1
        for n in self.shape:
            size *= n
        return jnp.arange(1.0, size + 1).reshape(self.shape) / 8

    @property
    def calls(self) -> dict[str, tuple[int, ...] | None]:
        """How often this JAX calls each body in one call, for each mode of `MODES`; None where it can't."""
        counts = CALLS[self.name]
        if OLD and self.name in CALLS_OF_0_10:
            counts = CALLS_OF_0_10[self.name]
        return dict(zip(MODES, counts, strict=True))

    @property
    def several(self) -> bool:
        """JAX calls a body more than once in one call, on some version, with `jax.disable_jit` left aside."""
        counts = [*CALLS[self.name][:2], *CALLS_OF_0_10.get(self.name, ())[:2]]
        return any(max(count or (0,)) > 1 for count in counts) or self.name in SEVERAL_IN_A_PROGRAM

    @property
    def one_branch(self) -> tuple[str, ...]:
        """The modes in which JAX calls only the branch that is taken."""
        if self.kind != "branches" or self.name.startswith("jnp.piecewise"):
            return ()
        return ("eager", "settrace", "disable_jit", "agree", "grad") if "platform" in self.name else ("disable_jit",)

    @property
    def quick(self) -> bool:
        """It compiles in little time."""
        return not any(slow in self.name for slow in ("minimize", "lobpcg", "sparse.linalg", "solver is cg"))


def _unary(transform: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Build:
    """A function of JAX that makes a function of the same signature."""
    return lambda wrap, f: lambda x: transform(wrap(f))(x)


def _scalar(f: Body) -> Body:
    return lambda x: f(x).sum()


def _custom_vjp(wrap: Wrap, f: Body) -> Body:
    g = jax.custom_vjp(wrap(f))
    g.defvjp(lambda x: (x, None), lambda _, ct: (ct,))
    return lambda x: g(x)


def _custom_vjp_rule(wrap: Wrap, f: Body, forward: Body) -> Body:
    g = jax.custom_vjp(wrap(lambda x: f(x)))
    g.defvjp(wrap(lambda x: (forward(x), None)), lambda _, ct: (ct,))
    return lambda x: g(x)


def _custom_jvp(wrap: Wrap, f: Body) -> Body:
    g = jax.custom_jvp(wrap(f))
    g.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    return lambda x: g(x)


def _custom_jvp_rule(wrap: Wrap, f: Body, rule: Body) -> Body:
    g = jax.custom_jvp(wrap(lambda x: f(x)))
    g.defjvp(wrap(lambda primals, tangents: (rule(primals[0]), tangents[0])))
    return lambda x: g(x)


def _custom_vmap(wrap: Wrap, f: Body) -> Body:
    g = jax.custom_batching.custom_vmap(wrap(f))
    g.def_vmap(lambda size, batched, x: (x, batched[0]))
    return lambda x: jax.vmap(g)(x)


def _custom_vmap_rule(wrap: Wrap, f: Body, rule: Body) -> Body:
    g = jax.custom_batching.custom_vmap(wrap(lambda x: f(x)))
    g.def_vmap(wrap(lambda size, batched, x: (rule(x), batched[0])))
    return lambda x: jax.vmap(g)(x)


def _scan(wrap: Wrap, f: Body) -> Body:
    return lambda x: lax.scan(wrap(lambda c, _: (f(c), None)), x, None, length=2)[0]


def _scan_of_rows(wrap: Wrap, f: Body) -> Body:
    return lambda x: lax.scan(wrap(lambda c, row: (c, f(row))), 0.0, x)[1]


def _fori_loop(bound: Callable[[], Any]) -> Build:
    return lambda wrap, f: lambda x: lax.fori_loop(0, bound(), wrap(lambda _, c: f(c)), x)


def _while_loop(wrap: Wrap, f: Body) -> Body:
    return lambda x: lax.while_loop(lambda s: s[0] < 2, wrap(lambda s: (s[0] + 1, f(s[1]))), (0, x))[1]


def _while_loop_both(wrap: Wrap, cond: Body, f: Body) -> Body:
    def call(x: Any) -> Any:
        condition = wrap(lambda s: (s[0] < 2) & (jnp.sum(cond(s[1])) < 1e6))
        return lax.while_loop(condition, wrap(lambda s: (s[0] + 1, f(s[1]))), (0, x))[1]

    return call


def _cond(wrap: Wrap, f: Body, g: Body) -> Body:
    return lambda x: lax.cond(jnp.sum(x) > 0, wrap(lambda x: f(x)), wrap(lambda x: g(x)), x)


def _switch(wrap: Wrap, f: Body, g: Body, h: Body) -> Body:
    return lambda x: lax.switch(jnp.int32(jnp.sum(x) > 0), [wrap(f), wrap(g), wrap(h)], x)


def _switch_same(wrap: Wrap, f: Body) -> Body:
    return lambda x: lax.switch(jnp.int32(jnp.sum(x) > 0), [wrap(f)] * 3, x)


def _switch_partials(values: Callable[[], Any]) -> Build:
    """Branches that are partials of one function."""

    def build(wrap: Wrap, f: Body) -> Body:
        def call(x: Any) -> Any:
            g = wrap(lambda k, x: f(k * x))
            return lax.switch(jnp.int32(jnp.sum(x) > 0), [functools.partial(g, k) for k in values()], x)

        return call

    return build


def _platform_dependent(wrap: Wrap, f: Body, g: Body) -> Body:
    return lambda x: lax.platform_dependent(x, cpu=wrap(f), default=wrap(g))


def _associative_scan(n: int, **options: Any) -> Build:
    return lambda wrap, f: lambda x: lax.associative_scan(wrap(lambda a, b: f(a + b)), x[:n], **options)


def _solve(solver: Callable[..., Any], **options: Any) -> Build:
    return lambda wrap, f: lambda x: solver(wrap(f), x, **options)[0]


def _solve_preconditioned(solver: Callable[..., Any], **options: Any) -> Build:
    return lambda wrap, f, g: lambda x: solver(wrap(f), x, M=wrap(g), **options)[0]


def _custom_root(wrap: Wrap, f: Body) -> Body:
    """The solver calls the function too, by way of JAX."""

    def call(x: Any) -> Any:
        residual = wrap(lambda y: f(y) - x)
        return lax.custom_root(residual, x, lambda g, y: y - g(y), lambda g, y: y / g(jnp.ones_like(y)))

    return call


def _custom_root_solver(wrap: Wrap, f: Body, g: Body) -> Body:
    def call(x: Any) -> Any:
        solve = wrap(lambda residual, y: f(y))
        return lax.custom_root(lambda y: y - x, x, solve, wrap(lambda residual, y: g(y)))

    return call


def _custom_linear_solve(wrap: Wrap, f: Body) -> Body:
    """The solver doesn't call the function, and JAX does once to check it."""
    return lambda x: lax.custom_linear_solve(wrap(f), x, lambda matvec, b: b, symmetric=True)


def _custom_linear_solve_calls(wrap: Wrap, f: Body) -> Body:
    return lambda x: lax.custom_linear_solve(wrap(f), x, lambda matvec, b: 2 * b - matvec(b), symmetric=True)


def _custom_linear_solve_solver(wrap: Wrap, f: Body, g: Body) -> Body:
    def call(x: Any) -> Any:
        solve, transpose = wrap(lambda matvec, b: f(b)), wrap(lambda matvec, b: g(b))
        return lax.custom_linear_solve(lambda y: y, x, solve, transpose)

    return call


def _custom_linear_solve_cg(wrap: Wrap, f: Body) -> Body:
    def solve(matvec: Body, b: Any) -> Any:
        return jax.scipy.sparse.linalg.cg(matvec, b)[0]

    return lambda x: lax.custom_linear_solve(wrap(f), x, solve, symmetric=True)


def _minimize(wrap: Wrap, f: Body) -> Body:
    def call(x: Any) -> Any:
        return jax.scipy.optimize.minimize(wrap(lambda y: jnp.sum(f(y) ** 2)), x, method="BFGS").x

    return call


def _odeint(wrap: Wrap, f: Body) -> Body:
    return lambda x: odeint(wrap(lambda y, t: -f(y)), x, jnp.array([0.0, 0.5, 1.0]))


def _odeint_with_arguments(wrap: Wrap, f: Body) -> Body:
    return lambda x: odeint(wrap(lambda y, t, k: -k * f(y)), x, jnp.array([0.0, 0.5, 1.0]), jnp.float32(0.5))


def _runge_kutta_step(wrap: Wrap, f: Body) -> Body:
    return lambda x: runge_kutta_step(wrap(lambda y, t: -f(y)), x, -x, 0.0, jnp.float32(0.1))[0]


def _initial_step_size(wrap: Wrap, f: Body) -> Body:
    return lambda x: x * initial_step_size(wrap(lambda y, t: -f(y)), 0.0, x, 4, 1e-3, 1e-3, -x)


def _piecewise(wrap: Wrap, f: Body, g: Body) -> Body:
    return lambda x: jnp.piecewise(x, [x < 0.3, x >= 0.3], [wrap(f), wrap(g)])


def _piecewise_same(wrap: Wrap, f: Body) -> Body:
    def call(x: Any) -> Any:
        g = wrap(f)
        return jnp.piecewise(x, [x < 0.3, x >= 0.3], [g, g])

    return call


def _pad(wrap: Wrap, f: Body) -> Body:
    def pads(row: Any, width: Any, axis: Any, kwargs: Any) -> Any:
        return f(row)

    return lambda x: jnp.pad(x, 1, wrap(pads))


def _reduce(wrap: Wrap, f: Body) -> Body:
    return lambda x: lax.reduce(x, jnp.float32(0), wrap(lambda a, b: f(a + b)), (0,))


def _reduce_window(wrap: Wrap, f: Body) -> Body:
    return lambda x: lax.reduce_window(x, jnp.float32(0), wrap(lambda a, b: f(a + b)), (2,), (1,), "VALID")


def _scatter_apply(wrap: Wrap, f: Body) -> Body:
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=(), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,)
    )
    return lambda x: lax.scatter_apply(x, jnp.array([[0], [2]]), wrap(f), numbers, update_shape=(2,))


def _ufunc(method: str, *arguments: Any) -> Build:
    def build(wrap: Wrap, f: Body) -> Body:
        def call(x: Any) -> Any:
            ufunc = jnp.frompyfunc(wrap(lambda a, b: f(a + b)), nin=2, nout=1, identity=0)
            if method == "__call__":
                return ufunc(x, x)
            if method == "outer":
                return ufunc.outer(x, x)
            if method == "at":
                return ufunc.at(x, jnp.array([0, 2]), 1.0, inplace=False)
            return getattr(ufunc, method)(x, *arguments)

        return call

    return build


def _make_array(wrap: Wrap, f: Body) -> Body:
    def call(x: Any) -> Any:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.make_array_from_callback((2,), sharding, wrap(lambda index: f(jnp.ones(2))))

    return call


def _mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))


def _shard_map(wrap: Wrap, f: Body) -> Body:
    spec = jax.sharding.PartitionSpec("i")
    return lambda x: jax.shard_map(wrap(f), mesh=_mesh(), in_specs=spec, out_specs=spec)(x)


def _jet(wrap: Wrap, f: Body) -> Body:
    return lambda x: jet(wrap(f), (x,), ((jnp.ones_like(x), jnp.zeros_like(x)),))[0]


def _silently(call: Body) -> Body:
    """What the call prints is thrown away, and its argument given back."""

    def silent(x: Any) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            call(x)
        return x

    return silent


def _printed(wrap: Wrap, f: Body) -> Body:
    return _silently(lambda x: print_saved_residuals(wrap(_scalar(f)), x))


def _shape_only(call: Callable[[Callable[..., Any], Any], Any]) -> Build:
    """A function of JAX that gives no array: the call gives its argument back."""

    def build(wrap: Wrap, f: Body) -> Body:
        def run(x: Any) -> Any:
            call(wrap(f), x)
            return x

        return run

    return build


def _check_grads(wrap: Wrap, f: Body) -> Body:
    return _silently(lambda x: jax.test_util.check_grads(wrap(f), (x,), order=1, modes=("fwd", "rev"), atol=1, rtol=1))


def _check_jvp(wrap: Wrap, f: Body) -> Body:
    def call(x: Any) -> Any:
        g = wrap(f)
        jax.test_util.check_jvp(g, functools.partial(jax.jvp, g), (x,), atol=1, rtol=1)
        return x

    return call


def _check_vjp(wrap: Wrap, f: Body) -> Body:
    def call(x: Any) -> Any:
        g = wrap(f)
        jax.test_util.check_vjp(g, functools.partial(jax.vjp, g), (x,), atol=1, rtol=1)
        return x

    return call


def _optimizer(wrap: Wrap, f: Body) -> Body:
    """The rule of an optimizer of `jax.example_libraries`, which is called for every leaf."""

    def call(x: Any) -> Any:
        rule = wrap(lambda i, g, state: f(state) - g)
        made = optimizers.optimizer(lambda: (lambda x0: x0, rule, lambda state: state))()
        tree = {"a": x, "b": 2 * x}
        return made.params_fn(made.update_fn(0, tree, made.init_fn(tree)))["a"]

    return call


def _stax(wrap: Wrap, f: Body) -> Body:
    """Each layer is made on its own; `serial` calls one after the other."""

    def call(x: Any) -> Any:
        layer = stax.elementwise(wrap(f))
        init, apply = stax.serial(layer, layer)
        return apply(init(jax.random.key(0), x.shape)[1], x)

    return call


def _closure_convert(wrap: Wrap, f: Body) -> Body:
    def call(x: Any) -> Any:
        g, constants = jax.closure_convert(wrap(f), x)
        return g(x, *constants)

    return call


def _vjp(wrap: Wrap, f: Body) -> Body:
    def call(x: Any) -> Any:
        y, back = jax.vjp(wrap(f), x)
        return back(y)[0]

    return call


def _linearize(wrap: Wrap, f: Body) -> Body:
    def call(x: Any) -> Any:
        y, forward = jax.linearize(wrap(f), x)
        return forward(y)

    return call


def _fwd_and_bwd(wrap: Wrap, f: Body) -> Body:
    def call(x: Any) -> Any:
        forward, backward = jax.fwd_and_bwd(wrap(f), argnums=0)
        y, kept = forward(x)
        return backward(kept, y)

    return call


def _linear_call(wrap: Wrap, f: Body, transposed: Body) -> Body:
    def call(x: Any) -> Any:
        there, back = wrap(lambda r, y: f(y)), wrap(lambda r, y: transposed(y))
        return jax.custom_derivatives.linear_call(there, back, (), x)

    return call


def _composite(wrap: Wrap, f: Body) -> Body:
    return lambda x: lax.composite(wrap(lambda x: f(x)), name="tests.composite")(x)


def _checkify(wrap: Wrap, f: Body) -> Body:
    return lambda x: checkify.checkify(wrap(f))(x)[1]


def _lobpcg(wrap: Wrap, f: Body) -> Body:
    return lambda x: lobpcg_standard(wrap(f), x, m=2)[0]


def _random_bcoo(wrap: Wrap, f: Body) -> Body:
    def generator(key: Any, shape: Any, dtype: Any) -> Any:
        return f(jnp.ones(shape, dtype))

    return lambda x: (
        sparse.random_bcoo(jax.random.key(0), (3, 3), dtype=jnp.float32, generator=wrap(generator), nse=2).todense()
        + x[0]
    )


def _gaussian_kde(wrap: Wrap, f: Body) -> Body:
    def call(x: Any) -> Any:
        return jax.scipy.stats.gaussian_kde(x, bw_method=wrap(lambda kde: f(jnp.float32(0.5)))).evaluate(x)

    return call


def _tree(name: str) -> Build:
    def build(wrap: Wrap, f: Body) -> Body:
        def call(x: Any) -> Any:
            tree = {"a": x, "b": 2 * x, "c": 3 * x}
            if name == "map":
                return jax.tree.map(wrap(f), tree)["c"]
            if name == "map_with_path":
                return jax.tree.map_with_path(wrap(lambda _, y: f(y)), tree)["c"]
            if name == "reduce":
                return jax.tree.reduce(wrap(lambda a, b: f(a + b)), tree)
            return jax.tree.reduce_associative(wrap(lambda a, b: f(a + b)), tree)

        return call

    return build


def _mask_indices(wrap: Wrap, f: Body) -> Body:
    """JAX wants concrete indices of a mask that the function makes."""
    return lambda x: jnp.mask_indices(3, wrap(lambda mask, k: f(mask)), size=9)[0] + x[0]


_cg, _gmres, _bicgstab = (getattr(jax.scipy.sparse.linalg, n) for n in ("cg", "gmres", "bicgstab"))

CALLERS = (
    # What makes a function of a function.
    Caller("jax.jit", _unary(jax.jit), trees=True),
    Caller("jax.jit, inline", _unary(functools.partial(jax.jit, inline=True)), trees=True),
    Caller("jax.jit, lowered", _shape_only(lambda f, x: jax.jit(f).lower(x))),
    Caller("jax.jit, eval_shape", _shape_only(lambda f, x: jax.jit(f).eval_shape(x))),
    Caller("jax.checkpoint", _unary(jax.checkpoint), trees=True),
    Caller(
        "jax.checkpoint, policy",
        _unary(functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.everything_saveable)),
    ),
    Caller("jax.checkpoint, concrete", _unary(functools.partial(jax.checkpoint, prevent_cse=False))),
    Caller("jax.vmap", _unary(jax.vmap), trees=True),
    Caller("jax.pmap", lambda wrap, f: lambda x: jax.pmap(wrap(f))(x[None])[0]),
    Caller("jax.vmap twice", _unary(lambda f: jax.vmap(jax.vmap(f))), shape=(2, 3), trees=True),
    Caller("jax.named_call", _unary(functools.partial(jax.named_call, name="n")), trees=True),
    Caller("jax.named_scope", _unary(jax.named_scope("n")), trees=True),
    Caller("jax.grad", lambda wrap, f: lambda x: jax.grad(wrap(_scalar(f)))(x)),
    Caller("jax.value_and_grad", lambda wrap, f: lambda x: jax.value_and_grad(wrap(_scalar(f)))(x)[1]),
    Caller("jax.jacfwd", lambda wrap, f: lambda x: jax.jacfwd(wrap(f))(x)),
    Caller("jax.jacrev", lambda wrap, f: lambda x: jax.jacrev(wrap(f))(x)),
    Caller("jax.hessian", lambda wrap, f: lambda x: jax.hessian(wrap(_scalar(f)))(x)),
    Caller("jax.jvp", lambda wrap, f: lambda x: jax.jvp(wrap(f), (x,), (x,))[1]),
    Caller("jax.vjp", _vjp),
    Caller("jax.linearize", _linearize),
    Caller("jax.fwd_and_bwd", _fwd_and_bwd),
    Caller("jax.linear_transpose", lambda wrap, f: lambda x: jax.linear_transpose(wrap(f), x)(x)[0]),
    Caller("jax.eval_shape", _shape_only(jax.eval_shape)),
    Caller("jax.make_jaxpr", _shape_only(lambda f, x: jax.make_jaxpr(f)(x))),
    Caller("jax.closure_convert", _closure_convert),
    Caller("jax.custom_vjp", _custom_vjp),
    Caller("jax.custom_vjp, forward rule", _custom_vjp_rule, bodies=2),
    Caller("jax.custom_jvp", _custom_jvp),
    Caller("jax.custom_jvp, rule", _custom_jvp_rule, bodies=2),
    Caller(
        "jax.custom_gradient",
        lambda wrap, f: lambda x: jax.custom_gradient(wrap(lambda x: (f(x), lambda g: g)))(x),
        arrays=False,
    ),
    Caller("jax.custom_batching.custom_vmap", _custom_vmap),
    Caller("jax.custom_batching.custom_vmap, rule", _custom_vmap_rule, bodies=2, arrays=False),
    Caller(
        "jax.custom_batching.sequential_vmap",
        lambda wrap, f: lambda x: jax.vmap(jax.custom_batching.sequential_vmap(wrap(f)))(x),
    ),
    Caller("jax.custom_derivatives.linear_call", _linear_call, bodies=2),
    Caller("jax.shard_map", _shard_map),
    Caller("jax.profiler.annotate_function", _unary(jax.profiler.annotate_function), named=True),
    Caller("jax.ad_checkpoint.print_saved_residuals", _printed),
    Caller("jax.make_array_from_callback", _make_array, arrays=False, limit="untraced"),
    # Loops and branches.
    Caller("lax.scan", _scan, trees=True),
    Caller("lax.scan, of rows", _scan_of_rows, trees=True),
    Caller("lax.scan, unrolled", lambda wrap, f: lambda x: lax.scan(wrap(lambda c, r: (c, f(r))), 0.0, x, unroll=2)[1]),
    Caller("lax.scan, carry changes type", _scan, weak=True, trees=True),
    Caller("lax.map", lambda wrap, f: lambda x: lax.map(wrap(f), x), trees=True),
    Caller("lax.map, batch_size=2 of 5", lambda wrap, f: lambda x: lax.map(wrap(f), x, batch_size=2), trees=True),
    Caller("lax.map, batch_size=2 of 4", lambda wrap, f: lambda x: lax.map(wrap(f), x, batch_size=2), shape=(4,)),
    Caller("lax.map, batch_size=8 of 5", lambda wrap, f: lambda x: lax.map(wrap(f), x, batch_size=8)),
    Caller("lax.fori_loop", _fori_loop(lambda: 2), trees=True),
    Caller("lax.fori_loop, dynamic bound", _fori_loop(lambda: jnp.int32(2))),
    Caller("lax.fori_loop, carry changes type", _fori_loop(lambda: 2), weak=True, trees=True),
    Caller("lax.fori_loop, dynamic bound, carry changes type", _fori_loop(lambda: jnp.int32(2)), weak=True),
    Caller("lax.while_loop", _while_loop, trees=True),
    Caller("lax.while_loop, carry changes type", _while_loop, weak=True, trees=True),
    Caller("lax.while_loop, condition too", _while_loop_both, bodies=2),
    Caller("lax.while_loop, condition too, carry changes type", _while_loop_both, bodies=2, weak=True),
    Caller("lax.cond", _cond, bodies=2, kind="branches"),
    Caller("lax.switch", _switch, bodies=3, kind="branches"),
    Caller("lax.switch, one function three times", _switch_same, kind="branches"),
    Caller("lax.switch, partials of one function", _switch_partials(lambda: range(3)), kind="branches"),
    Caller("lax.switch, partials that differ in an array", _switch_partials(lambda: jnp.arange(3.0)), kind="branches"),
    Caller("lax.platform_dependent", _platform_dependent, bodies=2, kind="branches"),
    Caller("lax.associative_scan, 2", _associative_scan(2)),
    Caller("lax.associative_scan, 3", _associative_scan(3)),
    Caller("lax.associative_scan, 5", _associative_scan(5)),
    Caller("lax.associative_scan, 5, reverse", _associative_scan(5, reverse=True)),
    Caller("lax.composite", _composite, limit="closes over nothing"),
    Caller("lax.reduce", _reduce, limit="closes over nothing"),
    Caller("lax.reduce_window", _reduce_window, limit="closes over nothing"),
    Caller("lax.scatter_apply", _scatter_apply, limit="closes over nothing"),
    # Solvers.
    Caller("lax.custom_root", _custom_root),
    Caller("lax.custom_root, solvers", _custom_root_solver, bodies=2, arrays=False),
    Caller("lax.custom_linear_solve", _custom_linear_solve),
    Caller("lax.custom_linear_solve, the solver calls it", _custom_linear_solve_calls),
    Caller("lax.custom_linear_solve, the solver is cg", _custom_linear_solve_cg),
    Caller("lax.custom_linear_solve, solvers", _custom_linear_solve_solver, bodies=2, arrays=False),
    Caller("jax.scipy.sparse.linalg.cg", _solve(_cg)),
    Caller("jax.scipy.sparse.linalg.cg, M", _solve_preconditioned(_cg), bodies=2),
    Caller("jax.scipy.sparse.linalg.bicgstab", _solve(_bicgstab)),
    Caller("jax.scipy.sparse.linalg.bicgstab, M", _solve_preconditioned(_bicgstab), bodies=2),
    Caller("jax.scipy.sparse.linalg.gmres", _solve(_gmres)),
    Caller("jax.scipy.sparse.linalg.gmres, M", _solve_preconditioned(_gmres), bodies=2),
    Caller("jax.scipy.sparse.linalg.gmres, incremental", _solve(_gmres, solve_method="incremental")),
    Caller("jax.scipy.optimize.minimize", _minimize),
    Caller("jax.experimental.ode.odeint", _odeint),
    Caller("jax.experimental.ode.odeint, arguments", _odeint_with_arguments),
    Caller("jax.experimental.ode.runge_kutta_step", _runge_kutta_step),
    Caller("jax.experimental.ode.initial_step_size", _initial_step_size),
    Caller("jax.experimental.sparse.linalg.lobpcg_standard", _lobpcg, shape=(12, 2)),
    # NumPy and SciPy.
    Caller("jnp.vectorize", _unary(jnp.vectorize)),
    Caller("jnp.vectorize, signature", _unary(functools.partial(jnp.vectorize, signature="(n)->(n)")), shape=(2, 3)),
    Caller("jnp.apply_along_axis", lambda wrap, f: lambda x: jnp.apply_along_axis(wrap(f), 0, x), shape=(2, 3)),
    Caller(
        "jnp.apply_over_axes",
        lambda wrap, f: lambda x: jnp.apply_over_axes(wrap(lambda x, axis: f(x).sum(axis)), x, [0, 1]),
        shape=(2, 3),
        arrays=False,
    ),
    Caller("jnp.piecewise", _piecewise, bodies=2, kind="branches"),
    Caller("jnp.piecewise, one function twice", _piecewise_same, kind="branches"),
    Caller("jnp.fromfunction", lambda wrap, f: lambda x: jnp.fromfunction(wrap(f), (3,), dtype=float) + x[0]),
    Caller(
        "jnp.fromfunction, 2",
        lambda wrap, f: lambda x: jnp.fromfunction(wrap(lambda i, j: f(i + j)), (2, 3), dtype=float) + x[0],
    ),
    Caller("jnp.frompyfunc", _ufunc("__call__"), named=True),
    Caller("jnp.frompyfunc, reduce", _ufunc("reduce"), named=True),
    Caller("jnp.frompyfunc, accumulate", _ufunc("accumulate"), named=True),
    Caller("jnp.frompyfunc, outer", _ufunc("outer"), named=True),
    Caller("jnp.frompyfunc, at", _ufunc("at"), named=True),
    Caller("jnp.frompyfunc, reduceat", _ufunc("reduceat", jnp.array([0, 2])), named=True),
    Caller("jnp.pad", _pad),
    Caller("jnp.pad, 2 axes", _pad, shape=(2, 3)),
    Caller("jnp.mask_indices", _mask_indices, arrays=False),
    Caller("jax.scipy.linalg.funm", lambda wrap, f: lambda x: jax.scipy.linalg.funm(x, wrap(f)), shape=(2, 2)),
    Caller("jax.scipy.stats.gaussian_kde", _gaussian_kde, arrays=False),
    # Experiments, tests and examples that come with JAX.
    Caller("jax.experimental.jet.jet", _jet),
    Caller("jax.experimental.checkify.checkify", _checkify),
    Caller("jax.experimental.sparse.sparsify", _unary(sparse.sparsify)),
    Caller("jax.experimental.sparse.grad", lambda wrap, f: lambda x: sparse.grad(wrap(_scalar(f)))(x)),
    Caller(
        "jax.experimental.sparse.value_and_grad",
        lambda wrap, f: lambda x: sparse.value_and_grad(wrap(_scalar(f)))(x)[1],
    ),
    Caller("jax.experimental.sparse.jacfwd", lambda wrap, f: lambda x: sparse.jacfwd(wrap(f))(x)),
    Caller("jax.experimental.sparse.jacrev", lambda wrap, f: lambda x: sparse.jacrev(wrap(f))(x)),
    Caller("jax.experimental.sparse.random_bcoo", _random_bcoo, arrays=False),
    Caller("jax.test_util.check_grads", _check_grads, limit="concrete"),
    Caller("jax.test_util.check_jvp", _check_jvp, limit="concrete"),
    Caller("jax.test_util.check_vjp", _check_vjp, limit="concrete"),
    Caller("jax.example_libraries.optimizers", _optimizer, kind="written"),
    Caller("jax.example_libraries.stax", _stax, kind="written"),
    # Trees: each leaf is a call, as written.
    Caller("jax.tree.map", _tree("map"), kind="written"),
    Caller("jax.tree.map_with_path", _tree("map_with_path"), kind="written", arrays=False),
    Caller("jax.tree.reduce", _tree("reduce"), kind="written"),
    Caller("jax.tree.reduce_associative", _tree("reduce_associative"), kind="written"),
)


# CALLS BEGIN
CALLS: dict[str, tuple[tuple[int, ...] | None, ...]] = {
    "jax.jit": ((1,), (1,), (1,), (1,)),
    "jax.jit, inline": ((1,), (1,), (1,), (1,)),
    "jax.jit, lowered": ((1,), (1,), (1,), (1,)),
    "jax.jit, eval_shape": ((1,), (1,), (1,), (1,)),
    "jax.checkpoint": ((1,), (1,), (1,), (1,)),
    "jax.checkpoint, policy": ((1,), (1,), (1,), (1,)),
    "jax.checkpoint, concrete": ((1,), (1,), (1,), (1,)),
    "jax.vmap": ((1,), (1,), (1,), (1,)),
    "jax.pmap": ((1,), (1,), (1,), (1,)),
    "jax.vmap twice": ((1,), (1,), (1,), (1,)),
    "jax.named_call": ((1,), (1,), (1,), (1,)),
    "jax.named_scope": ((1,), (1,), (1,), (1,)),
    "jax.grad": ((1,), (1,), (1,), (1,)),
    "jax.value_and_grad": ((1,), (1,), (1,), (1,)),
    "jax.jacfwd": ((1,), (1,), (1,), (1,)),
    "jax.jacrev": ((1,), (1,), (1,), (1,)),
    "jax.hessian": ((1,), (1,), (1,), (1,)),
    "jax.jvp": ((1,), (1,), (1,), (1,)),
    "jax.vjp": ((1,), (1,), (1,), (1,)),
    "jax.linearize": ((1,), (1,), (1,), (1,)),
    "jax.fwd_and_bwd": ((1,), (1,), (1,), (1,)),
    "jax.linear_transpose": ((1,), (1,), (1,), (1,)),
    "jax.eval_shape": ((1,), (1,), (1,), (1,)),
    "jax.make_jaxpr": ((1,), (1,), (1,), (1,)),
    "jax.closure_convert": ((1,), (1,), (1,), (1,)),
    "jax.custom_vjp": ((1,), (1,), (1,), (0,)),
    "jax.custom_vjp, forward rule": ((1, 0), (1, 0), (1, 0), (0, 1)),
    "jax.custom_jvp": ((1,), (1,), (1,), (0,)),
    "jax.custom_jvp, rule": ((1, 0), (1, 0), (1, 0), (0, 1)),
    "jax.custom_gradient": ((1,), (1,), (1,), (1,)),
    "jax.custom_batching.custom_vmap": ((1,), (1,), (1,), (1,)),
    "jax.custom_batching.custom_vmap, rule": ((1, 1), (1, 1), (1, 1), (1, 1)),
    "jax.custom_batching.sequential_vmap": ((1,), (1,), (1,), None),
    "jax.custom_derivatives.linear_call": ((1, 0), (1, 0), (1, 0), (1, 1)),
    "jax.shard_map": ((1,), (1,), (1,), (1,)),
    "jax.profiler.annotate_function": ((1,), (1,), (1,), (1,)),
    "jax.ad_checkpoint.print_saved_residuals": ((1,), (1,), (1,), (1,)),
    "jax.make_array_from_callback": ((1,), None, (1,), (1,)),
    "lax.scan": ((1,), (1,), (2,), (1,)),
    "lax.scan, of rows": ((1,), (1,), (5,), (1,)),
    "lax.scan, unrolled": ((1,), (1,), (5,), (1,)),
    "lax.scan, carry changes type": ((2,), (2,), (2,), (2,)),
    "lax.map": ((1,), (1,), (5,), (1,)),
    "lax.map, batch_size=2 of 5": ((2,), (2,), (3,), (2,)),
    "lax.map, batch_size=2 of 4": ((1,), (1,), (2,), (1,)),
    "lax.map, batch_size=8 of 5": ((1,), (1,), (1,), (1,)),
    "lax.fori_loop": ((1,), (1,), (2,), (1,)),
    "lax.fori_loop, dynamic bound": ((1,), (1,), (2,), (1,)),
    "lax.fori_loop, carry changes type": ((2,), (2,), (2,), (2,)),
    "lax.fori_loop, dynamic bound, carry changes type": ((2,), (2,), (2,), (2,)),
    "lax.while_loop": ((1,), (1,), (2,), None),
    "lax.while_loop, carry changes type": ((2,), (2,), (2,), (2,)),
    "lax.while_loop, condition too": ((1, 1), (1, 1), (3, 2), None),
    "lax.while_loop, condition too, carry changes type": ((2, 2), (2, 2), (3, 2), (2, 2)),
    "lax.cond": ((1, 1), (1, 1), (1, 0), (1, 1)),
    "lax.switch": ((1, 1, 1), (1, 1, 1), (0, 1, 0), (1, 1, 1)),
    "lax.switch, one function three times": ((1,), (1,), (1,), (1,)),
    "lax.switch, partials of one function": ((3,), (3,), (1,), (3,)),
    "lax.switch, partials that differ in an array": ((3,), (3,), (1,), (3,)),
    "lax.platform_dependent": ((1, 0), (1, 1), (1, 0), (1, 0)),
    "lax.associative_scan, 2": ((2,), (2,), (2,), (2,)),
    "lax.associative_scan, 3": ((2,), (2,), (2,), (2,)),
    "lax.associative_scan, 5": ((4,), (4,), (4,), (4,)),
    "lax.associative_scan, 5, reverse": ((4,), (4,), (4,), (4,)),
    "lax.composite": ((1,), (1,), (1,), None),
    "lax.reduce": ((1,), (1,), (1,), (1,)),
    "lax.reduce_window": ((1,), (1,), (1,), None),
    "lax.scatter_apply": ((1,), (1,), (1,), None),
    "lax.custom_root": ((1,), (1,), (1,), (1,)),
    "lax.custom_root, solvers": ((1, 1), (1, 1), (1, 1), (1, 1)),
    "lax.custom_linear_solve": ((1,), (1,), (1,), (1,)),
    "lax.custom_linear_solve, the solver calls it": ((3,), (3,), (3,), (3,)),
    "lax.custom_linear_solve, the solver is cg": ((11,), (11,), (11,), (11,)),
    "lax.custom_linear_solve, solvers": ((1, 1), (1, 1), (1, 1), (1, 1)),
    "jax.scipy.sparse.linalg.cg": ((5,), (5,), (5,), (5,)),
    "jax.scipy.sparse.linalg.cg, M": ((5, 4), (5, 4), (5, 4), (5, 4)),
    "jax.scipy.sparse.linalg.bicgstab": ((5,), (5,), (5,), (5,)),
    "jax.scipy.sparse.linalg.bicgstab, M": ((5, 4), (5, 4), (5, 4), (5, 4)),
    "jax.scipy.sparse.linalg.gmres": ((5,), (5,), (5,), (5,)),
    "jax.scipy.sparse.linalg.gmres, M": ((5, 7), (5, 7), (5, 7), (5, 7)),
    "jax.scipy.sparse.linalg.gmres, incremental": ((5,), (5,), (5,), (5,)),
    "jax.scipy.optimize.minimize": ((4,), (4,), (3,), None),
    "jax.experimental.ode.odeint": ((1,), (1,), (1,), (1,)),
    "jax.experimental.ode.odeint, arguments": ((1,), (1,), (1,), (1,)),
    "jax.experimental.ode.runge_kutta_step": ((1,), (1,), (6,), (1,)),
    "jax.experimental.ode.initial_step_size": ((1,), (1,), (1,), (1,)),
    "jax.experimental.sparse.linalg.lobpcg_standard": ((4,), (4,), (4,), None),
    "jnp.vectorize": ((1,), (1,), (1,), (1,)),
    "jnp.vectorize, signature": ((1,), (1,), (1,), (1,)),
    "jnp.apply_along_axis": ((1,), (1,), (1,), (1,)),
    "jnp.apply_over_axes": ((2,), (2,), (2,), (2,)),
    "jnp.piecewise": ((1, 1), (1, 1), (1, 1), (1, 1)),
    "jnp.piecewise, one function twice": ((2,), (2,), (2,), (2,)),
    "jnp.fromfunction": ((1,), (1,), (1,), (1,)),
    "jnp.fromfunction, 2": ((1,), (1,), (1,), (1,)),
    "jnp.frompyfunc": ((1,), (1,), (1,), (1,)),
    "jnp.frompyfunc, reduce": ((2,), (2,), (6,), (2,)),
    "jnp.frompyfunc, accumulate": ((2,), (2,), (6,), (2,)),
    "jnp.frompyfunc, outer": ((1,), (1,), (1,), (1,)),
    "jnp.frompyfunc, at": ((2,), (2,), (3,), (2,)),
    "jnp.frompyfunc, reduceat": ((1,), (1,), (5,), (1,)),
    "jnp.pad": ((1,), (1,), (1,), (1,)),
    "jnp.pad, 2 axes": ((2,), (2,), (2,), (2,)),
    "jnp.mask_indices": ((1,), (1,), (1,), (1,)),
    "jax.scipy.linalg.funm": ((1,), (1,), (1,), None),
    "jax.scipy.stats.gaussian_kde": ((1,), (1,), (1,), (1,)),
    "jax.experimental.jet.jet": ((1,), (1,), (1,), (1,)),
    "jax.experimental.checkify.checkify": ((1,), (1,), (1,), (1,)),
    "jax.experimental.sparse.sparsify": ((1,), (1,), (1,), (1,)),
    "jax.experimental.sparse.grad": ((1,), (1,), (1,), (1,)),
    "jax.experimental.sparse.value_and_grad": ((1,), (1,), (1,), (1,)),
    "jax.experimental.sparse.jacfwd": ((1,), (1,), (1,), (1,)),
    "jax.experimental.sparse.jacrev": ((1,), (1,), (1,), (1,)),
    "jax.experimental.sparse.random_bcoo": ((1,), (1,), (1,), (1,)),
    "jax.test_util.check_grads": ((8,), None, (8,), None),
    "jax.test_util.check_jvp": ((4,), None, (4,), None),
    "jax.test_util.check_vjp": ((4,), None, (4,), None),
    "jax.example_libraries.optimizers": ((2,), (2,), (2,), (2,)),
    "jax.example_libraries.stax": ((2,), (2,), (2,), (2,)),
    "jax.tree.map": ((3,), (3,), (3,), (3,)),
    "jax.tree.map_with_path": ((3,), (3,), (3,), (3,)),
    "jax.tree.reduce": ((2,), (2,), (2,), (2,)),
    "jax.tree.reduce_associative": ((2,), (2,), (2,), (2,)),
}

# Where JAX 0.10 calls another number of times.
CALLS_OF_0_10: dict[str, tuple[tuple[int, ...] | None, ...]] = {
    "jax.custom_batching.sequential_vmap": ((2,), (2,), (6,), None),
    "lax.custom_root": ((3,), (3,), (3,), (3,)),
}

# What JAX remembers in plain code, and calls again in a program.
SEVERAL_IN_A_PROGRAM = {
    "jax.custom_batching.sequential_vmap",
    "lax.switch, one function three times",
}
# CALLS END

# What has no row. The names are those of `functions_of_functions`.
LEFT_OUT = {
    "runs after the program, or on another device": [
        "jax.pure_callback",
        "jax.debug.callback",
        "jax.debug.inspect_array_sharding",
    ],
    "not in all versions": ["jax.custom_remat"],
    "the same function as another row, or that row with a mesh": [
        "jax.jacobian",
        "jax.remat",
        "jax.smap",
        "jax.sharding.auto_axes",
        "jax.sharding.explicit_axes",
        "jax.experimental.ode.ravel_first_arg",
        "jax.experimental.ode.tree_leaves",
        "jax.experimental.ode.tree_map",
    ],
    "asks of leaves, never of a body": [
        *(f"jax.tree.{name}" for name in ("all", "broadcast", "flatten", "flatten_with_path", "leaves")),
        *(f"jax.tree.{name}" for name in ("leaves_with_path", "structure")),
    ],
    "exports no function that closes over what is traced: export the whole": ["jax.export.export"],
    "CPUs don't have it": ["jax.lax.linalg.schur"],
    "makes an object; a call of that is a row": ["jax.numpy.ufunc"],
    "takes no function, in spite of its parameter's name or type": [
        "jax.numpy.einsum",
        "jax.numpy.gradient",
        "jax.scipy.linalg.leslie",
        "jax.scipy.optimize.OptimizeResults",
        "jax.export.Exported",
    ],
}


PUBLIC = (
    *("jax", "jax.lax", "jax.lax.linalg", "jax.numpy", "jax.numpy.linalg", "jax.numpy.fft", "jax.nn", "jax.random"),
    *("jax.nn.initializers", "jax.tree", "jax.flatten_util", "jax.scipy", "jax.scipy.optimize", "jax.scipy.linalg"),
    *("jax.scipy.sparse.linalg", "jax.scipy.integrate", "jax.scipy.special", "jax.scipy.stats", "jax.scipy.signal"),
    *("jax.scipy.ndimage", "jax.scipy.interpolate", "jax.scipy.fft", "jax.custom_batching", "jax.custom_derivatives"),
    *("jax.ad_checkpoint", "jax.debug", "jax.export", "jax.image", "jax.ops", "jax.profiler", "jax.sharding"),
    *("jax.stages", "jax.test_util", "jax.experimental.checkify", "jax.experimental.ode", "jax.experimental.sparse"),
    *("jax.example_libraries.optimizers", "jax.example_libraries.stax"),
)
FUNCTIONS = {
    *("f", "fn", "fun", "func", "function", "pyfunc", "func1d", "funclist", "body_fun", "cond_fun", "computation"),
    *("operation", "decomposition", "mask_func", "generator", "callback", "data_callback", "matvec", "is_leaf"),
    *("opt_maker", "select_callable", "branches"),
}


def functions_of_functions() -> set[str]:
    """The public names of JAX with a parameter that takes a function, by its annotation or its name."""
    found: dict[int, str] = {}
    for module in PUBLIC:
        try:
            names = vars(importlib.import_module(module))
        except ModuleNotFoundError:  # another version of JAX
            continue
        for name, value in sorted(names.items()):
            if name.startswith("_") or not callable(value) or not getattr(value, "__module__", "").startswith("jax"):
                continue
            try:
                parameters = inspect.signature(value).parameters.values()
            except (TypeError, ValueError):
                continue
            solves = module.endswith("sparse.linalg")  # there, A is a function or a matrix
            if any(
                p.name in FUNCTIONS or "Callable" in str(p.annotation) or (solves and p.name == "A") for p in parameters
            ):
                known = found.get(id(value))
                if known is None or len(f"{module}.{name}") < len(known):
                    found[id(value)] = f"{module}.{name}"
    return set(found.values())
