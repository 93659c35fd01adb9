"""An existing Dask cluster as a backend of joblib."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client
from distributed.core import connect
from joblib._dask import DaskDistributedBackend

from theorylab.verify.checkout import versions

__all__ = ["connected"]

SECONDS = 5.0
"""How long a scheduler may take to answer, and a worker to start."""


class Backend(DaskDistributedBackend):  # type: ignore[misc]
    """The backend of joblib, which also hands on what no task has raised.

    A worker that is killed, or that cannot import the function, leaves a future in error. Joblib
    calls back for results only and would wait for ever.
    """

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Submit a batch."""
        future = super().submit(func, callback)
        future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the results of a batch, or raise its error."""
        if isinstance(out, BaseException):
            raise out
        return super().retrieve_result_callback(out)


@contextmanager
def connected(address: str) -> Iterator[Backend]:
    """Connect to a scheduler that has a worker with this package.

    Raises
    ------
    ConnectionError
        If there is none, with the reason in a line.
    """
    try:
        asyncio.run(_call(address))
    except Exception as error:
        raise ConnectionError(f"no Dask scheduler at {address}: {_line(error)}") from error
    with Client(address, timeout=SECONDS, set_as_default=False) as client:
        try:
            client.submit(versions, pure=False).result(timeout=2 * SECONDS)
        except TimeoutError as error:
            raise ConnectionError(f"the scheduler at {address} has no free worker") from error
        except Exception as error:
            raise ConnectionError(f"a worker of {address} cannot start: {_line(error)}") from error
        yield Backend(client=client)


async def _call(address: str) -> None:
    """Greet the scheduler: a client that cannot reach it waits a second time when it is closed."""
    async with asyncio.timeout(SECONDS + 1):  # what answers may not be a scheduler
        comm = await connect(address, timeout=SECONDS)
        await comm.close()


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())
