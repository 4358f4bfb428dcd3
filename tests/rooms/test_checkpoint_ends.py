"""What a save does to what is there, where it can't, and where what is printed can't go."""

from __future__ import annotations

import functools
import io
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope import checkpoint
from jscope.checkpoint.command import main
from jscope.checkpoint.npz import save_npz

SAVES = [checkpoint.save, checkpoint.save_tf, save_npz]
POSIX = pytest.mark.skipif(os.name != "posix", reason="links, fifos and permissions are those of POSIX")
Save = Callable[[Any, dict[str, Any]], None]


def target(save: Save, path: Path) -> Path:
    """The file that takes another's place."""
    return Path(f"{path}.index") if save is checkpoint.save_tf else path


def files(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()}


# Names ----------------------------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("save", SAVES)
def test_no_file_of_a_name_that_could_be_foreseen_is_touched(tmp_path: Path, save: Save) -> None:
    """Neither through links, nor fifos, which would block."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    names = ["m.tmp", "m.index.tmp", "m.data-00000-of-00001", "m.data-00000-of-00001.tmp", ".m.tmp"]
    for name in names:
        (tmp_path / name).symlink_to(victim)
    os.mkfifo(tmp_path / "m.data-00000-of-00002")
    for number in (1, 2):
        save(tmp_path / "m", {"a": np.full(2, number)})
        assert checkpoint.load(tmp_path / "m")["a"][0] == number
    assert victim.read_text() == "precious"
    assert all((tmp_path / name).is_symlink() for name in names)
    assert not target(save, tmp_path / "m").is_symlink()


@POSIX
@pytest.mark.parametrize("save", SAVES)
def test_permissions_and_links_stay(tmp_path: Path, save: Save) -> None:
    before = os.umask(0o027)
    try:
        save(tmp_path / "m", {"a": 1})
        assert stat.S_IMODE(target(save, tmp_path / "m").stat().st_mode) == 0o640
        target(save, tmp_path / "m").chmod(0o604)
        (tmp_path / "else").mkdir()
        target(save, tmp_path / "m").rename(tmp_path / "else" / "there")
        target(save, tmp_path / "m").symlink_to("else/there")
        save(tmp_path / "m", {"a": 2})
    finally:
        os.umask(before)
    assert target(save, tmp_path / "m").is_symlink()
    assert checkpoint.load(tmp_path / "m")["a"] == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir() if file.is_file()} == {0o604}


@POSIX
@pytest.mark.parametrize("save", SAVES)
def test_a_link_to_nothing_yet_is_written_through(tmp_path: Path, save: Save) -> None:
    target(save, tmp_path / "m").symlink_to("there")
    save(tmp_path / "m", {"a": 1})
    assert target(save, tmp_path / "m").is_symlink()
    assert (tmp_path / "there").is_file()


@POSIX
@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("kind", ["fifo", "directory", "link to a directory", "device", "socket"])
def test_what_is_no_file_is_refused_and_left(tmp_path: Path, save: Save, kind: str) -> None:
    path = target(save, tmp_path / "m")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to(os.devnull)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            try:
                made.bind(str(path))
            except OSError:
                pytest.skip("the path is too long for a socket")
    else:
        (path if kind == "directory" else tmp_path / "d").mkdir()
        if kind != "directory":
            path.symlink_to("d")
    before = sorted(tmp_path.iterdir()), path.lstat().st_mode
    with pytest.raises(js.CheckpointError, match="can't be written") as info:
        save(tmp_path / "m", {"a": 1})
    assert info.value.kind == "unwritable"
    assert (sorted(tmp_path.iterdir()), path.lstat().st_mode) == before


@pytest.mark.parametrize("path", ["a\0b", "\ud800.safetensors", b"a\0b", "x" * 5000, "no/such/directory/m"])
@pytest.mark.parametrize("save", SAVES)
def test_paths_that_no_file_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Save, path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for call, kind in [(lambda: save(path, {"a": 1}), "unwritable"), (lambda: checkpoint.open(path), "not_found")]:
        with pytest.raises(js.CheckpointError) as info:
            call()
        assert info.value.kind == kind
        assert str(info.value).isprintable() or "\n" in str(info.value)
        str(info.value).encode()
    with pytest.raises(js.CheckpointError):
        checkpoint.list_tf(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [3, None, object()])
def test_what_is_no_path(path: Any) -> None:
    for call in (lambda: checkpoint.save(path, {}), lambda: checkpoint.open(path), lambda: checkpoint.list_tf(path)):
        with pytest.raises(js.BadTypeError):
            call()


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 70_000])
def test_names_that_a_zip_file_would_change(tmp_path: Path, name: str) -> None:
    with pytest.raises(js.CheckpointError) as info:
        save_npz(tmp_path / "m.npz", {name: 1})
    assert info.value.kind == "bad_key"
    assert len(str(info.value)) < 1000
    assert not list(tmp_path.iterdir())


# What is left behind --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_nothing_is_left_where_the_system_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Save, call: str
) -> None:
    save(tmp_path / "m", {"a": np.ones(3)})
    before = files(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(js.CheckpointError, match="Input/output error"):
            save(tmp_path / "m", {"a": np.zeros(3)})
    assert files(tmp_path) == before


@pytest.mark.parametrize("save", SAVES)
def test_nothing_is_left_where_a_value_can_not_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Save
) -> None:
    lost, asarray = jnp.ones(3), np.asarray

    def refuse(value: Any, *args: Any, **kwargs: Any) -> Any:
        if value is lost:
            raise RuntimeError("the device is gone")
        return asarray(value, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(np, "asarray", refuse)
        with pytest.raises(RuntimeError, match="the device is gone"):
            save(tmp_path / "m", {"a": np.ones(3), "b": lost})
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal, sys
import numpy as np
import jscope as js
from jscope import checkpoint
from jscope.checkpoint.npz import save_npz

path, kind = sys.argv[1:]
save = {"save": checkpoint.save, "save_tf": checkpoint.save_tf, "save_npz": save_npz}[kind]
save(path, {"a": np.ones(10)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save(path, {"a": np.ones(100_000)})
except js.CheckpointError as error:
    print(error.kind, checkpoint.load(path)["a"].shape)
"""


@pytest.mark.sampled(2)
@POSIX
@pytest.mark.parametrize("kind", ["save", pytest.param("save_tf", marks=pytest.mark.slow), "save_npz"])
def test_where_there_is_no_room(tmp_path: Path, kind: str) -> None:
    """The system gives a process so many bytes to a file, which ends as a full disk does."""
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "m"), kind], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "unwritable (10,)\n", "")
    assert len(list(tmp_path.iterdir())) == (2 if kind == "save_tf" else 1)


# Where what is printed can't go ---------------------------------------------------------------------------------------


@pytest.mark.sampled(2)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["diff", "m", "m"], ["--help"], pytest.param(["show", "m", "a"], marks=pytest.mark.slow)]
)
def test_an_output_that_is_full(tmp_path: Path, arguments: list[str]) -> None:
    """The status that says that something can't be done, and one line."""
    checkpoint.save(tmp_path / "m", {"a": np.ones(2)})
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jscope", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "jscope: the output can't be written: No space left on device.\n"


@POSIX
@pytest.mark.slow
def test_outputs_that_are_closed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m", {"a": np.ones(2)})
    for ends in (">&-", ">&- 2>&-", ">/dev/full 2>/dev/full"):
        command = f"{sys.executable} -m jscope diff m m {ends}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


# Terminals ------------------------------------------------------------------------------------------------------------

NAME = "a\x1b[31m\nb\r\u202e\u2028c"


@pytest.fixture
def steering(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / NAME, {NAME: np.ones(2), "plain": np.ones(2)}, metadata={NAME: NAME})
    return tmp_path / NAME


def check(text: str) -> None:
    assert all(line.isprintable() for line in text.split("\n")), ascii(text)


@POSIX
def test_nothing_that_steers_a_terminal_is_in_a_text(steering: Path) -> None:
    opened, tree = checkpoint.open(steering), checkpoint.load(steering)
    texts = [str(opened), repr(opened), str(opened.listing()), repr(tree), repr(tree[NAME])]
    assert len(str(opened).split("\n")) == 4  # each name is in a line of its own
    specs = js.transform(lambda: js.get_variable("w", [2])).specs()
    calls: list[Callable[[], object]] = [
        lambda: opened["a\x1b[31m"],
        lambda: tree["a\x1b[31m"],
        lambda: checkpoint.open(f"{steering}?"),
        lambda: checkpoint.assign_from(specs, steering),
        lambda: checkpoint.assign_from(specs, opened, rename={NAME: f"{NAME}/"}),
        lambda: specs.check(tree),
        lambda: tree.like({"\x1b": 1}),
        lambda: tree.replace({"\x1b": 1}),
        lambda: checkpoint.stack(tree, "\x1b%d", to="b"),
        lambda: checkpoint.save(steering, {NAME: "text"}),
    ]
    for call in calls:
        with pytest.raises(js.JscopeError) as info:
            call()
        texts += [str(info.value), info.value.what, *info.value.faults]
    target = js.Params({"plain": np.ones(2), "\x1bmore": 1})
    _, report = checkpoint.assign_from(target, opened, allow_missing=True, allow_unused=True)
    texts += [str(report), str(specs.compare(tree)), repr(js.Params({NAME: 1}).map_with_name(lambda *_: NAME))]
    steered = functools.partial(lambda: 1)
    steered.__name__ = NAME  # type: ignore[attr-defined]
    texts += [str(checkpoint.Plan().rename({NAME: "w"}).drop(r"\x1b.*")), repr(js.transform(steered))]
    for text in texts:
        check(text)


@POSIX
def test_nothing_that_steers_a_terminal_is_printed(steering: Path) -> None:

    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        for arguments in (["ls"], ["show", NAME], ["show", "\x1b"], ["diff", f"{steering}\x1b"]):
            main([arguments[0], str(steering), *arguments[1:]])
    check(out.getvalue())
    lines = out.getvalue().split("\n")
    assert sum(line.startswith("metadata: ") for line in lines) == 1


# Fork -----------------------------------------------------------------------------------------------------------------

FORK = """
import os, signal, sys, threading, warnings
import jscope as js
warnings.simplefilter("ignore")
ended = threading.Event()

def work():
    turn = 0
    while not ended.is_set():
        js.Params({f"c{turn % 977}/a": 1})
        turn += 1

thread = threading.Thread(target=work)
thread.start()
hung = 0
for turn in range(12):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        js.Params({f"x{turn}/q": 1})
        os._exit(0)
    hung += os.waitpid(child, 0)[1] != 0
ended.set()
thread.join()
print(hung)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_no_lock_outlives_a_fork() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="there is no alarm")
def test_a_child_reads_what_its_parent_opened(tmp_path: Path) -> None:
    """Of one open file that both have, at places of their own."""
    checkpoint.save(tmp_path / "m", {f"v{i}": np.full(1000, i) for i in range(50)})
    code = f"""
import os, numpy as np, warnings
from jscope import checkpoint
warnings.simplefilter("ignore")
opened = checkpoint.open({str(tmp_path / "m")!r})
child = os.fork()
right = all((array == int(name[1:])).all() for _ in range(20) for name, array in opened.items())
if child == 0:
    os._exit(0 if right else 1)
print(right, os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True 0\n", "")


# The end of Python ----------------------------------------------------------------------------------------------------

GENERATORS = """
import jax, jscope as js

@js.add_arg_scope
def layer(size=1):
    return size

def by_hand():
    with js.build(jax.random.key(0)), js.variable_scope("a"), js.name_scope("b"), js.arg_scope([layer], size=2):
        yield

def inside():
    with js.variable_scope("a"), js.name_scope("b"):
        yield

def program():
    left.append(inside())
    next(left[-1])

left = [by_hand()]
next(left[0])
if len(__import__("sys").argv) > 1:
    js.transform(program).specs()
"""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("more", [[], ["program"]])
def test_generators_that_are_left_open_are_silent(more: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", GENERATORS, *more], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("call", [*SAVES, checkpoint.save_state, lambda path, tree: checkpoint.load(path)])
@pytest.mark.parametrize(("path", "fix"), [("", "give the path of a file"), ("a\0b", "give a path without zeros")])
def test_what_can_be_no_path_is_told_why(call: Save, path: str, fix: str) -> None:
    with pytest.raises(js.CheckpointError, match="No file can have the path") as error:
        call(path, {"a": np.ones(1)})
    assert error.value.fix.startswith(fix)
