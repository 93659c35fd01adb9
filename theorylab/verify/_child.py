"""Call a function in a process of its own, from a worker that runs its tasks in threads.

A time limit interrupts the main thread only, and which modules are loaded, how many threads BLAS
has and what simulations remember belong to a process: a thread of a Dask worker judges nothing
itself. The child ends with the worker, and reports a crash as one.
"""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["call", "serve"]

PROGRAM = f"from {__name__} import serve; serve()"


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the function returns there.

    Raises
    ------
    RuntimeError
        If the process ended before.
    """
    command = [sys.executable, "-P", "-c", PROGRAM]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    # The child imports what the caller does, wherever it was started.
    found = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, env=found, **pipes) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(pickle.dumps((function, arguments)))
            answer = child.stdout.read()  # the input stays open meanwhile
        except BrokenPipeError:
            answer = b""
    try:
        return pickle.loads(answer)
    except (EOFError, pickle.UnpicklingError):  # it ended before, or while it answered
        text = f"a process ended with code {child.returncode}; see the worker's log"
        raise RuntimeError(text) from None


def serve() -> None:
    """Answer one call that comes on the input; what the function prints goes to the errors."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    function, arguments = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_leave_with_the_caller, daemon=True).start()
    with answer:
        pickle.dump(function(*arguments), answer)


def _leave_with_the_caller() -> None:
    os.read(0, 1)  # returns when the other end is closed
    os._exit(1)
