"""How a claim is drawn: theory is a line, what was judged is points with their errors.

A panel is a function of a :class:`Pen` and of the judgement; the pen has four verbs, and grey is a
broken hypothesis. A label stands at the end of its series, in the colour of the series: one colour
a label. Labels that would touch are pushed apart. The panels of a script make one figure.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray
from theorylab.verify.claims import Claim
from theorylab.verify.kernel import Judgement, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BROKEN", "COLOURS", "MAX_PANELS", "Panel", "Pen", "Runs", "compose", "panel", "save"]
__all__ += ["save_pdf", "series"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colour-blind-safe palette."""

BROKEN = "#888888"
"""Colour of whatever shows a broken hypothesis."""

MAX_PANELS = 6
LINE = 11  # points between two labels
STYLE = Path(__file__).with_name("theorylab.mplstyle")


@dataclass(frozen=True)
class Panel:
    """How a claim is drawn: a function of a pen and of the judgement, with its words."""

    draw: Callable[[Any, Any], None]
    title: str
    x: str
    y: str
    log: str


def panel(
    claim: Claim, title: str, *, x: str, y: str, log: str = ""
) -> Callable[[Callable[[Any, Any], None]], Callable[[Any, Any], None]]:
    r"""Declare how the judged instances of a claim are drawn: a function of a pen and of the runs.

    ``title`` states the claim, ``x`` and ``y`` name the axes, ``log`` says which are logarithmic.

    Examples
    --------
    >>> from theorylab.verify import Real, breaks, compare, panel, paper, space, theory, within
    >>> @paper("kingma2014-adam").ours("an example")
    ... @space(x=Real(0.0, 1.0))
    ... @breaks("beyond one", x=2.0)
    ... def square_is_smaller(x=0.5):
    ...     '$x^2\\le x$.'
    ...     return compare(within(x * x, 1e-15, "rounding"), "<=", theory("bound", x))
    >>> @panel(square_is_smaller, "Squares", x="$x$", y="$x^2$")
    ... def draw(pen, runs):
    ...     pen.points(*runs.measured("x"), "judged")
    >>> square_is_smaller.panels[0].title
    'Squares'
    """

    def declare(draw: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        claim.panels.append(Panel(draw, title, x, y, log))
        return draw

    return declare


@dataclass(frozen=True)
class _Series:
    x: FloatArray
    y: FloatArray
    error: FloatArray | None
    label: str
    colour: str
    line: bool


@dataclass(frozen=True, eq=False)
class Runs:
    """What a panel draws: the judged cases and controls of a claim."""

    judgement: Judgement

    def measured(
        self,
        x: str,
        part: str | None = None,
        index: Any = (),
        *,
        control: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return x, shown value and error of the judged enclosures, for a panel.

        Parameters
        ----------
        x
            A keyword of the instances: its values in the judged cases, or, where it is a sequence,
            its entries along the last axis of the enclosure of one case.
        part
            Name of the part; the headline by default.
        index
            Of the entry in an enclosure that is an array.
        control
            Name of a control, in place of the cases.
        where
            Values of other keywords that choose among the cases.
        """
        return self._series(x, part, index, control, where, "shown")

    def predicted(
        self,
        x: str,
        part: str | None = None,
        index: Any = (),
        *,
        where: Mapping[str, Any] | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Return x and the prediction at the judged cases, as :meth:`measured` does."""
        return self._series(x, part, index, None, where, "predicted")[:2]

    def _series(
        self,
        x: str,
        part: str | None,
        index: Any,
        control: str | None,
        where: Mapping[str, Any] | None,
        side: str,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        runs: Iterable[Run | None] = self.judgement.runs
        if control is not None:
            runs = (c.run for c in self.judgement.controls if c.name == control)
        rows = []
        for run in runs:
            if run is None or any(run.instance.get(k) != v for k, v in (where or {}).items()):
                continue
            p = run.parts[next(iter(run.parts)) if part is None else part]
            default = inspect.signature(self.judgement.claim.check).parameters.get(x)
            at = run.instance.get(x, default.default if default is not None else None)
            values, error = np.asarray(getattr(p, side))[index], p.error[index]
            rows += [*zip(at, values, error, strict=True)] if np.ndim(at) else [(at, values, error)]
        found = np.array(sorted(rows, key=lambda row: float(row[0])), dtype=float).reshape(-1, 3)
        return found[:, 0], found[:, 1], found[:, 2]


class Pen:
    """What a panel draws with.

    ``k`` chooses a colour of the palette: the same for the theory and the points of one thing.
    """

    def __init__(self) -> None:
        self._series: list[_Series] = []
        self._ends: list[tuple[float, float, str, str]] = []
        self._pictures: list[tuple[FloatArray, str]] = []

    def theory(self, x: ArrayLike, y: ArrayLike, label: str = "", k: int = 0) -> None:
        """Draw a prediction as a line."""
        self._put(x, y, None, label, COLOURS[k], line=True)

    def points(
        self,
        x: ArrayLike,
        y: ArrayLike,
        error: ArrayLike | None = None,
        label: str = "",
        k: int = 0,
    ) -> None:
        """Draw what was judged, with its errors."""
        self._put(x, y, error, label, COLOURS[k], line=False)

    def broken(
        self, x: ArrayLike, y: ArrayLike, error: ArrayLike | None = None, label: str = ""
    ) -> None:
        """Draw what was judged under a broken hypothesis, in grey."""
        self._put(x, y, error, label, BROKEN, line=False)

    def picture(self, image: ArrayLike, label: str = "") -> None:
        """Show an image, shape (rows, columns, 3) with values in [0, 1], beside those before it."""
        self._pictures.append((np.clip(np.asarray(image, float), 0, 1), label))

    def _put(self, x: Any, y: Any, error: Any, label: str, colour: str, *, line: bool) -> None:
        a, b = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        e = None if error is None else np.broadcast_to(np.asarray(error, float), b.shape).ravel()
        self._series.append(_Series(a.ravel(), b.ravel(), e, label, colour, line))

    def finish(self, ax: "Axes", panel: Panel) -> None:
        """Draw the series and the words of the panel on the axes."""
        log = [name in panel.log for name in "xy"]
        ax.set(xscale="log" if log[0] else "linear", yscale="log" if log[1] else "linear")
        for s in self._series:
            shown = np.isfinite(s.x) & np.isfinite(s.y) & ((s.y > 0) | (not log[1]))
            zorder = 2 if s.line else 3
            if s.line:
                ax.plot(s.x, s.y, "-", color=s.colour, zorder=zorder)
            else:
                ax.plot(s.x[shown], s.y[shown], "o", ms=4, color=s.colour, zorder=zorder)
            if s.error is not None and not s.line:
                _bars(ax, s, shown, log_y=log[1])
            at = np.flatnonzero(shown)
            if s.label and at.size:
                last = at[np.argmax(s.x[at])]
                self._ends.append((s.x[last], s.y[last], s.label, s.colour))
        left = 0.0
        for image, label in self._pictures:
            width = image.shape[1] / image.shape[0]
            ax.imshow(image, extent=(left, left + width, 0, 1), interpolation="nearest")
            ax.text(left + width / 2, -0.03, label, ha="center", va="top", fontsize=8)
            left += width + 0.04
        if self._pictures:
            ax.set(xlim=(0, left), ylim=(-0.15, 1), xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        words = [text + " (log)" * on for text, on in zip((panel.x, panel.y), log, strict=True)]
        ax.set(xlabel=words[0], ylabel=words[1], title=_wrapped(panel.title, 46))
        for axis, on in ((ax.xaxis, log[0]), (ax.yaxis, log[1])):
            if on:
                _log_ticks(axis)

    def write_labels(self, ax: "Axes") -> None:
        """Write the labels, once the axes have their place."""
        _place_labels(ax, self._ends)


def _bars(ax: "Axes", s: _Series, shown: Any, *, log_y: bool) -> None:
    """Draw error bars; on a log axis one that reaches 0 runs to the bottom, no further."""
    assert s.error is not None
    x, y, error = s.x[shown], s.y[shown], s.error[shown]
    finite = np.isfinite(error) & (error > 0)
    x, y, error = x[finite], y[finite], error[finite]
    lower = y - error
    if log_y:
        ax.autoscale_view()
        lower = np.where(lower > 0, lower, y / 1e3)
    limits = ax.get_ylim()
    ax.vlines(x, lower, y + error, color=s.colour, lw=1, zorder=2)
    if log_y and (y - error <= 0).any():
        positive = y[y - error > 0] - error[y - error > 0]
        ax.set_ylim(min(limits[0], positive.min(initial=np.inf) / 1.2), None)


def _wrapped(text: str, width: int) -> str:
    """Break lines between words, and never inside a formula."""
    whole = re.sub(r"\$[^$]*\$", lambda m: m[0].replace(" ", "\u00a0"), text)
    filled = textwrap.fill(whole, width, break_on_hyphens=False, break_long_words=False)
    return filled.replace("\u00a0", " ")


def _log_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, NullFormatter

    lo, hi = axis.get_view_interval()
    narrow = hi < 100 * lo
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    plain = FuncFormatter(lambda v, _: f"{v:g}")
    axis.set_major_formatter(plain if narrow else LogFormatterSciNotation())
    axis.set_minor_formatter(NullFormatter())


def _place_labels(ax: "Axes", ends: list[tuple[float, float, str, str]]) -> None:
    """Write each label right of the axes, near the end of its series, a line apart."""
    box = ax.get_position()
    height = box.height * ax.figure.get_size_inches()[1] * 72  # type: ignore[union-attr]
    apart = LINE / height
    to_axes = ax.transData + ax.transAxes.inverted()
    placed = [(tuple(to_axes.transform((x, y))), text, colour) for x, y, text, colour in ends]
    placed.sort(key=lambda e: e[0][1])
    heights = np.clip([e[0][1] for e in placed], 0, 1) if placed else np.zeros(0)
    for _ in range(300):
        for i in range(len(heights) - 1):
            short = apart - (heights[i + 1] - heights[i])
            if short > 1e-9:
                heights[i], heights[i + 1] = heights[i] - short / 2, heights[i + 1] + short / 2
    for (at, text, colour), place in zip(placed, heights, strict=True):
        leader = {"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 1, "shrinkB": 3}
        ax.annotate(
            *(text, at, (1.03, place)),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            fontsize=8,
            va="center",
            arrowprops=leader,
            annotation_clip=False,
        )


def compose(judgements: Sequence[Judgement], title: str) -> "Figure | None":
    """Draw the panels of a script's claims, two in a row; None if there are none.

    Raises
    ------
    ValueError
        If there are more than six panels.
    """
    from matplotlib.figure import Figure
    from matplotlib.style import context

    panels = [(judgement, panel) for judgement in judgements for panel in judgement.claim.panels]
    if not panels:
        return None
    if len(panels) > MAX_PANELS:
        raise ValueError(f"panels: expected at most {MAX_PANELS} in one figure, got {len(panels)}")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with context(STYLE):
        figure = Figure(figsize=(5.2 * columns, 3.3 * rows + 0.35), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        words = _wrapped(title, 52 * columns)
        figure.suptitle(words, fontsize=11, x=0.01, ha="left", fontweight="bold")
        pens = [Pen() for _ in panels]
        for pen, (judgement, panel) in zip(pens, panels, strict=True):
            panel.draw(pen, Runs(judgement))
        for pen, ax, (_, panel) in zip(pens, axes, panels, strict=False):
            pen.finish(ax, panel)
        figure.draw_without_rendering()
        for pen, ax in zip(pens, axes, strict=False):
            pen.write_labels(ax)
        return figure


def save(figure: "Figure", path: Path) -> None:
    """Write a PNG of 256 colours that holds no date and no version, so that equal figures are equal
    bytes."""
    from matplotlib.style import context
    from PIL import Image

    with context(STYLE), BytesIO() as drawn:
        figure.savefig(drawn, format="png")
        palette = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        palette.save(path, format="png", optimize=True)


def save_pdf(figure: "Figure", path: Path) -> None:
    """Write the vector figure, without a date."""
    from matplotlib.style import context

    with context(STYLE):
        figure.savefig(path, format="pdf", metadata={"CreationDate": None})


def series(judgements: Sequence[Judgement]) -> dict[str, FloatArray]:
    """Return what the panels draw: "slug/n/label/x", ".../y" and ".../error" -> array.

    ``n`` counts the series of the claim; a label that repeats, or is empty, costs nothing.
    """
    found: dict[str, FloatArray] = {}
    for judgement in judgements:
        pen = Pen()
        for drawn in judgement.claim.panels:
            drawn.draw(pen, Runs(judgement))
        for n, s in enumerate(pen._series):
            kind = "theory" if s.line else "broken" if s.colour == BROKEN else "judged"
            name = f"{judgement.claim.slug}/{n}/{s.label or kind}"
            found |= {f"{name}/x": s.x, f"{name}/y": s.y}
            if s.error is not None:
                found[f"{name}/error"] = s.error
    return found
