"""How the kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel when it is first called, to run without Python's lock.

    Machine code is kept for later processes beside the module or in the user's cache folder;
    where neither can be written, every process compiles anew, which takes some seconds.
    Divisions by zero give infinities and NaN, as in NumPy.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # Numba refuses to decorate when it finds no folder for its files.
        return numba.njit(**options)(function)
