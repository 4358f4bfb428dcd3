"""`jax.checking_leaks`, where it can be right."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager

import jax
import pytest


def checking_leaks() -> AbstractContextManager[None]:
    """`jax.checking_leaks()`; the test is skipped where a tracer is set (`sys.settrace`) before Python 3.13.

    There Python itself keeps the variables of a frame that is traced and was looked into once, as long as the frame
    runs. jscope looks into frames of JAX, which takes what is kept for a leak. Without a tracer jscope lets go of it.
    """
    if sys.gettrace() is not None and sys.version_info < (3, 13):
        pytest.skip("Python keeps variables of frames that a tracer watches")
    return jax.checking_leaks()
