"""Connecting to Dask schedulers in this process: one with a worker, and what is none."""

import socket

import joblib
import pytest

distributed = pytest.importorskip("distributed")

from theorylab.verify import _cluster  # noqa: E402


@pytest.fixture(scope="module")
def scheduler():
    """One worker, in threads."""
    options = {"processes": False, "dashboard_address": ":0", "threads_per_worker": 2}
    with distributed.LocalCluster(n_workers=1, **options) as cluster:
        yield cluster.scheduler_address


class Missing:
    """What a worker cannot load."""

    def __reduce__(self):
        return __import__, ("a_module_that_no_worker_has",)


def test_a_worker_answers_and_its_errors_are_raised(scheduler):
    with _cluster.connected(scheduler) as backend:
        # Other code finds no client of ours.
        with pytest.raises(ValueError, match="No client"):
            distributed.default_client()
        work = joblib.Parallel(backend=backend, batch_size=1, timeout=10.0)
        assert work(joblib.delayed(divmod)(k, 3) for k in range(5)) == [
            divmod(k, 3) for k in range(5)
        ]
        with pytest.raises(ZeroDivisionError):
            work(joblib.delayed(divmod)(1, k) for k in (1, 0))
        # Joblib alone would wait for an answer.
        with pytest.raises(RuntimeError, match="deserialization"):
            work([joblib.delayed(str)(Missing())])


def fails():
    raise OSError("a library\nis not there")


def test_a_worker_that_cannot_start_is_told_from_none(scheduler, monkeypatch):
    monkeypatch.setattr(_cluster, "versions", fails)
    with (
        pytest.raises(ConnectionError, match=r"cannot start: OSError a library is not there$"),
        _cluster.connected(scheduler),
    ):
        pass
    monkeypatch.setattr(_cluster, "SECONDS", 0.2)
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
        alone = cluster.scheduler_address
        with (
            pytest.raises(ConnectionError, match=f"the scheduler at {alone} has no free worker"),
            _cluster.connected(alone),
        ):
            pass


ASKED = []


def asked():
    ASKED.append(1)


def test_the_worker_is_asked_each_time_and_the_greeting_hung_up(scheduler, monkeypatch):
    greetings = []

    async def connect(*args, **kwargs):
        greetings.append(await distributed.core.connect(*args, **kwargs))
        return greetings[-1]

    monkeypatch.setattr(_cluster, "versions", asked)
    monkeypatch.setattr(_cluster, "connect", connect)
    with distributed.Client(scheduler, set_as_default=False) as other:
        # An answer that the scheduler knows already.
        known = other.submit(asked)
        known.result()
        with _cluster.connected(scheduler):
            assert len(ASKED) == 2
    assert len(greetings) == 1
    assert greetings[0].closed()


def test_what_is_no_scheduler_is_said_in_a_line(monkeypatch):
    monkeypatch.setattr(_cluster, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in (
            "tcp://127.0.0.1:9",
            "nonsense",
            f"tcp://127.0.0.1:{silent.getsockname()[1]}",
        ):
            with pytest.raises(ConnectionError) as caught, _cluster.connected(address):
                pass
            text = str(caught.value)
            assert text.startswith(f"no Dask scheduler at {address}: ")
            assert "\n" not in text
            assert len(text) > len(f"no Dask scheduler at {address}: ") + 5
