"""Sliced distances: surrogates that bound every projection, and what they save, or cost."""

import numpy as np

from theorylab.optimal_transport import (
    control_means,
    gaussian_controls,
    projected_distances,
    random_directions,
    sliced_distance,
)
from theorylab.verify import (
    Choice,
    Int,
    Real,
    breaks,
    cases,
    compare,
    full,
    mean,
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

SHAPES = ("two lumps", "heavy tails", "Gaussian", "dilated", "one point")
sliced = paper(
    "nguyen2023-sliced",
    r"Clouds of $n$ and $m$ points in $\mathbb R^d$, of equal weight, with means $m_i$ and "
    r"covariances $\Sigma_i$; $W(\theta)=W_2^2$ of their projections on a unit vector $\theta$:",
)


def clouds(n, m, d, shape, shift, stretch, seed, move_to="anywhere"):
    """Centred clouds, the first stretched along an axis, the second then moved by the shift."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.append(np.full(d - 1, 1.0), stretch)
    Y, move = rng.standard_normal((m, d)), rng.standard_normal(d)
    if move_to != "anywhere":
        move[slice(None, -1) if move_to == "along" else -1] = 0.0
    if shape == "two lumps":
        Y += 2 * np.sign(rng.standard_normal((m, 1)))
    elif shape == "heavy tails":
        Y = Y**3
    elif shape == "dilated":
        Y = 0.5 * X
    elif shape == "one point":
        Y = np.zeros((m, d))
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    return X, Y + shift * move / np.linalg.norm(move)


def of_first_order(X, Y, directions):
    """W_1 squared, by the quantile functions on a common refinement of both clouds."""
    x, y = (np.sort(directions @ Z.T, axis=1) for Z in (X, Y))
    x, y = np.repeat(x, len(Y), axis=1), np.repeat(y, len(X), axis=1)
    return np.mean(np.abs(x - y), axis=1) ** 2


def in_reverse(X, Y, directions):
    """Cost of the plan that sends the largest to the smallest."""
    x, y = (np.sort(directions @ Z.T, axis=1) for Z in (X, Y))
    x, y = np.repeat(x, len(Y), axis=1), np.repeat(y, len(X), axis=1)
    return np.mean((x - y[:, ::-1]) ** 2, axis=1)


def not_normalised(d, n, *, seed):
    """Gaussian vectors."""
    return np.random.default_rng(seed).standard_normal((n, d))


@simulation
def along(n, m, d, shape, shift, stretch, distance, sampler, seed):
    """The clouds, and the first dilated in place of the second; of both pairs the distances along
    some directions, and the surrogates; squares of the projections; outer surrogates along many."""
    X, Y = clouds(n, m, d, shape, shift, stretch, seed)
    D = random_directions(d, 60, seed=seed + 1)
    many = gaussian_controls(X, Y, sampler(d, 40_000, seed=seed + 2))
    outer = np.stack([many.lower, many.upper], axis=1)
    like = Y.mean(axis=0) + 0.4 * X
    found = [(distance(X, Z, D), gaussian_controls(X, Z, D)) for Z in (Y, like)]
    size = sum(np.mean((D @ Z.T) ** 2, axis=1) for Z in (X, Y))
    return X, Y, found, size, outer


@sliced.ours("sharpened: the bounds hold for measures that are not Gaussian", serves="a")
@cases(shape=["two lumps", "dilated", "one point"])
@full(shape=[*SHAPES[1:], SHAPES[0]], n=120, m=80, d=8)
@space(
    shape=Choice(SHAPES),
    n=Int(1, 30),
    m=Int(1, 30),
    d=Int(2, 9),
    shift=Real(0.05, 5.0, log=True),
    stretch=Real(0.2, 5.0, log=True),
)
@breaks("W_1 squared for W_2 squared", distance=of_first_order, shape="Gaussian", shift=0.1)
@breaks("the largest sent to the smallest", distance=in_reverse, shape="Gaussian")
@breaks("directions not normalised", sampler=not_normalised)
def cv_closed_forms_and_sandwich(
    shape,
    seed,
    n=30,
    m=20,
    d=4,
    shift=1.0,
    stretch=3.0,
    distance=projected_distances,
    sampler=random_directions,
):
    r"""with $\sigma_i^2=\theta^\top\Sigma_i\theta$ and $C_{low}=(\theta^\top(m_1-m_2))^2$, along
    every $\theta$ $$C_{low}\le C_{low}+(\sigma_1-\sigma_2)^2\le W\le
    C_{up}=C_{low}+\sigma_1^2+\sigma_2^2,$$ the second being $W_2^2$ of the fitted Gaussians, and of
    any cloud and its dilation about any point; for $\theta$ uniform on the sphere
    $\operatorname EC_{low}=\|m_1-m_2\|^2/d$ and
    $\operatorname EC_{up}=\operatorname EC_{low}+\operatorname{tr}(\Sigma_1+\Sigma_2)/d$."""
    X, Y, found, size, outer = along(n, m, d, shape, shift, stretch, distance, sampler, seed)
    (W, surrogate), (attained, alike) = found
    measured, means = within(W, 1e-12 * size, "rounding"), np.array(control_means(X, Y))
    return {
        "below": compare(measured, ">=", theory("fitted Gaussians", surrogate.gaussian)),
        "attained": compare(
            within(attained, 1e-12 * size, "rounding"),
            "==",
            theory("fitted Gaussians", alike.gaussian),
        ),
        "above": compare(measured, "<=", theory("upper", surrogate.upper)),
        "means": compare(mean(outer / means), "==", theory("means", means) / means),
    }


@panel(
    cv_closed_forms_and_sandwich,
    "Fitted Gaussians bound every projection from below, uncorrelated ones from above",
    x=r"surrogate along $\theta$",
    y=r"$W_2^2$ of the projections",
    log="xy",
)
def _(pen, runs):
    run = runs.judgement.runs[-1]
    below, above = run.parts["below"], run.parts["above"]
    ends = [below.predicted.min() / 1.5, above.predicted.max() * 1.5]
    pen.theory(ends, ends, "equal")
    pen.points(below.predicted, below.shown, label="fitted Gaussians", k=1)
    pen.points(above.predicted, above.shown, label=r"$C_{up}$", k=2)


@simulation
def population(n, m, d, shape, shift, stretch, seed, move_to="anywhere"):
    """Squared distances and their outer surrogates along the directions that are drawn from."""
    X, Y = clouds(n, m, d, shape, shift, stretch, seed, move_to)
    D = random_directions(d, 3000, seed=seed + 1)
    surrogate = gaussian_controls(X, Y, D)
    return projected_distances(X, Y, D), {"lower": surrogate.lower, "upper": surrogate.upper}


@simulation
def estimates(W, C, L, runs, coefficients, own, seed):
    """Estimates from L directions each, with every coefficient, over independent runs."""
    rng = np.random.default_rng(seed)
    at = rng.integers(len(W), size=(runs, L))
    other = at if own else rng.integers(len(W), size=(runs, L))
    return W[at].mean(axis=1)[:, None] - np.outer(C[other].mean(axis=1) - C.mean(), coefficients)


@sliced.abstract("b", instance=True)
@cases(shape="two lumps", control=["lower", "upper"], runs=40_000)
@cases(shape="heavy tails", control="upper", L=3, runs=40_000)
@full(shape=[*SHAPES[:4]], control=["lower", "upper"], n=200, m=150, d=8, runs=80_000)
@space(
    shape=Choice(SHAPES[:4]),
    control=Choice(("lower", "upper")),
    n=Int(20, 60),
    m=Int(20, 60),
    d=Int(2, 9),
    L=Int(1, 12),
    shift=Real(0.05, 5.0, log=True),
    stretch=Real(0.2, 5.0, log=True),
)
@breaks("surrogate of other directions", own=False)
def variance_ratio(
    shape, control, seed, n=40, m=30, d=4, L=5, shift=1.0, stretch=3.0, own=True, runs=20_000
):
    r"""for directions of any law (judged: uniform on 3000 points of the sphere) let
    $\gamma^\star=\operatorname{Cov}(W,C)/\operatorname{Var}C$ and $\rho$ the correlation of $W$
    and $C\in\{C_{low},C_{up}\}$. The mean of $W-t\gamma^\star(C-\operatorname EC)$ over $L$
    directions has expectation $\operatorname EW$ and variance
    $(1-\rho^2(2t-t^2))\operatorname{Var}(W)/L$, least at $t=1$: $1-\rho^2$ times that of no
    control; for a translate $C_{low}$ leaves no variance."""
    W, table = population(n, m, d, shape, shift, stretch, seed)
    C, times = table[control], np.array([1.0, 0.0, 0.5, 1.5])
    optimal = np.cov(W, C, bias=True)[0, 1] / C.var()
    squared = np.corrcoef(W, C)[0, 1] ** 2
    found = estimates(W, C, L, 2 * runs, optimal * times, own, seed)
    spread = (found[::2] - found[1::2]) ** 2 / 2
    X = clouds(n, m, d, shape, shift, stretch, seed)[0]
    moved = sliced_distance(X, X + shift, n_projections=20, control_variate="lower", seed=seed)
    plain = theory("plain", W.var() / L)
    elsewhere = theory("elsewhere", 1 - squared * (2 * times - times**2)[1:])
    return {
        "optimal": compare(mean(spread[:, 0]), "==", plain * theory("ratio", 1 - squared)),
        "elsewhere": compare(mean(spread[:, 1:]), "==", plain * elsewhere),
        "unbiased": compare(mean(found[:, 0]), "==", theory("mean", W.mean())),
        "translate": compare(
            within(moved.variance_ratio, 1e-12, "rounding"), "==", theory("no variance", 0.0)
        ),
    }


@panel(
    variance_ratio,
    r"The optimal coefficient multiplies the variance by $1-\rho^2$",
    x=r"$1-\rho^2$ times the variance of no control",
    y="variance of the estimate",
    log="xy",
)
def _(pen, runs):
    for k, control in enumerate(("lower", "upper")):
        found = [r for r in runs.judgement.runs if r.instance["control"] == control]
        parts = [r.parts["optimal"] for r in found]
        at, shown, error = (
            [float(getattr(p, v)) for p in parts] for v in ("predicted", "shown", "error")
        )
        pen.points(at, shown, error, control, k=k + 1)
    pen.theory([1e-3, 10], [1e-3, 10])
    part = runs.judgement.controls[0].run.parts["optimal"]
    pen.broken(part.predicted, part.shown, label="other directions")


@simulation
def fitted(W, C, L, runs, own, seed):
    """Errors of the plain estimate, of the one with a fitted coefficient, and what fitting adds,
    less a term of mean zero: the products of the errors of two directions."""
    rng = np.random.default_rng(seed)
    optimal = np.cov(W, C, bias=True)[0, 1] / C.var()
    W, C, found = W - W.mean(), C - C.mean(), []
    product = C * (W - optimal * C)  # of mean zero, like C: so are products of two directions
    for _ in range(10):  # of the runs at a time
        at = rng.integers(len(W), size=(runs // 10, L))
        of = at if own else rng.integers(len(W), size=at.shape)
        centred = C[of]
        centred -= centred.mean(axis=1, keepdims=True)
        power = np.einsum("ij,ij->i", centred, centred)
        fit = np.einsum("ij,ij->i", centred, W[of]) / np.where(power > 0, power, np.inf)
        plain, off = W[at].mean(axis=1), C[at].mean(axis=1)
        pairs = np.sum(product[at], axis=1) * off / L - np.mean(product[at] * C[at], axis=1) / L
        found.append([plain, plain - fit * off, (optimal - fit) * off + pairs / np.mean(C**2)])
    return np.concatenate(found, axis=1)


@sliced.ours("derived: the abstract speaks of the reduction only", serves="")
@cases(L=[5, 4], runs=40_000)
@full(L=[3, 4, 6, 5], n=200, m=150, runs=60_000)
@space(
    L=Int(3, 6),
    shape=Choice(("Gaussian", "heavy tails")),
    n=Int(100, 160),
    m=Int(100, 160),
    d=Int(5, 9),
    shift=Real(0.01, 0.5, log=True),
    stretch=Real(2.0, 4.0),
)
@breaks("coefficient from other directions", own=False)
@breaks("means far apart", shift=20.0, most=1.0)
@breaks("means that differ where the shapes do", move_to="along", most=1.0)
def plug_in_can_hurt(
    L,
    seed,
    shape="Gaussian",
    n=60,
    m=60,
    d=4,
    shift=0.05,
    stretch=5.0,
    move_to="across",
    own=True,
    most=0.2,
    runs=15_000,
):
    r"""with $\gamma$ fitted on the same $L$ directions the estimate is biased by
    $-\operatorname E[(C-\operatorname EC)^2R]/(L\operatorname{Var}C)$ to leading order, $R$ the
    residual of $W$ on $C$ (judged: $C_{up}$, 128 and 256 directions); where $\rho^2\le\frac15$
    for $C_{low}$, as for means that differ little and not where the shapes do, and few directions,
    the mean squared error exceeds that of no control."""
    W, table = population(n, m, d, shape, shift, stretch, seed, move_to)
    C, c = table["upper"], table["upper"] - table["upper"].mean()
    residual = W - W.mean() - (c @ W) / (c @ c) * c
    leading = -np.mean(c**2 * residual) / C.var()
    added, half = (fitted(W, C, size, runs, own, seed)[2] * size for size in (256, 128))
    plain, plugged, _ = fitted(W, table["lower"], L, 100_000, own, seed)
    unit = W.var() / L
    worst = np.max((W - W.mean()) ** 2) / unit
    # Cut where it is large: the mean falls only.
    ratio = np.minimum(1 + (plugged**2 - plain**2) / unit, 30.0)
    if np.corrcoef(W, table["lower"])[0, 1] ** 2 > most:  # outside the hypothesis
        ratio = np.full(len(ratio), np.nan)
    rest = abs(added.mean() - half.mean())
    return {
        "ratio": compare(mean(ratio, support=(-worst, 30.0)), ">", theory("no control", 1.0)),
        "bias": compare(
            mean(2 * added - half, bias=rest, source="difference to half the directions"),
            "==",
            theory("leading", leading),
        ),
    }


@panel(
    plug_in_can_hurt,
    "With few directions a fitted coefficient can be worse than none",
    x="directions $L$",
    y="mean squared error, in units of the plain one",
)
def _(pen, runs):
    pen.points(*runs.measured("L"), "moved a little, across", k=1)
    name = "means that differ where the shapes do"
    pen.broken(*runs.measured("L", control=name), "a little, along")
    pen.broken(*runs.measured("L", control="means far apart"), "far apart")
    pen.theory([3, 6], [1, 1], "no control")


if __name__ == "__main__":
    run_script(__file__)
