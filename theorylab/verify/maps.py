"""Where a bound is tight: a slice of a claim's space, and the factor of room at each instance."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from theorylab._validation import FloatArray, as_count, as_instance, as_text
from theorylab.verify.claims import Claim
from theorylab.verify.comparison import SIDE
from theorylab.verify.kernel import _room, evaluate
from theorylab.verify.panels import STYLE
from theorylab.verify.simulations import forget
from theorylab.verify.spaces import Int, dimension, instance_at
from theorylab.verify.sweeps import sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TightnessMap", "draw_map", "tightness_map"]

LEVELS = (1.0, 1.01, 1.1, 2.0, 10.0, 1000.0)


@dataclass(frozen=True, eq=False)
class TightnessMap:
    """The least factor by which a claim's bounds could be cut, on a grid of two parameters.

    ``factors[j, i]`` is that at ``x[i]``, ``y[j]``: 1 where a bound is attained, below 1 where it
    is violated, NaN where nothing was decided; ``rest`` are the other parameters in the middle.
    """

    names: tuple[str, str]
    x: FloatArray
    y: FloatArray
    factors: FloatArray
    rest: Mapping[str, Any]

    def share(self, factor: float) -> float:
        """Return the share of the decided instances with at most this room."""
        decided = self.factors[np.isfinite(self.factors)]
        return float(np.mean(decided <= factor)) if decided.size else np.nan


def tightness_map(claim: Claim, x: str, y: str, *, size: int = 21, seed: int = 0) -> TightnessMap:
    r"""Evaluate the bounds of a claim on a grid over two scalar parameters of its space.

    Parameters
    ----------
    claim
        One with a space and with inequalities among its parts.
    x, y
        Names of two parameters whose domains are ``Int`` or a scalar ``Real``; the others stay in
        the middle of theirs. Where ranges depend on each other, a corner of the map may lie outside
        the hypotheses, and a check that refuses it leaves a hole.
    size, seed
        Points a side, at most; the seed of a check that takes one.

    Examples
    --------
    >>> from theorylab.verify import Real, breaks, compare, paper, space, theory, within
    >>> from theorylab.verify import tightness_map
    >>> @paper("kingma2014-adam").ours("an example")
    ... @space(x=Real(0.5, 1.0), y=Real(0.5, 1.0))
    ... @breaks("beyond one", x=2.0)
    ... def product_is_smaller(x=0.5, y=0.5):
    ...     'The product $xy\\le y$.'
    ...     return compare(within(x * y, 1e-15, "rounding"), "<=", theory("bound", y))
    >>> tightness_map(product_is_smaller, "x", "y", size=3).factors[0].round(2).tolist()
    [2.0, 1.33, 1.0]
    """
    space = as_instance(claim, "claim", Claim).space
    if not space:
        raise ValueError("claim: expected one with a space, got none")
    scalar = [k for k, d in space.items() if isinstance(d, Int) or getattr(d, "size", 0) is None]
    for name, value, free in (("x", x, scalar), ("y", y, [k for k in scalar if k != x])):
        if as_text(value, name) not in free:
            raise ValueError(f"{name}: expected one of the scalar parameters {free}, got {value}")
    as_count(seed, "seed", minimum=0)
    starts = dict(
        zip(space, np.cumsum([0, *(d.coordinates for d in space.values())]), strict=False)
    )
    points = np.full((2, as_count(size, "size", minimum=2), dimension(space)), 0.5)
    for which, name in enumerate((x, y)):
        points[which, :, starts[name]] = np.linspace(0.0, 1.0, size)
    xs, ys = (
        np.unique([instance_at(space, u)[name] for u in side])
        for name, side in zip((x, y), points, strict=True)
    )
    middle = instance_at(space, np.full(dimension(space), 0.5))
    rest = {k: v for k, v in middle.items() if k not in (x, y)}
    factors = sweep(partial(_least_room, claim, rest, seed), {y: ys, x: xs})
    forget()
    return TightnessMap((x, y), xs.astype(float), ys.astype(float), factors, rest)


def _least_room(claim: Claim, rest: Mapping[str, Any], seed: int, /, **cell: Any) -> float:
    instance = {**rest, **cell}
    given = {k: v.item() if isinstance(v, np.generic) else v for k, v in instance.items()}
    try:
        parts = evaluate(claim, given, seed).values()
    except ValueError:
        return np.nan
    bounds = [p for p in parts if SIDE[p.relation]]
    if not bounds:
        raise TypeError("claim: expected one with an inequality, got equalities only")
    if any(p.holds is None for p in bounds):
        return np.nan
    return min(_room(p) if p.holds else 1 + p.margin for p in bounds)


def draw_map(found: TightnessMap, title: str) -> "Figure":
    """Draw the map: colours are powers of the room, lines stand at 1 %, 10 %, 2x, 10x, 1000x.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.verify import TightnessMap, draw_map
    >>> x = np.array([0.5, 0.75, 1.0])
    >>> found = TightnessMap(("x", "y"), x, x, np.tile(1 / x, (3, 1)), {})
    >>> figure = draw_map(found, "The room is $1/x$")
    >>> figure.axes[0].get_xlabel()
    'x'
    """
    as_instance(found, "found", TightnessMap)
    as_text(title, "title")
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure
    from matplotlib.style import context

    with context(STYLE):
        figure = Figure(figsize=(5.6, 4.2), layout="constrained")
        ax = figure.subplots()
        norm = BoundaryNorm(LEVELS, 256, extend="both")
        mesh = ax.pcolormesh(found.x, found.y, found.factors, cmap="viridis_r", norm=norm)
        ax.set_facecolor("#888888")
        bar = figure.colorbar(mesh, ax=ax, label="factor by which the bound could be cut")
        bar.set_ticks(LEVELS, labels=["attained", "1 %", "10 %", "2x", "10x", "1000x"])
        for values, scale in ((found.x, ax.set_xscale), (found.y, ax.set_yscale)):
            steps = np.diff(values)
            if steps.size and values[0] > 0 and steps[-1] > 3 * steps[0]:
                scale("log")
        ax.set(xlabel=found.names[0], ylabel=found.names[1])
        rest = ", ".join(
            f"{k} = {v:.4g}" for k, v in found.rest.items() if isinstance(v, int | float)
        )
        figure.suptitle(f"{title}\n{rest}", fontsize=10, x=0.01, ha="left")
        return figure
