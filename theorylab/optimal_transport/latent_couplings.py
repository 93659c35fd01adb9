r"""Couplings through a latent code: Wasserstein auto-encoders on finite sets.

Data x of law a, codes z of prior b, a decoder G and costs c(x, G(z)). An encoder Q is a table with
rows Q(. | x); its aggregate law is $q=\sum_xa_xQ(\cdot|x)$. For a deterministic decoder

$$W_c(P_X,G_\sharp P_Z)=\min_{Q:\ q=b}\ \sum_xa_x\sum_zQ(z|x)\,c(x,G(z)),$$

as a plan between data and outputs spreads over the codes of each output in proportion to b. With a
penalty in place of the constraint, TV half the sum of absolute differences, a code is exchanged for
another at the price $\lambda$:

$$\min_Q\ \mathbb E\,c+\lambda\,\mathrm{TV}(q,b)=W_{c_\lambda},\qquad
c_\lambda(x,z)=\min\{c(x,z),\ \lambda+\min_{z'}c(x,z')\},$$

concave in $\lambda$ and exact from $\max_x(\max_zc-\min_zc)$ on. For a square,
$\lambda t^2=\max_s(st-s^2/4\lambda)$ leaves a concave problem in one number.

The penalties of the codes: the variational $\sum_xa_x\mathrm{KL}(Q(\cdot|x)\|b)$ is the
aggregate $\mathrm{KL}(q\|b)$ plus the mutual information; a discriminator's best log
likelihood is $2\,\mathrm{JS}(b,q)-2\log2$; the kernel's is an unbiased estimate of
$\mathrm{MMD}^2$ with $k(x,y)=\exp(-|x-y|^2/2s^2)$.

Theorem: tolstikhin2017-wasserstein (the reformulation; the penalties)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import rel_entr, xlogy

from theorylab._validation import FloatArray, as_array, as_count, as_real, one_of
from theorylab.optimal_transport._pairs import mean_over_pairs
from theorylab.optimal_transport._problem import TransportPlan, as_weights
from theorylab.optimal_transport.exact import exact_plan

__all__ = [
    "CodePenalties",
    "aggregate_law",
    "code_penalties",
    "discriminator_value",
    "encoder_of_plan",
    "gaussian_mmd",
    "jensen_shannon",
    "penalised_plan",
    "penalised_value",
    "push_forward",
    "unbiased_mmd",
]

_ENCODER = 1e-9  # by which rows of an encoder may miss the sum one


def push_forward(b: ArrayLike, outputs: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the distinct outputs (k, d) and their weights (k,).

    Parameters
    ----------
    b
        (m,) weights of the codes, that sum to one.
    outputs
        (m, d) output of each code; equal rows are one output.

    Examples
    --------
    >>> from theorylab.optimal_transport import push_forward
    >>> [v.tolist() for v in push_forward([0.25, 0.25, 0.5], [[1.0], [0.0], [1.0]])]
    [[[0.0], [1.0]], [0.25, 0.75]]
    """
    b = as_weights(b, "b")
    Y = as_array(outputs, "outputs", shape=(b.size, None))
    distinct, group = np.unique(Y, axis=0, return_inverse=True)
    return distinct, np.asarray(np.bincount(group.ravel(), weights=b), dtype=np.float64)


def encoder_of_plan(plan: ArrayLike, b: ArrayLike, outputs: ArrayLike) -> FloatArray:
    """Return the encoder, with the prior as its aggregate law, that costs as much as a plan between
    data and outputs.

    Parameters
    ----------
    plan
        (n, k) mass between the data and the distinct outputs, as ``push_forward`` orders them, with
        its weights as column sums and positive row sums.
    b
        (m,) prior.
    outputs
        (m, d) output of each code.

    Returns
    -------
    ndarray
        (n, m), rows that sum to one.

    Examples
    --------
    >>> from theorylab.optimal_transport import encoder_of_plan
    >>> encoder_of_plan([[0.25, 0.25], [0.0, 0.5]], [0.25, 0.25, 0.5], [[0.0], [1.0], [1.0]])
    array([[0.5       , 0.16666667, 0.33333333],
           [0.        , 0.33333333, 0.66666667]])
    """
    b = as_weights(b, "b")
    Y = as_array(outputs, "outputs", shape=(b.size, None))
    _, group = np.unique(Y, axis=0, return_inverse=True)
    group = group.ravel()
    weights = np.bincount(group, weights=b)
    P = as_array(plan, "plan", shape=(None, weights.size), nonnegative=True)
    rows, columns = P.sum(axis=1), P.sum(axis=0)
    if not np.allclose(columns, weights, rtol=1e-9, atol=1e-12) or (rows <= 0).any():
        raise ValueError(
            f"plan: expected column sums {weights.tolist()} and positive rows, got "
            f"{columns.tolist()} and rows of {rows.min()} and more"
        )
    share = np.divide(b, weights[group], out=np.zeros_like(b), where=weights[group] > 0)
    return np.asarray((P / rows[:, None])[:, group] * share)


def penalised_plan(a: ArrayLike, b: ArrayLike, C: ArrayLike, lam: float) -> TransportPlan:
    r"""Return the plan that proves the least of $\mathbb E\,c+\lambda\,\mathrm{TV}(q,b)$ over
    all encoders: transport at the costs $c_\lambda$ of the module docstring.

    Parameters
    ----------
    a, b
        (n,) law of the data and (m,) prior, that sum to one.
    C
        (n, m) costs of decoding each code for each datum.
    lam
        Price of total variation, in units of the cost.

    Examples
    --------
    >>> from theorylab.optimal_transport import penalised_plan
    >>> C = [[0.0, 2.0], [0.0, 2.0]]
    >>> [penalised_plan([0.5, 0.5], [0.5, 0.5], C, lam).value for lam in (0.0, 1.0, 5.0)]
    [0.0, 0.5, 1.0]
    """
    a, b = as_weights(a, "a"), as_weights(b, "b")
    cost = as_array(C, "C", shape=(a.size, b.size))
    lam = as_real(lam, "lam", minimum=0.0)
    return exact_plan(a, b, np.minimum(cost, cost.min(axis=1, keepdims=True) + lam))


def penalised_value(
    a: ArrayLike, b: ArrayLike, C: ArrayLike, lam: float, *, penalty: str = "tv"
) -> tuple[float, float]:
    r"""Return an upper and a lower bound of $\min_Q\mathbb E\,c+\lambda D(q,b)$.

    Parameters
    ----------
    a, b
        (n,) law of the data and (m,) prior, that sum to one.
    C
        (n, m) costs of decoding each code for each datum.
    lam
        Price of the penalty, positive.
    penalty
        ``"tv"``, or ``"squared"`` for its square. The lower bound of the latter is a maximum in one
        number, the upper one its value over mixtures of the plans near the maximum.

    Examples
    --------
    >>> from theorylab.optimal_transport import penalised_value
    >>> C = [[0.0, 2.0], [0.0, 2.0]]
    >>> values = penalised_value([0.5, 0.5], [0.5, 0.5], C, 4.0, penalty="squared")
    >>> [round(v, 9) for v in values]  # 1 - 2^2 / (4 * 4)
    [0.75, 0.75]
    """
    a, b = as_weights(a, "a"), as_weights(b, "b")
    cost = as_array(C, "C", shape=(a.size, b.size))
    lam = as_real(lam, "lam", above=0.0)
    if one_of(penalty, "penalty", ("tv", "squared")) == "tv":
        plan = penalised_plan(a, b, cost, lam)
        return plan.value, plan.dual_value
    least = cost.min(axis=1, keepdims=True)
    # At the maximum s = 2 lam TV, and beyond the largest spread nothing is gained.
    top = min(float((cost - least).max()), 2 * lam)
    if top == 0:
        return float(a @ least[:, 0]), float(a @ least[:, 0])

    def loss(s: float) -> float:
        return s * (s / (4 * lam)) - penalised_plan(a, b, cost, s).dual_value

    best = minimize_scalar(loss, bounds=(0.0, top), method="bounded", options={"xatol": 1e-9 * top})
    s, lower = min((float(best.x), -float(best.fun)), (top, -loss(top)), key=lambda v: -v[1])
    curve = []
    for price in (max(s - 1e-6 * top, 0.0), s + 1e-6 * top):
        plan = penalised_plan(a, b, cost, price).plan.tocoo()
        paid = cost[plan.row, plan.col] > least[plan.row, 0] + price
        kept = np.where(paid, least[plan.row, 0], cost[plan.row, plan.col])
        curve.append((float(plan.data @ kept), float(plan.data[paid].sum())))
    (c0, t0), (c1, t1) = curve
    # Mixtures of both encoders: their penalty is at most the mixture's mass that is exchanged.
    step = (t0 - t1) * (t0 - t1) * lam
    mix = np.clip((c0 - c1 + 2 * lam * t0 * (t0 - t1)) / (2 * step), 0, 1) if step > 0 else 0.0
    upper = (1 - mix) * c0 + mix * c1 + lam * ((1 - mix) * t0 + mix * t1) ** 2
    return float(upper), lower


class CodePenalties(NamedTuple):
    """Variational penalty, aggregate penalty, mutual information: the first is the sum."""

    variational: float
    aggregate: float
    information: float


def aggregate_law(a: ArrayLike, encoder: ArrayLike) -> FloatArray:
    """Return the law of the codes of an encoder.

    Parameters
    ----------
    a
        (n,) law of the data.
    encoder
        (n, m), rows that sum to one.

    Examples
    --------
    >>> from theorylab.optimal_transport import aggregate_law
    >>> aggregate_law([0.5, 0.5], [[1.0, 0.0], [0.5, 0.5]]).tolist()
    [0.75, 0.25]
    """
    a = as_weights(a, "a")
    return a @ _encoder(encoder, a.size)


def code_penalties(a: ArrayLike, encoder: ArrayLike, b: ArrayLike) -> CodePenalties:
    """Return the penalties of an encoder against a positive prior, in nats.

    Parameters
    ----------
    a
        (n,) law of the data.
    encoder
        (n, m), rows that sum to one.
    b
        (m,) prior, positive.

    Examples
    --------
    >>> from theorylab.optimal_transport import code_penalties
    >>> [round(v, 6) for v in code_penalties([0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5])]
    [0.693147, 0.0, 0.693147]
    """
    a, b = as_weights(a, "a"), as_weights(b, "b")
    if (b == 0).any():
        raise ValueError("b: expected positive weights, got 0")
    Q = as_array(_encoder(encoder, a.size), "encoder", shape=(a.size, b.size))
    q = a @ Q
    joint = a[:, None] * Q
    return CodePenalties(
        float(a @ rel_entr(Q, b).sum(axis=1)),
        float(rel_entr(q, b).sum()),
        float(rel_entr(joint, a[:, None] * q).sum()),
    )


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> float:
    """Return the Jensen-Shannon divergence in nats, at most log 2.

    Parameters
    ----------
    p, q
        (m,) weights that sum to one.

    Examples
    --------
    >>> from theorylab.optimal_transport import jensen_shannon
    >>> round(jensen_shannon([1.0, 0.0], [0.0, 1.0]), 6)
    0.693147
    """
    p = as_weights(p, "p")
    q = as_array(as_weights(q, "q"), "q", shape=p.shape)
    middle = (p + q) / 2
    return float(rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2


def discriminator_value(p: ArrayLike, q: ArrayLike, D: ArrayLike) -> float:
    r"""Return $\sum_zp_z\log D_z+q_z\log(1-D_z)$, minus infinity where it errs for sure.

    Parameters
    ----------
    p, q
        (m,) weights that sum to one.
    D
        (m,) probabilities that a code is of p; p / (p + q) is the best.

    Examples
    --------
    >>> from theorylab.optimal_transport import discriminator_value
    >>> round(discriminator_value([0.5, 0.5], [0.5, 0.5], [0.5, 0.5]), 6)  # -2 log 2
    -1.386294
    """
    p = as_weights(p, "p")
    q = as_array(as_weights(q, "q"), "q", shape=p.shape)
    D = as_array(D, "D", shape=p.shape, nonnegative=True)
    if (D > 1).any():
        raise ValueError(f"D: expected probabilities, got {D.max()}")
    return float(np.sum(xlogy(p, D) + xlogy(q, 1 - D)))


def unbiased_mmd(X: ArrayLike, Y: ArrayLike, bandwidth: float) -> float:
    r"""Return the unbiased estimate of $\mathrm{MMD}^2$ with the kernel
    $\exp(-|x-y|^2/2s^2)$: means over pairs of distinct points, which may be negative.

    Parameters
    ----------
    X, Y
        (n, d) and (m, d) samples, two points at least.
    bandwidth
        s.

    Examples
    --------
    >>> from theorylab.optimal_transport import unbiased_mmd
    >>> round(unbiased_mmd([[0.0], [0.0]], [[5.0], [5.0]], 1.0), 4)
    2.0
    """
    X = as_array(X, "X", ndim=2)
    Y = as_array(Y, "Y", shape=(None, X.shape[1]))
    s = as_real(bandwidth, "bandwidth", above=0.0)
    for name, Z in (("X", X), ("Y", Y)):
        if len(Z) < 2:
            raise ValueError(f"{name}: expected at least two points, got {len(Z)}")
    X, Y = X / s, Y / s
    inner = [(mean_over_pairs(Z, Z, _gaussian) * len(Z) - 1) / (len(Z) - 1) for Z in (X, Y)]
    return sum(inner) - 2 * mean_over_pairs(X, Y, _gaussian)


def _gaussian(distances: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-(distances**2) / 2))


def gaussian_mmd(variance: float, bandwidth: float, *, dimension: int) -> float:
    r"""Return $\mathrm{MMD}^2$ of N(0, I) and N(0, v I): $g(1,1)+g(v,v)-2g(1,v)$,
    $g(u,v)=(s^2/(s^2+u+v))^{d/2}$ (derived: a difference of independent points is normal).

    Parameters
    ----------
    variance
        v.
    bandwidth
        s, of the kernel $\exp(-|x-y|^2/2s^2)$.
    dimension
        d.

    Examples
    --------
    >>> from theorylab.optimal_transport import gaussian_mmd
    >>> round(gaussian_mmd(4.0, 1.0, dimension=2), 6)
    0.111111
    """
    v = as_real(variance, "variance", minimum=0.0)
    s = as_real(bandwidth, "bandwidth", above=0.0)
    d = as_count(dimension, "dimension")
    # 1 / s^2 may be beyond float64 in either direction: then the kernel is 0, or 1.
    with np.errstate(over="ignore"):
        one, other = np.exp(-2 * np.log(s)), np.exp(np.log(v) - 2 * np.log(s)) if v > 0 else 0.0
        same, moved, mixed = (1 + 2 * one, 1 + 2 * other, 1 + one + other)
    return float(same ** (-d / 2) + moved ** (-d / 2) - 2 * mixed ** (-d / 2))


def _encoder(encoder: ArrayLike, n: int) -> FloatArray:
    Q = as_array(encoder, "encoder", shape=(n, None), nonnegative=True)
    sums = Q.sum(axis=1)
    worst = float(sums[np.argmax(np.abs(sums - 1))])
    if abs(worst - 1) > _ENCODER:
        raise ValueError(f"encoder: expected rows that sum to one, got the sum {worst!r}")
    return np.asarray(Q / sums[:, None])
