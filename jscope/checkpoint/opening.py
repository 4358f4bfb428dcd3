"""`open`, `load`, `load_tf` and `list_tf`."""

from __future__ import annotations

import os

import jscope as js
from jscope._support import shown

from .bundle import read_bundle
from .faults import Path, fault, file_name
from .files import File
from .folder import read_folder, read_index
from .loaded import Checkpoint, CheckpointList
from .locate import is_index, locate
from .npz import is_npz, read_npz
from .safetensors_file import is_safetensors, read_safetensors
from .single_file import read_single_file
from .table import is_table
from .tensors import Contents
from .wild import told


def open(path: Path, *, verify: bool = True) -> Checkpoint:
    """Opens a checkpoint of any format: a mapping from name to array. TF1: `tf.train.load_checkpoint`.

    Read are safetensors, both versions of TensorFlow's, and numpy's `.npz` without what is pickled in it. Which one it
    is, the file says, not its name. What is none of these is told for what it is, with how to convert it. Folders are
    read that have one file of safetensors in them, or several with an index, and those of orbax.

    Args:
      path: a file, a folder, an index (`model.safetensors.index.json`), or what `load_tf` takes.
      verify: whether the checksum of each array is compared as it is read, where the file has one: TensorFlow's,
        those of `.npz`, and what `save` wrote. Of the latter the header's is, too, as the file is opened: so a file
        that another program has written anew, with the old checksums in it, is read with False alone.

    Returns:
      A `Checkpoint`: immutable, flat, from name to numpy array. It reads what is asked for, when it is asked for.

    Raises:
      CheckpointError: if there is no checkpoint, or the files are damaged.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope import checkpoint
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
      >>> checkpoint.save(file, {"tower": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}})
      >>> opened = checkpoint.open(file)
      >>> opened["tower/bias"]
      array([0., 0., 0.], dtype=float32)
      >>> print(str(opened).partition("\\n")[2])
      name          dtype    shape   bytes
      tower/bias    float32  (3,)    12 B
      tower/kernel  float32  (2, 3)  24 B
    """
    return Checkpoint(_any_contents(path, bool(verify)), bool(verify))


def load(path: Path, *, verify: bool = True, progress: bool | None = None) -> js.Params:
    """All of a checkpoint, of any format that `open` reads, as a tree. TF1: `tf.train.Saver.restore`.

    The leaves are numpy arrays, so that what was saved comes back to the bit, also 64-bit numbers where JAX has x64
    off. `jax.device_put(load(path))` makes JAX arrays of them; `assign_from` also checks that they fit a program.

    Args:
      path, verify: as in `open`.
      progress: whether a bar shows how far it is. None: where it takes long enough to be worth one, standard error is
        a terminal and the extra `jax-scope[checkpoint]` is installed.

    Returns:
      A `Params` of numpy arrays.

    Raises:
      CheckpointError: if there is no checkpoint, the files are damaged, or hold something else than arrays of numbers:
        `open(path)` reads the rest of them then.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope import checkpoint
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
      >>> checkpoint.save(file, {"tower": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}})
      >>> checkpoint.load(file)
      Params({tower: {bias: f32[3], kernel: f32[2,3]}})
    """
    opened = open(path, verify=verify)
    if opened.skipped:
        name, why = min(opened.skipped.items())
        more = f", and {len(opened.skipped) - 1} more" if len(opened.skipped) > 1 else ""
        what = f"{opened.path} holds more than arrays of numbers: {shown(name)} {why}{more}."
        fix = "jscope.checkpoint.open(path).read() reads the arrays; its .skipped says what is left out"
        raise fault(what, kind="skipped", fix=fix)
    return opened.read(progress=progress)


def load_tf(path: Path, *, verify: bool = True) -> Checkpoint:
    """Opens a checkpoint of TensorFlow: a mapping from name to array. TF1: `tf.train.load_checkpoint`.

    TensorFlow is not needed. Both versions of the format are read, variables that a partitioner cut up are put
    together, and the names are those of the file: `js.Params(load_tf(path))` is the tree of a TensorFlow 1 program.
    Files from anywhere can be opened: what is not sound ends in an error, not in a wrong array.

    Args:
      path: the prefix (`"model.ckpt-1000"`), the `.index` file, a file of the first version, or a directory, which
        stands for its latest checkpoint; also the file `checkpoint` that names that.
      verify: whether the checksum of each array is compared as it is read. Those of the index always are.

    Returns:
      A `Checkpoint`: immutable, flat, from name to numpy array, sorted by name. It reads what is asked for, when it is
      asked for. Its `skipped` says which entries are no arrays of numbers, such as strings.

    Raises:
      CheckpointError: if there is no checkpoint, or the files are damaged. It says which and where. Also if the extra
        `jax-scope[checkpoint]` is not installed, which computes checksums.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope.checkpoint import load_tf, save_tf
      >>> prefix = pathlib.Path(tempfile.mkdtemp()) / "model.ckpt"
      >>> save_tf(prefix, {"tower": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}})
      >>> load_tf(prefix)["tower/bias"]
      array([0., 0., 0.], dtype=float32)
      >>> js.Params(load_tf(prefix))
      Params({tower: {bias: f32[3], kernel: f32[2,3]}})
    """
    return Checkpoint(_contents(path, with_data=True), bool(verify))


def list_tf(path: Path) -> CheckpointList:
    """Names, shapes and dtypes in a checkpoint of TensorFlow; no data is read. TF1: `tf.train.list_variables`.

    Args:
      path: as in `load_tf`. Of a checkpoint of the second version only the `.index` file need be there.

    Returns:
      A `CheckpointList`: from name to `jax.ShapeDtypeStruct`; `str` of it is a table.

    Raises:
      CheckpointError: if there is no checkpoint, or the files are damaged.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope.checkpoint import list_tf, save_tf
      >>> prefix = pathlib.Path(tempfile.mkdtemp()) / "model.ckpt"
      >>> save_tf(prefix, {"tower": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}})
      >>> list_tf(prefix)["tower/kernel"]
      ShapeDtypeStruct(shape=(2, 3), dtype=float32)
      >>> print(str(list_tf(prefix)).partition("\\n")[2])
      name          dtype    shape   bytes
      tower/bias    float32  (3,)    12 B
      tower/kernel  float32  (2, 3)  24 B
    """
    return CheckpointList(_contents(path, with_data=False))


def is_read_alone(path: str) -> bool:
    """Whether `open` reads a file of that path, also where it is the prefix of a checkpoint of TensorFlow, too."""
    if not os.path.isfile(path):
        return False
    file = File(path)
    return is_index(path) or path.endswith(".safetensors") or is_npz(file) or is_safetensors(file)


def _contents(path: Path, *, with_data: bool) -> Contents:
    place, is_single_file = locate(path)
    if not is_single_file:
        return read_bundle(place, with_data=with_data)
    file = File(place)
    if is_npz(file) or is_safetensors(file):
        what = f"{place} is no checkpoint of TensorFlow, but {'a .npz file' if is_npz(file) else 'one of safetensors'}."
        raise fault(what, kind="foreign", fix="jscope.checkpoint.load(path) reads it, and open(path)")
    return read_single_file(file)


def _any_contents(path: Path, verify: bool) -> Contents:
    given = file_name(path, "not_found")
    if os.path.isdir(given) and not os.path.isfile(given + ".index"):
        contents = read_folder(given, verify)
        if contents is not None:
            return contents
    elif os.path.isfile(given):
        if is_index(given):
            return read_index(given, verify)
        file = File(given)
        if is_npz(file):
            return read_npz(file)
        if is_safetensors(file):
            return read_safetensors(file, verify)
        place, is_single_file = locate(path)
        foreign = told(file) if is_single_file and place == given and not is_table(file) else None
        if foreign is not None:
            raise foreign
        if given.endswith(".safetensors"):
            return read_safetensors(file, verify)
    return _contents(path, with_data=True)
