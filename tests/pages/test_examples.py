"""The examples run, print what they should, and answer wrong arguments with one line."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import re
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest
from paths import DATA, ROOT

import jscope as js

pytest.importorskip("optax")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

EXAMPLES = ROOT / "examples"
TENSORFLOW = DATA / "tf1_tour.txt"


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


# The scanned and the unrolled transformer ----------------------------------------------------------------------------


def load_deep_scan(**constants):
    module = load("deep_scan")
    for name, value in constants.items():
        assert hasattr(module, name)
        setattr(module, name, value)
    return module


@pytest.fixture(scope="module")
def scan_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "new" / "folder"
    module = load_deep_scan(DEPTH=2, TIMED=2)  # fewer turns: it is the unrolled one that takes long to compile
    return out, printed_by(module.main, ["--steps", "20", "--batch", "64", "--seed", "3", "--out", str(out)])


@pytest.mark.slow
def test_deep_scan_writes_a_picture(scan_run):
    out, text = scan_run
    assert [path.name for path in out.iterdir()] == ["deep_scan.png"]
    image = (out / "deep_scan.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert image.endswith(b"IEND\xaeB`\x82")
    assert text.rstrip().endswith("deep_scan.png.")


@pytest.mark.slow
def test_deep_scan_and_unrolled_are_the_same(scan_run):
    _, text = scan_run
    assert "Unrolled it declares the same." in text
    differences = dict(re.findall(r"^  (\w[\w ]*): (\d\.\de[+-]\d\d)$", text, re.MULTILINE))
    assert list(differences) == ["loss", "gradients", "running statistics"]
    assert max(map(float, differences.values())) < 1e-5


@pytest.mark.slow
def test_deep_scan_shows_what_both_cost(scan_run):
    _, text = scan_run
    assert "What a loop of 2 turns costs" in text
    rows = re.findall(r"│ ([\w ()]+?) +│ +([\d.,]+)[ \w]* │ +([\d.,]+)[ \w]* │", text)
    shown = {name: (float(scan.replace(",", "")), float(unrolled.replace(",", ""))) for name, scan, unrolled in rows}
    names = ["to trace", "to compile", "to run (median of 2)", "lines of StableHLO", "scratch memory"]
    assert list(shown) == names
    assert all(figure > 0 for figures in shown.values() for figure in figures)
    scan_lines, unrolled_lines = shown["lines of StableHLO"]
    assert scan_lines < unrolled_lines


@pytest.mark.slow
def test_deep_scan_learns(scan_run):
    _, text = scan_run
    first, last = map(float, re.search(r"Loss: (\S+) in the first steps, (\S+) in the last", text).groups())
    assert last < 0.8 * first
    right, unassigned = map(float, re.search(r"([\d.]+)% \(by .* at the start: ([\d.]+)%\)", text).groups())
    assert 0 <= unassigned < right <= 100


def by_hand(params, images, depth, statistics):
    """The logits of the transformer in NumPy, without dropout; `statistics(name, turn, x)` gives mean and variance."""
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.flat().items()}

    def dense(name, x):
        return x @ p[name + "/kernel"] + p[name + "/bias"]

    def norm(name, turn, x):
        mean, variance = statistics(name, turn, x)
        return (x - mean) / np.sqrt(variance + 1e-3) * p[name + "/scale"] + p[name + "/offset"]

    x = dense("embedding/row", images) + p["embedding/position"]
    for turn in range(depth):
        heads = dense("block/attention/query_key_value", norm("block/attention/norm", turn, x))
        query, key, value = np.split(heads.reshape(*x.shape[:2], 4, 24), 3, axis=-1)
        scores = np.exp(np.einsum("bthd,bshd->bhts", query, key) / np.sqrt(8))
        weights = scores / scores.sum(axis=-1, keepdims=True)
        x = x + dense("block/attention/output", np.einsum("bhts,bshd->bthd", weights, value).reshape(x.shape))
        hidden = dense("block/mlp/hidden", norm("block/mlp/norm", turn, x))
        gelu = hidden / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        x = x + dense("block/mlp/output", gelu)
    x = x.mean(axis=1)
    return dense("head", (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("unrolled", [False, True], ids=["scan", "unrolled"])
def test_deep_scan_computes_what_numpy_computes(unrolled):
    """Every turn's running statistics after two batches, the loss in training, and the logits in evaluation."""
    example, depth = load_deep_scan(DEPTH=2, DROPOUT=0.0), 2
    data, _ = example.load(0)
    flags = {"training": True, "unrolled": unrolled}
    params = example.net.init(jax.random.key(0), *data.draw(np.random.default_rng(0), 16), **flags)
    update = jax.jit(functools.partial(example.net.update, rng=jax.random.key(1), **flags))
    running = {
        name: np.asarray(leaf, np.float64).copy() for name, leaf in params.select(".*/moving_")[0].flat().items()
    }
    assert len(running) == 4

    def by_batch(name, turn, x):
        moments = x.mean(axis=(0, 1)), x.var(axis=(0, 1))
        for kind, moment in zip(("mean", "variance"), moments, strict=True):
            row = running[f"{name}/moving_{kind}"][turn]
            row[:] = 0.9 * row + 0.1 * moment
        return moments

    for seed in range(2):
        images, labels = data.draw(np.random.default_rng(seed), 16)
        loss, params = update(params, images, labels)
        scores = by_hand(params, images, depth, by_batch)
        expected = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(16), labels]
        np.testing.assert_allclose(loss, expected.mean(), rtol=1e-4)
        for name, expected in running.items():
            np.testing.assert_allclose(params[name], expected, rtol=1e-4, atol=1e-6)

    def by_running(name, turn, x):
        return running[name + "/moving_mean"][turn], running[name + "/moving_variance"][turn]

    scores = by_hand(params, images, depth, by_running)
    np.testing.assert_allclose(example.classify(params, images), scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unrolled", [False, True], ids=["scan", "unrolled"])
def test_deep_scan_drops_out_by_a_key_for_each_turn(unrolled):
    example = load_deep_scan()
    example.block = js.transform(lambda x, turn, training: x.at[turn].set(jax.random.uniform(js.next_key())))
    net = js.transform(example.loop)
    drawn = [np.asarray(net.apply({}, np.zeros(8), True, unrolled, rng=jax.random.key(i))) for i in range(2)]
    assert len({*drawn[0], *drawn[1]}) == 16


# All ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", ["siamese_digits", "deep_scan"])
def test_held_out_images_are_not_trained_on(example):
    train, test = load(example).load(0)
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
@pytest.mark.parametrize("example", ["siamese_digits", "deep_scan", "gpt2", "bert"])
def test_wrong_argument(example, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        load(example).main(arguments)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize(
    ("example", "package"),
    [
        *(("siamese_digits", package) for package in ("optax", "matplotlib", "rich", "safetensors", "sklearn")),
        *(("deep_scan", package) for package in ("optax", "matplotlib", "rich", "sklearn")),
        *(("gpt2", package) for package in ("optax", "matplotlib", "rich")),
        *(("bert", package) for package in ("matplotlib", "rich")),
    ],
)
def test_missing_package(monkeypatch, example, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        SystemExit, match=rf'this example needs {package}\S*: pip install "jax-scope\[examples\]"'
    ) as stopped:
        runpy.run_path(str(EXAMPLES / f"{example}.py"))
    assert "\n" not in stopped.value.code
