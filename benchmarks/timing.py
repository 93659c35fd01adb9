"""What every benchmark needs: the median time of a call, and a row of the table."""

from collections.abc import Callable
from statistics import median
from time import process_time


def seconds(run: Callable[[], object], repetitions: int = 7) -> float:
    """Median process time of the repetitions, after one call that does not count."""
    run()
    times = []
    for _ in range(repetitions):
        start = process_time()
        run()
        times.append(process_time() - start)
    return median(times)


def row(task: str, ours: float, peer: str, theirs: float, target: float | str) -> dict[str, object]:
    return {
        "task": task,
        "ours_seconds": ours,
        "peer": peer,
        "peer_seconds": theirs,
        "ratio": ours / theirs,
        "target": target,
    }
