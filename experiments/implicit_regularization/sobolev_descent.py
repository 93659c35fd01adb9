"""Descent on a misfit in a Sobolev norm: a filter, a preconditioner, a model of the noise."""

import numpy as np
from scipy.stats import multivariate_normal

from theorylab import implicit_regularization as ir
from theorylab.verify import (
    Choice,
    Int,
    Real,
    between,
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

KEY = "zhu2021-implicit"
GRID = (
    r"On a periodic grid with frequencies $\xi$, $\Lambda=I-\Delta$ with symbol $w=1+|\xi|^2$, "
    r"$\|r\|_{H^s}^2=r^\top\Lambda^sr$"
)
blurs = paper(KEY, GRID + r", $A$ a convolution with symbol $a(\xi)$:")
operators = paper(KEY, GRID + ", $s\\ne0$:")


def impulse(shape, power, zeros, seed):
    """The kernel of a convolution with symbol of modulus w^(-power / 2) and odd random phase, 0 at
    a share of the frequencies other than 0."""
    rng = np.random.default_rng([seed, 3])
    noise = np.fft.fftn(rng.standard_normal(shape))
    symbol = np.exp(1j * np.angle(noise)) * ir.sobolev_weights(shape, order=-power / 2)
    kept = np.fft.fftn(rng.standard_normal(shape)).real
    kept.flat[0] = 1e9
    symbol = symbol * (kept >= np.quantile(kept, zeros))
    return np.fft.ifftn(symbol).real


def sobolev_matrix(shape, order):
    return ir.convolution_matrix(np.fft.ifftn(ir.sobolev_weights(shape, order=order)).real)


def operator(kernel, mixing, seed):
    """The matrix of a convolution, and of a share of a matrix that is none."""
    A, rng = ir.convolution_matrix(kernel), np.random.default_rng([seed, 4])
    return A + mixing * rng.standard_normal(A.shape) / np.sqrt(len(A))


def frequencies(f, shape):
    """Real and imaginary part, with the unitary normalisation."""
    found = np.fft.fftn(f.reshape(shape)) / np.sqrt(f.size)
    return np.stack([found.real, found.imag])


@simulation
def sobolev_runs(shape, order, power, zeros, step, steps, mixing, start, seed):
    """Data, step size, and the end of dense descent."""
    kernel = impulse(shape, power, zeros, seed)
    A, rng = operator(kernel, mixing, seed), np.random.default_rng([seed, 5])
    g, first = rng.standard_normal(len(A)), start * rng.standard_normal(len(A))
    symbol = np.abs(np.fft.fftn(kernel)) ** 2
    top = max((symbol * ir.sobolev_weights(shape, order=s)).max() for s in (0.0, order))
    end = ir.metric_descent(
        *(A, g),
        weight=sobolev_matrix(shape, order),
        start=first,
        step_size=step / top,
        steps=steps,
        tol=0.0,
    )
    return kernel, g, step / top, end.weights


@blurs.abstract("a", instance=True)
@cases(order=[-0.7, 0.7])
@full(order=[-1.5, -0.5, 0.5, 1.0], steps=[1, 30], shape=[(24,)], zeros=0.0)
@full(order=[0.5, -1.0], steps=10, shape=[(6, 5)])
@space(
    shape=Choice([(9,), (2,), (16,), (3, 4), (5, 5)]),
    order=Real(-2.0, 2.0),
    power=Real(0.0, 2.0),
    zeros=Real(0.0, 0.6),
    step=Real(0.05, 2.2),
    steps=Int(1, 40),
)
@breaks("not a convolution", mixing=0.5)
@breaks("another start", start=1.0)
def gd_spectral_filter(
    order, seed, shape=(16,), power=1.0, zeros=0.2, step=0.9, steps=8, mixing=0.0, start=0.0
):
    r"""$k$ steps of gradient descent on $\frac12\|Af-g\|_{H^s}^2$ from 0 give
    $\hat f=\frac{F_k}a\hat g$, $F_k=1-(1-\eta w^s|a|^2)^k$, where $a\ne0$, and 0 elsewhere. Where
    $\eta w^s|a|^2\le1$ and $\eta|a|^2\le1$, the share $F_k$ that is recovered of a frequency is for
    $s<0$ at most, for $s>0$ at least that for $s=0$."""
    args = (shape, order, power, zeros, step, steps, mixing, start, seed)
    kernel, g, eta, found = sobolev_runs(*args)
    symbol, data = np.fft.fftn(kernel), np.fft.fftn(g.reshape(shape)) / np.sqrt(g.size)
    seen = np.abs(symbol) > 1e-9
    share = ir.spectral_filter(kernel, order=order, step_size=eta, steps=steps)
    filtered = np.where(seen, share * data / np.where(seen, symbol, 1), 0)
    scale = np.abs(filtered).max()
    predicted = theory("filter", np.stack([filtered.real, filtered.imag]) / scale)
    measured = frequencies(found, shape) / scale
    source = "rounding of the dense descent"
    larger = np.maximum(ir.sobolev_weights(shape, order=order), 1) * np.abs(symbol) ** 2
    # At the frequency 0 the two shares are equal, whatever the step.
    others = np.flatnonzero(seen & (eta * larger <= 1 + 1e-12))
    others = others[others > 0] if others.any() else np.zeros(1, int)
    shown = symbol * np.fft.fftn(found.reshape(shape)) / np.fft.fftn(g.reshape(shape))
    error = 1e-9 * (1 + np.abs(shown).max())
    plain = np.sign(order) * ir.spectral_filter(kernel, order=0.0, step_size=eta, steps=steps)
    return {
        "filter": compare(within(measured, 1e-9, source), "==", predicted),
        "share": compare(
            within(np.sign(order) * shown.real.ravel()[others], error, source),
            ">=",
            theory("share for s = 0", plain.ravel()[others]),
        ),
    }


@panel(
    gd_spectral_filter,
    r"The lower the order $s$ of the misfit, the less 30 steps recover of high frequencies",
    x=r"frequency $\xi$",
    y=r"share $F_k$ of the exact inverse",
)
def _(pen, runs):
    seed = runs.judgement.seed
    for k, order in enumerate((-1.5, -0.5, 0.5, 1.0)):
        (run,) = [
            r
            for r in runs.judgement.runs
            if r.instance["order"] == order
            and r.instance["steps"] == 30
            and r.instance["shape"] == (24,)
        ]
        kernel, g, eta, found = sobolev_runs((24,), order, 1.0, 0.0, 0.9, 30, 0.0, 0.0, seed)
        share = ir.spectral_filter(kernel, order=order, step_size=eta, steps=30)
        symbol = np.fft.fftn(kernel)
        shown = np.real(symbol * np.fft.fftn(found) / np.fft.fftn(g))
        pen.theory(np.arange(13), share[:13], k=k)
        pen.points(np.arange(13), shown[:13], run.parts["filter"].error.max(), f"$s={order:g}$", k)


@simulation
def contraction(shape, order, power, bump, step, steps, seed):
    """Eigenvalues of the Hessian, and contractions per step from the extreme frequencies and from
    random data, of dense descent."""
    kernel = impulse(shape, power, 0.0, seed)
    symbol = np.fft.fftn(kernel)
    symbol.flat[0] *= bump
    A = ir.convolution_matrix(np.fft.ifftn(symbol).real)
    weight = sobolev_matrix(shape, order)
    values = np.linalg.eigvalsh(A.T @ weight @ A)
    top = np.zeros(shape)
    top[tuple(n // 2 for n in shape)] = 1.0
    extreme = np.real(np.fft.ifftn(top)) / np.abs(np.fft.ifftn(top).real).max() + 1.0
    rng = np.random.default_rng([seed, 6])
    per_step = []
    for f in (extreme.ravel(), rng.standard_normal(extreme.size)):
        end = ir.metric_descent(
            A, A @ f, weight=weight, step_size=step, steps=steps, tol=0.0
        ).weights
        per_step.append((np.linalg.norm(end - f) / np.linalg.norm(f)) ** (1 / steps))
    return values[-1] / values[0], per_step


@blurs.abstract("d", instance=True)
@cases(order=[0.0, 1.0, 1.7])
@full(order=[-0.5, 0.0, 0.5, 1.0, 1.5, 2.0], shape=[(24,), (6, 5)])
@space(
    shape=Choice([(16,), (1,), (2,), (9,), (3, 4), (5, 5), (3, 2, 2)]),
    order=Real(-1.0, 2.0),
    power=Real(0.0, 2.0),
    steps=Int(1, 12),
)
@breaks("another symbol at one frequency", bump=3.0)
def preconditioning_condition_number(order, seed, shape=(16,), power=1.0, steps=3, bump=1.0):
    r"""if $|a|=w^{-p/2}$, the Hessian $A^\top\Lambda^sA$ of $\frac12\|Af-g\|_{H^s}^2$ has the
    condition number $\kappa=w_{\max}^{|s-p|}$; gradient descent with
    $\eta=2/(1+w_{\max}^{s-p})$ contracts the error by $\frac{\kappa-1}{\kappa+1}$ a step at worst,
    attained by data of the frequencies 0 and $\xi_{\max}$: for $s=p$ one step is enough."""
    largest = ir.sobolev_weights(shape, order=1.0).max()
    eta = 2 / (1 + largest ** (order - power))
    floor = 1e-4 ** (1 / steps)
    if np.tanh(abs(order - power) * np.log(largest) / 2) < floor:
        steps, floor = 1, 1.0
    condition, (slowest, other) = contraction(shape, order, power, bump, eta, steps, seed)
    kappa = largest ** theory("exponent", abs(order - power))
    rate = (kappa - 1) / (kappa + 1)
    error, source = 1e-11 / floor ** (steps - 1), "rounding"
    return {
        "condition": compare(within(condition, 1e-9 * condition**2, source), "==", kappa),
        "slowest": compare(within(slowest, error, source), "==", rate),
        "others": compare(within(other, error, source), "<=", rate),
    }


@panel(
    preconditioning_condition_number,
    r"The misfit in $H^s$ preconditions: a blur with $|a|=w^{-1/2}$",
    x="order $s$ of the misfit",
    y="condition number of the Hessian",
    log="y",
)
def _(pen, runs):
    s = np.linspace(-0.5, 2, 101)
    for k, (shape, label) in enumerate((((24,), "24 points"), ((6, 5), r"$6\times5$ points"))):
        largest = ir.sobolev_weights(shape, order=1.0).max()
        pen.theory(s, largest ** np.abs(s - 1), k=k)
        pen.points(*runs.measured("order", where={"shape": shape}), label, k=k)


@simulation
def bayes(shape, order, noise_order, power, zeros, prior, actual, noise, seed):
    """Dense Gaussian conditioning, and exact mean squared errors of linear filters."""
    kernel = impulse(shape, power, zeros, seed)
    A, rng = ir.convolution_matrix(kernel), np.random.default_rng([seed, 7])
    signal = sobolev_matrix(shape, -actual)
    errors = noise * sobolev_matrix(shape, -noise_order)
    joint = A @ signal @ A.T + errors
    gain = np.linalg.solve(joint, A @ signal).T
    g, residual = rng.standard_normal(len(A)), rng.standard_normal((2, len(A)))
    likelihood = multivariate_normal(np.zeros(len(A)), errors).logpdf(residual)
    posterior = np.linalg.inv(A.T @ np.linalg.inv(errors) @ A + np.linalg.inv(signal))

    def risk(K):
        missed = K @ A - np.eye(len(A))
        return np.trace(missed @ signal @ missed.T + K @ errors @ K.T)

    weight, inverse = sobolev_matrix(shape, order), noise * sobolev_matrix(shape, prior)
    tikhonov = np.linalg.solve(A.T @ weight @ A + inverse, A.T @ weight)
    others = []
    for s in (order - 0.7, order + 0.7, order):
        W = sobolev_matrix(shape, s)
        K = np.linalg.solve(A.T @ W @ A + inverse, A.T @ W)
        if np.linalg.norm(K - tikhonov) < 1e-3 * np.linalg.norm(tikhonov):
            change = rng.standard_normal(K.shape)
            K = tikhonov + 0.3 * np.linalg.norm(K) / np.linalg.norm(change) * change
        others.append(risk(K))
    fit = -np.diff(likelihood)[0]
    return kernel, g, residual, gain @ g, fit, risk(tikhonov), np.trace(posterior), others


@blurs.ours("derived: the abstract's Bayesian reading with its hypotheses", serves="b")
@cases(order=[-1.0, 0.8])
@full(order=[-1.5, -0.5, 0.5, 1.5], shape=[(24,), (6, 5)])
@space(
    shape=Choice([(16,), (2,), (9,), (3, 4), (5, 5)]),
    order=Real(-1.5, 1.5),
    power=Real(0.0, 1.5),
    zeros=Real(0.0, 0.6),
    prior=Real(0.0, 2.0),
    noise=Real(0.1, 2.0, log=True),
)
@breaks("white noise", noise_order=0.0)
@breaks("another prior", actual=0.0)
def bayes_noise_model(
    order,
    seed,
    shape=(16,),
    power=1.0,
    zeros=0.2,
    prior=1.5,
    noise=0.3,
    noise_order=None,
    actual=None,
):
    r"""let $g=Af+e$, $f\sim N(0,\Lambda^{-r})$, $e\sim N(0,\sigma^2\Lambda^{-s})$ independent. Then
    $\frac1{2\sigma^2}\|Af-g\|_{H^s}^2$ is the negative log-likelihood up to a constant, the
    minimiser of $\|Af-g\|_{H^s}^2+\sigma^2\|f\|_{H^r}^2$ is the posterior mean, with
    $\hat f=\bar aw^s\hat g/(|a|^2w^s+\sigma^2w^r)$, and its mean squared error
    $\sum_\xi\sigma^2/(|a|^2w^s+\sigma^2w^r)$ is the least of all; any other linear filter, such as
    that of another $s$ if it is another filter, has a larger one."""
    q = order if noise_order is None else noise_order
    r = prior if actual is None else actual
    kernel, g, residual, posterior, fit, error, least, others = bayes(
        shape, order, q, power, zeros, prior, r, noise, seed
    )
    spectrum = np.abs(np.fft.fftn(kernel)) ** 2 * ir.sobolev_weights(shape, order=order)
    total = np.sum(noise / (spectrum + noise * ir.sobolev_weights(shape, order=prior)))
    misfits = [
        np.sum(np.sum(frequencies(v, shape) ** 2, axis=0) * ir.sobolev_weights(shape, order=order))
        for v in residual
    ]
    mean = ir.sobolev_tikhonov(
        *(kernel, g.reshape(shape)),
        order=order,
        noise_variance=noise,
        prior_order=prior,
        prior_variance=1.0,
    ).ravel()
    scale, source = np.abs(mean).max(), "rounding of dense linear algebra"
    half = theory("half", 1 / (2 * noise))
    size = max(misfits) / (2 * noise)
    optimum = theory("least", total)
    return {
        "likelihood": compare(
            within(fit / size, 1e-7, source), "==", (misfits[1] - misfits[0]) * half / size
        ),
        "posterior mean": compare(
            within(posterior / scale, 1e-7, source), "==", theory("filter", mean / scale)
        ),
        "least error": compare(between(error, least), "==", optimum),
        "other filters": compare(
            within(np.array(others), 1e-7 * np.array(others), source), ">", np.full(3, optimum)
        ),
    }


@panel(
    bayes_noise_model,
    r"The order of the misfit that errs least is that of the noise ($24$ points)",
    x="order of the misfit minus that of the noise",
    y="mean squared error / least",
)
def _(pen, runs):
    s = np.linspace(-0.8, 0.8, 41)
    for k, run in enumerate(r for r in runs.judgement.runs if r.instance["shape"] == (24,)):
        order = run.instance["order"]
        kernel = impulse((24,), 1.0, 0.2, runs.judgement.seed)
        options = {"noise_variance": 0.3, "prior_order": 1.5, "prior_variance": 1.0}
        errors = [
            ir.tikhonov_error(kernel, order=order + x, noise_order=order, **options) for x in s
        ]
        least = run.parts["least error"].predicted
        pen.theory(s, errors / least, f"noise of order {order:g}", k=k)
        judged = [run.parts["least error"].centre, *run.parts["other filters"].centre[:2]]
        pen.points([0, -0.7, 0.7], judged / least, k=k)


@simulation
def gradients(shape, order, power, coupled, mixing, seed):
    """Derivatives by differences of both misfits, raised by the Gram matrix of H^-s for that in
    L^2, for an operator and a point; and of all unit data at f = 0 for any matrix."""
    kernel = impulse(shape, power, 0.0, seed)
    rng = np.random.default_rng([seed, 8])
    f, g = rng.standard_normal((2, np.prod(shape)))
    weights = ir.sobolev_weights(shape, order=-order)
    basis = np.fft.fftn(np.eye(len(f)).reshape(*shape, -1), axes=range(len(shape)))
    basis = basis.reshape(len(f), -1) / np.sqrt(len(f))
    gram = np.real(basis.conj().T @ (weights.ravel()[:, None] * basis))
    matrix = rng.standard_normal(gram.shape)
    A = operator(kernel, mixing, seed)
    if coupled:
        levels = ir.sobolev_weights(shape, order=1.0).ravel()
        blocks = np.isclose(levels[:, None], levels) * (basis @ matrix @ basis.conj().T)
        A = A + np.real(basis.conj().T @ blocks @ basis) / np.sqrt(len(A))

    def differences(misfit):
        return np.array([misfit(f + e) - misfit(f - e) for e in np.eye(len(A))]) / 2

    sobolev = differences(
        lambda v: np.sum(np.sum(frequencies(A @ v - g, shape) ** 2, axis=0) / weights) / 2
    )
    plain = np.linalg.solve(gram, differences(lambda v: np.sum((A @ v - g) ** 2) / 2))
    inverse = np.linalg.inv(gram)
    apart = sum(
        np.sum((matrix.T @ (inverse @ e) - inverse @ (matrix.T @ e)) ** 2) for e in np.eye(len(A))
    )
    options = {"step_size": 1 / np.linalg.norm(A.T @ inverse @ A, 2), "steps": 12, "tol": 0.0}
    ends = [
        ir.metric_descent(A, g, **{name: sobolev_matrix(shape, order)}, **options).weights
        for name in ("weight", "metric")
    ]
    return A, f, g, sobolev, plain, ends, matrix, basis, apart


@operators.ours("derived: both gradients, and when they differ", serves="c")
@cases(order=[-0.6, 1.0])
@full(order=[-1.5, -0.5, 0.5, 1.5], shape=[(16,), (5, 4)], coupled=[True, False])
@space(
    shape=Choice([(9,), (4,), (12,), (3, 4), (4, 4)]),
    order=Real(-1.5, 1.5),
    power=Real(0.0, 1.5),
    coupled=Choice([False, True]),
)
@breaks("an operator that mixes frequencies", mixing=0.5)
def sobolev_gradient_equivalence(order, seed, shape=(12,), power=1.0, coupled=False, mixing=0.0):
    r"""let $A$ couple only frequencies of equal $w$ (such as a convolution).
    The gradient in $L^2$ of $\frac12\|Af-g\|_{H^s}^2$ and the gradient in the metric of $H^{-s}$
    of $\frac12\|Af-g\|_{L^2}^2$ are both $A^\top\Lambda^s(Af-g)$, and the two descents have the
    same iterates. For any matrix $A$ their squared distance, summed over an orthonormal basis
    of data $g$ at $f=0$, is
    $\sum_{\xi,\zeta}|\hat A_{\xi\zeta}|^2(w(\xi)^s-w(\zeta)^s)^2$: 0 only for such $A$."""
    A, f, g, sobolev, plain, ends, matrix, basis, apart = gradients(
        shape, order, power, coupled, mixing, seed
    )
    weights = ir.sobolev_weights(shape, order=order).ravel()
    residual = np.fft.fftn((A @ f - g).reshape(shape))
    formula = A.T @ np.fft.ifftn(weights.reshape(shape) * residual).real.ravel()
    scale, source = np.abs(formula).max(), "rounding of differences of quadratics"
    squares = np.abs(basis @ matrix @ basis.conj().T) ** 2
    both = theory("gradient", formula / scale)
    gap = np.max(np.abs(ends[0] - ends[1])) / np.max(np.abs(ends[0]))
    total = theory("distance", np.sum(squares * (weights[:, None] - weights) ** 2))
    return {
        "misfit in H^s": compare(within(sobolev / scale, 1e-9, source), "==", both),
        "metric of H^-s": compare(within(plain / scale, 1e-7, source), "==", both),
        "iterates": compare(within(gap, 1e-8, "rounding"), "==", theory("gap", 0)),
        "distance": compare(within(apart, 1e-7 * apart + 1e-9, "rounding"), "==", total),
    }


if __name__ == "__main__":
    run_script(__file__)
