"""Learning from bag means: the instance loss shrinks, the bag loss is noisy."""

from fractions import Fraction

import numpy as np

from theorylab import random_features as rf
from theorylab.verify import (
    Int,
    Real,
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
    switch,
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "javanmard2024-learning"
bags = paper(
    KEY,
    r"Bags $a=1,\dots,m$ of $k$ samples, $n=mk$, predictions $f_i$ with bag means $\bar f_a$, mean "
    r"responses $\bar y_a$:",
)
linear = paper(
    KEY,
    r"Inputs $x\sim N(0,I_d)$ in $m$ random bags of $k$, $n=mk$, $y=x^\top\theta+\varepsilon$ of "
    r"noise variance $\sigma^2$, bag means $\bar X,\bar y$, $A=\bar X^\top\bar X/m$, $B$ the "
    r"scatter within bags over $n$, $\hat\theta_\rho=(A+\rho B)^{-1}\bar X^\top\bar y/m$ "
    r"($\rho=0$: bag loss, $\rho=1$: instance loss), $p=1/k$:",
)


@simulation
def losses(m, k, power, seed):
    """Instance loss, bag loss and spread of random integers, in exact rationals."""
    rng = np.random.default_rng(seed)
    f = [[Fraction(int(v), 7) for v in row] for row in rng.integers(-30, 30, (m, k))]
    y = [Fraction(int(v), 5) for v in rng.integers(-30, 30, m)]
    centre = [sum(row) / k for row in f]
    instance = sum(abs(b - v) ** power for row, b in zip(f, y, strict=True) for v in row)
    bag = sum(abs(b - c) ** power for b, c in zip(y, centre, strict=True))
    spread = sum(abs(v - c) ** power for row, c in zip(f, centre, strict=True) for v in row)
    return instance / (m * k), bag / m, spread / (m * k)


@bags.abstract("a")
@cases(m=4, k=[2, 5])
@space(m=Int(1, 8), k=Int(1, 6))
@breaks("absolute in place of squared errors", power=1)
def instance_equals_regularised_bag(m, k, seed, power=2):
    r"""$\frac1n\sum_a\sum_{i\in a}(\bar y_a-f_i)^2=\frac1m\sum_a(\bar y_a-\bar f_a)^2
    +\frac1n\sum_a\sum_{i\in a}(f_i-\bar f_a)^2$: the instance loss is the bag loss plus a
    regulariser."""
    instance, bag, spread = losses(m, k, power, seed)
    return compare(instance, "==", bag + theory("weight", 1) * spread)


def designs(m, k, d, order, stretch, rng, draws):
    """Random inputs in bags, shape (draws, m, k, d)."""
    X = rng.standard_normal((draws, m * k, d))
    X[..., d // 2 :] *= stretch
    if order == "sorted":
        X = np.take_along_axis(X, np.argsort(X[..., :1], axis=1), axis=1)
    return X.reshape(draws, m, k, d)


@simulation
def moments(m, k, d, weights, draws, seed, order="random", stretch=1.0):
    """Per draw and weight: gain, squared error without noise, its part about the mean (from pairs
    of draws), and squared norm of the operator over k; for all directions of the signal, or the
    first one where bags are sorted along it."""
    X = designs(m, k, d, order, stretch, np.random.default_rng([seed, m, d]), draws)
    means, shown = X.mean(axis=2), 1 if order == "sorted" else d
    columns = []
    for weight in weights:
        T = rf.aggregate_operator(X, weight=float(weight))
        H = (T @ means)[:, :, :shown]
        gain = np.trace(H, axis1=1, axis2=2) / shown
        error = np.sum((H - np.eye(d)[:, :shown]) ** 2, axis=(1, 2)) / shown
        about = np.sum((H[::2] - H[1::2]) ** 2, axis=(1, 2)) / 2 / shown
        columns.append((gain, error, about, np.sum(T**2, axis=(1, 2)) / k))
    return [np.stack(rows, axis=1) for rows in zip(*columns, strict=True)]


@linear.ours("exact at every size, by rotation invariance (derived)", serves="bd")
@cases(m=30, k=[2, 4], d=6, draws=2000)
@full(m=40, k=[2, 3, 4, 6, 8], d=12, draws=2000)
@space(k=Int(2, 5), d=Int(2, 8), m=Int("d + 9", "d + 25"))
@breaks("bags sorted along the signal", order="sorted")
def aggregate_linear_risk_endpoints(m, k, d, seed, draws=600, order="random"):
    r"""for $d<m-1$ the bag loss has $\operatorname E\hat\theta=\theta$ and covariance of trace
    $\sigma^2\frac d{m-d-1}$; for $d<n-1$ the instance loss has $\operatorname E\hat\theta=\theta/k$
    and covariance of trace
    $\|\theta\|^2\big(\alpha-p^2+\beta\frac{nd-2}{n-d-1}\big)+p\sigma^2\frac d{n-d-1}$,
    $\beta=\frac{m(n-m)}{n(n+2)(n-1)}$, $\alpha=\frac{m(m+2)}{n(n+2)}-\beta$. For $k\ge2$, $d<m-1$
    the noise adds less variance to the instance loss, almost surely given the inputs."""
    gain, _, about, norms = moments(m, k, d, (0.0, 1.0), draws, seed, order)
    size = {"n_bags": m, "n_features": d, "bag_size": k, "noise_variance": 1.0}
    exact = rf.instance_risk(**size)
    noise, about_mean = [rf.bag_risk(**size).noise, exact.noise], exact.variance() - exact.noise
    bag_mean = within(gain[:, 0].mean(), 1e-9, "rounding")
    less = family(dict(enumerate((norms[:, 1] < norms[:, 0]).tolist())))
    return {
        "gain": compare(mean(gain[:, 1]), "==", theory("gain", exact.gain)),
        "bag gain": compare(bag_mean, "==", theory("bag gain", 1.0)),
        "spread": compare(mean(about[:, 1]), "==", theory("spread", about_mean)),
        "noise": compare(mean(norms), "==", theory("noise", np.array(noise))),
        "order": compare(less, "==", theory("designs", draws)),
    }


@panel(
    aggregate_linear_risk_endpoints,
    "Two prices of bags: shrinkage by $1/k$, or noise ($m=40$, $d=12$)",
    x="bag size $k$",
    y=r"share of $\theta$; trace of covariance per $\sigma^2$",
    log="y",
)
def _(pen, runs):
    k = np.arange(2, 9)
    size = [{"n_bags": 40, "n_features": 12, "bag_size": int(i), "noise_variance": 1.0} for i in k]
    pen.theory(k, [rf.instance_risk(**s).gain for s in size], "mean, instance", k=2)
    pen.points(*runs.measured("k", "gain"), k=2)
    for i, (name, risk) in enumerate((("bag", rf.bag_risk), ("instance", rf.instance_risk))):
        pen.theory(k, [risk(**s).noise for s in size], f"noise, {name}", k=i)
        pen.points(*runs.measured("k", "noise", i), k=i)
    pen.broken(*runs.measured("k", "gain", control="bags sorted along the signal"), "sorted bags")


def extrapolated(small, middle, large):
    """Limit of means at sizes n, 2n, 4n with an error of order 1/n."""
    first, second = 2 * middle - small, 2 * large - middle
    bias = np.abs(second.mean(axis=0) - first.mean(axis=0))
    return mean(second, bias=bias, source="change of the extrapolation in 1/n from half the size")


@linear.ours("the limit by leaving out one bag (derived)", serves="bcd")
@cases(m=12, k=3, d=4, weights=(0.3, 1.0), draws=2000)
@full(m=16, k=2, d=6, weights=(0.03, 0.1, 0.3, 1.0, 3.0), draws=1600)
@full(m=12, k=4, d=9, weights=(0.03, 0.1, 0.3, 1.0, 3.0), draws=1600)
@space(
    k=Int(2, 4),
    d=Int(3, 8),
    m=Int("d // 2 + 3", "4 * d"),
    weights=Real(0.1, 2.0, size=2, log=True),
)
@breaks("bags sorted along the signal", order="sorted", draws=600)
@breaks("inputs of unequal variance", stretch=3.0, draws=600)
def interpolating_estimator_risk(m, k, d, weights, seed, draws=300, order="random", stretch=1.0):
    r"""let $n,d\to\infty$, $d/n=a<1$, $\rho>0$, $u$ the only positive root of
    $\rho a(1-a)u^2+(p+(1-p)\rho-a(1+\rho))u=1$, $\ell=1+au$, $c=pu/\ell$,
    $v=u\big(\frac p{\ell^2}+\frac{(1-p)\rho}{(1+\rho au)^2}\big)^{-1}$, $w=pv/\ell^2$. Then
    $\operatorname E\hat\theta_\rho=(c+O(\frac1n))\theta$ and
    $$\operatorname E\|\hat\theta_\rho-\theta\|^2=\|\theta\|^2\Big(1-2c+\frac p\ell\Big(w+\frac{av
    (1-c)}\ell\Big)\Big)+\sigma^2aw+O\Big(\frac1n\Big).$$"""
    runs = [
        moments(s * m, k, s * d, tuple(weights), draws, seed, order, stretch) for s in (1, 2, 4)
    ]
    gain, signal, _, noise = (extrapolated(*rows) for rows in zip(*runs, strict=True))
    limits = [
        rf.aggregate_risk(aspect=d / (m * k), bag_size=k, weight=float(w), noise_variance=1.0)
        for w in weights
    ]
    predicted = np.array(limits).T
    return {
        "signal": compare(signal, "==", theory("signal", predicted[1])),
        "noise": compare(noise, "==", theory("noise", predicted[2])),
        "gain": compare(gain, "==", theory("gain", predicted[0])),
    }


@panel(
    interpolating_estimator_risk,
    r"The weight of the regulariser trades error for noise ($d/n=3/16$)",
    x=r"weight $\rho$",
    y=r"error per $\|\theta\|^2$; noise per $\sigma^2$",
    log="xy",
)
def _(pen, runs):
    weights = np.geomspace(0.02, 5, 80)
    for i, k in enumerate((2, 4)):
        limit = np.array(
            [
                rf.aggregate_risk(aspect=3 / 16, bag_size=k, weight=w, noise_variance=1.0)
                for w in weights
            ]
        )
        for j, name in enumerate(("signal", "noise")):
            words = ("error", "noise")[j]
            pen.theory(weights, limit[:, 1 + j], f"{words}, $k={k}$", k=2 * j + i)
            pen.points(*runs.measured("weights", name, where={"k": k}), k=2 * j + i)


@simulation
def released(n, d, sizes, weight, noise, privacy, draws, seed, order):
    """Squared errors at a unit signal from bag means with Laplace noise, shape (draws, sizes)."""
    errors = []
    for k in sizes:
        rng = np.random.default_rng([seed, n, k])
        X = designs(n // k, k, d, order, 1.0, rng, draws)
        eps = np.sqrt(noise) * rng.standard_normal(X.shape[:3])
        means = (X[..., 0] + eps).mean(axis=2)
        means += rng.laplace(scale=np.sqrt(privacy / 2) / k, size=means.shape)
        found = np.einsum("rdm,rm->rd", rf.aggregate_operator(X, weight=weight), means)
        errors.append(np.sum((found - np.eye(d)[0]) ** 2, axis=1))
    return np.stack(errors, axis=1)


@linear.ours("derived at fixed weights and without truncation", serves="e")
@cases(twelfth=6, d=10, noise=0.5, privacy=3.0, draws=4000)
@full(twelfth=10, d=20, noise=0.5, privacy=4.0, draws=3000, sizes=(1, 2, 3, 4, 6, 12))
@space(
    twelfth=Int(4, 7),
    d=Int(3, "4 * twelfth - 9"),
    noise=Real(0.3, 1.5),
    privacy=Real(1.0, 5.0),
)
@breaks("bags sorted along the signal", order="sorted", draws=600)
def private_bag_size_optimum(
    twelfth, d, noise, privacy, seed, draws=500, sizes=(1, 2, 4), order="random"
):
    r"""let $\|\theta\|=1$ and the means be released with independent noise of variance $c/k^2$
    (judged: Laplace). The instance loss has, with $\alpha,\beta$ as for no added noise, the risk
    $1-2p+\alpha+\beta\frac{nd-2}{n-d-1}+(\sigma^2+cp)\frac{pd}{n-d-1}$, whose limit, for
    $d/n\to a<1$, $r=\frac a{1-a}$, is $(1-p)^2+r(p(1-p)+\sigma^2p+cp^2)$: least over real $k$ at
    $1/k=\frac{2-r(1+\sigma^2)}{2(1-r+rc)}$ where $0<2-r(1+\sigma^2)<2(1-r+rc)$. The risk of the bag
    loss, $\frac{d(\sigma^2+c/k)}{n/k-d-1}$, increases with $k$."""
    n, few = 12 * twelfth, sizes[:2]
    size = {"n_features": d, "noise_variance": noise, "privacy_variance": privacy}
    instance = released(n, d, sizes, 1.0, noise, privacy, draws, seed, order)
    bag = released(n, d, few, 0.0, noise, privacy, draws, seed, order)
    at = [rf.instance_risk(n_bags=n // k, bag_size=k, **size).risk() for k in sizes]
    above = [rf.bag_risk(n_bags=n // k, bag_size=k, **size).risk() for k in few]
    how = {"aspect": d / n, "noise_variance": noise, "privacy_variance": privacy}

    def rises(share):
        ends = (share * (1 + h) for h in (1e-4, -1e-4))
        up, down = (rf.aggregate_risk(bag_size=1 / u, weight=1.0, **how).risk() for u in ends)
        return up > down

    return {
        "instance risk": compare(mean(instance), "==", theory("instance risk", np.array(at))),
        "bag risk": compare(mean(bag), "==", theory("bag risk", np.array(above))),
        "optimum": compare(
            switch(rises, bracket=(0.05, 0.999), tol=1e-3),
            "==",
            theory("share", rf.optimal_private_share(**how)),
        ),
    }


@panel(
    private_bag_size_optimum,
    r"Under a noise of variance $c/k^2$ there is a best bag size",
    x="bag size $k$",
    y="risk",
    log="xy",
)
def _(pen, runs):
    k = np.array([1, 2, 3, 4, 5, 6, 8, 10, 12])
    size = {"n_features": 20, "noise_variance": 0.5, "privacy_variance": 4.0}
    pen.theory(
        k,
        [rf.instance_risk(n_bags=120 // int(i), bag_size=int(i), **size).risk() for i in k],
        "instance loss",
    )
    pen.points(*runs.measured("sizes"))
    few = (1, 2, 3, 4)
    pen.theory(
        few, [rf.bag_risk(n_bags=120 // i, bag_size=i, **size).risk() for i in few], "bag loss", k=1
    )
    for i, few_size in enumerate((1, 2)):
        pen.points(few_size, *(v[0] for v in runs.measured("twelfth", "bag risk", i)[1:]), k=1)
    name = "bags sorted along the signal"
    pen.broken(*runs.measured("sizes", control=name), "sorted bags")


if __name__ == "__main__":
    run_script(__file__)
