import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from theorylab.verify import breaks, cases, compare, judge, mean, note, panel, paper, theory, within
from theorylab.verify.panels import Pen, Runs, compose, save

source = paper("any-key", "Setting.")


def a_claim(n_panels=0, draw=lambda pen, runs: None, log=""):
    @source.ours("an example")
    @cases(n=[4.0, 1.0, 2.0], k=[2, 3])
    @breaks("doubled", factor=2.0)
    @note(no_space="an example")
    def claim(n, k, factor=1.0, grid=(1.0, 2.0, 3.0)):
        """d."""
        values = factor * n * np.array(grid)
        return {
            "value": compare(within(factor * n, 0.01 * k, "x"), "==", theory("n", n)),
            "row": compare(within(values, 0.01, "x"), "==", theory("row", n * np.array(grid))),
        }

    for i in range(n_panels):
        panel(claim, f"title {i}", x="n", y="value", log=log)(draw)
    return claim


def test_measured_returns_what_was_judged_sorted_by_the_keyword():
    runs = Runs(judge(a_claim()))
    x, y, error = runs.measured("n", where={"k": 3})
    assert x.tolist() == y.tolist() == [1.0, 2.0, 4.0]
    assert error.tolist() == [0.03] * 3
    assert runs.predicted("n", where={"k": 2})[1].tolist() == [1.0, 2.0, 4.0]
    assert runs.measured("n", control="doubled")[1].tolist() == [4.0]
    assert runs.measured("n", "row", 1, where={"k": 2})[1].tolist() == [2.0, 4.0, 8.0]
    x, y, _ = runs.measured("grid", "row", where={"k": 2, "n": 2.0})
    assert x.tolist() == [1.0, 2.0, 3.0]
    assert y.tolist() == [2.0, 4.0, 6.0]


def test_a_point_shows_the_sample_mean_and_not_the_middle_of_the_interval():
    @source.ours("an example")
    @note(no_space="x", no_break="x", coarse="x")
    def rare(n=1):
        """d."""
        return compare(mean(np.arange(200) < 2), "==", theory("p", 0.01))

    _, y, _ = Runs(judge(rare)).measured("n")
    assert y.tolist() == [0.01]


@pytest.mark.parametrize(("count", "axes"), [(1, 1), (2, 2), (3, 4), (6, 6)])
def test_every_panel_is_drawn_and_no_empty_axes_show(count, axes):
    figure = compose([judge(a_claim(count))], "title")
    assert len(figure.axes) == axes
    shown = [ax.get_title(loc="left") for ax in figure.axes if ax.get_visible()]
    assert shown == [f"title {i}" for i in range(count)]


def test_at_most_six_panels_and_none_without():
    assert compose([judge(a_claim())], "title") is None
    with pytest.raises(ValueError, match="panels"):
        compose([judge(a_claim(7))], "title")


def many_labels(pen: Pen, runs: Runs) -> None:
    x = np.linspace(1, 4, 5)
    for k in range(6):
        pen.theory(x, x * (1 + 1e-3 * k), f"line {k}", k=k)
    pen.broken(*runs.measured("n", control="doubled"), "doubled")


def test_labels_stand_right_of_the_axes_and_do_not_overlap():
    figure = compose([judge(a_claim(1, many_labels))], "title")
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(t) for t in figure.axes[0].texts]
    assert len(boxes) == 7
    assert all(b.x0 >= figure.axes[0].bbox.x1 for b in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_an_error_bar_that_reaches_zero_does_not_stretch_a_log_axis():
    def draw(pen, runs):
        pen.points([1.0, 2.0, 3.0], [1.0, 0.5, 0.2], [0.1, 0.1, 0.3], "points")

    (ax,) = compose([judge(a_claim(1, draw, log="y"))], "title").axes
    low, high = ax.get_ylim()
    assert 0.05 < low < 0.2
    assert 1.1 <= high < 2
    assert ax.get_ylabel().endswith("(log)")


def test_equal_figures_are_equal_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        save(compose([judge(a_claim(1, many_labels))], "title"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert not {"Software", "Creation Time", "date"} & set(image.info)
        drawn = {colour for _, colour in image.convert("RGB").getcolors()}
    assert (255, 255, 255) in drawn
    assert (0, 0, 0) in drawn


def test_a_title_is_never_broken_inside_a_formula():
    def draw(pen, runs):
        pen.theory([1, 2], [1, 2])

    claim = a_claim()
    panel(claim, r"a long title whose formula $\frac{a b c}{d - e} + f g h$ ends", x="x", y="y")(
        draw
    )
    (ax,) = compose([judge(claim)], "title").axes
    assert all(line.count("$") % 2 == 0 for line in ax.get_title(loc="left").split("\n"))


def test_pictures_stand_side_by_side_with_their_names():
    image = np.random.default_rng(0).random((4, 6, 3))

    def draw(pen, runs):
        pen.picture(image, "before")
        pen.picture(2 * image, "after")

    ax = compose([judge(a_claim(1, draw))], "t").axes[0]
    first, second = ax.get_images()
    assert np.array_equal(first.get_array(), image)
    assert second.get_array().max() == 1
    assert first.get_extent()[1] < second.get_extent()[0]
    assert {"before", "after"} <= {text.get_text() for text in ax.findobj(Text)}
