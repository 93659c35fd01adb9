"""The Monge gap: when it is zero, what it is for Gaussians, what entropy adds to it."""

from itertools import permutations

import cvxpy as cp
import numpy as np

from theorylab.optimal_transport import cycle_excess, gaussian_monge_gap, monge_gap
from theorylab.verify import (
    Choice,
    Int,
    Real,
    between,
    breaks,
    cases,
    compare,
    family,
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

KEY = "uscidda2023-monge"
sample = paper(
    KEY,
    r"For a finite cost, a uniform sample $x_1,\dots,x_n$ and the gap "
    r"$\mathcal M(T)=\frac1n\sum c(x_i,Tx_i)-W_c(\rho,T_\sharp\rho)$",
)
gaussian = paper(KEY, r"For $\rho=N(0,\Sigma)$, $\Sigma\succ0$, $T(x)=Ax$, $c=\|x-y\|^2$:")
entropic = paper(
    KEY,
    r"For $n\ge2$ points of equal weights and the gap $\mathcal M_\epsilon$ with "
    r"$W_\epsilon=\min_P\langle C,P\rangle+\epsilon\sum P\log P$:",
)


def integer_cost(p):
    """The sum of the powers of the coordinates of the displacement; for p = 0 a table of no use."""
    if p == 0:
        return lambda X, Y: (7 * X[:, None, :] + 13 * Y + 5 * X[:, None, :] * Y).sum(axis=2) % 17
    return lambda X, Y: (np.abs(X[:, None, :] - Y) ** p).sum(axis=2)


@simulation
def integer_maps(n, d, p, count, seed):
    """For maps of integer points (optimal, a swap away, a cycle away, random; a rotation): n times
    the gap by enumeration and by assignment, that of half the points, worst cycle and pair."""
    rng, orders = np.random.default_rng(seed), np.array(list(permutations(range(n))))
    cost, rows, half = integer_cost(p), [], max(n // 2, 1)
    small = np.array(list(permutations(range(half))))

    def enumerated(C, orders):
        sums = C[np.arange(len(C)), orders].sum(axis=1)
        return int(C.trace() - sums.min()), orders[sums.argmin()]

    for k in range(count):
        X, Y = rng.integers(-5, 6, (2, n, d)).astype(float)
        Y = Y[enumerated(cost(X, Y), orders)[1]] if k % 4 < 3 else Y
        moved = min((1, 2, 3, 1)[k % 4], n)
        Y[:moved] = np.roll(Y[:moved], 1, axis=0)
        if k == 0:  # a turn by a sixth, which is monotone and not cyclically so
            X = np.array([[4, 0], [2, 3], [-2, 3], [-4, 0], [-2, -3], [2, -3]], float)[:n]
            Y = np.roll(X, -1, axis=0)
        C = cost(X, Y)
        pair = (C + C.T - np.add.outer(C.diagonal(), C.diagonal())).min()
        found = n * monge_gap(X, Y, cost=cost).value
        cycle = cycle_excess(X, Y, cost=cost)
        part = enumerated(C[:half, :half], small)[0]
        rows.append((enumerated(C, orders)[0], found, part, cycle, max(-pair, 0.0) / 2))
    return np.array(rows).T


@sample.abstract("a", "b", instance=True)
@cases(p=[0, 1, 4, 2])
@full(p=[0, 1, 3, 4, 2], count=120)
@space(n=Int(1, 6), d=Int(1, 3), p=Int(0, 4), count=Int(4, 24))
@breaks("cycles of two points only", longest=2)
def gap_zero_iff_cyclically_monotone(p, seed, n=6, d=2, count=24, longest=None):
    r"""(judged: integer points, $c=\sum_k|x_k-y_k|^p$, or for $p=0$ the rest mod 17 of
    $\sum_k7x_k+13y_k+5x_ky_k$): $\mathcal M(T)\ge0$ is what the best permutation of the images
    saves, and is 0 iff no cycle of $c(x_i,Tx_j)-c(x_i,Tx_i)$ is negative; $m\mathcal M$ of $m$ of
    the points never exceeds $n\mathcal M$."""
    whole, found, some, cycle, pair = integer_maps(n, d, p, count, seed)
    worst = pair if longest == 2 else cycle
    pairs = enumerate(zip(whole, worst, strict=True))
    agree = {k: bool((saved == 0) == (excess == 0)) for k, (saved, excess) in pairs}
    whole = whole.astype(int)
    return {
        "iff": compare(family(agree), "==", len(agree)),
        "saved": compare(within(found, 1e-9, "rounding"), "==", theory("saved", whole)),
        "subset": compare(some.astype(int), "<=", theory("whole", whole)),
    }


@panel(
    gap_zero_iff_cyclically_monotone,
    "The gap of a sample is what the best permutation saves",
    x="saved by the best of 720 permutations",
    y="$n$ x gap by assignment",
    log="xy",
)
def _(pen, runs):
    pen.theory([1, 3e4], [1, 3e4], k=6)
    for k, run in enumerate(runs.judgement.runs):
        part = run.parts["saved"]
        name = f"$p={run.instance['p']}$" if run.instance["p"] else "mod 17"
        pen.points(part.predicted, part.shown, None, name, k=k)


def turned(d, angle, stretch, sign, rng):
    """A turn in a random plane after a random stretching, the sign of one axis of it."""
    R, Q = np.linalg.qr(rng.standard_normal((2, d, d)))[0]
    scales = np.linspace(stretch, 1.0, d)
    scales[0] *= sign
    turn = np.eye(d)
    if d > 1:
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return R @ turn @ R.T @ Q @ (scales[:, None] * Q.T)


def roots(S):
    """The root of a semidefinite matrix and the inverse of it where that is stable."""
    values, vectors = np.linalg.eigh(S)
    root = np.sqrt(np.where(values > 1e-9 * values.max(), values, 0.0))
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
    return (vectors * root) @ vectors.T, (vectors * inverse) @ vectors.T


def instance(d, angle, stretch, sign, seed):
    """A map, a covariance, and the size of its moments."""
    rng = np.random.default_rng(seed)
    A, root = turned(d, angle, stretch, sign, rng), rng.standard_normal((d, 2 * d))
    S = root @ root.T / (2 * d) + 0.2 * np.eye(d)
    return A, S, (1 + np.linalg.norm(A)) * np.trace(S)


@simulation
def coupled(A, S):
    """The greatest 2 E <x, y> over all couplings by semidefinite programming, between that of a
    coupling and a bound by potentials."""
    d, image = len(S), A @ S @ A.T
    joint = cp.Variable((2 * d, 2 * d), PSD=True)
    given = [joint[:d, :d] == S, joint[d:, d:] == image]
    problem = cp.Problem(cp.Maximize(2 * cp.trace(joint[:d, d:])), given)
    problem.solve(solver="CLARABEL")
    # The roots times a W of norm at most 1 are the cross-covariance of a coupling.
    (half, inverse), (other, back) = roots(S), roots(image)
    W = inverse @ joint.value[:d, d:] @ back
    attained = 2 * np.trace(half @ W @ other) / max(1.0, np.linalg.norm(W, 2))
    # <F, x x'> + <G, y y'> >= 2 <x, y> for all x, y, if (F, -1; -1, G) is semidefinite.
    F, G = (np.array((c.dual_value + c.dual_value.T) / 2) for c in given)
    sign = np.sign(np.trace(F))
    F, G = sign * F, sign * G
    lift = max(0.0, -np.linalg.eigvalsh(np.block([[F, -np.eye(d)], [-np.eye(d), G]]))[0])
    return attained, np.vdot(F + lift * np.eye(d), S) + np.vdot(G + lift * np.eye(d), image)


@simulation
def on_sample(A, S, n, part, seed):
    """The gap on a sample of a symmetric map: the semidefinite part of A, or that with its least
    axis turned round."""
    U, s, _ = np.linalg.svd(A)
    s[-1] *= part
    X = np.random.default_rng([seed, 1]).standard_normal((n, len(S))) @ np.linalg.cholesky(S).T
    return monge_gap(X, X @ (U * s) @ U.T).value


@gaussian.ours("derived: Bures' formula, and Brenier's condition on a sample", serves="a")
@cases(angle=[0.0, 0.6, 2.5])
@cases(sign=-1.0, angle=[0.0])
@full(angle=[0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 2.5, 3.1], d=2, sign=1.0)
@full(angle=[0.0], sign=-1.0)
@full(angle=[1.0, 3.1], sign=[1.0, -1.0], d=4, stretch=0.5)
@space(
    d=Int(1, 4),
    angle=Real(0.0, 3.14),
    stretch=Real(0.0, 3.0),
    sign=Choice((1.0, -1.0)),
    n=Int(1, 60),
)
@breaks("a Gaussian of twice the width", spread=2.0)
@breaks("a symmetric map, indefinite", part=-1.0)
def gaussian_closed_form(seed, angle=0.5, d=2, stretch=2.0, sign=1.0, n=60, spread=1.0, part=1.0):
    r"""$\mathcal M(T)=2(\|M\|_*-\mathrm{tr}M)$ with $M=\Sigma^{1/2}A\Sigma^{1/2}$, zero iff $A$ is
    symmetric positive semidefinite; for the part $(AA^\top)^{1/2}$ of $A$ it is zero on every
    sample."""
    A, S, size = instance(d, angle, stretch, sign, seed)
    wide = spread**2 * S
    best = between(*(v / size for v in coupled(A, wide)), "max")
    kept = 2 * np.trace(A @ wide) / size
    gap = within(best.centre - kept, best.error + 1e-13, "a coupling and potentials")
    none = on_sample(A, S, n, part, seed) / size
    return {
        "gap": compare(gap, "==", theory("gap", gaussian_monge_gap(A, S) / size)),
        "zero": compare(within(none, 1e-12, "rounding"), "==", theory("zero", 0.0)),
    }


@panel(
    gaussian_closed_form,
    "The gap of a rotated map of a Gaussian",
    x="angle",
    y="gap, relative",
)
def _(pen, runs):
    where = {"d": 2, "sign": 1.0}
    pen.theory(*runs.predicted("angle", "gap", where=where), r"$2(\|M\|_*-\mathrm{tr}M)$")
    pen.points(*runs.measured("angle", "gap", where=where), "all couplings")
    pen.points(*runs.measured("angle", "zero", where=where), "semidefinite part, a sample", k=1)


@simulation
def sampled(A, S, n, repeats, spread, seed):
    """Gaps of independent samples."""
    rng, root = np.random.default_rng([seed, 1]), np.linalg.cholesky(S)
    clouds = spread * rng.standard_normal((repeats, n, len(S))) @ root.T
    return np.array([monge_gap(X, X @ A.T).value for X in clouds])


@gaussian.ours("derived: convexity of the transport cost in both measures", serves="a")
@cases(angle=[0.6, 2.5])
@cases(sign=-1.0, angle=[0.0])
@full(angle=0.6, n=[25, 50, 100, 200, 400], repeats=100)
@full(angle=[1.0, 3.1], sign=[1.0, -1.0])
@space(
    d=Int(2, 4),
    angle=Real(0.6, 3.14),
    stretch=Real(0.0, 3.0),
    sign=Choice((1.0, -1.0)),
    n=Int(20, 60),
)
@breaks("a Gaussian of twice the width", spread=2.0)
def gaussian_samples_fall_short(
    seed, angle=0.5, d=2, stretch=2.0, sign=1.0, n=60, repeats=200, spread=1.0
):
    r"""the gap of a sample is at most $2(\|M\|_*-\mathrm{tr}M)$ in expectation,
    $M=\Sigma^{1/2}A\Sigma^{1/2}$."""
    A, S, size = instance(d, angle, stretch, sign, seed)
    gaps = sampled(A, S, n, repeats, spread, seed) / size
    return compare(mean(gaps), "<=", theory("gap", gaussian_monge_gap(A, S) / size))


@panel(
    gaussian_samples_fall_short,
    "A sample shows less than the gap of the Gaussian",
    x="sample size",
    y="gap, relative",
    log="x",
)
def _(pen, runs):
    pen.points(*runs.measured("n", where={"repeats": 100}), "mean of samples")
    pen.theory(*runs.predicted("n", where={"repeats": 100}), r"$2(\|M\|_*-\mathrm{tr}M)$", k=1)


@simulation
def regularized(n, d, eps, rotation, cost, seed):
    """Exact gap, entropic gap as attained and bounded, and what the entropic plan saves in cost."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    A = turned(d, rotation, 2.0, 1.0, rng)
    exact, soft = (monge_gap(X, X @ A.T, cost=cost, eps=e) for e in (0.0, eps))
    return exact.value, soft.value, soft.bound, -soft.plan.transport_cost


@entropic.ours("derived: the entropy of a coupling lies between log n and 2 log n", serves="a")
@cases(cost="euclidean", eps=0.5, rotation=1.5)
@cases(eps=2.0, n=2)
@cases(eps=[0.05, 2.0], rotation=[0.0, 1.5])
@full(eps=np.geomspace(0.02, 200, 9).tolist(), rotation=[1.5, 0.0])
@space(
    eps=Real(0.1, 100.0, log=True),
    rotation=Real(0.0, 3.14),
    n=Int(3, 60),
    d=Int(2, 3),
    cost=Choice(("sqeuclidean", "euclidean")),
)
@breaks("entropy relative to the product", relative=True)
@breaks("entropy with the cost", counted=True)
def entropic_gap_sandwich(
    eps, seed, rotation=0.0, n=40, d=2, cost="sqeuclidean", relative=False, counted=False
):
    r"""$\epsilon\log n\le\mathcal M_\epsilon-\mathcal M\le2\epsilon\log n$, so that $\mathcal
    M_\epsilon>0$ even for an optimal map. With the cost $\langle C,P_\epsilon\rangle$ alone in
    place of $W_\epsilon$ the difference is negative unless all couplings cost the same, and so is
    the gap of an optimal map."""
    gap, attained, bound, saved = regularized(n, d, eps, rotation, cost, seed)
    level = eps * np.log(n)
    offset = gap + (2 * level if relative else 0.0)
    extra = between(attained / level, bound / level, "max")
    extra = within(extra.centre - offset / level, extra.error + 1e-12, "plan and potentials")
    rest = within(((attained if counted else saved) - gap) / level, 1e-7, "marginal error")
    return {
        "least": compare(extra, ">=", theory("least", 1.0)),
        "most": compare(extra, "<=", theory("most", 2.0)),
        "cost": compare(rest, "<", 0.0),
    }


@panel(
    entropic_gap_sandwich,
    r"Entropy adds between one and two $\epsilon\log n$",
    x=r"$\epsilon$",
    y=r"excess over the exact gap / $\epsilon\log n$",
    log="x",
)
def _(pen, runs):
    for k, (rotation, name) in enumerate([(0.0, "optimal map"), (1.5, "rotated")]):
        pen.points(*runs.measured("eps", "least", where={"rotation": rotation}), name, k=k)
        pen.points(*runs.measured("eps", "cost", where={"rotation": rotation}), "cost alone", k=k)
    pen.broken(
        *runs.measured("eps", "least", control="entropy relative to the product"), "relative"
    )
    for level in (1.0, 2.0):
        pen.theory([0.02, 200], [level, level], f"{level:g}", k=6)


if __name__ == "__main__":
    run_script(__file__)
