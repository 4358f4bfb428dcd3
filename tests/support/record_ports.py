"""Runs the cases of `port_cases` in TensorFlow and records what it gives, for `test_ports`.

    TF_USE_LEGACY_KERAS=1 python tests/support/record_ports.py

It needs the extra `jscope[tensorflow]`.
"""

from __future__ import annotations

from port_cases import CASES
from record_layers import write_record


def main() -> None:
    """Writes `data/ports.json` and `data/ports.npz`."""
    write_record("ports", CASES, {})


if __name__ == "__main__":
    main()
