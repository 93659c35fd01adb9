"""Palettes and barycentric maps: brute force, other libraries, closed forms, faults."""

import numpy as np
import ot
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist

from theorylab.optimal_transport import (
    barycentric_map,
    entropic_contrast,
    extract_palette,
    mixing,
    recolour,
    sinkhorn_plan,
)


def drawn(seed, n=5, m=7, d=3):
    rng = np.random.default_rng(seed)
    return rng.exponential(size=(n, m)), rng.normal(size=(m, d)) + 3.0


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
def test_variance_splits(seed, n, m, d):
    P, Y = drawn(seed, n, m, d)
    found = mixing(P, Y)
    mean, kept, lost = found.mean, found.kept, found.lost
    b = P.sum(axis=0) / P.sum()
    assert_allclose(mean, b @ Y, rtol=1e-12)
    assert_allclose(kept + lost, b @ ((Y - b @ Y) ** 2).sum(axis=1), rtol=1e-10, atol=1e-13)


def test_lost_variance_by_pairs_and_a_loop():
    P, Y = drawn(0)
    mapped = barycentric_map(P, Y)
    lost = 0.0
    for j, row in enumerate(P):
        share = row / row.sum()
        assert_allclose(mapped[j], sum(p * y for p, y in zip(share, Y, strict=True)), rtol=1e-12)
        lost += row.sum() / P.sum() * share @ cdist(Y, Y, "sqeuclidean") @ share / 2
    assert_allclose(mixing(P, Y).lost, lost, rtol=1e-12)
    assert abs(mixing(P, Y).kept - lost) > 0.1  # the two are told apart


def test_nothing_is_lost_by_a_map_and_all_by_the_product():
    Y = drawn(1)[1]
    assert mixing(np.eye(7), Y).lost == 0
    assert mixing(np.ones((4, 7)), Y).kept < 1e-25
    assert_allclose(barycentric_map(3 * np.eye(7), Y), Y, rtol=1e-15)


def test_barycentric_map_against_pot():
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(9, 2)), rng.normal(size=(9, 2))
    transport = ot.da.EMDTransport().fit(Xs=X, Xt=Y)
    P = np.asarray(transport.coupling_)
    assert_allclose(barycentric_map(P, Y), transport.transform(Xs=X), atol=1e-12)


@pytest.mark.parametrize("unit", [1.0, 255.0, 1e-8])
def test_palette_is_made_of_class_means(unit):
    image = unit * np.random.default_rng(3).uniform(size=(9, 11, 3))
    palette = extract_palette(image, n_colours=6, seed=0)
    assert palette.colours.shape == (6, 3)
    for c, (colour, weight) in enumerate(zip(palette.colours, palette.weights, strict=True)):
        pixels = image[palette.labels == c]
        assert_allclose(colour, pixels.mean(axis=0), rtol=1e-12)
        assert weight == len(pixels) / 99
    assert_allclose(palette.weights @ palette.colours, image.mean(axis=(0, 1)), rtol=1e-12)
    nearest = cdist(image.reshape(-1, 3), palette.colours).argmin(axis=1)
    assert np.mean(nearest == palette.labels.ravel()) > 0.97  # where Lloyd's algorithm ends
    same = extract_palette(image / unit, n_colours=6, seed=0)
    assert np.mean(same.labels == palette.labels) > 0.95
    left = ((image - recolour(palette, palette.colours)) ** 2).sum()
    other = np.random.default_rng(0).permutation(99).reshape(9, 11) % 6
    means = np.stack([image[other == c].mean(axis=0) for c in range(6)])
    assert left < 0.6 * ((image - means[other]) ** 2).sum()


def test_palette_of_well_separated_colours_is_exact():
    truth = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.2], [0.3, 1.0, 1.0]])
    labels = np.random.default_rng(4).integers(3, size=(8, 8))
    palette = extract_palette(truth[labels], n_colours=3, seed=0)
    assert_allclose(recolour(palette, palette.colours), truth[labels], atol=1e-14)
    swapped = recolour(palette, palette.colours[:, ::-1])
    assert_allclose(swapped, truth[labels][..., ::-1], atol=1e-14)


def test_empty_classes_are_left_out():
    image = np.zeros((4, 4, 3))
    image[0, 0] = 1.0
    palette = extract_palette(image, n_colours=5, seed=0)
    assert palette.colours.tolist() in ([[0, 0, 0], [1, 1, 1]], [[1, 1, 1], [0, 0, 0]])
    assert sorted(palette.weights) == [1 / 16, 15 / 16]


@pytest.mark.parametrize(("scale", "shift"), [(1e-200, 0.0), (1e200, 0.0), (1.0, 1e8)])
@pytest.mark.parametrize("d", [3, 6])
def test_classes_do_not_depend_on_the_origin_and_unit_of_colours(scale, shift, d):
    image = np.random.default_rng(5).uniform(size=(9, 11, d))
    labels = extract_palette(image, n_colours=6, seed=0).labels
    moved = extract_palette(scale * image + shift, n_colours=6, seed=0)
    assert np.mean(moved.labels == labels) > 0.95


def test_seed_chooses_the_first_centres():
    image = np.random.default_rng(6).uniform(size=(9, 11, 3))
    first, again, other = (extract_palette(image, n_colours=6, seed=s).labels for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("mass", [1e-300, 1.7e308])
def test_mass_of_the_plan_is_no_matter(mass):
    P, Y = drawn(6)
    P /= P.max()
    assert_allclose(barycentric_map(mass * P, Y), barycentric_map(P, Y), rtol=1e-12)
    heavy, found = mixing(mass * P, Y), mixing(P, Y)
    assert_allclose([heavy.kept, heavy.lost], [found.kept, found.lost], rtol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_contrast_is_the_limit_of_the_entropic_plan(d):
    rng = np.random.default_rng(d)
    X, Y = rng.normal(size=(8, d)) @ rng.normal(size=(d, d)), 2.0 + rng.normal(size=(6, d))
    a, b = rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(6))
    C = cdist(X, Y, "sqeuclidean")
    limit = entropic_contrast(X, Y, a, b)
    errors = []
    for eps in (300.0, 600.0, 1200.0):
        P = sinkhorn_plan(a, b, C, eps, tol=1e-14).plan
        errors.append(abs(eps**2 * mixing(P, Y).kept / limit - 1))
    assert errors[2] < 0.05
    assert_allclose(np.array(errors[:2]) / errors[1:], 2, rtol=0.2)  # of order 1 / eps


def test_contrast_in_one_dimension_by_hand():
    # Variances 1/4 and 1: 4 * (1/4) * 1^2.
    assert_allclose(entropic_contrast([[0.0], [1.0]], [[0.0], [2.0]], [0.5] * 2, [0.5] * 2), 1.0)


def test_wrong_input_is_named():
    P, Y = drawn(5)
    with pytest.raises(ValueError, match="plan: expected mass in every row, got none in 2"):
        mixing(np.where(np.arange(5)[:, None] == 2, 0.0, P), Y)
    with pytest.raises(ValueError, match="plan"):
        mixing(P - 0.5, Y)
    with pytest.raises(ValueError, match="Y: expected magnitudes"):
        mixing(P, 1e200 * Y)
    with pytest.raises(ValueError, match="X, Y: expected magnitudes"):
        entropic_contrast(1e80 * Y, 1e80 * Y, np.full(7, 1 / 7), np.full(7, 1 / 7))
    with pytest.raises(ValueError, match="Y"):
        barycentric_map(P, Y[:-1])
    with pytest.raises(ValueError, match="n_colours"):
        extract_palette(np.zeros((2, 2, 3)), n_colours=5, seed=0)
    palette = extract_palette(np.zeros((2, 2, 3)), n_colours=1, seed=0)
    with pytest.raises(ValueError, match="colours"):
        recolour(palette, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="b"):
        entropic_contrast(Y, Y, np.full(7, 1 / 7), np.full(6, 1 / 6))
