"""Seeing what a program declares: the sharing picture as a page and as text, trees and reports in notebooks.

A room: `import jscope` does not import it. Its users are methods of jscope's own objects (`Specs.to_html`,
`Specs.to_text`, what notebooks show) and the command `python -m jscope report`. The page is written in `page.html`,
`page.css` and `page.js`, which `page.py` puts together with the data of the picture (`data.py`).
"""

from __future__ import annotations

from . import fragments as fragments
from .page import to_html as to_html
from .text import to_text as to_text

__all__: list[str] = []
