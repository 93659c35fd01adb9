"""The one decorator behind which kernels run: numba, cached by the content of all kernels.

Numba keeps compiled code by the time of the kernel's own file, and trusts it though a kernel that
was inlined into it has changed since. Here the folder of the cache is named by a hash of every file
of the package that holds kernels, so that no code outlives what it was made from.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import config

__all__ = ["cache_folder", "compiled"]


@cache
def cache_folder() -> Path:
    """Return the folder that holds the compiled code of the kernels as they are."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*package.glob("*.py"), *package.glob("*/*.py")]):
        text = path.read_bytes()
        if b"@compiled" in text:
            digest.update(path.name.encode() + b"\0" + text + b"\0")
    given = getattr(config, "CACHE_DIR", "")  # NUMBA_CACHE_DIR
    base = Path(given) if given else package / "__pycache__"
    return base / f"kernels-{digest.hexdigest()[:16]}"


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a kernel at its first call, and keep the code on disk.

    Parameters
    ----------
    function
        A function that numba compiles in nopython mode.
    **options
        Those of ``numba.njit``.

    Examples
    --------
    >>> @compiled
    ... def double(x):
    ...     return 2 * x
    >>> double(1.5)
    3.0
    """
    if function is None:
        return lambda f: compiled(f, **options)
    settings: Any = config
    before = settings.CACHE_DIR
    try:
        settings.CACHE_DIR = str(cache_folder())
        return numba.njit(cache=True, **options)(function)
    finally:
        settings.CACHE_DIR = before
