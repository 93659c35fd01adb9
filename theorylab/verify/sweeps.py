"""A function on every cell of a grid, as for a phase diagram, by whatever joblib is told to use."""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import as_count, as_function, as_instance, as_text

__all__ = ["sweep"]


def sweep(
    function: Callable[..., Any], grid: Mapping[str, Iterable[Any]], *, seed: int | None = None
) -> NDArray[Any]:
    """Evaluate a function on every cell of a grid.

    Cells are evaluated one after the other; under ``joblib.parallel_config``, by its backend:
    ``n_jobs=8``, or ``backend="dask"`` with a client of a cluster. The function must then be one
    that the processes can import, or defined in the notebook or script itself.

    Parameters
    ----------
    function
        Called with one value of each axis by name, and with ``seed`` if one is given.
    grid
        Values of each parameter; the first varies along the first axis.
    seed
        If given, each cell gets a seed of its own, a 32-bit integer that depends on this number and
        the place of the cell on the axes only, not on what runs beside it.

    Returns
    -------
    Array
        Of a shape with an axis for each parameter, then the axes of what the function returns.

    Examples
    --------
    >>> from theorylab.verify import sweep
    >>> sweep(lambda n, x: n + x, {"n": [10, 20], "x": [1, 2, 3]}).tolist()
    [[11, 12, 13], [21, 22, 23]]
    """
    as_function(function, "function")
    axes = {
        as_text(name, "grid"): list(as_instance(values, f"grid[{name!r}]", Iterable))
        for name, values in as_instance(grid, "grid", Mapping).items()
    }
    shape = tuple(len(values) for values in axes.values())
    if not all(shape) or not axes:
        raise ValueError(f"grid: expected values of each parameter, got lengths {shape}")
    cells = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    if seed is not None:
        root = as_count(seed, "seed", minimum=0)
        if "seed" in axes:
            raise ValueError("seed: expected none beside an axis of this name in grid")
        for place, cell in zip(np.ndindex(shape), cells, strict=True):
            own = np.random.SeedSequence(root, spawn_key=place)
            cell["seed"] = int(own.generate_state(1)[0])
    from joblib import Parallel, delayed

    found = np.array(Parallel()(delayed(function)(**cell) for cell in cells))
    return found.reshape(*shape, *found.shape[1:])
