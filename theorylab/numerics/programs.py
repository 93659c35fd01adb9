"""Linear programs that Ctrl-C ends."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

__all__ = ["linprog"]


def linprog(*args: Any, **kwargs: Any) -> Any:
    """Return what SciPy's ``linprog`` does, but hear Ctrl-C meanwhile.

    HiGHS looks at no signals and runs in a thread of its own. After Ctrl-C nobody waits for it: the
    thread ends with its program, or with the process.
    """
    from scipy import optimize  # late: half of the import of training

    if threading.current_thread() is not threading.main_thread():
        return optimize.linprog(*args, **kwargs)
    context, answers, errors = contextvars.copy_context(), list[Any](), list[BaseException]()

    def solve() -> None:
        try:
            answers.append(context.run(optimize.linprog, *args, **kwargs))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=solve, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(
            1.0
        )  # at most so long: where signals do not end a wait, they are heard after it
    if errors:
        raise errors[0]
    return answers[0]
