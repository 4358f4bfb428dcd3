"""In a notebook that is run: cells by their numbers, a cell run again, autoreload, and nothing that grows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

nbformat: Any = pytest.importorskip("nbformat")
preprocessors: Any = pytest.importorskip("nbconvert.preprocessors")
exporters: Any = pytest.importorskip("nbconvert.exporters")
pytest.importorskip("ipykernel")

SETUP = """
%load_ext autoreload
%autoreload 2
import gc, pathlib, weakref
import jax, jax.numpy as jnp, jscope as js
import model
x = jnp.ones((2, 3))
"""

PROGRAM = """
def program(x):
    return x @ js.get_variable("v", [3, 4])
net = js.transform(program)
"""

WRONG = """
def twice():
    js.get_variable("v", [])
    js.get_variable("v", [])
try:
    js.transform(twice).specs()
except js.VariableExistsError as error:
    print(str(error))
"""

HELPER = """
import jscope as js

def layer(x):
    return x * js.get_variable("scale", [])
"""

RELOADED = HELPER.replace("scale", "factor").replace("def", "# One line more.\ndef")

AGAIN = """
calls = 0
def counted(x):
    global calls
    calls += 1
    with js.variable_scope("tower", reuse=js.AUTO_REUSE):
        return x @ js.get_variable("v", [3, 4])
step = jax.jit(js.transform(counted).apply)
params = js.transform(counted).init(jax.random.key(0), x)
for _ in range(3):
    step(params, x)
programs = [*globals().get("programs", []), weakref.ref(counted)]
objects = [*globals().get("objects", []), (gc.collect(), len(gc.get_objects()))[1]]
print(calls)
"""

RUN_AGAIN = """
for _ in range(50):
    out = step(params, x)
print(calls)
"""


def run(cells: list[str], folder: Path) -> tuple[list[str], str]:
    """What each cell printed or showed as text, and the notebook as a page."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    kernel = preprocessors.ExecutePreprocessor(timeout=120, kernel_name="python3")
    notebook, _ = kernel.preprocess(notebook, {"metadata": {"path": str(folder)}})
    texts = []
    for cell in notebook.cells:
        parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
        texts.append("".join(parts))
    page, _ = exporters.HTMLExporter().from_notebook_node(notebook)
    return texts, page


def test_a_notebook(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(HELPER)
    cells = {
        "setup": SETUP,  # cell 1
        "define": PROGRAM,
        "made": 'print(net.specs(x)["v"].created_at)',
        "table": "print(net.specs(x))",
        "shown": "net.specs(x)",
        "params": "net.init(jax.random.key(0), x)",
        "redefine": PROGRAM.replace("    return", '    js.get_variable("w", [2])\n    return'),  # cell 7
        "made again": 'print(net.specs(x)["v"].created_at, net.specs(x)["w"].created_at)',
        "wrong": WRONG,  # cell 9
        "from a file": 'print(js.transform(model.layer).specs(x)["scale"].created_at)',
        "edit": f"""
import os, time
pathlib.Path("model.py").write_text({RELOADED!r})
os.utime("model.py", (time.time() + 5, time.time() + 5))
""",
        "reloaded": 'print(js.transform(model.layer).specs(x)["factor"].created_at)',
    }
    texts, page = run(
        [*cells.values(), *[AGAIN] * 50, RUN_AGAIN, "print([ref() for ref in programs].count(None), objects)"], tmp_path
    )
    said = dict(zip(cells, texts, strict=False))
    assert said["made"] == "cell 2, line 2\n"
    assert "cell 2, line 2" in said["table"]
    assert said["made again"] == "cell 7, line 3 cell 7, line 2\n"
    assert "cell 9, line 3" in said["wrong"]
    assert "cell 9, line 2" in said["wrong"]
    assert "ipykernel" not in "".join(texts)
    assert said["from a file"].endswith("model.py:5\n")
    # Which line, IPython may get wrong: it compiles a changed function alone, as if it stood at the top of its file.
    assert "model.py:" in said["reloaded"]
    assert 'class="jscope-seen"' in page
    # The program runs as often in the fiftieth cell as in the first, and not again for fifty steps more.
    assert set(texts[len(cells) : -2]) == {texts[len(cells)]}
    assert texts[-2] == texts[len(cells)]
    gone, objects = texts[-1].split(" ", 1)
    assert int(gone) >= 45
    counts = [int(count) for count in objects.strip("[]\n").split(",")]
    assert counts[-1] - counts[9] < 40 * 20


def test_the_kernel_is_that_of_the_tests(tmp_path: Path) -> None:
    (text,), _ = run(["import sys; print(sys.version_info[:2])"], tmp_path)
    assert text == f"{sys.version_info[:2]}\n"
