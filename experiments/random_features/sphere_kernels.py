"""Kernels on the sphere: what an activation leaves of each frequency, and of linearity."""

from math import gamma, pi, sqrt

import numpy as np

from theorylab.random_features import (
    arc_cosine_eigenvalues,
    arc_cosine_singularity,
    harmonic_counts,
    linear_activation,
    linearisation_error,
    output_kernel,
    rectified_power,
    sampled_tangent_kernel,
    sphere_eigenvalues,
    tangent_eigenvalues,
    tangent_kernel,
)
from theorylab.verify import (
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
    slope,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

OURS = "derived for these three bias-free networks; not the paper's theorem, whose text was unseen"
DEGREES = 62
products = paper(
    "choraria2022-spectral",
    r"Infinitely wide networks without biases on $S^{d-1}$, with units $\mathrm{relu}(w^\top x)$ "
    r"(plain), $\mathrm{relu}(w^\top x)\,v^\top x$ (mixed) and "
    r"$\mathrm{relu}(w^\top x)\,\mathrm{relu}(v^\top x)$ (product), all of unit mean square; "
    r"$\mu_k$ is the eigenvalue of the tangent kernel on harmonics of degree $k$:",
)
powers = paper(
    "salgia2023-provably",
    r"Two-layer networks $\frac1{\sqrt m}\sum_{r\le m}a_r\varphi(w_r^\top x)$ without biases on "
    r"$S^{d-1}$, $\varphi(z)\propto\max(0,z)^s$ of unit mean square, $w_r$ standard normal, $a_r$ "
    r"signs by fair coins; for $m\to\infty$ the tangent kernel of all weights, and the kernel of "
    r"the outputs, have the eigenvalue $\mu_k$ on harmonics of degree $k$:",
)


def networks(order):
    phi = rectified_power(order)
    return [[phi], [phi, linear_activation()], [phi, phi]]


@simulation
def spectra(d, order, bias):
    """Eigenvalues of the three tangent kernels, shape (3, degrees), and their traces."""
    kernels = [lambda t, f=f: tangent_kernel(t, f, bias=bias) for f in networks(order)]
    found = [sphere_eigenvalues(k, dimension=d, n_degrees=DEGREES) for k in kernels]
    return np.array(found), np.array([float(k(0.0)) for k in kernels])


@simulation
def sampled(d, order, angle, width, seed):
    """Tangent kernels of finite networks at two inputs, shape (draws, 3)."""
    x, y = np.eye(d)[0], np.cos(angle) * np.eye(d)[0] + np.sin(angle) * np.eye(d)[1]
    size = [{"width": width, "seed": 1000 * seed + i} for i in range(40)]
    return np.array([[sampled_tangent_kernel(x, y, f, **s) for f in networks(order)] for s in size])


@products.ours(OURS, serves="a")
@cases(d=[5, 3], width=13_000)
@full(d=[2, 5, 3], angle=0.5, width=40_000)
@space(d=Int(2, 6), angle=Real(0.3, 1.2))
@breaks("a bias, as constant coordinate", bias=True)
@breaks("squared ReLU", order=2)
def pi_net_spectrum_parity(d, seed, angle=0.8, order=1, bias=False, width=4000):
    r"""with $\kappa_0=\frac{\pi-\theta}\pi$, $\kappa_1=\frac{\sin\theta}\pi+\cos\theta\,\kappa_0$,
    $u=\cos\theta$ the kernels are $\kappa_1+u\kappa_0$, $2u\kappa_1+u^2\kappa_0$ and
    $\kappa_1^2+2u\kappa_0\kappa_1$, and
    $\mu_kk^d\to\frac{2^{d-1}}{\pi^2}\Gamma(\frac d2)^2$ for even $k$ (plain), odd $k$ (mixed) and
    all $k$ (product), where $\mu_k=0$ for odd $k\ge3$ (plain) and even $k\ge4$ (mixed)."""
    mu, _ = spectra(d, order, bias)
    k = np.arange(DEGREES)
    x = k + (d - 2) / 2  # the same limit, with a remainder of order 1 / k^2
    scaled, rounding = mu * x**d, 2e-14 * x**d
    even, odd = k[10::2], k[11::2]
    at = [(0, even), (1, odd), (2, even), (2, odd)]
    last = np.array([scaled[i, j[-1]] for i, j in at])
    half = np.array([scaled[i, j[-1] // 2 - (j[-1] // 2 - j[0]) % 2] for i, j in at])
    limit = 2 ** (d - 1) * gamma(d / 2) ** 2 / pi**2
    absent = [(i, j) for i in (0, 1) for j in range(3 + i, 20, 2)]
    missing = np.array([scaled[i, j] for i, j in absent]) / limit
    error = np.array([rounding[j] for _, j in absent]) / limit
    kernels = [float(tangent_kernel(angle, f)) for f in networks(1)]
    exponent, floor = theory("exponent", -float(d)), 1e-12
    return {
        "constant": compare(
            within(last, np.abs(last - half) + rounding[-1], "difference to half the degree"),
            "==",
            theory("constant", limit),
        ),
        "absent": compare(within(missing, error, "rounding"), "==", theory("absent", 0.0)),
        "plain": compare(slope(x[even], mu[0, even], floor=floor), "==", exponent),
        "mixed": compare(slope(x[odd], mu[1, odd], floor=floor), "==", exponent),
        "product": compare(slope(x[10:], mu[2, 10:], floor=floor), "==", exponent),
        "kernels": compare(
            mean(sampled(d, order, angle, width, seed)),
            "==",
            theory("kernels", np.array(kernels)),
        ),
    }


@panel(
    pi_net_spectrum_parity,
    r"A product of two ReLUs learns every frequency, a factor one parity ($d=3$)",
    x="degree $k$",
    y=r"$\mu_k(k+\frac{1}{2})^3$",
)
def _(pen, runs):
    k = np.arange(8, DEGREES)
    plain, mixed, product = spectra(3, 1, False)[0][:, k] * (k + 0.5) ** 3
    for i, (y, label) in enumerate(((plain, "plain"), (mixed, "mixed"), (product, "product"))):
        shift = 0.25 * (i - 1)  # beside each other
        pen.points(k + shift, y, label=label, k=i)
    pen.theory([8, 61], np.full(2, 4 * gamma(1.5) ** 2 / pi**2), "limit", k=6)
    pen.theory([8, 61], [0, 0], "other parity", k=6)


@products.ours("derived: the speed-up of the abstract, quantified; it ends early", serves="a")
@cases(d=[2, 3])
@full(d=[2, 6, 3])
@space(d=Int(2, 6))
@breaks("kernels not divided by their trace", normalised=False)
@breaks("the mixed network", network=1)
def pi_net_mid_frequency_gain(d, normalised=True, network=2):
    r"""the kernels divided by their traces, the product has larger $\mu_2$ and $\mu_4$ than the
    plain network, but $\frac23$ of its $\mu_k$ for even $k\to\infty$."""
    mu, trace = spectra(d, 1, False)
    if normalised:
        mu = mu / trace[:, None]
    k = np.arange(2, DEGREES, 2)
    ratio = mu[network, k] / mu[0, k]
    rounding = 4e-14 / mu[0, k]
    half = abs(ratio[-1] - ratio[len(k) // 2 - 1])
    return {
        "gain": compare(within(ratio[:2], rounding[:2], "rounding"), ">", theory("no gain", 1.0)),
        "limit": compare(
            within(ratio[-1], half + rounding[-1], "difference to half the degree"),
            "==",
            theory("share", 2 / 3),
        ),
    }


@panel(
    pi_net_mid_frequency_gain,
    "The product gains at degrees 2 and 4 only",
    x="even degree $k$",
    y=r"$\mu_k$, product over plain",
    log="x",
)
def _(pen, runs):
    k = np.arange(2, DEGREES, 2)
    for i, d in enumerate((2, 3, 6)):
        mu, trace = spectra(d, 1, False)
        pen.points(k, (mu[2] / trace[2])[k] / (mu[0] / trace[0])[k], label=f"$d={d}$", k=i)
    pen.theory([2, 60], [1, 1], "no gain", k=6)
    pen.theory([2, 60], [2 / 3, 2 / 3], "2/3", k=3)


@simulation
def decay(d, s, bias):
    """Eigenvalues of the tangent and output kernels: by quadrature at low degrees, in closed form
    at many."""
    phi = [rectified_power(s)]
    low = [
        sphere_eigenvalues(lambda t, K=K: K(t, phi, bias=bias), dimension=d, n_degrees=s + 9)
        for K in (tangent_kernel, output_kernel)
    ]
    size = {"order": s, "dimension": d, "n_degrees": 2002}
    return np.array(low), np.array([tangent_eigenvalues(**size), arc_cosine_eigenvalues(**size)])


def singular_factor(nu, d):
    """Limit of k^(2 nu + d - 1) times the eigenvalue of (1 - u)^nu."""
    sphere = 2 ** (nu + d - 2) * gamma(d / 2) * gamma(nu + (d - 1) / 2)
    return sphere / (sqrt(pi) * gamma(-nu))


@powers.ours("derived: precise for these kernels; the paper's statement is recalled", serves="c")
@cases(d=[2, 5, 3], s=[1, 3, 2])
@full(d=[2, 3, 4, 6, 5], s=[1, 2, 4, 3])
@space(d=Int(2, 6), s=Int(1, 4))
@breaks("a bias, as constant coordinate", bias=True)
@breaks("an activation smoother by one", smoother=1)
def ntk_smooth_activation_decay(d, s, bias=False, smoother=0):
    r"""both kernels have $\mu_k=0$ for $k>s$ of the parity of $s$ and, on the other parity, the
    tangent kernel has $\mu_kk^{d+2s-2}\to2S(s-\frac12)\frac{s^2}{2s-1}c_{s-1}$ and
    that of the outputs $\mu_kk^{d+2s}\to2S(s+\frac12)c_s$,
    $c_s=-\frac{\sqrt2}\pi\prod_{n\le s}\frac{-2n^2}{4n^2-1}$,
    $S(\nu)=\frac{2^{\nu+d-2}\Gamma(d/2)\Gamma(\nu+(d-1)/2)}{\sqrt\pi\,\Gamma(-\nu)}$; in order the
    eigenvalues of the tangent kernel fall like $i^{-(d+2s-2)/(d-1)}$."""
    low, mu = decay(d, s + smoother, bias)
    rule = {"order": s, "dimension": d, "n_degrees": s + 9}
    closed = np.array([tangent_eigenvalues(**rule), arc_cosine_eigenvalues(**rule)])
    k = np.arange(s % 2 + 1, 2002, 2)  # the parity that is not that of s
    k = k[k > s]
    powers_of_k = np.array([d + 2 * s - 2, d + 2 * s])
    scaled = mu[:, k] * (k + (d - 2) / 2.0) ** powers_of_k[:, None]
    limits = 2 * np.array(
        [
            singular_factor(s - 0.5, d) * s * s / (2 * s - 1) * arc_cosine_singularity(s - 1),
            singular_factor(s + 0.5, d) * arc_cosine_singularity(s),
        ]
    )
    gone = np.arange(s + 2, s + 9, 2)
    descending = np.argsort(-mu[0])[: np.count_nonzero(mu[0])]
    places = np.cumsum(harmonic_counts(dimension=d, n_degrees=2002)[descending])
    apart = np.abs(scaled[:, -1] - scaled[:, len(k) // 2]) + 1e-9 * np.abs(scaled[:, -1])
    return {
        "constants": compare(
            within(scaled[:, -1], apart, "difference to half the degree"),
            "==",
            theory("constants", limits),
        ),
        "absent": compare(
            within(low[:, gone] / closed[:, gone - 1], 2e-14 / closed[:, gone - 1], "rounding"),
            "==",
            theory("absent", 0.0),
        ),
        "spectrum": compare(
            within(low[:, : s + 2], 2e-14, "rounding"), "==", theory("spectrum", closed[:, : s + 2])
        ),
        "tangent": compare(
            slope(k, mu[0, k]), "==", theory("tangent exponent", -float(d + 2 * s - 2))
        ),
        "output": compare(slope(k, mu[1, k]), "==", theory("output exponent", -float(d + 2 * s))),
        "ordered": compare(
            slope(places[20:], mu[0, descending[20:]]),
            "==",
            theory("order", -(d + 2 * s - 2) / (d - 1)),
        ),
    }


@panel(
    ntk_smooth_activation_decay,
    "Each order of smoothness costs two powers of the frequency ($d=3$)",
    x="degree $k$, of the parity that is not that of $s$",
    y=r"$\mu_k$ of the tangent kernel",
    log="xy",
)
def _(pen, runs):
    found = [r for r in runs.judgement.runs if r.instance["d"] == 3]
    for i, run in enumerate(sorted(found, key=lambda r: r.instance["s"])):
        s = run.instance["s"]
        _, mu = decay(3, s, False)
        at = np.unique(np.geomspace(3, 990, 14).astype(int)) * 2 + (s % 2 + 1)
        k = np.geomspace(7, 2000, 40)
        limit = run.parts["constants"].predicted[0]
        pen.theory(k, limit / (k + 0.5) ** (1 + 2 * s), f"$s={s}$", k=i)
        pen.points(at[at < 2002], mu[0, at[at < 2002]], k=i)


@simulation
def displaced(m, s, d, draws, random_signs, seed):
    """Error of linearisation at a point along the gradient there, scaled to unit mean square."""
    rng = np.random.default_rng([seed, m, s])
    phi, x = rectified_power(s), np.eye(d)[:1]
    found = []
    for _ in range(4):
        W = rng.standard_normal((draws // 4, m, d))
        a = rng.choice([-1.0, 1.0], W.shape[:-1]) if random_signs else np.ones(W.shape[:-1])
        step = (a * phi.slope(W @ x[0]))[..., None] * x / (s * sqrt(m / (2 * s - 1)))
        found.append(linearisation_error(W, a, step, x, activation=phi)[:, 0])
    return np.concatenate(found)


@simulation
def farthest(m, s, d, seed):
    """Errors over the squared size of the step, at several points: along gradients and random
    directions, across the edges of units, and with all active units of one sign."""
    rng = np.random.default_rng([seed, m, s, 1])
    phi, found = rectified_power(s), []
    for _ in range(10):
        W, a = rng.standard_normal((m, d)), rng.permutation(np.resize([1.0, -1.0], m))
        X = rng.standard_normal((5, d))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        z = W @ X[0]
        edge = (a > 0) & (z < 0) & (z > -(m ** (-1 / 3)))
        active = (z > 0) & (a == (1.0 if np.sum(a[z > 0]) >= 0 else -1.0))
        steps = [np.outer(v, X[0]) for v in (a * phi.slope(z), edge * 1.0, active * 1.0)]
        for step in (*steps, rng.standard_normal((m, d))):
            size = m ** (-1 / 3) if step is steps[1] else 1 / max(np.linalg.norm(step), 1e-9)
            error = linearisation_error(W, a, size * step, X, activation=phi)
            found.append(np.abs(error).max() / max(np.linalg.norm(size * step), 1e-9) ** 2)
    return np.array(found).reshape(10, 4)


@powers.ours("sharpened: exact laws along a gradient, and the best constant", serves="a")
@cases(m=[128, 32], draws=20_000)
@full(m=[16, 32, 64, 512, 128, 256], draws=40_000)
@space(m=Int(24, 150), d=Int(2, 5))
@breaks("ReLU for its square", s=1)
@breaks("output weights all 1", random_signs=False)
def linearisation_error_smooth(m, seed, d=2, s=2, draws=4000, random_signs=True):
    r"""let $\epsilon(x)=f_{W+\Delta}-f_W-\langle\nabla f_W,\Delta\rangle$ at $x$. For $s=2$
    $|\epsilon|\le\sqrt{2/3}\,\|\Delta\|_F^2/\sqrt m$ for all $W,\Delta$ and $|x|=1$, with
    equality at steps along $x$ that raise active units of one sign. Along the gradient at $x$,
    $\Delta=\nabla f_W(x)/\sqrt{\operatorname E\varphi'^2}$ of unit mean square,
    $\operatorname E\epsilon(x)^2=4/m^2$ for $s=2$ and $m>2$, but
    $\operatorname E\epsilon(x)=-\frac1{2\sqrt{\pi m}}(1-\vartheta)$, $0\le\vartheta\le\frac1{6m}$,
    for ReLU."""
    smooth = m * displaced(m, s, d, draws, random_signs, seed)
    kinked = sqrt(m) * displaced(m, 1, d, draws, random_signs, seed)
    worst = sqrt(m) * farthest(m, s, d, seed)
    bound = theory("bound", sqrt(2 / 3))
    rest = abs(kinked.mean()) / (6 * m)
    return {
        "bound": compare(within(worst[:, [0, 1, 3]], 1e-11, "rounding"), "<=", bound),
        "attained": compare(within(worst[:, 2], 1e-11, "rounding"), "==", bound),
        "square": compare(mean(smooth**2), "==", theory("mean square", 4.0)),
        "ReLU": compare(
            mean(kinked, bias=rest, source="the next term of an alternating series"),
            "==",
            theory("ReLU", -1 / (2 * sqrt(pi))),
        ),
    }


@panel(
    linearisation_error_smooth,
    "Along a gradient a smooth network is closer to its linearisation",
    x="width $m$",
    y=r"error after a step of unit size",
    log="xy",
)
def _(pen, runs):
    m = np.geomspace(14, 600, 20)
    pen.theory(m, 2 / m, "squared ReLU, root mean square", k=0)
    pen.theory(m, 0.5 / np.sqrt(pi * m), "ReLU, minus the mean", k=1)
    x, square, error = runs.measured("m", "square")
    pen.points(x, np.sqrt(square) / x, error / np.sqrt(square) / 2 / x, k=0)
    x, first, error = runs.measured("m", "ReLU")
    pen.points(x, -first / np.sqrt(x), error / np.sqrt(x), k=1)


if __name__ == "__main__":
    run_script(__file__)
