"""Takes the pictures of docs/how-to/see.md anew: `python tests/support/take_pictures.py`. Needs Chromium and Pillow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from browser import Browser
from paths import ROOT
from PIL import Image

PAGE = ROOT / "docs" / "how-to" / "see.md"
PICTURE = PAGE.with_name("see-picture.png")


def specs_of_page() -> Any:
    """What the first block of the page makes, under the file name that the page's test gives it."""
    first = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert first is not None
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(first[1], "see.py", "exec"), names)
    return names["specs"]


def take(browser: Browser, target: Path) -> None:
    """The picture of the page's program, in few colours, so that it is small."""
    page = target.with_suffix(".html")
    specs_of_page().to_html(path=page, title="translate")
    browser.dark(False)
    browser.size(1100, 1000)
    browser.open(page)
    browser.screenshot(target, whole=False)
    Image.open(target).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
    page.unlink()


if __name__ == "__main__":
    with Browser() as browser:
        take(browser, PICTURE)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")
