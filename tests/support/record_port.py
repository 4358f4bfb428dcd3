"""Runs the TensorFlow 1 program of docs/port-tf1.md, and keeps the checkpoint that it writes and what it prints.

    TF_USE_LEGACY_KERAS=1 python tests/support/record_port.py

It needs TensorFlow 2 and `tf_keras`. The files are those that `test_docs` puts beside the page.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from pathlib import Path

from paths import ROOT

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

GIVEN = ROOT / "tests" / "data" / "pages" / "port-tf1"


def main() -> None:
    page = (ROOT / "docs" / "port-tf1.md").read_text()
    program = re.search(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL).group(1)
    GIVEN.mkdir(parents=True, exist_ok=True)
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(compile(program, "port-tf1.md", "exec"), {"__name__": "__main__"})
        for file in Path().glob("model.ckpt-*"):
            if file.suffix != ".meta":
                (GIVEN / file.name).write_bytes(file.read_bytes())
    (GIVEN / "printed.txt").write_text(printed.getvalue())


if __name__ == "__main__":
    main()
