"""The one decorator behind which kernels run: numba, cached by the content of all kernels.

Numba keeps compiled code by the time of the kernel's own file, and trusts it though a kernel that
was inlined into it has changed since. Here the folder of the cache is named by a hash of every file
of the package that holds kernels, so that no code outlives what it was made from.

Machine code takes up to half a minute to make, and most first problems are small. So the two race:
the Python function runs while a process beside this one compiles, and is stopped, and started again
as machine code, if that is there first. Interpreted numbers may differ in their last digits; where
the environment has ``THEORYLAB_KERNELS=compiled``, calls wait for machine code instead.
"""

import base64
import ctypes
import hashlib
import importlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numba
import numpy as np
from numba import config
from numba.core.registry import CPUDispatcher

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
    """Compile a kernel at its first calls, and keep the code on disk.

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
        kernel = numba.njit(cache=True, **options)(function)
    finally:
        settings.CACHE_DIR = before
    # A kernel of a script or a notebook cannot be imported by the other process.
    if function.__module__.startswith("theorylab.") and isinstance(kernel, CPUDispatcher):
        kernel.__class__ = _Waiting
    return kernel


class _Waiting(CPUDispatcher):
    """A kernel whose machine code may not be there yet; it changes its class once it is."""

    def __call__(self, *args: Any) -> Any:
        kernel: Any = self
        if _Race.thread == threading.get_ident():  # inside of a kernel that is interpreted
            return kernel.py_func(*args)
        races = os.environ.get("THEORYLAB_KERNELS") != "compiled" and not _Race.thread
        if races and all(map(_is_plain, args)):
            signature = tuple(map(numba.typeof, args))
            cached = kernel._cache.load_overload(signature, kernel.targetctx) is not None
            if not (cached or kernel.signatures):
                with suppress(_Overtaken):
                    return _Race.run(kernel, signature, args)
        kernel.__class__ = CPUDispatcher
        return kernel(*args)


class _Overtaken(BaseException):
    """The machine code is there."""


class _Race:
    """An interpreted kernel, and the process that compiles what it was asked for, in order."""

    process: subprocess.Popen[str] | None = None
    asked: ClassVar[dict[Any, int]] = {}
    answers = 0
    thread = 0
    awaited = 0
    lock = threading.Lock()

    @classmethod
    def run(cls, kernel: Any, signature: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
        """Return what the Python function returns, unless its machine code is there before."""
        place = cls._ask((kernel.py_func.__module__, kernel.py_func.__name__, signature))
        kept = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        try:
            with cls.lock:
                if cls.answers > place:
                    raise _Overtaken
                cls.thread, cls.awaited = threading.get_ident(), place
            with np.errstate(all="ignore"):
                result = _plain(kernel.py_func(*args))
            with cls.lock:
                cls.thread = 0
            for _ in range(2):  # an exception that was sent by now is raised here
                pass
            return result
        except _Overtaken:
            for a, before in zip(args, kept, strict=True):
                if isinstance(a, np.ndarray) and a.flags.writeable:
                    a[...] = before
            raise
        finally:
            cls.thread = 0

    @classmethod
    def _ask(cls, kernel: tuple[str, str, tuple[Any, ...]]) -> int:
        """Ask for the machine code of a kernel, once; return its place in the queue."""
        if kernel in cls.asked:
            return cls.asked[kernel]
        if cls.process is None:
            cls.process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                bufsize=1,
            )
            threading.Thread(target=cls._listen, args=(cls.process.stdout,), daemon=True).start()
        with suppress(OSError):
            print(base64.b64encode(pickle.dumps(kernel)).decode(), file=cls.process.stdin)
        return cls.asked.setdefault(kernel, len(cls.asked))

    @classmethod
    def _listen(cls, answers: Iterable[str]) -> None:
        for _ in answers:
            with cls.lock:
                cls.answers += 1
                if cls.thread and cls.answers > cls.awaited:
                    send = ctypes.pythonapi.PyThreadState_SetAsyncExc
                    send(ctypes.c_ulong(cls.thread), ctypes.py_object(_Overtaken))

    @staticmethod
    def serve() -> None:
        """Compile what is asked for on the standard input, to its end."""
        for line in sys.stdin:
            module, name, signature = pickle.loads(base64.b64decode(line))
            with suppress(Exception):
                getattr(importlib.import_module(module), name).compile(signature)
            with suppress(OSError):
                print(name, flush=True)


def _is_plain(value: Any) -> bool:
    """Whether an argument can be put back as it was: an array or a number."""
    return isinstance(value, np.ndarray | np.generic | bool | int | float)


def _plain(result: Any) -> Any:
    """Return what the compiled kernel would: Python's numbers in place of NumPy's."""
    if isinstance(result, tuple):
        return tuple(map(_plain, result))
    return result.item() if isinstance(result, np.generic) else result


if __name__ == "__main__":
    _Race.serve()
