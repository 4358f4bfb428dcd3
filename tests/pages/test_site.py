"""The documentation as a site, in a browser: each page fits phones and desks in light and dark, and search finds."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="needs the extra jax-scope[docs]"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
]

# What stands outside of the window, and in nothing that can be scrolled or that cuts it off on purpose.
OUTSIDE = """
[...document.querySelectorAll('body *')].filter((element) => {
  const box = element.getBoundingClientRect();
  if (!box.width || !box.height || (box.left >= -1 && box.right <= innerWidth + 1)) return false;
  for (let e = element; e; e = e.parentElement) {
    const style = getComputedStyle(e);
    if (style.position === 'fixed' || style.visibility === 'hidden') return false;
    if (e !== element && style.overflowX !== 'visible') return false;
  }
  return true;
}).map((element) => element.tagName + ' ' + element.innerText.slice(0, 60))
"""

# Two blocks of a page's text of which one lies on the other.
OVERLAPS = """
(() => {
  const blocks = [...document.querySelectorAll('article > *')].filter((e) => e.getBoundingClientRect().height);
  return blocks.slice(1).filter((e, i) =>
    e.getBoundingClientRect().top < blocks[i].getBoundingClientRect().bottom - 1
    && ![e, blocks[i]].some((e) => ['absolute', 'fixed', 'sticky'].includes(getComputedStyle(e).position)
      || getComputedStyle(e).float !== 'none')
  ).map((e) => e.innerText.slice(0, 60));
})()
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", ".ci/mkdocs.yml", "-d", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where the site is served."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def pages(folder: Path) -> list[str]:
    found = sorted(path.relative_to(folder).parent.as_posix() for path in folder.rglob("index.html"))
    assert len(found) == len(list((ROOT / "docs").rglob("*.md")))
    return ["" if page == "." else f"{page}/" for page in found]


def luminance(browser: Browser, selector: str, what: str) -> float:
    """From 0 to 1, of a colour of an element."""
    colour = browser.run(f"getComputedStyle(document.querySelector({selector!r})).{what}")
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 765


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_every_page_fits(browser: Browser, folder: Path, address: str, width: int, dark: bool) -> None:
    browser.dark(dark)
    browser.size(width)
    faults = {}
    for page in pages(folder):
        browser.open(address + page)
        browser.settle()
        elsewhere = [url for url in browser.requests if not url.startswith((address, "data:"))]
        found = [*browser.run(OUTSIDE), *browser.run(OVERLAPS), *browser.messages, *elsewhere]
        if found or browser.run("document.documentElement.scrollWidth") > width:
            faults[page] = found
        paper, ink = luminance(browser, "body", "backgroundColor"), luminance(browser, "article p", "color")
        assert paper < 0.3 if dark else paper > 0.7, page
        # Material's ink is see-through on white, and not on black.
        assert ink > 0.5 if dark else ink < 0.3, page
    assert not faults


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_front_page_shows_what_is_shared(browser: Browser, address: str, dark: bool) -> None:
    browser.dark(dark)
    browser.size(1400)
    browser.open(address)
    shown = browser.run(
        "[...document.querySelectorAll('article img')].filter((e) => e.getBoundingClientRect().height > 100"
        " && e.naturalWidth > 100).map((e) => e.src)"
    )
    assert [url.rpartition("/")[2].partition("#")[0] for url in shown] == [f"sharing-{'dark' if dark else 'light'}.png"]


def test_all_pictures_load(browser: Browser, folder: Path, address: str) -> None:
    for page in pages(folder):
        if "<img" in (folder / page / "index.html").read_text():
            browser.open(address + page)
            loaded = "Promise.all([...document.images].map((e) => e.decode().then(() => '', () => e.src)))"
            assert not list(filter(None, browser.run(loaded))), page


def test_pages_lead_to_the_next_and_the_last(browser: Browser, address: str) -> None:
    browser.size(1400)
    browser.open(f"{address}tutorial/")
    assert browser.run("document.querySelector('.md-footer__link--prev').href") == address
    browser.click(".md-footer__link--next")
    assert browser.arrives(f"{address}gallery/")


def test_light_and_dark_can_be_chosen(browser: Browser, address: str) -> None:
    browser.dark(False)
    browser.size(1400)
    browser.open(address)
    schemes = set()
    for _ in range(3):
        schemes.add(browser.run("document.body.dataset.mdColorScheme"))
        browser.click("[data-md-component=palette] label:not([hidden])")
        browser.settle()
    browser.run("localStorage.clear()")
    assert schemes == {"default", "slate"}


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("tie weights", "how-to/tie-weights/"),
        ("dropout", "reference/layers/"),
        ("GAN", "how-to/several-programs/"),
        ("EMA", "how-to/averages/"),
        ("target network", "how-to/several-programs/"),
        ("LoRA", "how-to/lora/"),
        ("freeze", "how-to/freeze/"),
        ("batch normalization", "reference/layers/"),
        ("learning-rate schedules", "tf1-to-jscope/"),
        ("latest_checkpoint", "tf1-to-jscope/"),
    ],
)
def test_search_finds(browser: Browser, address: str, words: str, page: str) -> None:
    browser.dark(False)
    browser.size(1400)
    browser.open(address)
    browser.run("document.querySelector('[data-md-component=search-query]').focus()")
    browser.type(words)
    found: list[str] = []
    for _ in range(50):
        links = browser.run("[...document.querySelectorAll('.md-search-result__link')].map((e) => e.href)")
        found = list(dict.fromkeys(re.sub("[?#].*", "", link).removeprefix(address) for link in links))
        if found:
            break
        browser.run("new Promise((done) => setTimeout(done, 200))")
    assert page in found[:3], found
