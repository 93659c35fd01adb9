"""Features near given features: variability along the central path and near collapse."""

from fractions import Fraction

import numpy as np
from scipy.optimize import minimize

import theorylab.neural_collapse as nc
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    family,
    full,
    panel,
    paper,
    simulation,
    slope,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

path = paper(
    "tirer2022-perturbation",
    r"$K$ balanced classes of $n$ samples, one-hot labels $Y$, features $H\in\mathbb "
    r"R^{d\times Kn}$ "
    r"with $\dot H=-W^\top(WH-Y)-\lambda_HH$, $W=YH^\top(HH^\top+n\lambda_WI)^{-1}$, "
    r"$\lambda_W>0$:",
)
near = paper(
    "tirer2022-perturbation",
    r"$\frac1{2Kn}\|WH-Y\|^2+\frac{\lambda_W}{2K}\|W\|^2+\frac{\lambda_H}{2Kn}\|H\|^2"
    r"+\frac\beta{2Kn}\|H-H_0\|^2$, $K$ balanced classes of $n$ samples, $\beta>0$:",
)


def frame(n_classes, n, dimension, length, seed):
    """An orthonormal frame, features collapsed to it, a perturbation with zero class means."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0][:, :n_classes]
    noise = deviations(rng.standard_normal((dimension, n_classes * n)), n_classes)
    return Q, np.repeat(length * Q, n, axis=1), noise


def means_of(features, K):
    return features.reshape(len(features), K, -1).mean(axis=2)


def deviations(features, K):
    return features - np.repeat(means_of(features, K), features.shape[1] // K, axis=1)


@simulation
def path_record(lam_w, lam_h, separation, n_classes, dimension, n, seed, frozen):
    """Traces of the covariances, their logarithmic rates by the equation of the flow, features."""
    base = separation * frame(n_classes, n, dimension, 1.0, seed)[1]
    start = base + np.random.default_rng([seed, 1]).standard_normal(base.shape)
    fixed = np.roll(nc.ridge_classifier(start, n_classes, lam_w=lam_w), frozen - 1, axis=0)
    options = {"lam_w": lam_w, "lam_h": lam_h, "classifier": fixed if frozen else None}
    run = nc.central_path(start, n_classes, times=np.linspace(0, 2, 7), tol=1e-11, **options)
    rates = []
    for H in run.features:
        V, M = nc.central_path_velocity(H, n_classes, **options), means_of(H, n_classes)
        w, c = deviations(H, n_classes), M - M.mean(axis=1, keepdims=True)
        turned = means_of(V, n_classes)
        rates.append([2 * np.sum(w * V) / np.sum(w**2), 2 * np.sum(c * turned) / np.sum(c**2)])
    return run.within_trace, run.between_trace, np.array(rates).T, run.features


@path.abstract("b", instance=True)
@cases(lam_w=[0.01, 0.1], lam_h=0.05)
@full(lam_w=[1e-3, 0.1], lam_h=[0.0, 0.05], separation=[0.0, 0.3, 3.0, 1.0])
@space(
    lam_w=Real(1e-3, 1.0, log=True),
    lam_h=Real(0.0, 0.3),
    separation=Real(0.0, 2.0),
    n_classes=Int(2, 4),
    dimension=Int("n_classes", 6),
    n=Int(2, 6),
)
@breaks("classifier frozen at the start", frozen=1)
@breaks("classifier frozen at shifted labels", frozen=2, separation=3.0)
def central_path_nc1_monotone(
    lam_w, lam_h, seed, separation=1.0, n_classes=3, dimension=6, n=5, frozen=0
):
    r"""where neither vanishes, $\operatorname{tr}\Sigma_W/\operatorname{tr}\Sigma_B$ strictly
    falls: $\frac d{dt}\log\operatorname{tr}\Sigma_W=-2\lambda_H-2\|WH_w\|^2/\|H_w\|^2$ and $\frac
    d{dt}\log\operatorname{tr}\Sigma_B=-2\lambda_H+2n\langle Q,M_cM_c^\top\rangle/\|M_c\|^2$, $H_w$
    the deviations from the class means, $M_c$ the centred class means,
    $Q=R(H_wH_w^\top+n\lambda_WI)R$, $R=(HH^\top+n\lambda_WI)^{-1}$."""
    options = (lam_w, lam_h, separation, n_classes, dimension, n, seed, frozen)
    inside, between, rates, features = path_record(*options)
    stated = [nc.trace_rates(H, n_classes, lam_w=lam_w) for H in features]
    # The ridge matrix amplifies rounding by its condition, at most |H|^2 / (n lam_w).
    error = 1e-13 * max(np.sum(H**2) for H in features) / (n * lam_w)
    fall, rise = (within(r, error, "rounding times the condition of the ridge") for r in rates)
    own, other = (np.array([getattr(r, k) for r in stated]) for k in ("within", "between"))
    change = np.diff(np.log(inside / between))
    decay = -2 * theory("decay", lam_h)
    return {
        "ratio": compare(within(change, 1e-9, "tolerance of the integrator"), "<", 0.0),
        "within": compare(fall, "==", decay + theory("fall", own)),
        "between": compare(rise, "==", decay + theory("rise", other)),
    }


@panel(
    central_path_nc1_monotone,
    "The ratio of the traces falls at every time on the central path",
    x="separation of the classes at the start",
    y="change of the log ratio, 6 steps",
)
def _(pen, runs):
    where = {"lam_w": 0.1, "lam_h": 0.05}
    for i in range(6):
        pen.points(*runs.measured("separation", index=i, where=where), "path" * (i == 0))
        name = "frozen, shifted labels"
        pen.broken(
            *runs.measured("separation", index=i, control="classifier frozen at shifted labels"),
            name * (i == 0),
        )


MEANS = np.array([[1.0, 2.0, -3.0], [0.0, 0.25, -0.25], [0.0, 0.0, 0.0]])
OFFSETS = np.array([[-15.0, -28.0, -2.0], [-1.25, -1.1875, -0.625], [15.0, 12.0, 3.0]])


@path.ours("derived: a counterexample for the metric with a pseudo-inverse", serves="b")
@cases(lam_w=[0.5, 0.0078125])
@full(lam_w=[0.5, 0.125, 0.03125, 0.0078125])
@space(lam_w=Real(0.004, 0.5, log=True), lam_h=Real(0.0, 1.0))
@breaks("deviations in the span of the means", flat=True)
@breaks("two classes", n_classes=2)
def pinv_variability_can_increase(lam_w, lam_h=0.3, flat=False, n_classes=3, step=1e-4):
    r"""$\operatorname{tr}(\Sigma_W\Sigma_B^+)$, unlike the ratio of the traces, can increase,
    whatever $\lambda_H$, for $K=d=3$: at two samples $m_k\pm a_k$ in each class with $(m_k)=$ (1,
    0, 0), (2, 1/4, 0), (-3, -1/4, 0) and $(a_k)=$ (-15, -5/4, 15), (-28, -19/16, 12), (-2, -5/8, 3)
    its derivative is $2n\operatorname{tr}B^+(2Q(I-P)-R)S>0$, $B=nM_cM_c^\top$, $P$ the projection
    on the span of $M_c$, $S=H_wH_w^\top$ ($Q$, $R$ as for the ratio)."""
    means, offsets = MEANS[:, :n_classes], OFFSETS[:, :n_classes] * [[1], [1], [0 if flat else 1]]
    if n_classes == 2:
        means = np.array([[1.0, -1.0], [0, 0], [0, 0]])
    start = np.stack([means + offsets, means - offsets], axis=2).reshape(3, -1)
    exact = nc.exact_variability_rate(start, n_classes, lam_w=lam_w)
    # Forward differences with steps h, h / 2 and h / 4; two extrapolations are off by 4 to 1.
    times = np.array([0.0, step / 4, step / 2, step])
    options = {"lam_w": lam_w, "lam_h": lam_h, "times": times, "tol": 1e-13}
    v = nc.central_path(start, n_classes, **options).variability
    fine, half, whole = (v[1:] - v[0]) / times[1:]
    error = abs(2 * fine - 3 * half + whole) + 1e-11 * v[0] / step
    derivative = within(2 * fine - half, error, "a step of twice the size, rounding")
    return {
        "increases": compare(exact, ">", Fraction(0)),
        "derivative": compare(derivative, "==", theory("derivative", float(exact))),
    }


@panel(
    pinv_variability_can_increase,
    r"$\mathrm{tr}\,(\Sigma_W\Sigma_B^+)$ can increase",
    x=r"$\lambda_W$",
    y="its derivative at the stated features",
    log="x",
)
def _(pen, runs):
    pen.theory(*runs.predicted("lam_w", "derivative"), "rational arithmetic")
    pen.points(*runs.measured("lam_w", "derivative"), "flow")
    name = "deviations in the span of the means"
    pen.broken(*runs.measured("lam_w", "derivative", control=name), "in the span of the means")


@simulation
def response(beta, lam_w, lam_h, length, moved, n_classes, n, dimension, seed):
    """Perturbation sizes; parts of the deviations, over them, in and off the span of the frame."""
    Q, base, noise = frame(n_classes, n, dimension, length, seed)
    shift = np.random.default_rng([seed, 1]).standard_normal((dimension, n_classes))
    bump = noise + moved * np.repeat(shift, n, axis=1)
    eps, found = np.geomspace(0.3, 3e-3, 13), []
    for e in eps:
        run = nc.near_minimizer(base + e * bump, n_classes, beta=beta, lam_w=lam_w, lam_h=lam_h)
        good = run.status is not nc.NearStatus.STOPPED
        found.append(deviations(run.features, n_classes) / e if good else np.nan * base)
    return eps, np.array(found), Q, noise


@near.abstract("c", instance=True)
@cases(beta=[0.1, 0.3], lam_w=0.05, lam_h=0.02, length=1.0)
@full(beta=[0.1, 3.0, 0.3], lam_w=0.05, lam_h=0.02, length=[2.0, 1.0])
@space(
    beta=Real(0.1, 3.0),
    lam_w=Real(0.02, 3.0, log=True),
    lam_h=Real(0.0, 3.0),
    length=Real(0.7, 2.0),
    n_classes=Int(2, 3),
    dimension=Int("n_classes", 6),
)
@breaks("perturbed class means", moved=1.0)
def near_collapse_linear_response(
    beta, lam_w, lam_h, length, seed, n_classes=3, n=5, dimension=5, moved=0.0
):
    r"""$d\ge K$, $H_0$ collapsed to an orthogonal frame plus $\varepsilon\Delta$, $\Delta$ with
    zero class means: on the branch of the collapsed minimiser the deviations are
    $\varepsilon\beta(W^\top W+\beta+\lambda_H)^{-1}\Delta+O(\varepsilon^3)$, $W$ the classifier at
    $\varepsilon=0$: shrunk by $\beta/(w^2+\beta+\lambda_H)$ along its rows, of length $w$, and by
    $\beta/(\beta+\lambda_H)$ elsewhere."""
    options = (beta, lam_w, lam_h, length, moved, n_classes, n, dimension, seed)
    eps, found, Q, noise = response(*options)
    stated = nc.collapsed_response(beta=beta, lam_w=lam_w, lam_h=lam_h, length=length)
    on, off = theory("on", stated.on_span), theory("off", stated.off_span)
    span = Q @ (Q.T @ noise)
    predicted = on * span + off * (noise - span)
    # The response at the smallest size; the quadratic remainder is that to twice the size, or less.
    error = np.abs(found[-1] - found[-3]) + 1e-9
    first = stated.on_span * span + stated.off_span * (noise - span)
    left = np.linalg.norm(found - first, axis=(1, 2))
    order = slope(1 / eps, left * eps, floor=1e-13 * np.linalg.norm(noise))
    return {
        "response": compare(
            within(found[-1], error, "a perturbation of twice the size"), "==", predicted
        ),
        "remainder": compare(order, "<=", -theory("order", 3.0)),
    }


@simulation
def kept(beta, lam_w, lam_h, length, eps, n_classes, n, dimension, seed):
    """Parts of a perturbation of the frame that the minimiser keeps, along it and elsewhere."""
    Q, base, noise = frame(n_classes, n, dimension, length, seed)
    options = {"beta": beta, "lam_w": lam_w, "lam_h": lam_h}
    run = nc.near_minimizer(base + eps * noise, n_classes, **options)
    parts = deviations(run.features, n_classes), eps * noise
    on = [np.linalg.norm(Q.T @ p) for p in parts]
    off = [np.linalg.norm(p - Q @ (Q.T @ p)) for p in parts]
    return np.array([on[0] / on[1], off[0] / off[1]])


@near.abstract("d", instance=True)
@cases(beta=1.0, lam_w=0.05, lam_h=0.1)
@cases(beta=0.3, lam_w=0.05, lam_h=0.02)
@full(beta=[0.1, 0.3, 1.0, 3.0], lam_w=[0.5, 0.05], lam_h=0.1)
@full(beta=[0.1, 1.0, 3.0, 0.3], lam_w=0.05, lam_h=0.02)
@space(beta=Real(0.1, 3.0), lam_w=Real(0.02, 0.5), lam_h=Real(0.02, 0.5), stretch=Real(0.5, 2.0))
@breaks("large perturbation, small weight decay", eps=0.1, lam_w=1e-4)
def hyperparameter_effect_on_collapse(
    beta, lam_w, lam_h, seed, stretch=0.7, eps=1e-4, n_classes=3, n=5, dimension=5
):
    r"""$d>K$, $\lambda_W\lambda_H<1$, $H_0$ an orthogonal frame plus a small perturbation with zero
    class means: where the frame is the minimiser without attachment, the deviations shrink by
    $\beta/(\beta+\sqrt{\lambda_H/\lambda_W})$ along the classifier and by $\beta/(\beta+\lambda_H)$
    elsewhere. So there is more collapse for larger $\lambda_H$ and smaller $\beta$ and less, along
    the classifier, for larger $\lambda_W$; for a fixed frame of any length the signs are the
    same."""
    values = {"beta": beta, "lam_w": lam_w, "lam_h": lam_h}
    length = nc.collapsed_response(**values).length
    shape = (eps, n_classes, n, dimension, seed)
    # Second moments move by eps^2 |noise|^2, hence W, over n lam_w; the factor covers the feedback.
    noise = frame(n_classes, n, dimension, 1.0, seed)[2]
    error = 4e-8 * np.linalg.norm(noise, 2) ** 2 / (n * lam_w)
    stated = beta / (beta + np.array([np.sqrt(lam_h / lam_w), lam_h]))
    measured = within(kept(*values.values(), length, *shape), error, "second order in eps")

    def sign(name, size):
        """The change of what is kept along the frame as one parameter grows by 30 %."""
        more = {**values, name: 1.3 * values[name]}
        a, b = (kept(*v.values(), size, *shape)[0] for v in (values, more))
        return None if abs(b - a) < 2 * error else np.sign(b - a)

    wanted = {"beta": 1, "lam_h": -1, "lam_w": 1}
    found = {(k, size): sign(k, size) for k in wanted for size in (length, stretch * length)}
    signs = {key: None if v is None else bool(v == wanted[key[0]]) for key, v in found.items()}
    return {
        "factors": compare(measured, "==", theory("factors", stated)),
        "signs": compare(family(signs), "==", len(signs)),
    }


@panel(
    hyperparameter_effect_on_collapse,
    r"Collapse: more with $\lambda_H$, less with $\lambda_W$ and $\beta$",
    x=r"attachment $\beta$",
    y="deviation kept along the classifier",
    log="x",
)
def _(pen, runs):
    beta = np.geomspace(0.08, 4, 60)
    for k, (lam_w, lam_h) in enumerate(((0.05, 0.1), (0.5, 0.1), (0.05, 0.02))):
        pen.theory(beta, beta / (beta + np.sqrt(lam_h / lam_w)), k=k)
        where = {"lam_w": lam_w, "lam_h": lam_h}
        label = rf"$\lambda_W={lam_w}$, $\lambda_H={lam_h}$"
        pen.points(*runs.measured("beta", index=0, where=where), label, k=k)


@simulation
def joint_minimizer(beta, lam_w, lam_h, n_classes, n, dimension, spread, seed, flipped):
    """Given features, features and classifier after a joint search, gradient in the features."""
    rng, N = np.random.default_rng(seed), n_classes * n
    H0 = spread * rng.standard_normal((dimension, N))
    H0 += np.repeat(rng.standard_normal((dimension, n_classes)), n, axis=1)
    labels = np.repeat(np.arange(n_classes), n)
    labels[::n] = (labels[::n] + flipped) % n_classes
    Y = np.eye(n_classes)[:, labels]

    def objective(x):
        W, H = x[: n_classes * dimension].reshape(n_classes, -1), x[n_classes * dimension :]
        H = H.reshape(dimension, N)
        error = W @ H - Y
        value = np.sum(error**2) + lam_h * np.sum(H**2) + beta * np.sum((H - H0) ** 2)
        gW = error @ H.T + n * lam_w * W
        gH = W.T @ error + lam_h * H + beta * (H - H0)
        return (value + n * lam_w * np.sum(W**2)) / 2, np.concatenate([gW.ravel(), gH.ravel()])

    start = np.concatenate([rng.standard_normal(n_classes * dimension), H0.ravel()])
    options = {"gtol": 1e-9, "ftol": 1e-16, "maxiter": 4000}
    x = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    W, H = x[: n_classes * dimension].reshape(n_classes, -1), x[n_classes * dimension :]
    slack = np.linalg.norm(objective(x)[1][n_classes * dimension :])
    return H0, H.reshape(dimension, N), W, slack


@near.abstract("b", "c", instance=True)
@cases(beta=1.0, lam_w=1.0, lam_h=0.05)
@cases(beta=[0.1, 1.0], lam_w=0.1, lam_h=0.05)
@full(beta=[0.03, 0.1, 0.3, 1.0, 3.0, 10.0], lam_w=0.1, lam_h=[0.0, 0.5, 0.05])
@space(
    beta=Real(0.03, 10.0, log=True),
    lam_w=Real(0.01, 1.0, log=True),
    lam_h=Real(0.0, 1.0),
    dimension=Int(2, 6),
    spread=Real(0.2, 2.0),
)
@breaks("other labels in a class", flipped=1)
def minimiser_contracts_within_class_scatter(
    beta, lam_w, lam_h, seed, n_classes=3, n=5, dimension=4, spread=1.0, flipped=0
):
    r"""for any $H_0$, wherever the gradient in $H$ vanishes, at a minimiser or not, the deviations
    from the class means are $\beta(W^\top W+(\beta+\lambda_H)I)^{-1}$ times those of $H_0$; so
    $\operatorname{tr}\Sigma_W$ is at most $(\beta/(\beta+\lambda_H))^2$ times that of $H_0$."""
    shape = (n_classes, n, dimension, spread, seed, flipped)
    H0, H, W, slack = joint_minimizer(beta, lam_w, lam_h, *shape)
    given, found = deviations(H0, n_classes), deviations(H, n_classes)
    # In H the objective, times Kn, is convex with curvature beta + lam_h or more.
    error = slack / (beta + lam_h) + 1e-13 * np.abs(H0).max()
    scatter = np.sum(found**2) / np.sum(given**2)
    step = np.linalg.inv(W.T @ W + (beta + lam_h) * np.eye(dimension))
    return {
        "deviations": compare(
            within(found, error, "gradient over the curvature"),
            "==",
            theory("beta", beta) * theory("inverse", step) @ given,
        ),
        "scatter": compare(
            within(scatter, 3 * error, "gradient over the curvature"),
            "<=",
            theory("factor", (beta / (beta + lam_h)) ** 2),
        ),
    }


@panel(
    minimiser_contracts_within_class_scatter,
    r"Optimised features scatter less than those given",
    x=r"attachment $\beta$",
    y="within-class scatter kept",
    log="xy",
)
def _(pen, runs):
    beta = np.geomspace(0.03, 10, 60)
    for k, lam_h in enumerate((0.5, 0.05)):
        pen.theory(beta, (beta / (beta + lam_h)) ** 2, rf"bound, $\lambda_H={lam_h}$", k=k)
        pen.points(*runs.measured("beta", "scatter", where={"lam_h": lam_h}), "minimiser" * k, k=k)


if __name__ == "__main__":
    run_script(__file__)
