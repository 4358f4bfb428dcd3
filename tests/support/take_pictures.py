"""Takes the pictures of the documentation anew: `python tests/support/take_pictures.py`.

With `sharing`, `pages` or `gallery` behind it only those of that kind; for the gallery the examples train for some
minutes. Needs Chromium, Pillow and what the examples need.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from browser import Browser
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from paths import ROOT
from PIL import Image

PICTURES = ROOT / "docs" / "pictures"
# Each example with the name of its picture, and what it is run with: most of them as their first lines say.
GALLERY: list[tuple[str, str, list[str]]] = [
    ("siamese_digits", "siamese", []),
    ("gan_digits", "gan", []),
    ("byol_digits", "byol", []),
    ("deep_scan", "deep_scan", []),
    ("gpt2", "gpt2", []),
    ("bert", "bert", []),
    ("sharded_lm", "sharded_lm", ["--mesh", "4,2", "--steps", "40"]),
]
INK, BLUE, ORANGE = "#808890", "#5b7fb5", "#d9480f"  # to be read on white and on black


def names_of(page: Path, blocks: int | None = None) -> dict[str, Any]:
    """What the first blocks of a page make, or all of them, under the file name that the page's test gives it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    found = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile("".join(found[:blocks]), f"{page.stem}.py", "exec"), names)
    return names


def small(source: Path, target: Path, width: int | None = None) -> None:
    """A picture in few colours, and no wider than that, so that its file is small."""
    with Image.open(source) as picture:
        opaque = picture.mode != "RGBA" or picture.getextrema()[3][0] == 255
        picture = picture.convert("RGB" if opaque else "RGBA")
        if width is not None and picture.width > width:
            picture = picture.resize((width, picture.height * width // picture.width), Image.Resampling.LANCZOS)
        method = Image.Quantize.MEDIANCUT if opaque else Image.Quantize.FASTOCTREE
        picture.quantize(256, method, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size:,} bytes")


# Of sharing -----------------------------------------------------------------------------------------------------------


def sharing(browser: Browser, folder: Path = PICTURES) -> None:
    """The sharing pictures of the front page and of the page on seeing, as a browser shows them."""
    front = names_of(ROOT / "docs" / "index.md")
    specs = front["net"].specs(front["question"], front["answer"])
    for dark in (False, True):
        shot(browser, specs, "next_word", folder / f"sharing-{'dark' if dark else 'light'}.png", dark, 760)
    specs = names_of(ROOT / "docs" / "how-to" / "see.md", 1)["specs"]
    shot(browser, specs, "translate", folder / "translate.png", False, 1100)


def shot(browser: Browser, specs: Any, title: str, target: Path, dark: bool, width: int) -> None:
    """The picture of some specs, as high as its page."""
    page = target.with_suffix(".html")
    specs.to_html(path=page, title=title)
    browser.dark(dark)
    browser.size(width, 100)
    browser.open(page)
    browser.size(width, browser.run("document.querySelector('main').getBoundingClientRect().bottom + 16 | 0"))
    browser.settle()
    browser.screenshot(target, whole=False)
    small(target, target)
    page.unlink()


# Of pages -------------------------------------------------------------------------------------------------------------


def pages(folder: Path = PICTURES) -> None:
    """What the pages on ensembles and averages compute, drawn."""
    names = names_of(ROOT / "docs" / "how-to" / "ensembles.md")
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    line, mean, spread = names["grid"][:, 0], names["mean"], names["spread"]
    axes.plot(line, names["outputs"].T, color=BLUE, linewidth=0.6, alpha=0.7)
    axes.fill_between(line, mean - 2 * spread, mean + 2 * spread, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(line, mean, color=BLUE, linewidth=2, label="mean, and twice the spread")
    axes.plot(names["x"][:, 0], names["y"], "o", color=ORANGE, markersize=4, label="examples")
    axes.set(xlabel="x", ylim=(-3, 3))
    write(figure, folder / "ensembles.png")

    names = names_of(ROOT / "docs" / "how-to" / "averages.md")
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    steps = range(0, 20 * len(names["last"]), 20)
    axes.plot(steps, names["last"], color=BLUE, linewidth=0.8, label="parameters")
    axes.plot(steps, names["averaged"], color=ORANGE, linewidth=2, label="their average")
    axes.set(xlabel="step", ylabel="error without the noise", yscale="log")
    write(figure, folder / "averages.png")


def write(figure: Figure, target: Path) -> None:
    """A figure on no ground of its own, for light and for dark pages."""
    FigureCanvasAgg(figure)
    for axes in figure.axes:
        axes.tick_params(colors=INK)
        for text in (axes.xaxis.label, axes.yaxis.label):
            text.set_color(INK)
        for side, spine in axes.spines.items():
            spine.set_color(INK)
            spine.set_visible(side in ("left", "bottom"))
        axes.legend(labelcolor=INK, frameon=False)
    figure.savefig(target, dpi=110, transparent=True)
    small(target, target)


# Of examples ----------------------------------------------------------------------------------------------------------


def gallery(folder: Path = PICTURES) -> None:
    """Runs each example, and keeps its picture."""
    for example, picture, arguments in GALLERY:
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, str(ROOT / "examples" / f"{example}.py"), *arguments, "--out", out]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"JAX_PLATFORMS": "cpu"})
            small(Path(out) / f"{picture}.png", folder / f"{picture}.png", 900)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", nargs="?", choices=("all", "sharing", "pages", "gallery"), default="all")
    kind = parser.parse_args().kind
    PICTURES.mkdir(exist_ok=True)
    if kind in ("all", "sharing"):
        with Browser() as opened:
            sharing(opened)
    if kind in ("all", "pages"):
        pages()
    if kind in ("all", "gallery"):
        gallery()
