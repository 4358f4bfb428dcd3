"""`Plan`: from the names and arrays of a file to those of a program, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import jscope as js
from jscope._support import count_of, printable, shown

from . import steps
from .course import differences, lost, made_of, not_copied, planned, run, tensors_of, way_to_form
from .faults import Path, fault, user_line
from .fitting import ALLOW, CORRECT, WIDEN, Allowed, fit, misfit, opened, wide_faults
from .leaves import is_key, kind_of
from .loaded import Checkpoint
from .operations import MisfitError, spec_of
from .report import Assigned, AssignReport
from .safetensors_file import save_with
from .state import kinds_for
from .step_arguments import axes_of, bad, dtype_of, numbered, order_of, pairs, pieces
from .templates import Template, same_fields, templates
from .tensors import Tensor

_AVERAGE = "{*name}/ExponentialMovingAverage"


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the names and arrays of a file become those of a program, and back: a list of steps.

    Each method gives a new plan with one step more. Read from the top they lead from a file to a program, and `save`
    goes them back. Names are texts with fields in them: `{i}` for a whole number, `{i:02}` for one of two digits at
    least, `{i+1}` for one that counts from 1, `{.kind}` for a text without dots and slashes, `{*rest}` for any text.
    What no step speaks of stays as it is.

    A plan reads nothing. `check` says what does not fit, by names, shapes and dtypes alone; `load` reads as
    `assign_from` does, and is as strict. Flax and others rename by hand in each port.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope import checkpoint
      >>> plan = (
      ...     checkpoint.Plan()
      ...     .tie("wte.weight", "lm_head.weight")
      ...     .drop("h.{i}.attn.mask")
      ...     .transpose("h.{i}.fc.weight")
      ...     .rename({"wte.weight": "model/wte", "h.{i}.fc.weight": "model/h{i}/kernel"})
      ... )
      >>> def program():
      ...     with js.variable_scope("model"):
      ...         js.get_variable("wte", [5, 2])
      ...         with js.variable_scope("h0"):
      ...             js.get_variable("kernel", [2, 3])
      >>> specs = js.transform(program).specs()
      >>> file = {"lm_head.weight": np.ones((5, 2), np.float32), "h.0.fc.weight": np.ones((3, 2), np.float32)}
      >>> params, report = plan.load(specs, file | {"h.0.attn.mask": np.ones((4, 4), np.uint8)})
      >>> print(report)
      state   name             note
      loaded  model/wte        from lm_head.weight
      loaded  model/h0/kernel  from h.0.fc.weight
      2 loaded (0 cast), 0 kept, 0 initialised, 0 unused
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
      >>> plan.save(path, params)
      >>> checkpoint.load(path)
      Params({h.0.fc.weight: f32[3,2], wte.weight: f32[5,2]})
    """

    steps: tuple[steps.Step, ...] = ()

    def _then(self, step: steps.Step) -> Plan:
        return Plan((*self.steps, step))

    def __str__(self) -> str:
        return "\n".join(printable(str(step)) for step in self.steps) or "no steps"

    __repr__ = __str__

    # Steps ------------------------------------------------------------------------------------------------------------

    def rename(self, names: Mapping[str, str]) -> Plan:
        """Names by other names: those of the file first, those of the program second.

        Args:
          names: from name to name, with the same fields. Where several fit, one without fields counts, else the first.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().rename({"h.{i}.ln_1.weight": "model/h{i}/ln_1/g"})
          rename h.{i}.ln_1.weight -> model/h{i}/ln_1/g
        """
        return self._then(steps.Rename(*pairs(names)))

    def also(self, names: Mapping[str, str]) -> Plan:
        """Names that some files have in place of others, such as those of older versions. `save` does not write them.

        Args:
          names: from the other name to the one that the next steps speak of, with the same fields. `{*name}` alone, for
            a prefix that some files leave out, leaves alone what has the prefix.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().also({"{*name}.gamma": "{*name}.weight", "{*name}.beta": "{*name}.bias"})
          also {*name}.gamma -> {*name}.weight, {*name}.beta -> {*name}.bias
          >>> prefix = Plan().also({"lm_head.weight": "lm_head.weight", "{*name}": "model.{*name}"})
          >>> sorted(prefix.leads_to({"model.norm": np.ones(1), "h.0.norm": np.ones(1), "lm_head.weight": np.ones(1)}))
          ['lm_head.weight', 'model.h.0.norm', 'model.norm']
        """
        return self._then(steps.Rename(*pairs(names), goes_back=False))

    def separator(self, file: str = ".", program: str = "/") -> Plan:
        """One character for another in all names: `encoder.layer.0.bias` is `encoder/layer/0/bias`.

        Args:
          file, program: the characters. What is to be made must not be there already.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().separator(".", "/")
          separator . -> /
        """
        if not (isinstance(file, str) and isinstance(program, str) and file and program and file != program):
            raise bad(f"separator takes two texts that differ, not {file!r} and {program!r}", "write such as '.', '/'")
        return self._then(steps.Separator(file, program))

    def transpose(
        self,
        names: str | Iterable[str],
        axes: Sequence[int] | None = None,
        *,
        but: str | Iterable[str] = (),
        may_miss: bool = False,
    ) -> Plan:
        """The axes of arrays in another order, as `numpy.transpose` has it.

        Args:
          names: of the arrays, as they are called at this step; there has to be one for each of these texts.
          axes: the order; turned round unless said.
          but: names that are left out, such as the tables among all `{*module}.weight`; there has to be one for each of
            these texts, too.
          may_miss: whether there need be none of either.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().transpose(["{*name}.fc.weight", "lm_head.weight"]).transpose("conv.weight", (2, 3, 1, 0))
          transpose {*name}.fc.weight, lm_head.weight
          transpose conv.weight
        """
        return self._then(steps.Transpose(templates(names), templates(but), may_miss, may_miss, order_of(axes)))

    def rearrange(
        self,
        names: str | Iterable[str],
        axes: str,
        *,
        but: str | Iterable[str] = (),
        may_miss: bool = False,
        **sizes: int,
    ) -> Plan:
        """The axes of arrays taken apart, put together and in another order, in the notation of einops: a reshape.

        Args:
          names: as in `transpose`.
          axes: those of the file and those of the program. Brackets hold axes that are one dimension; 1 is one of
            that size.
          but, may_miss: as in `transpose`.
          **sizes: those of axes that do not follow from the shape.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().rearrange("q.weight", "(heads size) d -> d heads size", heads=12)
          rearrange q.weight: (heads size) d -> d heads size
        """
        there = axes_of(axes, sizes)
        return self._then(steps.Rearrange(templates(names), templates(but), may_miss, may_miss, there, axes))

    def split(
        self,
        name: str,
        into: Sequence[str],
        *,
        axis: int = 0,
        shares: Sequence[int] | None = None,
        groups: int = 1,
        may_miss: bool = False,
    ) -> Plan:
        """One array of the file is several of the program: a fused projection of queries, keys and values.

        Args:
          name: that of the file.
          into: the names in the program, in order, with the same fields.
          axis: along which it is cut; of a weight and a bias alike if it is counted from the end.
          shares: the proportions, such as (8, 1, 1) for 32 heads that share 4 of keys and values; equal unless said.
          groups: in how many groups the axis is cut, each alike: the number of heads where queries, keys and values
            lie interleaved by head. 1 is one behind the other.
          may_miss: whether there need be none.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().split("h.{i}.qkv.{*kind}", ["h.{i}.q.{*kind}", "h.{i}.k.{*kind}", "h.{i}.v.{*kind}"], groups=12)
          split h.{i}.qkv.{*kind} -> h.{i}.q.{*kind}, h.{i}.k.{*kind}, h.{i}.v.{*kind}
        """
        return self._then(pieces(name, into, axis, shares, groups, False, may_miss))

    def concatenate(
        self,
        names: Sequence[str],
        to: str,
        *,
        axis: int = 0,
        shares: Sequence[int] | None = None,
        groups: int = 1,
        may_miss: bool = False,
    ) -> Plan:
        """Several arrays of the file are one of the program: `split` the other way round.

        Args:
          names: those of the file, in order.
          to: the name in the program, with the same fields.
          axis, shares, groups, may_miss: as in `split`.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().concatenate(["mlp.gate.weight", "mlp.up.weight"], "mlp.gate_up.weight")
          concatenate mlp.gate.weight, mlp.up.weight -> mlp.gate_up.weight
        """
        return self._then(pieces(to, names, axis, shares, groups, True, may_miss))

    def stack(self, names: str, to: str, *, may_miss: bool = False) -> Plan:
        """Numbered arrays of the file are one of the program, along a new first axis: what `lax.scan` takes.

        Args:
          names: those of the file, with one field that `to` has not: the number, from 0 on. What is stacked over two
            numbers, layers and experts, takes two steps. What differs in a field before the number, stages or towers,
            may have layers of a count of its own.
          to: the name in the program.
          may_miss: whether there need be none.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().stack("layers.{i}.{*name}", "layers.{*name}")
          stack layers.{i}.{*name} -> layers.{*name}
        """
        return self._then(numbered(names, to, True, may_miss))

    def unstack(self, name: str, to: str, *, may_miss: bool = False) -> Plan:
        """One array of the file is numbered arrays of the program: `stack` the other way round.

        Args:
          name: that of the file.
          to: the names in the program, with one field more.
          may_miss: whether there need be none.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().unstack("layers.{*name}", "layers.{i}.{*name}")
          unstack layers.{*name} -> layers.{i}.{*name}
        """
        return self._then(numbered(to, name, False, may_miss))

    def tie(self, name: str, *others: str) -> Plan:
        """Several names of the file for one variable. The file has one of them or more, and then with equal values.

        Args:
          name: the one that the next steps speak of, and that `save` writes.
          *others: further ones, with the same fields.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().tie("shared.weight", "encoder.embed_tokens.weight", "lm_head.weight")
          tie shared.weight, encoder.embed_tokens.weight, lm_head.weight
        """
        found = templates([name, *others])
        for other in found[1:]:
            same_fields(found[0], other)
        return self._then(steps.Tied(found))

    def drop(self, *names: str) -> Plan:
        """Arrays of the file that the program has no use for: masks, step counters. There need be none.

        Args:
          *names: those of the file.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().drop("h.{i}.attn.bias", "{*module}.rotary_emb.inv_freq")
          drop h.{i}.attn.bias, {*module}.rotary_emb.inv_freq
        """
        return self._then(steps.Dropped(templates(names)))

    def cast(self, names: str | Iterable[str], to: Any, *, stored: Any = None, but: str | Iterable[str] = ()) -> Plan:
        """Arrays in another dtype. What is lost is precision alone: neither kind nor range.

        Args:
          names: of the arrays, as they are called at this step. There need be none.
          to: the dtype in the program.
          stored: that in the file, for `save` without `like`; there it stays as it is unless said.
          but: as in `transpose`.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().cast("{*name}", jnp.float32, stored=jnp.bfloat16)
          cast {*name} to float32
        """
        if to is None:
            raise bad("cast takes a dtype", "write such as jnp.float32")
        kept = None if stored is None else dtype_of(stored)
        return self._then(steps.Converted(templates(names), templates(but), True, False, dtype_of(to), kept))

    def averages(self, name: str = _AVERAGE, of: str = "{*name}") -> Plan:
        """Reads moving averages in place of the values that they average, where the file has them.

        TF1: `Saver(ExponentialMovingAverage.variables_to_restore())`.

        Args:
          name: that of an average.
          of: that of what it is the average of, with the same fields.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().averages()
          prefer {*name}/ExponentialMovingAverage to {*name}
        """
        chosen, plain = Template(name), Template(of)
        same_fields(chosen, plain)
        return self._then(steps.Preferred(chosen, plain))

    # What is done with it ---------------------------------------------------------------------------------------------

    def check(
        self,
        target: js.Specs | Mapping[str, Any],
        source: Path | Mapping[str, Any],
        *,
        exclude: str | Sequence[str] = (),
        allow_missing: Allowed = False,
        allow_unused: Allowed = False,
        allow_cast: Allowed = False,
    ) -> AssignReport:
        """What `load` would do, by names, shapes and dtypes alone: no array is read.

        Args:
          target, source, exclude, allow_missing, allow_unused, allow_cast: as in `assign_from`; the source may also be
            a mapping from name to `jax.ShapeDtypeStruct`.

        Returns:
          An `AssignReport`.

        Raises:
          ParamsMismatchError: if something does not fit; `faults` lists everything.
          CheckpointError: if the checkpoint can't be read.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> header = {"w.weight": jax.ShapeDtypeStruct((3, 2), "float32")}
          >>> wanted = {"w": jax.ShapeDtypeStruct((2, 3), "float32")}
          >>> print(Plan().transpose("w.weight").rename({"w.weight": "w"}).check(wanted, header))
          state   name  note
          loaded  w     from w.weight
          1 loaded (0 cast), 0 kept, 0 initialised, 0 unused
        """
        found = fit(
            target,
            source,
            plan=self,
            exclude=exclude,
            allow_missing=allow_missing,
            allow_unused=allow_unused,
            allow_cast=allow_cast,
            can_make=True,
        )
        wide = wide_faults(found.jax_leaves())
        if found.faults or wide:
            fixes = [f"{CORRECT}; {ALLOW}"] * bool(found.faults) + [WIDEN] * bool(wide)
            raise misfit([*found.faults, *wide], found.idle, fix="; ".join(fixes))
        return found.report(isinstance(target, js.Specs))

    def leads_to(self, source: Path | Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
        """What the plan makes of a file: shapes and dtypes by the names at its end. No array is read.

        Args:
          source: as in `check`.

        Raises:
          ParamsMismatchError: if a step can't be done; `faults` lists everything.
          CheckpointError: if the checkpoint can't be read.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> Plan().transpose("w.weight").separator().leads_to({"w.weight": np.ones((3, 2), np.float32)})
          {'w/weight': ShapeDtypeStruct(shape=(2, 3), dtype=float32)}
        """
        course = planned(self.steps, opened(source))
        if course.faults:
            raise misfit(course.faults, fix=CORRECT)
        return {name: jax.ShapeDtypeStruct(*spec) for name, spec in course.header.items() if spec is not None}

    def load(self, target: js.Specs | Mapping[str, Any], source: Path | Mapping[str, Any], **options: Any) -> Assigned:
        """Values of a file for a program's variables: `assign_from` with this plan.

        Args:
          target, source: as in `assign_from`.
          **options: `assign_from`'s other arguments.

        Returns:
          `(params, report)`.

        Raises:
          ParamsMismatchError: if something does not fit; `faults` lists everything.
          CheckpointError: if the checkpoint can't be read.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> source = {"w.weight": np.ones((3, 2), np.float32)}
          >>> plan = Plan().transpose("w.weight").rename({"w.weight": "w"})
          >>> plan.load({"w": jnp.zeros((2, 3))}, source).params
          Params({w: f32[2,3]})
        """
        from .assign import assign_from  # that file takes plans

        return assign_from(target, source, plan=self, **options)

    def back(self, params: Mapping[str, Any], *, like: Path | Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """The arrays of a file by name, of a program's values: the steps from the last to the first.

        Args:
          params: arrays by name, nested or flat: all that the plan leads to.
          like: a file of arrays alone whose form is taken: it has the arrays that the plan drops, which are copied, the
            names of ties, and the dtypes. Unless given, what is dropped is left out, of ties the first name is there,
            and names go back by the steps' patterns alone: one that fits more than its step gave takes that back, too.

        Returns:
          Numpy arrays by name. They may share memory with `params`.

        Raises:
          ParamsMismatchError: if the values do not fit the file, or the plan would not lead back from what it gives.
          CheckpointError: if `like` can't be read, or values are no arrays.

        Example:
          >>> from jscope.checkpoint import Plan
          >>> plan = Plan().transpose("w.weight").rename({"w.weight": "w"})
          >>> {name: array.shape for name, array in plan.back({"w": np.ones((2, 3))}).items()}
          {'w.weight': (3, 2)}
        """
        values = {name: _held(name, leaf) for name, leaf in js.Params(params).flat().items()}
        header = {name: spec_of(tensor) for name, tensor in values.items()}
        if like is None:
            course = run(self.steps, header, ahead=False)
            again = run(self.steps, course.header)
            _refuse(course.faults or lost(header, course, again) or differences(header, again.header))
            return _read_all(course.tensors(values)[0], course.origins)
        source = opened(like)
        course = planned(self.steps, source)
        _refuse(not_copied(source), "leave that out: like= takes jscope.checkpoint.open(path).read(), too")
        _refuse(course.faults)
        _refuse(differences(header, course.header), way_to_form(header, course.header))
        _, dropped = course.tensors(tensors_of(source))
        made = {file: (name,) for name, origin in course.origins.items() for file in origin}
        return _read_all(course.back(values, dropped), made)

    def save(
        self,
        path: Path,
        params: Mapping[str, Any],
        *,
        like: Path | Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        max_shard_bytes: int | None = None,
    ) -> None:
        """Saves a program's values as a file with the names that the plan starts from, in the format of safetensors.

        What `load` made of a file is, saved with `like` that file, that file's arrays to the bit; where dtypes are
        others in the program, a step `cast` says so, which `allow_cast` does for the one load alone.

        Args:
          path, max_shard_bytes: as in `jscope.checkpoint.save`.
          params, like: as in `back`.
          metadata: texts by name; unless given those of `like`, else `{"format": "pt"}`, which transformers asks for.

        Raises:
          ParamsMismatchError: as in `back`.
          CheckpointError: if a value or the metadata can't be kept, or the file can't be written.

        Example:
          >>> import pathlib, tempfile
          >>> from jscope import checkpoint
          >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
          >>> checkpoint.Plan().rename({"w.weight": "w"}).save(path, {"w": jnp.ones(3)})
          >>> checkpoint.load(path)
          Params({w.weight: f32[3]})
        """
        source = None if like is None else opened(like)
        if metadata is None:
            metadata = source.metadata if isinstance(source, Checkpoint) else {"format": "pt"}
        arrays = self.back(params, like=source)
        own = kinds_for(source, dict(zip(arrays, arrays, strict=True))) if isinstance(source, Checkpoint) else {}
        save_with(own, path, arrays, metadata=metadata, max_shard_bytes=max_shard_bytes)


def _refuse(faults: Sequence[str], fix: str = "") -> None:
    if faults:
        raise js.ParamsMismatchError(
            f"The values can't be taken back by this plan: {count_of(faults)}.",
            kind="params_mismatch",
            faults=faults,
            where=user_line(),
            fix=fix
            or "give the values that the plan leads to, and like= a file that has what the plan drops; a pattern that "
            "fits more names than its step gave takes them back as well: make it narrower",
        )


def _held(name: str, leaf: Any) -> Tensor:
    """A value in memory, as an array of a file is."""
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
        what = f"{shown(name)} is no array that could be saved, but {kind_of(name, leaf)}."
        raise fault(what, kind="bad_dtype", fix="give arrays of numbers")
    kind_of(name, leaf)  # which refuses what JAX traces, and what other processes hold
    if is_key(leaf):
        what = f"{shown(name)} is a key of jax.random."
        raise fault(what, kind="bad_dtype", fix="save jax.random.key_data(key)")
    array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    return Tensor(tuple(array.shape), np.dtype(array.dtype), lambda checked: np.asarray(array), None, False)


def _read_all(tensors: Mapping[str, Tensor], origins: Mapping[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """All arrays of the file. What can't be made is told by the names of the values that it is made of."""
    arrays, faults = {}, []
    for name, tensor in sorted(tensors.items()):
        try:
            arrays[name] = tensor.read(True)
        except MisfitError as error:
            faults.append(f"{made_of(name, origins.get(name, (name,)))} {error}")
    _refuse(
        faults,
        "give values that the dtypes in the file hold, or save without like= or with another stored=",
    )
    return arrays
