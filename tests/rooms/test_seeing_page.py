"""The sharing picture in a browser: what it shows, finding and folding, nothing fetched, no name becomes markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import CHROMIUM, Browser

import jscope as js

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")

F32 = np.dtype("float32")
TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def shown(browser: Browser, specs: js.Specs, folder: Path, title: str = "", width: int = 1400) -> Browser:
    """Opens the page of some specs from disk; it neither complains nor asks for anything else."""
    path = folder / "page.html"
    specs.to_html(path=path, title=title)
    browser.size(width)
    browser.open(path)
    assert browser.messages == []
    assert browser.requests == [path.resolve().as_uri()]
    return browser


def read(name: str, shape: list[int], **more: Any) -> jax.Array:
    return js.get_variable(name, shape, **more)


def program(x: jax.Array) -> None:
    for _ in range(2):
        with js.variable_scope("tower", reuse=js.AUTO_REUSE):
            read("kernel", [64, 32], initializer=js.random_normal_initializer(stddev=0.05))
            read("bias", [32])
    with js.variable_scope("towr", reuse=js.AUTO_REUSE):
        read("bias", [32])
    with js.variable_scope("head"), js.variable_scope("inner"):
        read("kernel", [32, 8])
        js.get_variable("mean", [8], trainable=False)
    with js.variable_scope("tower", reuse=True):
        js.get_variable("kernel", [64, 32])


SPECS = js.transform(program).specs(jnp.ones(2))
READ, MEAN, AGAIN = (
    SPECS["tower/bias"].created_at,
    SPECS["head/inner/mean"].created_at,
    SPECS["tower/kernel"].used_at[-1],
)


def spec(name: str, shape: tuple[int, ...] = (2,), place: str = "model.py:1", **more: Any) -> js.VariableSpec:
    return js.VariableSpec(name, name, shape, F32, js.zeros_initializer(), created_at=place, **more)


# What it shows --------------------------------------------------------------------------------------------------------


def test_scopes_hold_variables_and_places_lead_to_them(browser: Browser, tmp_path: Path) -> None:
    shown(browser, SPECS, tmp_path, "my program")
    assert browser.texts("h1") == ["my program"]
    assert browser.texts("#totals") == ["5 variables, 2,376 elements, 9.504 kB, 2 shared, 32 B frozen"]
    assert browser.texts(".head .name") == ["tower/", "towr/", "head/inner/"]

    assert browser.texts(".leaf > .name") == ["kernel", "bias", "bias", "kernel", "mean"]
    assert browser.texts(".leaf > .type") == ["f32[64,32]", "f32[32]", "f32[32]", "f32[32,8]", "f32[8]"]
    assert browser.texts(".leaf.shared > .badges") == [f"read {TIMES}3", f"read {TIMES}2"]
    assert browser.texts(".leaf.frozen > .name") == ["mean"]
    assert browser.texts(".leaf.doubt > .badges") == ["near tower"]
    assert browser.texts(".leaf > .initializer")[0] == "random_normal(stddev=0.05)"
    places = [text.replace("\n", "") for text in browser.texts(".place")]
    assert sorted(places) == sorted(Path(place).name for place in (READ, MEAN, AGAIN))
    # The helper's line reads four variables, two others one each.
    assert browser.run("document.querySelectorAll('#edges path').length") == 6
    assert browser.run("document.querySelectorAll('#edges path.shared').length") == 3
    assert browser.run("document.querySelectorAll('#edges path.many').length") == 2


def test_squares_are_as_large_as_the_bytes(browser: Browser, tmp_path: Path) -> None:
    sizes = [4, 36, 144, 400]
    shown(browser, js.Specs(spec(f"v{size}", (size,)) for size in sizes), tmp_path)
    areas = browser.run(
        "[...document.querySelectorAll('.leaf > .size')]"
        ".map((e) => e.getBoundingClientRect()).map((r) => r.width * r.height)"
    )
    np.testing.assert_allclose(np.divide(areas, areas[-1]), np.divide(sizes, sizes[-1]), rtol=0.15)


def test_edges_end_at_their_places_and_variables(browser: Browser, tmp_path: Path) -> None:
    shown(browser, SPECS, tmp_path)
    middles = (
        "[...document.querySelectorAll('%s')].map((e) => e.getBoundingClientRect()).map((r) => r.top + r.height / 2)"
    )
    ends = browser.run(
        "[...document.querySelectorAll('#edges path')].map((p) => [0, p.getTotalLength()]"
        ".map((at) => p.getPointAtLength(at).y + document.getElementById('edges').getBoundingClientRect().top))"
    )
    places, leaves = browser.run(middles % ".place"), browser.run(middles % ".leaf")
    for start, end in ends:
        assert min(abs(start - place) for place in places) < 2
        assert min(abs(end - leaf) for leaf in leaves) < 2
    assert all(any(abs(end - leaf) < 2 for _, end in ends) for leaf in leaves)


def test_details_say_each_read_and_whatever_else_is_not_usual(browser: Browser, tmp_path: Path) -> None:
    more = js.VariableSpec(
        "a/v",
        "a/key",
        (2, 2),
        F32,
        js.ones_initializer(),
        collections=("mine",),
        regularizer=abs,
        partition=("x", None),
    )
    shown(browser, js.Specs([*SPECS.values(), more]), tmp_path)
    browser.click(".leaf", "f32[64,32]")
    (details,) = browser.texts(".details")
    assert details.split("\n") == [
        *("name", "tower/kernel"),
        *("type", "f32[64,32], 2,048 elements, 8.192 kB"),
        *("initializer", "random_normal(stddev=0.05)"),
        *("read at", f"{READ} {TIMES}2", AGAIN),
    ]
    browser.click(".leaf", "f32[64,32]")
    assert browser.texts(".details") == []
    browser.click(".leaf", "f32[2,2]")
    (details,) = browser.texts(".details")
    for text in ("a/key", "mine", "abs", "('x', None)"):
        assert text in details


def test_a_checkpoint_has_no_places(browser: Browser, tmp_path: Path) -> None:
    listed = js.Specs(js.VariableSpec(name, name, (3,), F32, None) for name in ("a/v", "a/w"))
    shown(browser, listed, tmp_path)
    assert browser.texts(".leaf > .name") == ["v", "w"]
    assert browser.run("document.querySelectorAll('.place, #edges path').length") == 0
    browser.click(".leaf", "v")
    assert "read at" not in browser.texts(".details")[0]


def test_cells_of_a_notebook_are_places(browser: Browser, tmp_path: Path) -> None:
    shown(browser, js.Specs([spec("v", place="cell 3, line 2")]), tmp_path)
    assert [text.replace("\n", "") for text in browser.texts(".place")] == ["cell 3, line 2"]


def test_no_variables_at_all(browser: Browser, tmp_path: Path) -> None:
    shown(browser, js.Specs(), tmp_path)
    assert browser.texts("#boxes") == ["No variables."]


def test_without_javascript_there_is_the_table(browser: Browser, tmp_path: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        shown(browser, SPECS, tmp_path)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.texts("pre") == [str(SPECS)]


# Finding and folding --------------------------------------------------------------------------------------------------


def test_finding(browser: Browser, tmp_path: Path) -> None:
    shown(browser, SPECS, tmp_path)
    browser.press("/")
    browser.type("TOWER ker")
    assert browser.texts(".head .name") == ["tower/"]
    assert browser.texts(".leaf > .name") == ["kernel"]
    assert browser.texts("mark") == ["tower", "ker"]
    assert browser.texts("#found") == ["1 of 5"]
    assert browser.run("document.querySelectorAll('#edges path').length") == 2
    browser.press("Escape")
    assert len(browser.texts(".leaf")) == 5
    assert browser.texts("#found") == [""]
    browser.type(Path(MEAN).name)
    assert browser.texts(".leaf > .name") == ["mean"]
    browser.press("Escape")
    browser.type("no such name")
    assert browser.texts("#boxes") == ["Nothing is found."]


def test_shared_ones_only(browser: Browser, tmp_path: Path) -> None:
    shown(browser, SPECS, tmp_path)
    browser.click("button", "Shared only")
    assert browser.texts(".leaf > .name") == ["kernel", "bias"]
    browser.click("button", "Shared only")
    assert len(browser.texts(".leaf")) == 5


def test_folding(browser: Browser, tmp_path: Path) -> None:
    shown(browser, SPECS, tmp_path)
    browser.click(".head", "tower/")
    assert browser.texts(".leaf > .name") == ["bias", "kernel", "mean"]
    assert browser.run("document.querySelector('.head').getAttribute('aria-expanded')") == "false"
    # The two lines that read the tower lead to its box now.
    assert browser.run("document.querySelectorAll('#edges path.shared').length") == 2
    browser.click(".head", "tower/")
    assert len(browser.texts(".leaf")) == 5
    browser.click("button", "Fold all")
    assert browser.texts(".leaf") == []
    browser.click("button", "Unfold all")
    assert len(browser.texts(".leaf")) == 5


def test_a_place_lights_what_it_reads(browser: Browser, tmp_path: Path) -> None:
    shown(browser, SPECS, tmp_path)
    browser.click(".place", AGAIN.rpartition(":")[2])
    assert browser.run("document.querySelectorAll('#edges path.lit').length") == 1
    assert [text.split("\n")[0] for text in browser.texts(".leaf.lit")] == ["kernel"]
    browser.click(".place", AGAIN.rpartition(":")[2])
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert browser.run("document.querySelectorAll('.lit').length") == 0


def test_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    shown(browser, SPECS, tmp_path)
    browser.run("document.querySelector('.head').focus()")
    browser.press("Enter")
    assert browser.run("document.activeElement.getAttribute('aria-expanded')") == "false"
    browser.press("Enter")
    assert browser.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    browser.run("document.querySelector('.place').focus()")
    assert browser.run("document.querySelectorAll('#edges path.lit').length") > 0


def test_many_lines_of_one_file_stand_together_until_asked(browser: Browser, tmp_path: Path) -> None:
    files = [spec(f"v{i}", place=f"/here/large.py:{i}") for i in range(50)]
    files += [spec("w", place="/here/small.py:1"), spec("x", place="/there/large.py:1")]
    shown(browser, js.Specs(files), tmp_path)
    assert sorted(browser.texts(".place")) == ["large.py\n:1", "large.py\n\u00a050 lines", "small.py\n:1"]
    assert browser.run("document.querySelectorAll('#edges path').length") == 52
    browser.click(".place", "50 lines")
    assert len(browser.texts(".place")) == 52


def test_lines_stay_beside_what_is_in_sight(browser: Browser, tmp_path: Path) -> None:
    shown(browser, js.Specs(spec(f"v{i}") for i in range(100)), tmp_path)
    for target in (0, 50, 99):
        browser.run(f"document.querySelectorAll('.leaf')[{target}].scrollIntoView({{block: 'center'}})")
        browser.settle()
        top = browser.run("document.querySelector('.place').getBoundingClientRect().top")
        assert 0 < top < 1000


def test_the_pictures_of_the_documentation_can_be_taken_anew(browser: Browser, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("matplotlib")
    from PIL import Image
    from take_pictures import PICTURES, sharing

    sharing(browser, tmp_path)
    browser.dark(False)
    assert len(list(tmp_path.iterdir())) == 3
    for path in tmp_path.iterdir():
        with Image.open(path) as taken, Image.open(PICTURES / path.name) as kept:
            assert taken.size == kept.size  # fonts may differ from one machine to another
            assert len(taken.getcolors() or []) > 20


# Any name, any size ---------------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>window.caught = 1</script>",
    "</script><script>window.caught = 2</script>",
    "<img src=x onerror='window.caught = 3'>",
    "\" onclick='window.caught = 4'",
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "${window.caught = 5}",
    "`",
    "\\u003cb>",
    "שלום עולם",
    "a\u202eb",
    "\u2028\u2029\x00\x1b[2J",
    "x" * 5000,
    "\ud800",
    "__proto__",
    "constructor",
    "日本語",
]


def test_no_name_becomes_markup(browser: Browser, tmp_path: Path) -> None:
    names = [name.replace("/", "|") for name in HOSTILE]
    specs = js.Specs(
        spec(f"{name}/{name}", place=f"{name}:7", collections=(name,), used_at=(f"{name}:8",)) for name in names
    )
    shown(browser, specs, tmp_path, title="".join(HOSTILE[:10]))
    browser.run("document.querySelectorAll('.leaf').forEach((leaf) => leaf.click())")
    assert browser.run("window.caught") is None
    assert browser.run("document.querySelectorAll('img, #boxes script, b').length") == 0
    assert browser.run("document.scripts.length") == 2

    def printed(name: str) -> str:
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)

    labels = browser.run("[...document.querySelectorAll('.leaf > .name')].map((e) => e.textContent)")
    assert sorted(labels) == sorted(map(printed, names))
    assert browser.run("document.title") == "".join(HOSTILE[:10])
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    browser.press("/")
    browser.type("<script>")
    assert browser.texts("mark")[0] == "<script>"
    assert browser.run("window.caught") is None
    assert browser.messages == []


def test_nothing_can_be_fetched_from_the_page(browser: Browser, tmp_path: Path) -> None:
    shown(browser, SPECS, tmp_path)
    for attempt in (
        "fetch('https://example.invalid/').then(() => 'fetched', () => 'refused')",
        "new Promise((done) => { const image = new Image(); image.onload = () => done('fetched');"
        " image.onerror = () => done('refused'); image.src = 'https://example.invalid/a.png'; })",
    ):
        assert browser.run(attempt) == "refused"
    assert all("violates" in message or "Content Security Policy" in message for message in browser.messages)
    assert (
        browser.run(
            "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
            " document.body.append(s); return window.ran; })()"
        )
        is None
    )


@pytest.mark.parametrize("width", [400, 1400, 2400])
def test_it_fits_phones_and_walls_in_light_and_dark(browser: Browser, tmp_path: Path, width: int) -> None:
    long = [spec("/".join([f"a_rather_long_scope_{i}" for i in range(6)] + ["variable" * 4]), (128, 3, 3, 2048))]
    for dark in (False, True):
        browser.dark(dark)
        shown(browser, js.Specs([*SPECS.values(), *long]), tmp_path, width=width)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run(
            "[...document.querySelectorAll('.leaf, .head, .place, .controls *')]"
            f".every((e) => e.getBoundingClientRect().right <= {width} && e.getBoundingClientRect().left >= 0)"
        )
        for element in ("html", ".scope", ".leaf.shared", ".leaf.doubt", ".badge.shared"):
            paper, ink = brightness(browser, element, "backgroundColor"), brightness(browser, element, "color")
            assert ink - paper > 0.3 if dark else paper - ink > 0.3
    browser.dark(False)


def brightness(browser: Browser, selector: str, what: str) -> float:
    """From 0 to 1, of the colour of an element, or of the paper below it."""
    colour = browser.run(
        f"(() => {{ let e = document.querySelector({selector!r}); const of = (e) => getComputedStyle(e).{what};"
        " while (of(e) === 'rgba(0, 0, 0, 0)') e = e.parentElement; return of(e); })()"
    )
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 765


def many(layers: int, each: int) -> js.Specs:
    return js.Specs(
        spec(
            f"model/layer_{i}/part_{j % 10}/v{j}",
            (i + 1, j + 1),
            f"model.py:{j}",
            used_at=("model.py:9999",) * (i == 700),
        )
        for i in range(layers)
        for j in range(each)
    )


@pytest.mark.parametrize(
    "specs",
    [
        pytest.param(many(100, 50), id="100 scopes of 50"),
        pytest.param(
            js.Specs(spec(f"v{i}", (i + 1,), f"m{i}.py:{i}") for i in range(5000)),
            id="5,000 at the root",
            marks=pytest.mark.slow,
        ),
        pytest.param(many(1000, 5), id="1,000 scopes of 5", marks=pytest.mark.slow),
    ],
)
def test_five_thousand_variables(browser: Browser, tmp_path: Path, specs: js.Specs) -> None:
    shown(browser, specs, tmp_path)
    assert browser.first_paint() < 2000
    assert browser.run("document.querySelectorAll('.leaf, .head').length") <= 250
    assert browser.run("document.querySelectorAll('.place').length") <= 250
    name = list(specs)[-1]
    browser.press("/")
    browser.type(name)
    assert name.rpartition("/")[2] in browser.texts(".leaf > .name")
    browser.press("Escape")
    browser.click("button", "Unfold all")
    assert browser.run("document.querySelectorAll('.leaf').length") >= 200
    assert browser.messages == []
