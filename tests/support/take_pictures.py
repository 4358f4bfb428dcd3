"""Takes the pictures of docs/how-to/see.md anew: `python tests/support/take_pictures.py`. Needs Chromium and Pillow."""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path
from typing import Any

from browser import Browser
from paths import ROOT
from PIL import Image

PAGE = ROOT / "docs" / "how-to" / "see.md"


def specs_of_page() -> Any:
    """What the first block of the page makes, under the file name that the page's test gives it."""
    first = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert first is not None
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(first[1], "see.py", "exec"), names)
    return names["specs"]


def take(browser: Browser, page: Path, target: Path, width: int, height: int) -> None:
    """A picture of a page, its colours few, so that it is small."""
    browser.size(width, height)
    browser.open(page)
    shot = page.with_suffix(".png")
    browser.screenshot(shot, whole=False)
    image = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(target, optimize=True)
    print(f"{target.relative_to(ROOT)}: {image.width} x {image.height}, {target.stat().st_size:,} bytes")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        page = Path(folder) / "page.html"
        specs_of_page().to_html(path=page, title="translate")
        browser.dark(False)
        take(browser, page, PAGE.with_name("see-picture.png"), 1100, 1000)


if __name__ == "__main__":
    main()
