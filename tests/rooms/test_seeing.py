"""The sharing picture as text, what notebooks show, the command, treescope; the page itself is in a file of its own."""

from __future__ import annotations

import dataclasses
import html.parser
import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import ROOT
from test_seeing_page import HOSTILE

import jscope as js
from jscope import checkpoint

F32 = np.dtype("float32")
TIMES = "\N{MULTIPLICATION SIGN}"


def program(x: jax.Array, training: bool = False) -> jax.Array:
    for _ in range(2):
        with js.variable_scope("tower", reuse=js.AUTO_REUSE):
            w = js.get_variable("kernel", [x.shape[-1], 4], initializer=js.random_normal_initializer(stddev=0.05))
    with js.variable_scope("towr", reuse=js.AUTO_REUSE):
        js.get_variable("kernel", [x.shape[-1], 4])
    js.get_variable("mean", [4], trainable=training)
    return x @ w


net = js.transform(program)
SPECS = net.specs(jax.ShapeDtypeStruct((2, 3), jnp.float32))
NOT_A_PROGRAM = 3


def line(name: str) -> str:
    return SPECS[name].created_at.rpartition("/")[2]


# Text -----------------------------------------------------------------------------------------------------------------


def test_text_has_a_bar_for_the_bytes_and_an_arrow_from_each_read() -> None:
    mean, tower, kernel, towr, other, foot = SPECS.to_text().splitlines()
    assert mean.split() == ["mean", "█████▍", "16", "B", "◀──", line("mean"), "frozen"]
    assert tower.split() == ["tower/", 16 * "█", "48", "B", "1", "variable"]
    assert kernel.split() == ["│", "kernel", 16 * "█", "48", "B", "◀━━", line("tower/kernel"), f"{TIMES}2"]
    assert towr.split()[0] == "towr/"
    assert other.split()[2:] == [16 * "█", "48", "B", "◀──", line("towr/kernel"), "?", "near", "tower"]
    assert foot == "3 variables, 28 elements, 112 B, 1 shared"


def test_text_down_to_a_depth_and_within_a_width() -> None:
    assert [row.split()[0] for row in SPECS.to_text(depth=1).splitlines()] == ["mean", "tower/", "towr/", "3"]
    long = js.Specs(
        js.VariableSpec("a" * 90 + f"/{i}" * 30, None, (2,), F32, None, created_at="f" * 99) for i in range(3)
    )
    assert max(map(len, long.to_text(width=80).splitlines())) <= 80
    assert js.Specs().to_text() == "0 variables, 0 elements, 0 B"


def test_nothing_in_the_text_steers_a_terminal() -> None:
    text = hostile().to_text()
    assert all(c.isprintable() or c == "\n" for c in text)


# Notebooks ------------------------------------------------------------------------------------------------------------


def hostile() -> js.Specs:
    names = [name.replace("/", "|") for name in HOSTILE]
    return js.Specs(
        js.VariableSpec(f"{name}/{name}", name, (2,), F32, None, created_at=f"{name}:1", partition=(name,))
        for name in names
    )


class Page(html.parser.HTMLParser):
    """Reads a piece of HTML; its tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self._open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.texts.append(data)


PARAMS = SPECS.init(jax.random.key(0))
COMPARISON = SPECS.compare({"tower/kernel": PARAMS["tower/kernel"], "toer/kernel": 1.0, "mean": np.ones(3)})


REPORT = checkpoint.assign_from(
    SPECS,
    {"tower/kernel": np.ones((3, 4), np.float32), "mean": np.ones(4, np.float64), "<b>": np.ones(1)},
    allow_missing=True,
    allow_unused=True,
    allow_cast=True,
    key=jax.random.key(0),
).report


@pytest.mark.parametrize(
    ("shown", "texts"),
    [
        (
            SPECS,
            ["tower/", "kernel", "f32[3,4]", "random_normal(stddev=0.05)", f"read {TIMES}2", "near tower", "frozen"],
        ),
        (PARAMS, ["tower/", "kernel", "f32[3,4]", "Params: 3 variables, 28 elements, 112 B"]),
        (js.Params({"a": None, "b": {"c": "text", "d": 1 + 2j}}), ["None", "'text'", "(1+2j)"]),
        (js.Params(), ["Params: 0 variables, 0 elements, 0 B"]),
        (COMPARISON, ["kept", "missing", "unexpected", "mismatched", "tower/kernel", "toer/kernel"]),
        (REPORT, ["loaded", "cast", "initialised", "unused", "tower/kernel", "<b>", str(REPORT).splitlines()[-1]]),
    ],
    ids=["Specs", "Params", "labels", "empty", "Comparison", "AssignReport"],
)
def test_notebooks_show(shown: Any, texts: list[str]) -> None:
    page = Page(shown._repr_html_())
    assert "script" not in page.tags
    for text in texts:
        assert text in page.texts


def test_what_is_shared_doubtful_or_amiss_stands_out() -> None:
    def standing_out(shown: Any) -> list[str]:
        return re.findall(r'<td class="(?:shared|doubt)"><bdi>(.*?)</bdi>', shown._repr_html_())

    assert standing_out(SPECS) == [f"read {TIMES}2", "near tower"]
    assert standing_out(js.Specs([SPECS["mean"]])) == []
    assert standing_out(COMPARISON) == ["missing", "unexpected", "mismatched"]


@pytest.mark.parametrize(
    "shown", [hostile(), js.Params({name: name for name in HOSTILE}), hostile().compare(js.Params({HOSTILE[0]: 1}))]
)
def test_no_name_becomes_markup_in_a_notebook(shown: Any) -> None:
    page = Page(shown._repr_html_())
    assert page.tags <= {"div", "style", "b", "bdi", "code", "details", "summary", "span", "table", "tr", "td", "th"}
    assert page.attributes <= {"class", "title", "open"}
    assert any("<script>" in text for text in page.texts)


def test_large_trees_are_folded_and_cut() -> None:
    large = js.Params({f"layer_{i}/v{j}": np.float32(1) for i in range(100) for j in range(50)})
    text = large._repr_html_()
    assert len(text) < 500_000
    assert "and 4,000 more" in text
    assert "<details open" not in text


def test_no_array_is_read_and_tracers_are_shown() -> None:
    class Unreadable(np.ndarray):
        def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
            raise AssertionError

    assert "f32[3]" in js.Params({"a": np.ones(3, np.float32).view(Unreadable)})._repr_html_()
    seen: list[str] = []
    jax.make_jaxpr(lambda params: seen.append(params._repr_html_()))(PARAMS)
    assert "f32[3,4]" in seen[0]


# treescope ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The chararray class is deprecated:DeprecationWarning")
def test_treescope_shows_specs() -> None:
    treescope = pytest.importorskip("treescope")
    text = treescope.render_to_text(SPECS)
    assert text.startswith("Specs(")
    for name, spec in SPECS.items():
        assert f"'{name}': VariableSpec(" in text
        assert spec.created_at in text
    assert "tower/kernel" in treescope.render_to_html(SPECS, compressed=False)


# The page -------------------------------------------------------------------------------------------------------------


def test_the_page_is_written_and_returned(tmp_path: Path) -> None:
    page = SPECS.to_html(path=tmp_path / "page.html", title="<mine>")
    assert (tmp_path / "page.html").read_text("utf-8") == page
    assert "<title>&lt;mine&gt;</title>" in page
    assert page == SPECS.to_html(title="<mine>")
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)


def test_a_page_that_can_not_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "old.html", tmp_path / "new.html"
    old.write_text("old")
    old.chmod(0o640)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for path in (old, new):
            with pytest.raises(OSError, match="No space"):
                SPECS.to_html(path=path)
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]
    assert old.read_text() == "old"
    assert old.read_bytes() != SPECS.to_html(path=str(old)).encode() == old.read_bytes()
    assert old.stat().st_mode & 0o777 == 0o640
    SPECS.to_html(path=os.devnull)


def test_what_can_not_be_written_is_told_by_the_path_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "no" / "page.html", tmp_path):
        with pytest.raises(OSError, match="directory") as caught:
            SPECS.to_html(path=path)
        assert caught.value.filename == str(path)

    def refused(first: str, second: str) -> None:
        raise PermissionError(13, "Permission denied", first, None, second)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError) as refusal:
        SPECS.to_html(path=tmp_path / "page.html")
    assert str(refusal.value) == f"[Errno 13] Permission denied: '{tmp_path / 'page.html'}'"
    assert not list(tmp_path.iterdir())


def test_the_data_of_the_page_is_json() -> None:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', hostile().to_html(), re.DOTALL)
    assert len(json.loads(data)["variables"]) == len(HOSTILE)


def test_specs_that_were_pickled_are_shown() -> None:
    again = pickle.loads(pickle.dumps(js.Specs(SPECS.values())))
    assert again.to_html() == SPECS.to_html()
    assert again.to_text() == SPECS.to_text()


def test_seeing_is_loaded_when_somebody_looks() -> None:
    code = """
import sys, jscope as js
specs = js.transform(lambda: js.get_variable("v", [])).specs()
str(specs), repr(specs)
print("jscope.seeing" in sys.modules, end=" ")
specs.to_html()
print("jscope.seeing" in sys.modules, "IPython" in sys.modules, "treescope" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "True", "False", "False"]


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Any]]:
    """`python -m jscope` in a folder of its own, in this process: (status, out, err)."""
    from jscope.checkpoint.command import main
    from jscope.seeing.command import add

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)

    def called(*arguments: str) -> tuple[Any, str, str]:
        try:
            status: Any = main(arguments, [add])
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    yield called
    sys.modules.pop("model", None)


MODEL = """
import jax, jscope as js

def program(x, width, training=False):
    v = js.get_variable("v", [x.shape[-1], width])
    js.get_variable("mean", [width], trainable=training)
    return x @ v

class Nets:
    net = js.transform(program)

specs = Nets.net.specs(jax.ShapeDtypeStruct((2, 3), "float32"), 4)
number = 3
"""


@pytest.mark.parametrize(
    "what", ["model:program", "model:Nets.net", "model.py:program", "./model.py:Nets.net", "model:Nets.net.specs"]
)
def test_report_of_a_program(run: Callable[..., Any], what: str) -> None:
    status, out, err = run("report", what, "f32[2,3]", "4", "training=True")
    name = what.rpartition(":")[2]
    assert (status, out, err) == (0, f"Specs: 2 variables, 16 elements, 64 B -> {name}.html\n", "")
    page = Path(f"{name}.html").read_text("utf-8")
    assert '["v","f32[3,4]"' in page
    assert '["mean","f32[4]",16,"4",false' in page
    assert f"<title>{what}</title>" in page


def test_report_as_text_and_under_another_name(run: Callable[..., Any]) -> None:
    status, out, _ = run("report", "model:specs", "--text")
    assert status == 0
    assert out.splitlines()[-1] == "2 variables, 16 elements, 64 B"
    assert not list(Path().glob("*.html"))
    assert run("report", "model:specs", "--out", "other.html")[0] == 0
    assert Path("other.html").exists()
    assert run("report", "model:specs", "--out", "other.html")[0] == 2
    assert run("report", "model:specs", "--out", "other.html", "--force")[0] == 0


@pytest.mark.parametrize("file", ["m.safetensors", "m.npz", "m.ckpt"])
def test_report_of_a_checkpoint(run: Callable[..., Any], file: str) -> None:
    arrays = {"a/v": np.ones((2, 3), np.float32), "b": np.ones(4, np.int32)}
    if file.endswith(".npz"):
        np.savez(file, **arrays)
    else:
        (checkpoint.save if file.endswith(".safetensors") else checkpoint.save_tf)(file, arrays)
    status, out, _ = run("report", file)
    assert (status, out) == (0, f"Specs: 2 variables, 10 elements, 40 B -> {file}.html\n")
    assert '"places":[]' in Path(f"{file}.html").read_text("utf-8")
    assert run("report", file, "--text")[1].splitlines()[0].split()[0] == "b"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing"], "There is no checkpoint nothing"),
        (["nothing:net"], "No module named 'nothing'"),
        (["nothing.py:net"], "There is no file nothing.py"),
        (["model:nothing"], "model has no 'nothing'"),
        (["model:number"], "no program but a int"),
        (["model:program", "f31[2]", "1"], "there is no dtype 'f31'"),
        (["model:program", "x y"], "'x y' is no argument"),
        (["model:program", "f32[2,3]", "-1"], "negative dimension"),
        (["model:program", "1", "2"], "model:program raises AttributeError"),
        (["model:specs", "--out", "no/such/folder.html"], "no/such/folder.html can't be written"),
        (["model:specs", "f32[2,3]"], "model:specs is a Specs, which takes no arguments"),
        (["model.py", "3"], "takes no arguments"),
        (["model.py"], "Write which program of it: model.py:function."),
        (["model.Nets:net"], "No module named 'model.Nets'"),
        ([], "required"),
    ],
)
def test_faults_of_the_command_are_said(run: Callable[..., Any], arguments: list[str], text: str) -> None:
    status, out, err = run("report", *arguments)
    assert (status, out) == (2, "")
    assert text in err
    assert "Traceback" not in err


@pytest.mark.parametrize("code", ["1 / 0", "def net(:", "raise SystemExit(3)", "import no_such_package"])
def test_a_file_that_fails_is_told_in_one_line(run: Callable[..., Any], code: str) -> None:
    Path("broken.py").write_text(code)
    for what in ("broken.py:net", "broken:net"):
        status, out, err = run("report", what)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert f"{what} raises " in err
        sys.modules.pop("broken", None)


def test_the_command_itself(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    command = [sys.executable, "-m", "jscope", "report", "model:specs"]
    made = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert made.stdout == "Specs: 2 variables, 16 elements, 64 B -> specs.html\n"


def test_help_lists_the_command(run: Callable[..., Any]) -> None:
    assert "    report " in run("--help")[1]
    assert "f32[8,28,28]" in run("report", "--help")[1]


# The examples ---------------------------------------------------------------------------------------------------------


def example(name: str) -> Any:
    spec: Any = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def declared(name: str) -> js.Specs:
    """What an example declares, its layers as wide as they are in earnest, and a few of them: nothing is made."""
    for package in ("matplotlib", "rich", "optax", "safetensors", "sklearn"):
        pytest.importorskip(package)
    image, ids = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32), jax.ShapeDtypeStruct((1, 8), jnp.int32)
    if name == "siamese_digits":
        digits = jax.ShapeDtypeStruct((4, 64), jnp.float32)
        return example(name).net.specs(digits, digits, jax.ShapeDtypeStruct((4,), bool))
    if name == "gpt2":
        gpt2 = example(name)
        return js.transform(gpt2.model).specs(dataclasses.replace(gpt2.default_hparams(), n_layer=2), ids)
    if name == "bert":
        bert = example(name)
        return js.transform(bert.bert_model).specs(bert.BertConfig(vocab_size=30522, num_hidden_layers=2), ids)
    return js.transform(example("slim_nets").program(name, 1000)).specs(image)


@pytest.mark.parametrize(
    "name",
    [
        "siamese_digits",
        "gpt2",
        "bert",
        "vgg_16",
        pytest.param("resnet_v1_50", marks=pytest.mark.slow),
        pytest.param("inception_v3", marks=pytest.mark.slow),
    ],
)
def test_the_tables_and_pictures_of_the_examples_fit_120_columns(name: str) -> None:
    specs = declared(name)
    for text in (str(specs), specs.to_text()):
        assert max(map(len, text.splitlines())) <= 120
    assert "?" not in str(specs)  # nothing in them looks misspelt
    assert "…" not in str(specs)  # nothing is cut: names, places, and initializers with their arguments
    for spec in specs.values():
        assert spec.created_at.rpartition("/")[2] in str(specs)
