"""Strong features starve weak ones under a ridge, and do not under a penalty on predictions."""

import numpy as np

from theorylab import implicit_regularization as ir
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
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "pezeshki2020-gradient"
pair = paper(
    KEY,
    r"Two examples with rows $y_i\phi_i^\top$ of $USV^\top$, $U$ a rotation by an angle of sine "
    r"$\delta$, and $\min_\theta\sum_i\log(1+e^{-y_i\phi_i^\top\theta})+\frac\lambda2\|\theta\|^2$ "
    r"with responses $z=U^\top(y_i\phi_i^\top\theta)_i$:",
)
decoupled = paper(
    KEY,
    r"$\Phi$ with linearly independent rows $\phi_i$ and $\min_\theta\sum_i\log(1+"
    r"e^{-y_i\phi_i^\top\theta})+\frac\lambda2\|\Phi\theta\|^2$:",
)
ridge = paper(
    KEY,
    r"Rows $y_i\phi_i^\top$ of $Z$, $K=ZZ^\top/\lambda$, and the minimiser of "
    r"$\sum_i\log(1+e^{-y_i\phi_i^\top\theta})+\frac\lambda2\|\theta\|^2$:",
)


def weight_decay(Z, s, theta, strength):
    """Gradient and Hessian of the penalty on the weights."""
    return strength * theta, strength * np.eye(len(theta))


def prediction_decay(Z, s, theta, strength):
    """Gradient and Hessian of the penalty on the predictions."""
    return strength * (Z.T @ s), strength * (Z.T @ Z)


@simulation
def minimiser(Z, strength, penalty):
    """Minimise over theta by Newton's method with halved steps, until the gradient is rounding:
    theta and the gradient."""
    theta = np.zeros(Z.shape[1])

    def gradient(theta):
        s = Z @ theta
        a = 1 / (1 + np.exp(np.minimum(s, 700.0)))
        pull, curvature = penalty(Z, s, theta, strength)
        return pull - Z.T @ a, (Z.T * (a * (1 - a))) @ Z + curvature

    g, H = gradient(theta)
    for _ in range(200):
        step = np.linalg.lstsq(H, g, rcond=None)[0]
        t = 1.0
        while t > 1e-9:
            new, curved = gradient(theta - t * step)
            if np.linalg.norm(new) < np.linalg.norm(g):
                break
            t /= 2
        else:
            break
        theta, g, H = theta - t * step, new, curved
    return theta, g


def rotation(delta):
    c = np.sqrt(1 - delta**2)
    return np.array([[c, -delta], [delta, c]])


@simulation
def elasticity(s1, s2, delta, strength, penalty):
    """Change of log z_2 with log s_1^2, by two central differences of the minimiser, z_2, and what
    it is multiplied by where s_1 grows by half."""
    U = rotation(delta)

    def response(square):
        Z = U * np.array([np.sqrt(square), s2])
        return (U.T @ Z @ minimiser(Z, strength, penalty)[0])[1]

    found = []
    for h in (2e-3, 1e-3):
        ends = [response(s1**2 * np.exp(side * h)) for side in (1, -1)]
        found.append((ends[0] - ends[1]) / (2 * h))
    level = response(s1**2)
    return np.array(found) / level, level, response(2.25 * s1**2) / level


@pair.abstract("a", "b", instance=True)
@cases(s1=[2.0, 4.0], s2=1.0, delta=0.4, strength=0.5)
@full(s1=[1.2, 1.5, 2.0, 3.0, 5.0, 8.0], s2=1.0, delta=[0.2, 0.5], strength=0.5)
@space(
    s2=Real(0.3, 3.0, log=True),
    s1=Real("1.1 * s2", "8 * s2", log=True),
    delta=Real(0.05, 0.7),
    strength=Real(0.03, 30.0, log=True),
)
@breaks("the weaker feature grows", lambda case: {"s1": 0.6 * case["s2"]})
@breaks("the other orientation", lambda case: {"delta": -case["delta"]})
@breaks("predictions are penalised", penalty=prediction_decay)
def starvation_sign(s1, s2, delta, strength, penalty=weight_decay):
    r"""where $s_1>s_2>0$ and $0<\delta<\frac1{\sqrt2}$, the response $z_2$ of the second feature
    falls as the first one gets stronger (here by half), with $\frac{dz_2}{ds_1^2}=
    \frac{s_2^2}{\lambda^2}(U^\top\alpha)_1\delta\sqrt{1-\delta^2}\frac{1/d_2-1/d_1}
    {\det(\mathrm{diag}(1/d)+K)}<0$, $K=US^2U^\top/\lambda$, $\alpha_i=\sigma(-(K\alpha)_i)$,
    $d_i=\alpha_i(1-\alpha_i)$."""
    found, level, growth = elasticity(s1, s2, delta, strength, penalty)
    error = abs(found[1] - found[0]) + 1e-9 * abs(found[1]) + 1e-11
    measured = within(found[1], error, "difference to twice the step; Newton to rounding")
    slope = ir.starvation_slope([s1, s2], coupling=delta, ridge=strength) * s1**2
    return {
        "formula": compare(measured, "==", theory("slope", slope) / level),
        "falls": compare(within(growth, 1e-11, "Newton to rounding"), "<", theory("level", 1.0)),
    }


@panel(
    starvation_sign,
    "A stronger first feature starves the second",
    x="strength $s_1$ of the first ($s_2=1$)",
    y=r"$d\log z_2/d\log s_1^2$",
    log="x",
)
def _(pen, runs):
    for i, delta in enumerate((0.2, 0.5)):
        s1 = np.geomspace(1.1, 9, 40)
        z = [rotation(delta).T @ ir.logistic_fixed_point(kernel(s, delta)).margins for s in s1]
        slopes = [ir.starvation_slope([s, 1.0], coupling=delta, ridge=0.5) for s in s1]
        pen.theory(s1, np.array(slopes) * s1**2 / np.array(z)[:, 1], k=i)
        where = {"delta": delta}
        pen.points(*runs.measured("s1", "formula", where=where), rf"$\delta={delta}$", k=i)
    pen.broken(
        *runs.measured("s1", "formula", control="the weaker feature grows"), label="$s_1<s_2$"
    )


def kernel(s, delta):
    return ir.coupled_features([s, 1.0], coupling=delta, ridge=0.5)


@decoupled.abstract("c", instance=True)
@cases(n=2, spare=1, strength=[0.05, 0.5], spread=1.0)
@full(n=[2, 6], spare=2, strength=[0.02, 0.1, 0.5, 2.0], spread=[0.0, 1.5])
@space(
    n=Int(1, 8),
    spare=Int(0, 3),
    strength=Real(0.01, 10.0, log=True),
    spread=Real(0.0, 1.5),
)
@breaks("weights are penalised", penalty=weight_decay)
@breaks("dependent rows", lambda case: {"spare": 1 - case["n"]})
def spectral_decoupling(n, spare, strength, spread, seed, penalty=prediction_decay):
    r"""all margins are the same, $y_i\phi_i^\top\theta=m$ with $\sigma(-m)=\lambda m$: no singular
    value of $\Phi$ matters to any response."""
    rng = np.random.default_rng([seed, 5])
    d = n + spare
    U, V = (np.linalg.qr(rng.standard_normal((k, k)))[0] for k in (n, d))
    kept = min(n, d)
    sizes = 10 ** (spread * rng.uniform(-1, 1, kept))
    Z = (U[:, :kept] * sizes) @ V[:kept]
    theta, g = minimiser(Z, strength, penalty)
    # The objective is strongly convex in the margins, with the constant lambda.
    off = np.linalg.norm(g) / (sizes.min() * strength)
    measured = within(Z @ theta, off + 1e-12, "gradient over strong convexity")
    return compare(measured, "==", theory("margin", np.full(n, ir.decoupled_margin(strength))))


@panel(
    spectral_decoupling,
    "A penalty on predictions: one margin, whatever the features",
    x=r"penalty $\lambda$",
    y="margin of the first example",
    log="x",
)
def _(pen, runs):
    grid = np.geomspace(0.015, 2.5, 60)
    pen.theory(grid, [ir.decoupled_margin(x) for x in grid], r"$\sigma(-m)=\lambda m$")
    pen.points(*runs.measured("strength", index=0), "judged")
    pen.broken(
        *runs.measured("strength", index=0, control="weights are penalised"),
        label="weights penalised",
    )


@ridge.ours("derived: Legendre duality of the logistic loss and the entropy")
@cases(n=6, d=4, strength=[0.1, 2.0], scale=1.0)
@full(n=[6, 30], d=[4, 40], strength=[0.01, 0.1, 1.0, 10.0], scale=1.0)
@space(
    n=Int(1, 10),
    d=Int(1, 10),
    strength=Real(0.03, 100.0, log=True),
    scale=Real(0.1, 3.0, log=True),
)
@breaks("predictions are penalised", penalty=prediction_decay)
def dual_fixed_point(n, d, strength, scale, seed, penalty=weight_decay):
    r"""it is $\theta=\frac1\lambda Z^\top\alpha$ with $\alpha_i=\sigma(-(K\alpha)_i)$, and the
    minimum is $\sum_iH(\alpha_i)-\frac12\alpha^\top K\alpha$ with the entropy $H$ in nats."""
    Z = scale * np.random.default_rng([seed, 6]).standard_normal((n, d))
    theta, g = minimiser(Z, strength, penalty)
    value = np.sum(np.logaddexp(0, -Z @ theta)) + strength / 2 * (theta @ theta)
    off = np.linalg.norm(g) / strength
    fit = ir.logistic_fixed_point(Z @ Z.T / strength)
    dual = Z.T @ fit.multipliers / strength
    source = "gradient over strong convexity; rounding"
    # Rounding of K in the dual variables, and of the product with the rows.
    size = np.linalg.norm(Z, 2)
    size = 1e-9 * np.abs(theta).max() + 1e-14 * size**3 / strength**2
    return {
        "weights": compare(within(theta, off + size, source), "==", theory("weights", dual)),
        "minimum": compare(
            within(value, off**2 * strength + 1e-11 * value, source), "==", theory("dual", fit.dual)
        ),
    }


if __name__ == "__main__":
    run_script(__file__)
