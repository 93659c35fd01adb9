"""The one decorator behind which kernels run: numba, cached by the content of all kernels.

Numba keeps compiled code by the time of the kernel's own file, and trusts it though a kernel that
was inlined into it has changed since. Here the folder of the cache is named by a hash of every file
of the package that holds kernels, so that no code outlives what it was made from.

Machine code takes some seconds to make, and most first problems are small. So the two race: the
Python function, or what NumPy does in its place, runs while a process beside this one compiles,
first what takes longest for its length. What it calls runs as machine code as soon as that is
there; the function itself is stopped, and started again as machine code, if that is there first, if
it raises an error (which machine code may not), or if that process ends. Interpreted numbers may
differ in their last digits; where the environment has ``THEORYLAB_KERNELS=compiled``, calls wait
for machine code instead.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import importlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numba
import numpy as np
from numba import config
from numba.core.dispatcher import OmittedArg
from numba.core.registry import CPUDispatcher

__all__ = ["cache_folder", "compiled"]

DISPATCHER: Any = CPUDispatcher


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


def compiled(
    function: Callable[..., Any] | None = None,
    *,
    meanwhile: Callable[..., Any] | None = None,
    borrows: bool = False,
    **options: Any,
) -> Any:
    """Compile a kernel at its first calls, and keep the code on disk.

    Parameters
    ----------
    function
        A function that numba compiles in nopython mode.
    meanwhile
        What runs, with the same effects, in place of the Python function while there is no machine
        code: NumPy's loops where those of the function take long to interpret.
    borrows
        The kernel only works in arrays that it is given: it makes none, and calls nothing that
        returns one. Numba then does not count references to them, atomically at every call, which
        takes a third of the time of small kernels.
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
        return lambda f: compiled(f, meanwhile=meanwhile, borrows=borrows, **options)
    settings: Any = config
    before = settings.CACHE_DIR
    try:
        settings.CACHE_DIR = str(cache_folder())
        kept = Path(function.__code__.co_filename).is_file()  # not what was typed at a prompt
        # Where nothing is said, a kernel would take this over from the one that calls it.
        options["_nrt"] = not borrows
        kernel = numba.njit(cache=kept, **options)(function)
    finally:
        settings.CACHE_DIR = before
    # A kernel of a script or a notebook cannot be imported by the other process.
    if function.__module__.startswith("theorylab.") and isinstance(kernel, DISPATCHER):
        kernel.__class__ = _Racing
        kernel.meanwhile = meanwhile or kernel.py_func
    return kernel


class _Racing(CPUDispatcher):
    """A kernel that can be interpreted while its machine code is made elsewhere."""

    _cache: Any
    meanwhile: Callable[..., Any]
    looked = -1
    spent = 0.0  # seconds of being interpreted, without the kernels that it calls

    def _compile_for_args(self, *args: Any, **kwargs: Any) -> Any:
        """Return what runs on arguments that there is no machine code for: numba asks this."""
        if _Race.thread == threading.get_ident():  # inside of a kernel that is interpreted
            # To load machine code takes longer than a kernel that takes less than this.
            news = self.looked < 0 or (self.looked != _Race.news and self.spent > 0.1)
            return (self._loaded(*args) if news else None) or self._interpreted
        if os.environ.get("THEORYLAB_KERNELS") != "compiled" and all(map(_is_plain, args)):
            signature = tuple(map(numba.typeof, args))
            if _is_first() or self._cache.load_overload(signature, self.targetctx) is None:
                return partial(self._raced, signature)
        return DISPATCHER._compile_for_args(self, *args, **kwargs)

    def _interpreted(self, *args: Any) -> Any:
        begin = time.perf_counter() - _Race.counted
        try:
            if self.py_func.__defaults__ and OmittedArg in map(type, args):
                args = tuple(a.value if isinstance(a, OmittedArg) else a for a in args)
            return self.meanwhile(*args)
        finally:
            own = time.perf_counter() - _Race.counted - begin
            self.spent += own
            _Race.counted += own

    def _loaded(self, *args: Any) -> Any:
        """Return the machine code of an inner kernel if it is there; ask for it first."""
        if not all(map(_is_plain, args)):
            return None
        self.looked = _Race.news
        signature = tuple(map(numba.typeof, args))
        if _Race.ask(self, signature) not in _Race.answered:
            return None
        with _Race.lock:  # nothing is sent to this thread while numba is at work
            for _ in range(2):  # what was sent before is raised here
                pass
            found = self._cache.load_overload(signature, self.targetctx) is not None
            return DISPATCHER._compile_for_args(self, *args) if found else None

    def _raced(self, signature: tuple[Any, ...], *args: Any) -> Any:
        kept = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        try:
            return _Race.run(self, signature, args)
        except (Exception, _Overtaken):  # machine code says whether an error of Python's is one
            for a, before in zip(args, kept, strict=True):
                if isinstance(a, np.ndarray) and a.flags.writeable:
                    a[...] = before
        return DISPATCHER._compile_for_args(self, *args)(*args)


class _Overtaken(BaseException):
    """The machine code is there, or will not come from the other process."""


class _Race:
    """An interpreted kernel, and the process that compiles what it was asked for."""

    process: subprocess.Popen[str] | None = None
    asked: ClassVar[dict[Any, int]] = {}
    waiting: ClassVar[dict[int, tuple[Any, Any]]] = {}  # kernels, and what is to be sent
    idle = False
    answered: ClassVar[set[int]] = set()
    ended = False
    news = 0  # number of answers; each may be the code of an inner kernel
    thread = 0
    awaited = 0
    began = 0.0
    counted = 0.0  # seconds of all inner kernels
    lock = threading.Lock()

    @classmethod
    def run(cls, kernel: Any, signature: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
        """Return what the Python function returns, unless its machine code is there before."""
        number = cls.ask(kernel, signature)
        # Where machine code would raise a ZeroDivisionError, NumPy's numbers raise an error too.
        ieee = kernel.targetoptions.get("error_model") == "numpy"
        zero: Any = "ignore" if ieee else "raise"
        with np.errstate(all="ignore", divide=zero, invalid=zero):
            try:
                with cls.lock:
                    if cls.thread or cls.ended or number in cls.answered:
                        raise _Overtaken
                    cls.thread, cls.awaited = threading.get_ident(), number
                    cls.began = time.perf_counter() - cls.counted
                result = _plain(kernel.meanwhile(*args))
                kernel.spent += time.perf_counter() - cls.counted - cls.began
                cls._settle()
                return result
            except BaseException:
                with suppress(_Overtaken):
                    cls._settle()
                raise

    @classmethod
    def _settle(cls) -> None:
        """Let nothing be sent to this thread any more; what was sent is raised here at the last."""
        if cls.thread == threading.get_ident():
            cls.thread = 0
        with cls.lock:  # a sender may be at work
            pass
        for _ in range(2):  # the interpreter looks for exceptions when it jumps back
            pass

    @classmethod
    def ask(cls, kernel: Any, signature: tuple[Any, ...]) -> int:
        """Ask for the machine code of a kernel, once; return its number."""
        wanted = (kernel.py_func.__module__, kernel.py_func.__name__, signature)
        with cls.lock:
            if cls.process is None and not cls.ended:
                try:
                    cls._start()
                except (OSError, RuntimeError, TypeError, ValueError):  # no process or thread here
                    cls.ended = True
            if wanted not in cls.asked:
                cls.asked[wanted] = number = len(cls.asked)
                cls.waiting[number] = kernel, wanted
                cls._send()
            return cls.asked[wanted]

    @classmethod
    def _send(cls) -> None:
        """Give the other process something to do: what takes longest to interpret for its
        length and that of all it calls, of which the compiler's time is a multiple."""
        if not cls.idle or not cls.waiting or cls.process is None:
            return

        def worth(number: int) -> float:
            kernel = cls.waiting[number][0]
            running = (
                time.perf_counter() - cls.began if cls.thread and number == cls.awaited else 0.0
            )
            return float((kernel.spent + running) / _length(kernel))

        number = max(cls.waiting, key=worth)
        text = base64.b64encode(pickle.dumps(cls.waiting.pop(number)[1])).decode()
        cls.idle = False
        with suppress(OSError):
            print(number, text, file=cls.process.stdin)

    @classmethod
    def _start(cls) -> None:
        text = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        text += f"sys.path[:] = {sys.path!r}; from {__name__} import _Race; _Race.serve()"
        process = subprocess.Popen(
            [sys.executable, "-c", text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "THEORYLAB_KERNELS": "compiled"},
            text=True,
            bufsize=1,
        )
        threading.Thread(target=cls._listen, args=(process,), daemon=True).start()
        cls.process = process

    @classmethod
    def _listen(cls, process: subprocess.Popen[str]) -> None:
        for number in process.stdout or ():
            cls._answer(int(number))
        cls._answer(None)  # it has ended
        process.wait()

    @classmethod
    def _answer(cls, number: int | None) -> None:
        with cls.lock:
            if number is None:
                cls.ended = True
            else:
                cls.answered.add(number)
                cls.news += 1
                cls.idle = True
                cls._send()
            if cls.thread and (cls.ended or number == cls.awaited):
                send = ctypes.pythonapi.PyThreadState_SetAsyncExc
                send(ctypes.c_ulong(cls.thread), ctypes.py_object(_Overtaken))
                cls.thread = 0  # only once

    @classmethod
    def forget(cls) -> None:
        """Start anew in a forked process, which has no listener."""
        cls.process, cls.asked, cls.waiting, cls.answered = None, {}, {}, set()
        cls.ended, cls.idle, cls.thread = False, False, 0
        cls.lock = threading.Lock()

    @staticmethod
    def serve() -> None:
        """Compile what is asked for on the standard input, one kernel after the other."""
        print(-1, flush=True)  # ready
        for line in sys.stdin:
            number, text = line.split()
            with suppress(Exception):
                module, name, signature = pickle.loads(base64.b64decode(text))
                getattr(importlib.import_module(module), name).compile(signature)
            try:
                print(number, flush=True)
            except OSError:  # nobody listens
                return


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Race.forget)


@cache
def _length(kernel: Any) -> int:
    """Return the length of a kernel's code and of that of the kernels that it calls."""
    seen = [kernel]
    for found in seen:  # which grows
        names = found.py_func.__code__.co_names
        called = [found.py_func.__globals__.get(name) for name in names]
        seen.extend(k for k in called if isinstance(k, _Racing) and k not in seen)
    return sum(len(k.py_func.__code__.co_code) for k in seen)


@cache
def _is_first() -> bool:
    """Whether there was no machine code when this process began: to look for some in numba's way
    takes a while."""
    return next(cache_folder().glob("*/*.nbi"), None) is None


def _is_plain(value: Any) -> bool:
    """Whether an argument can be put back as it was, and means the same to Python and numba."""
    if type(value) is np.ndarray or isinstance(value, np.generic):
        return value.dtype.kind in "biufc"
    return isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() < 64)


def _plain(result: Any) -> Any:
    """Return what the compiled kernel would: Python's numbers in place of NumPy's."""
    if isinstance(result, tuple):
        return tuple(map(_plain, result))
    return result.item() if isinstance(result, np.generic) else result
