from types import SimpleNamespace

import pytest

from theorylab.verify.plotting import compose, save


def judged(*draws):
    return SimpleNamespace(claim=SimpleNamespace(draw=list(draws)), panel_runs=())


def label(text):
    return lambda ax, runs: ax.set_title(text, loc="center")


@pytest.mark.parametrize(("count", "axes"), [(1, 1), (2, 2), (3, 4), (6, 6)])
def test_every_panel_is_drawn_and_no_empty_axes_show(count, axes):
    figure = compose([judged(label(str(i))) for i in range(count)], "title")
    assert len(figure.axes) == axes
    assert [ax.get_title() for ax in figure.axes if ax.get_visible()] == [
        str(i) for i in range(count)
    ]


def test_at_most_six_panels_and_none_without():
    assert compose([judged()], "title") is None
    with pytest.raises(ValueError, match="panels"):
        compose([judged(*[label("x")] * 7)], "title")


def test_equal_figures_are_equal_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        save(compose([judged(lambda ax, runs: ax.plot([0, 1], [1, 0]))], "title"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
