"""Lifting to tensors turns a spurious minimum of rank-one sensing into a strict saddle."""

from fractions import Fraction
from functools import reduce
from itertools import combinations_with_replacement, product

import numpy as np

from theorylab.matrix_sensing import (
    completion_spectrum,
    completion_threshold,
    escape_ratio,
    first_saddle_order,
    lifted_gradient,
    lifted_hessian,
    lifted_loss,
    perturbed_completion,
)
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    full,
    panel,
    paper,
    simulation,
    space,
    switch,
    theory,
    within,
)
from theorylab.verify.cli import run_script

lift = paper(
    "ma2023-over",
    r"$f(x)=\sum_i\langle A_i,xx^\top-zz^\top\rangle^2$, $A_i$ symmetric, with the lift "
    r"$h_l(w)=\sum_{i_1..i_l}(\langle A_{i_1}\otimes\cdots\otimes A_{i_l},ww^\top\rangle"
    r"-\prod_j\langle A_{i_j},zz^\top\rangle)^2$, $K_u=\sum_i\langle A_i,uu^\top\rangle A_i$, "
    r"$S_x=\sum_iA_ixx^\top A_i$:",
)
FAMILY = (
    r"$f(x)=\sum_{ij}\omega_{ij}^2(x_ix_j-z_iz_j)^2$, $n=3$, with weights 1 but "
    r"$\epsilon\in(0,1)$ on "
    r"the pair (1,3), $z=(1,0,1)$, $\delta=(1-\epsilon^2)/(1+\epsilon^2)$, "
    r"$\hat x=\sqrt\delta(1,0,-1)$, $h_l$ the lift of order $l$:"
)
completion = paper("ma2023-over", FAMILY)

# Integer measurements of the family at delta = 1/4, squared weights times 10: sums of squares.
UNIT = np.eye(3, dtype=int)
PAIRS = [np.outer(UNIT[i], UNIT[j]) + np.outer(UNIT[j], UNIT[i]) for i, j in ((0, 1), (1, 2))]
CORNER = np.outer(UNIT[0], UNIT[2]) + np.outer(UNIT[2], UNIT[0])
INTEGER = np.array(
    [c * np.outer(e, e) for e in UNIT for c in (3, 1)]
    + [c * pair for pair in PAIRS for c in (2, 1)]
    + 3 * [CORNER]
)


def power(K, order):
    return reduce(np.kron, [K] * order)


def tensor(v, order):
    return reduce(np.multiply.outer, [v] * order)


@lift.abstract("a", "b", instance=True)
@cases(order=1, n=3, m=4)
@cases(order=2, n=3, m=3)
@full(order=3, n=2, m=3)
@full(order=1, n=4, m=6)
@full(order=2, n=3, m=[1, 6, 4])
@space(order=Int(1, 3), n=Int(2, "4 - (order + 1) // 2"), m=Int(1, 4))
@breaks("A_i not symmetric", symmetric=False)
@breaks("x not stationary", stretch=2)
def lifted_gradient_hessian_kronecker(order, n, m, seed, symmetric=True, stretch=1):
    r"""at every $x$, $\nabla h_l(x^{\otimes l})=4((K_xx)^{\otimes l}-(K_zx)^{\otimes l})$ and
    $\nabla^2h_l(x^{\otimes l})=4(K_x^{\otimes l}-K_z^{\otimes l})+8S_x^{\otimes l}$; so an $x$ that
    is stationary for $f$ gives an $x^{\otimes l}$ that is stationary for $h_l$."""
    # All numbers are integers below 2^53; five values of a quartic give its derivatives exactly.
    rng = np.random.default_rng(seed)
    A, z, x = rng.integers(-2, 3, (m, n, n)), rng.integers(1, 4, n), rng.integers(1, 4, n)
    A = A + A.transpose(0, 2, 1)
    h = lifted_hessian(A, z, x, order=1)
    factors = (h.point_matrix, h.truth_matrix, h.tangent_matrix)
    K_x, K_z, S_x = (np.rint(K).astype(int).astype(object) for K in factors)
    skew = np.eye(n, k=1, dtype=int) - np.eye(n, k=-1, dtype=int)
    seen = A if symmetric else A + skew
    lifted = np.array([reduce(np.kron, chosen) for chosen in product(seen, repeat=order)])
    b = np.array([np.prod(c) for c in product(seen @ z @ z, repeat=order)])
    units = np.eye(n**order, dtype=int)
    pairs = combinations_with_replacement(range(n**order), 2)
    P = np.array([units[i] + (i != j) * units[j] for i, j in pairs])
    points = [power(x, order) + t * P for t in (-2, -1, 0, 1, 2)]
    values = [((np.einsum("pi,aij,pj->pa", w, lifted, w) - b) ** 2).sum(1) for w in points]
    slopes, curvatures = np.array([[1, -8, 0, 8, -1], [-1, 16, -30, 16, -1]]) @ values
    g = 4 * (theory("K_x x", power(K_x @ x, order)) - theory("K_z x", power(K_z @ x, order)))
    H = theory("K_x", 4 * power(K_x, order)) - theory("K_z", 4 * power(K_z, order))
    H = H + theory("S_x", 8 * power(S_x, order))
    still = lifted_gradient(INTEGER, [2, 0, 2], stretch * tensor(np.array([1, 0, -1]), order))
    return {
        "gradient": compare(slopes.tolist(), "==", (12 * (P @ g)).tolist()),
        "hessian": compare(curvatures.tolist(), "==", [12 * (p @ H @ p) for p in P]),
        "stationary": compare(int(np.abs(still).max()), "==", theory("gradient", 0)),
    }


@completion.ours("derived: threshold of the perturbed completion example", serves="ce")
@cases(order=[5, 3, 2, 1])
@full(order=[6, 5, 4, 3, 2, 1])
@space(order=Int(1, 4))
@breaks("weight 0.9 on the diagonal", diagonal=Fraction(9, 10))
def pmc_lifting_threshold_equation(order, diagonal=Fraction(1)):
    r"""$\hat x^{\otimes l}$ is a strict saddle of $h_l$ below and a minimum to second order above
    the root $\delta_l$ of $2^l(1-\delta^{2l})=2(\delta(1+\delta))^l$: $\frac12$, .71202, .79856,
    .84521, .87435, ..."""

    # Every decision of the bisection is a sign in rational arithmetic.
    def saddle(delta):
        return completion_spectrum(delta, order=order, diagonal=diagonal)[0][0] < 0

    found = switch(saddle, bracket=(0.2, 0.999), tol=1e-9)
    return compare(found, "==", theory("threshold", float(completion_threshold(order)[0])))


@panel(
    pmc_lifting_threshold_equation,
    r"Order $l$ turns spurious points with $\delta<\delta_l$ into saddles",
    x="order $l$",
    y=r"$\delta$",
)
def _(pen, runs):
    orders = np.arange(1, 9)
    pen.theory(orders, [float(completion_threshold(int(n))[0]) for n in orders], r"$\delta_l$")
    pen.points(*runs.measured("order"), "sign of the spectrum")
    pen.broken(*runs.measured("order", control="weight 0.9 on the diagonal"), "weight 0.9")


@completion.abstract("c", instance=True)
@cases(eps=[0.2, 0.3])
@full(eps=[0.1, 0.15, 0.2, 0.4, 0.5, 0.3])
@space(eps=Real(0.12, 0.57))
@breaks("delta below 1/2", eps=0.7)
def spurious_minimum_becomes_saddle(eps):
    r"""for $\epsilon^2<\frac13$ (that is $\delta>\frac12$) $\hat x$ is a strict local minimum of
    $f$, yet $\hat x^{\otimes l}$ is a strict saddle of $h_l$ from the order
    $L=\min\{l:2^l(1-\delta^{2l})>2(\delta(1+\delta))^l\}$ on, not before."""
    delta = Fraction(perturbed_completion(eps).delta)
    order, negative = 1, []
    while len(negative) < 2:
        if completion_spectrum(delta, order=order)[0][0] < 0:
            negative.append(order)
        order += 1
    first = first_saddle_order(delta)
    return {
        "order": compare(negative, "==", [theory("order", first), theory("order", first) + 1]),
        "minimum": compare(completion_spectrum(delta, order=1)[0][0], ">", 0),
    }


@panel(
    spurious_minimum_becomes_saddle,
    "A strict minimum becomes a strict saddle at a finite order",
    x=r"$\epsilon$",
    y="order of the lift",
    log="y",
)
def _(pen, runs):
    eps = np.linspace(0.095, 0.57, 400)
    orders = [first_saddle_order(perturbed_completion(float(e)).delta) for e in eps]
    pen.theory(eps, orders, "$L$")
    pen.points(*runs.measured("eps", index=0), "first saddle")
    pen.broken(*runs.measured("eps", index=0, control="delta below 1/2"), "not a minimum of $f$")


def sufficient(rho):
    """The least order l with 3 rho^l < 1."""
    return int(np.log(3) / -np.log(rho)) + 1


@simulation
def perturbed(eps, noise, seed):
    """Noisy measurements and the stationary point next to the spurious one, by Newton's method."""
    problem = perturbed_completion(eps)
    bump = noise * np.random.default_rng(seed).standard_normal((6, 3, 3))
    A, x = problem.matrices + bump + bump.transpose(0, 2, 1), problem.spurious
    for _ in range(8):
        H = lifted_hessian(A, problem.truth, x, order=1).matrix
        x = x - np.linalg.solve(H, lifted_gradient(A, problem.truth, x))
    return A, x


@lift.abstract("e", instance=True)
@cases(eps=[0.4, 0.5], noise=0.003)
@full(eps=[0.35, 0.4, 0.5], noise=0.0, delta=[0.6, 0.7, 0.9])
@full(eps=0.45, noise=0.005, delta=[0.8, 0.95, 0.99, 0.995, 0.98])
@space(eps=Real(0.32, 0.54), noise=Real(0.0, "0.04 * (0.577 - eps)"), delta=Real(0.55, 0.999))
@breaks("u the spurious point itself", along="spurious")
def sufficient_lifting_order(eps, noise, seed, delta=0.98, along="truth", far=1000):
    r"""if $x$ is stationary and some $u$ has $q=u^\top K_zu>0$ and $\rho=\max(|u^\top K_xu|,u^\top
    S_xu)/q<1$, the curvature of $h_l$ at $x^{\otimes l}$ along $u^{\otimes l}$ is at most
    $4(3\rho^l-1)q^l$, negative for every $l>\log3/\log(1/\rho)$ (judged near the completion family:
    $n=3$, weight $\epsilon$ on a pair, ``noise`` on all entries: less than takes to make the
    spurious point meet another and vanish). In that family, at isometry constant $\delta$,
    $\rho=\delta(1+\delta)/2$: the bound on the order is $\sim\frac23\log3/(1-\delta)$, the exact
    least order $\sim2\log v/(1-\delta)$, $v^4=2v+1$."""
    A, x = perturbed(eps, noise, seed)
    z = np.array([1.0, 0.0, 1.0])
    u, rho = z if along == "truth" else x, escape_ratio(A, z, x, z)
    order = sufficient(rho)
    # h_l at w = x^l + t u^l is the squared length of a sum of l-th powers: no tensor is formed.
    forms = np.array([A @ v @ w for v, w in ((x, x), (x, u), (u, u), (z, z))])
    weights = np.array([[1, 2 * t, t**2, -1] for t in (-2, -1, 0, 1, 2)])
    values = np.einsum("ti,ij,tj->t", weights, (forms @ forms.T) ** order, weights)
    found = values @ [-1, 16, -30, 16, -1] / 12  # of a quartic
    q = np.sum((A @ z @ z) * (A @ u @ u))
    bound = 4 * (3 * rho**order - 1) * q**order
    one = perturbed_completion(float(np.sqrt((1 - delta) / (1 + delta))))
    ratio = escape_ratio(one.matrices, z, one.spurious, z)
    stated = theory("ratio", delta * (1 + delta) / 2)
    # The exact order is a root rounded up; the sufficient one is not rounded.
    ends = [Fraction(far - 1, far), Fraction(2 * far - 1, 2 * far)]
    rates = [float(d * (1 + d) / 2) for d in ends]
    limits = [
        [(first_saddle_order(d) - 0.5) * float(1 - d), np.log(3) / -np.log(r) * float(1 - d)]
        for d, r in zip(ends, rates, strict=True)
    ]
    error = np.abs(np.subtract(*limits)) + 0.5 / far
    v = float(np.roots([1, 0, 0, -2, -1]).real.max())
    constants = theory("constants", np.array([2 * np.log(v), 2 / 3 * np.log(3)]))
    return {
        "curvature": compare(
            within(found, 1e-12 * values.max(), "rounding"), "<=", theory("bound", bound)
        ),
        "ratio": compare(within(ratio, 1e-13, "rounding"), "==", stated),
        "order": compare(first_saddle_order(delta), "<=", theory("sufficient", sufficient(ratio))),
        "limits": compare(within(limits[1], error, "half the distance to 1"), "==", constants),
    }


@panel(
    sufficient_lifting_order,
    r"An order inversely proportional to $1-\delta$ is enough",
    x=r"$\delta$",
    y="order of the lift",
    log="y",
)
def _(pen, runs):
    delta = np.linspace(0.55, 0.996, 400)
    pen.theory(delta, [sufficient(d * (1 + d) / 2) for d in delta], "bound")
    pen.points(*runs.measured("delta", "order"), "exact", k=1)


@simulation
def descents(delta, order, starts, seed, noise, steps):
    """Losses and distances from the truth where descent from near the spurious point ends, and
    how far the last third of it went."""
    problem = perturbed_completion(float(np.sqrt((1 - delta) / (1 + delta))))
    A, z = problem.matrices, problem.truth
    Q = np.array([reduce(np.kron, chosen) for chosen in product(A, repeat=order)])
    b = np.array([np.prod(c) for c in product(A @ z @ z, repeat=order)])
    bumps = np.random.default_rng(seed).standard_normal((starts, 3**order))
    w, late = power(problem.spurious, order) + noise * bumps, None
    for t in range(steps):
        late = w if t == 2 * steps // 3 else late
        images = np.tensordot(w, Q, (1, 1))
        residual = np.einsum("sai,si->sa", images, w) - b
        w = w - 0.1 / 2**order * np.einsum("sa,sai->si", residual, images)
    losses = [lifted_loss(A, z, v.reshape((3,) * order)) for v in w]
    truth = power(z, order)
    signs = np.sign(w @ truth)[:, None]
    return np.array(losses), (w - signs * truth), np.linalg.norm(w - late, axis=1)


@completion.abstract("d", instance=True)
@cases(delta=0.6, starts=6)
@full(delta=[0.55, 0.57, 0.62, 0.63, 0.6], starts=40)
@space(delta=Real(0.55, 0.68))
@breaks("no lifting", order=1)
def descent_escapes_the_lifted_saddle(delta, seed, starts=4, order=2):
    r"""for $\frac12<\delta<\delta_2=.712$, gradient descent on $f$ from near $\hat x$ returns to
    the loss $f(\hat x)=4(1-\delta)$, while descent on $h_2$ from $\hat x^{\otimes2}$ plus noise of
    size $10^{-4}$ ends at $\pm z^{\otimes2}$, the truth."""
    steps = int(
        4.8e3 / abs(completion_spectrum(delta, order=2)[0][0])
    )  # over the growth on the saddle
    _, off, moved = descents(delta, order, starts, seed, 1e-4, steps)
    stuck, _, rest = descents(delta, 1, starts, seed, 1e-4, 1000)
    distance = within(np.linalg.norm(off, axis=1), moved + 1e-12, "the last third of the run")
    back = within(stuck, 10 * rest + 1e-12, "the last third of the run")
    return {
        "lifted": compare(distance, "==", theory("distance", 0.0)),
        "plain": compare(back, "==", theory("spurious loss", 4 * (1 - delta))),
    }


@panel(
    descent_escapes_the_lifted_saddle,
    r"Descent on $f$ stays at the spurious minimum; on $h_2$ it leaves",
    x=r"$\delta$",
    y=r"loss of $f$, distance from $\pm z^{\otimes2}$",
)
def _(pen, runs):
    delta = np.linspace(0.53, 0.67, 20)
    pen.theory(delta, 4 * (1 - delta), r"$4(1-\delta)$")
    pen.points(*runs.measured("delta", "plain", 0), "loss, no lift")
    pen.theory(delta, 0 * delta, "truth", k=1)
    pen.points(*runs.measured("delta", "lifted", 0), "distance, lift", k=1)


if __name__ == "__main__":
    run_script(__file__)
