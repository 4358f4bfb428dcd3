"""The documentation is true: each example in a docstring or on a page runs; the reference lists each public name."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import importlib.util
import inspect
import io
import pkgutil
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import ROOT

import jscope as js

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
LONG = {"averages", "ensembles", "priors", "quantize"}  # pages that train or sample: with the long tests
GIVEN = ROOT / "tests" / "data" / "pages"
NAMES = sorted(name for name in vars(js) if not name.startswith("_") and not inspect.ismodule(getattr(js, name)))


# Docstrings -----------------------------------------------------------------------------------------------------------

# Classes that users get from a call and never construct: the call shows them.
SHOWN_BY = {
    "Comparison": "Specs.compare",
    "Template": "make_template",
    "Transformed": "transform",
    "checkpoint.AssignReport": "checkpoint.assign_from",
    "checkpoint.Assigned": "checkpoint.assign_from",
    "checkpoint.Checkpoint": "checkpoint.load_tf",
    "checkpoint.CheckpointList": "checkpoint.list_tf",
    "checkpoint.LoadedState": "checkpoint.load_state",
}


def rooms() -> Iterator[Any]:
    """The public modules and the packages inside them, as far as their dependencies are installed; the inner first."""
    for module in pkgutil.iter_modules(js.__path__, "jscope."):
        if not module.name.rpartition(".")[2].startswith("_") and module.name != "jscope.run":
            try:
                room = importlib.import_module(module.name)
            except ModuleNotFoundError:
                continue
            for inner in pkgutil.iter_modules(getattr(room, "__path__", []), f"{module.name}."):
                if inner.ispkg:
                    yield importlib.import_module(inner.name)
            yield room


def listed() -> dict[str, Any]:
    """Every public object once: by its name in jscope, else by that in its room (`testing.names`)."""
    objects = {name: getattr(js, name) for name in NAMES}
    seen = {id(value) for value in objects.values()}
    for room in rooms():
        short = room.__name__.removeprefix("jscope.")
        for name in room.__all__:
            if id(getattr(room, name)) not in seen:
                objects[f"{short}.{name}"] = getattr(room, name)
                seen.add(id(getattr(room, name)))
    return objects


def public() -> dict[str, Any]:
    """The same with every public method and property, each object once."""
    objects = listed()
    for name, value in list(objects.items()):
        if inspect.isclass(value):
            for ancestor in value.__mro__:
                if ancestor.__module__.startswith("jscope"):
                    for member, raw in vars(ancestor).items():
                        is_member = inspect.isfunction(raw) or isinstance(raw, property | classmethod | staticmethod)
                        if is_member and not member.startswith("_"):
                            objects.setdefault(f"{name}.{member}", raw)
    first: dict[int, str] = {}
    return {name: value for name, value in objects.items() if first.setdefault(id(value), name) == name}


PUBLIC = public()


def test_public_names_are_found():
    assert {"get_variable", "Params.select", "Specs.size", "VariableScope.reuse_variables"} <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name):
    """Everything has a docstring; functions and the classes that users construct show an example in it.

    Excused from the example: methods and properties, whose class shows one; errors; constants.
    """
    value = PUBLIC[name]
    if not (callable(value) or isinstance(value, property | classmethod | staticmethod)):
        return  # a constant, such as AUTO_REUSE
    text = inspect.getdoc(value)
    if not text and "." in name:  # a method that a base class explains
        text = inspect.getdoc(getattr(PUBLIC[name.rpartition(".")[0]], name.rpartition(".")[2]))
    assert text, f"{name} has no docstring"
    is_error = inspect.isclass(value) and issubclass(value, Exception)
    if inspect.isclass(value) or inspect.isfunction(value):
        is_method = "." in name and inspect.isclass(PUBLIC.get(name.rpartition(".")[0]))
        if name in SHOWN_BY:
            assert ">>>" in inspect.getdoc(PUBLIC[SHOWN_BY[name]])
        elif not is_error and not is_method:
            assert ">>>" in text, f"{name} shows no example"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", [n for n in PUBLIC if ">>>" in (inspect.getdoc(PUBLIC[n]) or "")])
def test_docstring_examples(name):
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(PUBLIC[name]))
    globs = {"js": js, "jax": jax, "jnp": jnp, "np": np, "__name__": "__main__"}
    test = doctest.DocTest(examples, globs, name, None, None, None)
    report = io.StringIO()
    failed = doctest.DocTestRunner(verbose=False).run(test, out=report.write).failed
    assert not failed, report.getvalue()


# Pages ----------------------------------------------------------------------------------------------------------------

# A block of Python, and what it prints if a block of output follows. Other libraries' code is in blocks of kind `py`.
BLOCK = re.compile(
    r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$"
    r"(?:\s*^(?P=indent)```output\n(?P<output>.*?)^(?P=indent)```$)?",
    re.MULTILINE | re.DOTALL,
)


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page_id(page), marks=[pytest.mark.slow] * (page.stem in LONG)) for page in PAGES]
)
def test_page_runs(page, tmp_path, monkeypatch):
    """The blocks of a page run in order in one namespace, as if they were one file, and print what the page says.

    Files that a page takes as given are in tests/data/pages.
    """
    if "import numpyro" in page.read_text():
        pytest.importorskip("numpyro")
    given = GIVEN / page.stem
    if given.is_dir():
        shutil.copytree(given, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    file, lines = f"{page.stem}.py", 0
    for block in BLOCK.finditer(page.read_text()):
        code = textwrap.dedent(block["code"])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * lines + code, file, "exec"), namespace)
        lines += code.count("\n")
        if block["output"] is not None:
            assert clean(printed.getvalue()) == clean(block["output"], block["indent"])


def clean(text: str, indent: str = "") -> str:
    """Without the page's indentation, and without spaces and empty lines that nobody sees."""
    return "\n".join(line.removeprefix(indent).rstrip() for line in text.splitlines()).strip("\n")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_page_leaves_nothing_out(page):
    """No jscope code hides in a block that is not run, and every block of output belongs to a block of Python."""
    text = page.read_text()
    for kind, code in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        assert kind in {"python", "output", "py", "bash", "text"}
        assert kind != "py" or not re.search(r"\bjs\.|jscope", code)
    outputs = sum(block["output"] is not None for block in BLOCK.finditer(text))
    assert outputs == len(re.findall(r"^ *```output$", text, re.MULTILINE))


def test_port_page_shows_what_tensorflow_printed():
    """tests/support/record_port.py ran the page's program; the port's own output is checked as that of any page."""
    text = (ROOT / "docs" / "port-tf1.md").read_text()
    printed = (GIVEN / "port-tf1" / "printed.txt").read_text()
    assert f"```text\n{printed}```" in text
    assert f"```output\n{printed}```" in text


def test_links_exist():
    """Relative links of the README lead to files; those of the site are checked by its build."""
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text) + re.findall(r'src(?:set)?="([^"]+)"', text)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_picture_is_shown_and_there():
    shown = {name for page in PAGES for name in re.findall(r"pictures/([\w-]+\.png)", page.read_text())}
    assert shown == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}


@pytest.mark.slow
def test_the_pictures_of_pages_can_be_taken_anew(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    from take_pictures import PICTURES, pages

    pages(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"averages.png", "ensembles.png"}
    for path in tmp_path.iterdir():
        with image.open(path) as taken, image.open(PICTURES / path.name) as kept:
            # Fonts may differ from one machine to another, and with them what they leave for the axes.
            assert taken.size == kept.size


# What porters look for: each has a row, and beside it what it becomes, even if that is a sentence.
SOUGHT = """
    variable_scope get_variable AUTO_REUSE make_template name_scope partitioner fixed_size_partitioner
    global_variables_initializer placeholder control_dependencies report_uninitialized_variables Saver
    init_from_checkpoint latest_checkpoint inspect_checkpoint variables_to_restore ExponentialMovingAverage
    assign_moving_average get_or_create_global_step exponential_decay polynomial_decay cosine_decay piecewise_constant
    clip_by_global_norm clip_by_norm minimize AdamOptimizer get_slot cond case while_loop map_fn scan foldl
    stop_gradient py_func softmax_cross_entropy mean_squared_error metrics.accuracy summary.scalar Print
"""


@pytest.mark.parametrize("name", SOUGHT.split())
def test_the_page_on_tensorflow_has_a_row_for(name):
    rows = re.findall(r"^\| (.+?) \| (.+?) \|", (ROOT / "docs" / "tf1-to-jscope.md").read_text(), re.MULTILINE)
    assert any(re.search(rf"\b{re.escape(name)}\b", wanted) and given.strip() for wanted, given in rows)


# The reference --------------------------------------------------------------------------------------------------------


def test_reference_lists_every_public_name():
    text = "".join(page.read_text() for page in REFERENCE)
    found = re.findall(r"^::: jscope\.([\w.]+)$", text, re.MULTILINE)
    assert len(set(found)) == len(found)
    assert set(found) == set(listed())


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_pages_name_only_what_exists(page):
    """A `js.name` on a page is a name of jscope."""
    unknown = {name for name in re.findall(r"\bjs\.(\w+)", page.read_text()) if not hasattr(js, name)}
    assert unknown <= ({"jit", "scan"} if page.stem == "transforms" else set())  # says that there are none


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="needs the extra jax-scope[docs]")
def test_site_builds(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", ".ci/mkdocs.yml", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = "".join(page.read_text() for page in (tmp_path / "reference").rglob("index.html"))
    assert not [name for name in listed() if f'id="jscope.{name}"' not in reference]


def test_nobody_is_told_to_install_another_project():
    """`jscope` on the package index is another project's tool; this distribution is called `jax-scope`."""
    telling = re.compile(r"jscope\\?\[\w+|pip install (?:-U )?[\"']?jscope\b")
    files = [ROOT / "pyproject.toml", *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py")]
    files += [*ROOT.glob("jscope/**/*.py"), *ROOT.glob("tests/**/*.py")]
    wrong = [str(file) for file in files if file != Path(__file__).resolve() and telling.search(file.read_text())]
    assert not wrong
