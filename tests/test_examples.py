"""The examples run, print what they should, and answer wrong arguments with one line."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jscope as js

pytest.importorskip("optax")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

EXAMPLES = Path(__file__).parent.parent / "examples"
TENSORFLOW = Path(__file__).parent / "data" / "tf1_tour.txt"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed_by(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        function(*arguments)
    return out.getvalue()


# The tour -------------------------------------------------------------------------------------------------------------


def in_our_words(line):
    """What TensorFlow printed, with the differences that the tour's docstring lists."""
    line = re.sub(
        r"<tf.Variable '([^']*)' shape=(\S+) dtype=(\w+?)(?:_ref)?>", r"variable '\1' shape=\2 dtype=\3", line
    )
    line = re.sub(r'Tensor\("([^"]*)", shape=(\(.*?\)), dtype=(\w+)\)', r"operation '\1' shape=\2 dtype=\3", line)
    return re.sub(r"np\.int32\((\d+)\)", r"\1", line)


def comparable(line):
    """A line without what may differ: the rest of an error's text, and random values."""
    error = re.match(r"(\w+): Variable '?([\w/]+?)'? (already exists|does not exist)", line)
    if error:
        return error.groups()
    return re.sub(r"(\[[- .\d]+\]) \1 equal", "[value] [value] equal", line)


def blocks(text, is_heading):
    """The lines below each heading."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if is_heading(line):
            found.append([])
        else:
            found[-1].append(line)
    return found


TOUR = load("tf1_tour")
OBSERVED = blocks(TENSORFLOW.read_text(), lambda line: re.match(r"p\d+", line))


def test_every_observed_listing_is_in_the_tour():
    assert len(OBSERVED) == len(TOUR.LISTINGS) == 18


@pytest.mark.parametrize(
    ("listing", "observed"),
    list(zip(TOUR.LISTINGS, OBSERVED, strict=True)),
    ids=[listing.__name__ for listing in TOUR.LISTINGS],
)
def test_listing_prints_what_tensorflow_printed(listing, observed):
    lines = printed_by(listing).splitlines()
    assert [comparable(line) for line in lines] == [comparable(in_our_words(line)) for line in observed]


def test_tour_as_a_script():
    done = subprocess.run([sys.executable, EXAMPLES / "tf1_tour.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == printed_by(TOUR.main)
    titles = re.findall(r"^\d+\. (.+)$", done.stdout, re.MULTILINE)
    assert titles == [listing.__doc__ for listing in TOUR.LISTINGS]


# The siamese network --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def siamese():
    return load("siamese_digits")


@pytest.fixture(scope="module")
def run(siamese, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "new" / "folder"
    arguments = ["--steps", "60", "--batch", "64", "--seed", "3", "--out", str(out)]
    return out, printed_by(siamese.main, arguments)


def test_siamese_shares_one_tower(siamese):
    pair = np.zeros((2, 64), np.float32)
    specs = siamese.net.specs(pair, pair, np.array([True, False]))
    assert all(len(spec.used_at) == 1 for spec in specs.values())
    assert list(specs) == list(js.transform(siamese.tower).specs(pair))
    assert specs.size == 64 * 128 + 128 + 128 * 64 + 64 + 64 * 16 + 16
    assert [name for name, spec in specs.items() if spec.regularizer is siamese.l2] == [
        name for name in specs if name.endswith("kernel")
    ]


def test_siamese_files(siamese, run):
    from safetensors.flax import load_file

    out, _ = run
    assert sorted(path.name for path in out.iterdir()) == ["siamese.png", "siamese.safetensors"]
    image = (out / "siamese.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert image.endswith(b"IEND\xaeB`\x82")
    params = js.Params(load_file(out / "siamese.safetensors"))
    js.transform(siamese.tower).specs(np.zeros((1, 64), np.float32)).check(params)


def test_siamese_learns(run):
    _, text = run
    first, last = map(float, re.search(r"Loss: (\S+) in the first steps, (\S+) in the last", text).groups())
    assert last < 0.8 * first
    pairs, digits = re.findall(r"([\d.]+)% right \(raw pixels: ([\d.]+)%\)", text)
    assert 50 < float(pairs[1]) < float(pairs[0]) <= 100
    assert 10 < float(digits[1]) < float(digits[0]) <= 100
    assert "siamese.safetensors (loaded again: equal)" in text


def test_siamese_measures_count_rightly(siamese):
    assert siamese.best_threshold(np.array([3.0, 1.0, 2.0, 5.0]), np.array([False, True, True, False])) == 2.5
    labels = np.repeat(np.arange(10), 8)
    rng = np.random.default_rng(0)
    a, b, same = siamese.draw_pairs(rng, rng.permutation(labels), 1001)
    assert same.sum() == 500
    assert (a != b).all()
    shuffled = rng.permutation(labels)
    a, b, same = siamese.draw_pairs(rng, shuffled, 1000)
    assert ((shuffled[a] == shuffled[b]) == same).all()
    assert siamese.few_shot(np.eye(10)[shuffled], shuffled) == 1
    assert siamese.few_shot(np.zeros((80, 2)), shuffled) == 0.1


def test_siamese_held_out_images_are_not_trained_on(siamese):
    train, test = siamese.load(0)
    assert (len(train.labels), len(test.labels)) == (1257, 540)
    # Stratified: each digit has three images of ten held out.
    assert np.abs(np.bincount(test.labels) / np.bincount(np.append(train.labels, test.labels)) - 0.3).max() < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "argument --steps: must be a whole number from 1 "),
        (["--steps", "-5"], "argument --steps: must be a whole number from 1 "),
        (["--steps", "many"], "argument --steps: must be a whole number from 1 to 2147483647, not 'many'"),
        (["--batch", "1"], "argument --batch: must be a whole number from 2 "),
        (["--batch", "2.5"], "argument --batch: must be a whole number from 2 "),
        (["--seed", "-1"], "argument --seed: must be a whole number from 0 "),
        (["--out", __file__], "argument --out: "),
        (["--out"], "argument --out: expected one argument"),
        (["--stepps", "3"], "unrecognized arguments: --stepps 3"),
    ],
)
def test_siamese_wrong_argument(siamese, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        siamese.main(arguments)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize("package", ["optax", "matplotlib", "rich", "safetensors", "sklearn"])
def test_siamese_missing_package(monkeypatch, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        SystemExit, match=rf'this example needs {package}\S*: pip install "jscope\[examples\]"'
    ) as stopped:
        runpy.run_path(str(EXAMPLES / "siamese_digits.py"))
    assert "\n" not in stopped.value.code
