"""`python -m jscope`: what it prints, what it writes, and its exit status."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import DATA, ROOT

from jscope import checkpoint
from jscope.checkpoint.command import main

GPT2 = str(DATA / "gpt2_small.ckpt")
MISC = str(DATA / "misc_v2.ckpt")
ARRAYS = {
    "tower": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)},
    "half": np.array([1.5, np.inf], jnp.bfloat16),
    "on": np.array([True, False, True]),
    "step": np.int64(7),
}


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """(exit status, standard output, standard error) of a command line, run where the files are."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save("m.safetensors", ARRAYS, metadata={"note": "first"})

    def call(*arguments):
        try:
            status = main(arguments)
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return call


def test_as_a_process():
    """Piped, as everything here: no colours."""
    command = [sys.executable, "-m", "jscope", "ls", GPT2, "--match", "ln_f"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "name          dtype    shape  bytes",
        "model/ln_f/b  float32  24     96 B",
        "model/ln_f/g  float32  24     96 B",
        "2 arrays, 48 numbers, 192 B",
    ]


def test_as_a_process_whose_reader_leaves(tmp_path):
    """And whose terminal lacks the letters."""
    checkpoint.save(tmp_path / "n", {"é": np.zeros(50_000)})
    command = f"{sys.executable} -m jscope show {tmp_path}/n é --all | head -n 1; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"\\xe9  float64  50000  400 kB\n"


def test_a_reader_that_leaves_does_not_change_the_status(tmp_path):
    """What is found stays found, with few lines that wait until the end and with many."""
    for count in (1, 2_000):
        for name, array in (("a", np.ones(1)), ("b", np.zeros(1))):
            checkpoint.save(tmp_path / name, {f"layer_{i}/kernel": array for i in range(count)})
        command = f"{sys.executable} -m jscope diff {tmp_path}/a {tmp_path}/b | true; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (1, b"")


def test_ls(run):
    status, out, _ = run("ls", "m.safetensors")
    assert status == 0
    assert out.splitlines() == [
        "name          dtype     shape   bytes",
        "half          bfloat16  2       4 B",
        "on            bool      3       3 B",
        "step          int64     scalar  8 B",
        "tower/bias    float32   3       12 B",
        "tower/kernel  float32   2x3     24 B",
        "5 arrays, 15 numbers, 51 B",
        "metadata: note = first",
    ]
    assert "skipped: 'str' holds strings" in run("ls", MISC)[1]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["tower/kernel"], [
            "tower/kernel  float32  2x3  24 B",
            "min 0  max 5  mean 2.5  std 1.70783  zeros 1",
            "[[0., 1., 2.],",
            " [3., 4., 5.]]",
        ]),
        (["tower/kernel", "--slice", ":,-1"], [
            "tower/kernel  float32  2x3  24 B",
            "[:,-1]  2",
            "min 2  max 5  mean 3.5  std 1.5  zeros 0",
            "[2., 5.]",
        ]),
        (["tower/kernel", "--slice", "1, ::2"], [
            "tower/kernel  float32  2x3  24 B",
            "[1, ::2]  2",
            "min 3  max 5  mean 4  std 1  zeros 0",
            "[3., 5.]",
        ]),
        (["half"], [
            "half  bfloat16  2  4 B",
            "not finite 1  min 1.5  max 1.5  mean 1.5  std 0  zeros 0",
            "[1.5, inf]",
        ]),
        (["on"], ["on  bool  3  3 B", "true 2 of 3", "[ True, False,  True]"]),
        (["step"], ["step  int64  scalar  8 B", "min 7  max 7  mean 7  zeros 0", "7"]),
    ],
)  # fmt: skip
def test_show(run, arguments, lines):
    status, out, _ = run("show", "m.safetensors", *arguments)
    assert (status, out.splitlines()) == (0, lines)


def test_show_of_other_kinds(run):
    with np.load(DATA / "misc_expected.npz") as expected:
        for name in expected:
            status, out, _ = run("show", MISC, name.replace("|", "/"))
            assert status == 0
            assert len(out.splitlines()) >= 3
    assert "..." in run("show", GPT2, "model/wte")[1]
    assert "..." not in run("show", GPT2, "model/wte", "--all")[1]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([1e308, 1e308, -1e308, -1e308], "min -1e+308  max 1e+308  mean 0  std 1e+308  zeros 0"),
        ([1.5e308, 1.5e308], "min 1.5e+308  max 1.5e+308  mean 1.5e+308  std 0  zeros 0"),
        ([3e-300, 1e-300], "min 1e-300  max 3e-300  mean 2e-300  std 1e-300  zeros 0"),
        ([0.0, 0.0], "min 0  max 0  mean 0  std 0  zeros 2"),
        ([complex(1.7e308, 1.7e308), 1.0, complex(math.nan, 0)], "max |x| nan  zeros 0"),
        ([complex(1.7e308, 1.7e308), 1.0], "max |x| inf  zeros 0"),
    ],
    ids=str,
)
def test_show_of_numbers_whose_squares_are_too_large(run, values, line):
    """And no warning of numpy, which would be an error here."""
    np.savez("large.npz", a=np.array(values))
    status, out, err = run("show", "large.npz", "a")
    assert (status, out.splitlines()[1], err) == (0, line, "")


@pytest.mark.parametrize("target", ["n.safetensors", "n.npz", "n"])
def test_convert(run, target):
    checkpoint.save("m.safetensors", {**ARRAYS, "half": np.ones(2, np.float16)})
    status, out, err = run("convert", "m.safetensors", target)
    assert (status, err) == (0, "")
    form = {"n": "tf"}.get(target, target[2:])
    assert out == f"5 arrays, 51 B -> {target} ({form})\n"
    assert checkpoint.load(target) == checkpoint.load("m.safetensors")
    assert run("diff", "m.safetensors", target)[:2] == (0, "5 in both, no difference\n")
    status, _, err = run("convert", "m.safetensors", target)
    assert status == 2
    assert "is there already. Give --force" in err
    assert run("convert", "m.safetensors", target, "--force", "--match", "tower")[0] == 0
    assert checkpoint.load(target).names == ("tower/bias", "tower/kernel")


def test_convert_tensorflows(run):
    status, _, err = run("convert", MISC, "n.safetensors")
    assert (status, os.path.exists("n.safetensors")) == (2, False)
    assert "'str' holds strings, and can't be converted. Give --skip" in err
    assert run("convert", MISC, "n.safetensors", "--skip")[0] == 0
    assert checkpoint.load("n.safetensors") == checkpoint.open(MISC).read()
    assert run("convert", GPT2, "back", "--to", "tf")[0] == 0
    assert Path("back.index").read_bytes() == Path(f"{GPT2}.index").read_bytes()
    assert "tf holds no metadata: note left out" in run("convert", "m.safetensors", "n")[2]


def test_convert_asks_where_another_format_has_the_path(run):
    """What is there would be read in place of what is written, or no longer be."""
    checkpoint.save("both", ARRAYS)
    status, _, err = run("convert", "m.safetensors", "both")
    assert (status, os.path.exists("both.index")) == (2, False)
    assert "both is there already. Give --force" in err
    status, _, err = run("convert", "m.safetensors", "both", "--force")
    assert (status, os.path.exists("both.index")) == (2, False)
    assert "both is a file of another format" in err
    os.remove("both")
    assert run("convert", "m.safetensors", "both")[0] == 0
    assert "both.index is there already. Give --force" in run("convert", "m.safetensors", "both", "--to", "npz")[2]
    os.mkdir("folder")
    assert run("convert", "m.safetensors", "folder")[0] == 0
    assert checkpoint.load("folder") == checkpoint.load("m.safetensors")


def test_convert_renames(run):
    status, _, _ = run(
        "convert", "m.safetensors", "n.npz", "--match", "tower|step",
        "--rename", "tower/=net/", "--rename", "step=global_step", "--sub", r"(k)ernel=\1",
    )  # fmt: skip
    assert status == 0
    assert checkpoint.load("n.npz").names == ("global_step", "net/bias", "net/k")
    assert run("convert", "m.safetensors", "a", "--rename", "tower/=/", "--to", "safetensors")[0] == 0
    assert checkpoint.load("a").names == ("bias", "half", "kernel", "on", "step")


def test_convert_keeps_what_leaves_of_a_state_are(run):
    key, weak = jax.random.key(3), jnp.asarray(0.5)
    checkpoint.save_state("s.safetensors", {"key": key, "gone": jax.random.key(0), "scale": weak, "step": 4})
    renames = ("--match", "key|scale|step", "--rename", "key=rng", "--rename", "scale=loss/scale")
    assert run("convert", "s.safetensors", "t.safetensors", *renames)[0] == 0
    template = {"rng": jax.random.key(0), "loss": {"scale": jnp.float32(0)}, "step": 0}
    state, _ = checkpoint.load_state("t.safetensors", template)
    assert state["rng"] == key
    assert (state["loss"]["scale"].weak_type, state["step"]) == (True, 4)
    assert checkpoint.open("t.safetensors").metadata == {}
    assert "npz holds no metadata: jscope.kinds left out" in run("convert", "s.safetensors", "s.npz")[2]


def test_diff(run):
    other = dict(checkpoint.load("m.safetensors").flat())
    del other["on"]
    other |= {"new": np.ones(1), "step": np.int32(7), "half": np.ones(3), "tower/kernel": other["tower/kernel"] + 0.5}
    checkpoint.save("n", other)
    status, out, _ = run("diff", "m.safetensors", "n")
    assert status == 1
    assert out.splitlines() == [
        "name          difference  A, B",
        "half          dtype       bfloat16, float64",
        "half          shape       2, 3",
        "new           only in B",
        "on            only in A",
        "step          dtype       int64, int32",
        "tower/kernel  values      6 of 6 differ, by 0.5 at most",
        "4 in both, 6 differences",
    ]
    assert run("diff", "m.safetensors", "n", "--match", "kernel", "--tolerance", "0.5")[0] == 0
    assert run("diff", "m.safetensors", "n", "--match", "kernel", "--tolerance", "0.4")[0] == 1
    assert run("diff", "m.safetensors", "n", "--match", "kernel", "--names")[0] == 0


def test_differences_of_what_is_no_array(run):
    """It is not read; that it is there, and of which kind, is known."""
    w, text = np.ones(2), np.array(["a", "b"])
    np.savez("a.npz", w=w, s=text, t=text, u=text, v=w)
    np.savez("b.npz", w=w, s=text[::-1], t=np.array(["long"]), v=text, x=text)
    status, out, _ = run("diff", "a.npz", "b.npz")
    assert status == 1
    assert out.splitlines() == [
        "name  difference  A, B",
        "t     kind        holds <U1, holds <U4",
        "u     only in A   holds <U1",
        "v     kind        is an array, holds <U1",
        "x     only in B   holds <U1",
        "not compared: 's' holds <U1",
        "1 in both, 4 differences, 1 not compared",
    ]
    status, out, _ = run("diff", "a.npz", "b.npz", "--match", "[ws]")
    assert (status, out) == (0, "not compared: 's' holds <U1\n1 in both, no difference, 1 not compared\n")
    assert run("diff", "a.npz", "b.npz", "--match", "u")[0] == 1


@pytest.mark.parametrize(
    ("a", "b", "status"),
    [
        (np.float32(np.nan), np.float32(np.nan), 0),
        (np.float32(np.inf), np.float32(np.inf), 0),
        (np.float32(np.nan), np.float32(1), 1),
        (np.float32(np.inf), np.float32(1), 1),
        (np.int64(2**62), np.int64(2**62 + 1), 1),
        (np.uint8(0), np.uint8(255), 1),
        (np.complex64(1), np.complex64(1j), 1),
        (np.bool_(True), np.bool_(False), 1),
        (np.asarray(1.5, jnp.bfloat16), np.asarray(2, jnp.bfloat16), 1),
        (np.asarray(2, jnp.float8_e4m3fn), np.asarray(2, jnp.float8_e4m3fn), 0),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0),
    ],
)
def test_differences_of_values(run, a, b, status):
    checkpoint.save("a", {"x": a})
    checkpoint.save("b", {"x": b})
    assert run("diff", "a", "b")[0] == status


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ls", "nothing"], "There is no checkpoint nothing"),
        (["ls", "m.safetensors", "--match", "("], "no regular expression"),
        (["show", "m.safetensors", "tower/kernal"], "Near: 'tower/kernel'"),
        (["show", "m.safetensors", "tower/kernel", "--slice", "a"], "--slice 'a' is none"),
        (["show", "m.safetensors", "tower/kernel", "--slice", "0,,1"], "is none"),
        (["show", "m.safetensors", "tower/kernel", "--slice", "::0"], "step of 0"),
        (["show", "m.safetensors", "tower/kernel", "--slice", "1,1,1"], "3 indices"),
        (["show", "m.safetensors", "tower/kernel", "--slice", "7"], "out of bounds"),
        (["convert", "m.safetensors", "n", "--rename", "tower"], "no pair"),
        (["convert", "m.safetensors", "n", "--rename", "towr/=net/"], "no such name"),
        (["convert", "m.safetensors", "n", "--rename", "step=half"], "'half' and 'step' would both be 'half'"),
        (["convert", "m.safetensors", "n", "--rename", "step="], "'step' would have an empty name. Give it another"),
        (["convert", "m.safetensors", "n", "--sub", "^half$="], "'half' would have an empty name. Give it another"),
        (["convert", "m.safetensors", "n", "--sub", "(=x"], "not a regular expression"),
        (["convert", "m.safetensors", "n.npz"], "no array that a .npz file could hold, but bfloat16"),
        (["convert", "m.safetensors", "no/n"], "can't be written"),
        (["convert", "m.safetensors", "n", "--match", "towr"], "no name in m.safetensors matches --match 'towr'"),
        (
            ["convert", "m.safetensors", "n", "--sub", "(k)erne=a", "--sub", "kernel=b"],
            "--sub 'kernel': no name has that",
        ),
        (["diff", "m.safetensors", "m.safetensors", "--match", "towr"], "no name in either matches --match 'towr'"),
        (["diff", "m.safetensors", "m.safetensors", "--tolerance", "nan"], "--tolerance nan is no difference"),
        (["diff", "m.safetensors", "m.safetensors", "--tolerance=-1"], "--tolerance -1.0 is no difference"),
        (["diff", "m.safetensors", "nothing"], "There is no checkpoint nothing"),
        (["frobnicate"], "invalid choice"),
        ([], "required"),
    ],
)
def test_faults_are_said_in_plain_words(run, arguments, text):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert text in err
    assert "Traceback" not in err
    assert os.listdir() == ["m.safetensors"]


def test_names_can_not_steer_the_terminal(run):
    name = "a\x1b[31m\nb\r\u202e"
    checkpoint.save("n", {name: np.ones(1)}, metadata={"k\x1b": "v\x07"})
    for arguments in (["ls", "n"], ["show", "n", name], ["diff", "n", "m.safetensors"], ["show", "n", "a\x1b[31m"]):
        _, out, err = run(*arguments)
        assert not set(out + err) & set("\x1b\r\u202e\x07")
    assert "a\\x1b[31m\\nb\\r\\u202e  float64" in run("ls", "n")[1]


def test_what_the_documentation_runs(run):
    """The lines on the page, with what it says that they print."""
    page = (ROOT / "docs" / "how-to" / "checkpoints.md").read_text()
    kernel = np.ones((4, 4), np.float32)
    names = ["bert/layer_0/kernel", "bert/layer_1/kernel", "bert/layer_1/kernel/adam_m"]
    checkpoint.save_tf("pretrained.ckpt", dict.fromkeys(names, kernel) | {"global_step": np.int64(1000)})
    checkpoint.save("model.safetensors", {"encoder/layer_0/kernel": kernel, "head/kernel": kernel[:, :3]})
    lines = [line for line in page.splitlines() if line.startswith("python -m jscope ")]
    results = [run(*shlex.split(line)[3:]) for line in lines]
    assert [status for status, _, _ in results] == [0, 0, 0, 1]
    assert not any(err for _, _, err in results)
    assert f"```text\n{results[0][1]}```" in page
    assert checkpoint.load("encoder.safetensors").names == ("encoder/layer_0/kernel", "encoder/layer_1/kernel")


def test_help(run):
    status, out, _ = run("--help")
    assert status == 0
    for command in ("ls", "show", "convert", "diff"):
        assert f"    {command} " in out
        status, about, _ = run(command, "--help")
        assert status == 0
        assert "1 where `diff` finds a difference or `plan` a fault" in about
    form = "--slice=-1,:5"
    assert form in run("show", "--help")[1]
    assert run("show", "m.safetensors", "tower/kernel", form)[0] == 0
