"""The one plotting style, and the composed figure of an experiment.

Theory is a line, simulation points with intervals, a broken hypothesis grey. A panel is a function
of an axes and of the runs of its claim; its title states the claim."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from theorylab.verify.claims import Judgement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BROKEN", "COLOURS", "MAX_PANELS", "compose", "save"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colour-blind-safe palette."""

BROKEN = "#999999"
"""Colour of whatever shows a broken hypothesis."""

MAX_PANELS = 6

STYLE = Path(__file__).with_name("theorylab.mplstyle")


def compose(judgements: Sequence[Judgement], title: str) -> "Figure | None":
    """Draw the panels of a script's claims, two in a row; None if there are none.

    Raises
    ------
    ValueError
        If there are more than six panels.
    """
    from matplotlib.figure import Figure
    from matplotlib.style import context

    panels = [
        (draw, judgement.panel_runs) for judgement in judgements for draw in judgement.claim.draw
    ]
    if not panels:
        return None
    if len(panels) > MAX_PANELS:
        raise ValueError(f"panels: expected at most {MAX_PANELS} in one figure, got {len(panels)}")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with context(STYLE):
        figure = Figure(figsize=(4.6 * columns, 3.3 * rows + 0.35))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for (draw, runs), ax in zip(panels, axes, strict=False):
            draw(ax, runs)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        figure.suptitle(
            textwrap.fill(title, 46 * columns), fontsize=11, x=0.01, ha="left", fontweight="bold"
        )
        return figure


def save(figure: "Figure", path: Path) -> None:
    """Write a PNG that holds no date and no version, so that equal figures are equal bytes."""
    from matplotlib.style import context

    with context(STYLE):
        figure.savefig(path, format="png", metadata={"Software": None})
