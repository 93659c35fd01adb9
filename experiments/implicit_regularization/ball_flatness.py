"""Zeroth- and first-order flatness: what each of them can tell apart."""

import math

import numpy as np

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

KEY = "zhang2023-gradient"
flat = paper(
    KEY,
    r"Let $R^{(0)}_\rho=\max_{\|\delta\|\le\rho}L(\theta+\delta)-L(\theta)$ and "
    r"$R^{(1)}_\rho=\rho\max_{\|\delta\|\le\rho}\|\nabla L(\theta+\delta)\|$.",
)
pair = paper(
    KEY,
    r"Let $L(x,y)=\frac12(xy-c)^2$, $c>0$, whose minima $xy=c$ have "
    r"$\lambda_{\max}(\nabla^2L)=\mathrm{tr}\nabla^2L=x^2+y^2$.",
)


def maximum(bounds):
    return between(bounds.lower, bounds.upper, "max")


def waves(amplitudes, frequencies, phases, radius, jump):
    """A sum of cosines with a jump on a half-space, its gradient wherever it has one, a bound of
    the Hessian."""

    def loss(x):
        smooth = np.cos(x @ frequencies.T + phases) @ amplitudes
        return smooth + jump * (x[:, 0] > radius / 2)

    def gradient(x):
        return -(np.sin(x @ frequencies.T + phases) * amplitudes) @ frequencies

    return loss, gradient, float(np.abs(amplitudes) @ np.sum(frequencies**2, axis=1))


@simulation
def wave_flatness(p, amplitudes, frequencies, phases, radius, jump):
    """Both maxima, enclosed by branch and bound."""
    loss, gradient, K = waves(amplitudes, frequencies[:, :p], phases, radius, jump)
    options = {"radius": radius, "curvature": K, "tol": 1e-3, "atol": 3e-3 * K * radius**2}
    rise = ir.zeroth_order_flatness(loss, gradient, np.zeros(p), **options)
    return rise, ir.first_order_flatness(gradient, np.zeros(p), **options)


LONG = {"amplitudes": np.array([1.0, 0.0, 0.0]), "phases": np.array([1.5, 0.0, 0.0])}
GENERIC = {"amplitudes": np.array([1.0, -0.6, 0.3]), "phases": np.array([0.3, 2.0, 4.0])}
RISING = np.array([[-1.0, -0.5], [1.7, -2.0], [-2.5, 3.0]])


@flat.abstract("c", instance=True)
@cases(p=2, radius=1.0, frequencies=RISING, **GENERIC)
@cases(p=1, radius=0.1, frequencies=RISING, **LONG)
@full(p=2, radius=[0.05, 0.2, 1.0, 3.0], frequencies=RISING, **GENERIC)
@full(p=1, radius=[0.03, 0.3, 1.0, 3.0, 0.1], frequencies=RISING, **LONG)
@space(
    p=Int(1, 2),
    radius=Real(0.01, 1.5, log=True),
    amplitudes=Real(-1.0, 1.0, size=3),
    frequencies=Real(-3.0, 3.0, size=(3, 2)),
    phases=Real(0.0, 6.28, size=3),
)
@breaks("a loss that jumps", jump=1.0)
def first_order_dominates_zeroth(p, radius, amplitudes, frequencies, phases, jump=0.0):
    r"""If $L$ is differentiable, $R^{(0)}_\rho\le R^{(1)}_\rho$: first-order flatness bounds the
    term that sharpness-aware minimisation adds to $L$. (Judged on sums of three waves, by branch
    and bound for both maxima.)"""
    rise, steep = wave_flatness(p, amplitudes, frequencies, phases, radius, jump)
    # What is not known of the larger maximum is left to the smaller one.
    wider = between(rise.lower, rise.upper + steep.upper - steep.lower, "max")
    return compare(wider, "<=", theory("first order", steep.upper))


@panel(
    first_order_dominates_zeroth,
    "No loss rises by more than the radius times its steepest slope",
    x=r"radius $\rho$",
    y="flatness of one wave in 1-d, three in 2-d",
    log="xy",
)
def _(pen, runs):
    for k, name in enumerate(("one wave", "three")):
        where = {"p": k + 1}
        pen.points(*runs.measured("radius", where=where), f"rise, {name}", k=k)
        pen.theory(*runs.predicted("radius", where=where), f"bound, {name}", k=k)


def bowl(eigenvalues, cubic, direction, odd, tilt):
    """A quadratic with a cubic term along a direction, and its gradient."""
    H, q = np.diag(eigenvalues), np.asarray(direction) / np.linalg.norm(direction)

    def loss(x):
        t = x @ q
        wave = t**3 if odd else np.abs(t) ** 3
        return np.sum(x @ H * x, axis=1) / 2 + cubic / 6 * wave + tilt * t

    def gradient(x):
        t = x @ q
        wave = t**2 if odd else t * np.abs(t)
        return x @ H + (cubic / 2 * wave + tilt)[:, None] * q

    return loss, gradient


@simulation
def bowl_flatness(eigenvalues, cubic, direction, odd, tilt, radius):
    loss, gradient = bowl(eigenvalues, cubic, direction, odd, tilt)
    K = float(max(eigenvalues) + abs(cubic) * radius)
    options = {"radius": radius, "curvature": K, "tol": 1e-3}
    centre = np.zeros(len(eigenvalues))
    rise = ir.zeroth_order_flatness(loss, gradient, centre, **options)
    return rise, ir.first_order_flatness(gradient, centre, **options)


@flat.ours("corrected: exact for quadratics only, else with a remainder", serves="b")
@cases(eigenvalues=(2.0, 0.5), share=0.6, angle=0.7)
@cases(eigenvalues=(1.0,), share=0.5, sign=1.0)
@cases(eigenvalues=(2.0, 0.5), share=0.6, angle=0.0)
@full(eigenvalues=(2.0, 0.5), angle=0.7, share=0.5, odd=True)
@full(eigenvalues=(2.0, 0.5), share=[0.1, 0.2, 0.4, 0.6, 0.8, 0.95], angle=0.0)
@space(
    eigenvalues=Choice([(1.0,), (1.0, 0.0), (1.0, 1.0), (30.0, 0.2)]),
    share=Real(0.05, 3.0, log=True),
    angle=Real(0.0, 3.14),
    sign=Choice([-1.0, 1.0]),
    odd=Choice([False, True]),
    radius=Real(1e-2, 1e2, log=True),
)
@breaks("a slope at the centre", slope=1.0)
@breaks("a Hessian that changes three times as fast", excess=3.0)
def quadratic_curvature_identity(
    eigenvalues, share, angle=0.0, sign=-1.0, odd=False, radius=1.0, slope=0.0, excess=1.0
):
    r"""At a local minimum, or wherever $\nabla L=0$ and $\nabla^2L\succeq0$, if the Hessian is
    $M$-Lipschitz in the ball, $|R^{(1)}_\rho/\rho^2-\lambda_{\max}|\le\frac{M\rho}2$ and
    $|2R^{(0)}_\rho/\rho^2-\lambda_{\max}|\le\frac{M\rho}3$:
    $\lambda_{\max}\le R^{(1)}_\rho/\rho^2+\frac{M\rho}2$, with equality for
    $\frac\lambda2x^2-\frac M6|x|^3$, $M\rho\le\lambda$. If $L$ is quadratic both quotients are
    $\lambda_{\max}$. (Judged on quadratics with a cubic term along a line.)"""
    top, M = max(eigenvalues), share * max(eigenvalues) / radius
    direction = np.array([np.cos(angle), np.sin(angle)])[: len(eigenvalues)]
    direction = direction if np.linalg.norm(direction) > 0.1 else np.ones(1)
    rest = (direction, odd, slope * top * radius, radius)
    found = bowl_flatness(eigenvalues, excess * sign * M, *rest)
    pure = bowl_flatness(eigenvalues, 0.0, *rest)
    unit = radius**2 * top
    quotients = [maximum(b) for b in (found[1], found[0])]
    away = [abs(k * q.centre / unit - 1) for k, q in zip((1, 2), quotients, strict=True)]
    wide = [k * q.error / unit for k, q in zip((1, 2), quotients, strict=True)]
    source = "branch and bound"
    exact = [within(b.lower, b.upper - b.lower, source) for b in (pure[1], pure[0])]
    curvature = theory("curvature", top)
    return {
        "first order": compare(
            within(away[0], wide[0], source), "<=", theory("first remainder", M * radius / 2 / top)
        ),
        "zeroth order": compare(
            within(away[1], wide[1], source), "<=", theory("zeroth remainder", M * radius / 3 / top)
        ),
        "quadratic, first": compare(exact[0], "==", curvature * radius**2),
        "quadratic, zeroth": compare(exact[1], "==", curvature * radius**2 / 2),
    }


@panel(
    quadratic_curvature_identity,
    r"Both flatnesses miss $\lambda_{\max}$ by at most their remainders, and can by as much",
    x=r"$M\rho/\lambda_{\max}$",
    y=r"relative distance to $\lambda_{\max}$",
)
def _(pen, runs):
    t = np.linspace(0, 1, 5)
    where = {"angle": 0.0}
    pen.theory(t, t / 2, r"$M\rho/2$")
    pen.points(*runs.measured("share", "first order", where=where), "first order")
    pen.theory(t, t / 3, r"$M\rho/3$", k=1)
    pen.points(*runs.measured("share", "zeroth order", where=where), "zeroth order", k=1)


# ---------------------------------------------------------------------------------- blindness
def parabola(x):
    return x[:, 0] ** 2 / 2


def parabola_slope(x):
    return x


@simulation
def line_flatness(kind, parameter, radius, ball):
    """Flatness of a parabola and of another loss of x / radius within a ball of some share of the
    radius, and their curvatures at the minimum by second differences."""
    log = math.log1p(parameter)
    families = {
        "ripples": (
            lambda x: np.sin(parameter * x[:, 0]) ** 2 / 2,
            lambda x: parameter * np.sin(2 * parameter * x) / 2,
            parameter**2,
        ),
        "one minimum": (
            lambda x: np.log1p(parameter * x[:, 0] ** 2) / (2 * log),
            lambda x: parameter * x / (1 + parameter * x**2) / log,
            parameter / log,
        ),
    }
    found = []
    for loss, slope, K in ((parabola, parabola_slope, 1.0), families[kind]):
        functions = (
            lambda x, f=loss: f(x / radius),
            lambda x, g=slope: g(x / radius) / radius,
        )
        options = {"radius": ball * radius, "curvature": K / radius**2, "tol": 1e-3}
        rise = ir.zeroth_order_flatness(*functions, [0.0], **options)
        steep = ir.first_order_flatness(functions[1], [0.0], **options)
        step = 1e-3 / parameter
        ends = loss(np.array([[step], [-step], [0.0]]))
        found.append((rise, steep, (ends[0] + ends[1] - 2 * ends[2]) / step**2))
    return found


def line_parts(found, steepness, curvature):
    """Flatness and curvature of a parabola and of another loss, against their values."""
    (first, second) = found
    curvatures = np.array([first[2], second[2]])
    level = theory("zeroth order", 0.5)
    return {
        "zeroth, parabola": compare(maximum(first[0]), "==", level),
        "zeroth, other": compare(maximum(second[0]), "==", level),
        "first, parabola": compare(maximum(first[1]), "==", theory("parabola", 1.0)),
        "first, other": compare(maximum(second[1]), "==", steepness),
        "curvatures": compare(
            within(curvatures, 2e-6 * curvatures, "step of second differences"),
            "==",
            (theory("unit", 1.0), curvature),
        ),
    }


@flat.abstract("a", instance=True)
@cases(frequency=[np.pi, 2.5 * np.pi])
@full(frequency=[np.pi, 4.0, 6.0, 12.0, 20.0, 2.5 * np.pi])
@space(frequency=Real(3.1416, 60.0, log=True), radius=Real(1e-3, 1e3, log=True))
@breaks("a ball below the first ripple", ball=0.1)
def zeroth_order_is_blind(frequency, radius=1.0, ball=1.0):
    r"""With several minima in the ball: at $x=0$, $L_A=\frac{x^2}{2\rho^2}$ and
    $L_B=\frac12\sin^2\frac{\omega x}\rho$, $\omega\ge\pi$, have the same $R^{(0)}_\rho=\frac12$,
    but $R^{(1)}_\rho=1$ and $\frac\omega2$, and $\rho^2L''(0)=1$ and $\omega^2$."""
    found = line_flatness("ripples", frequency, radius, ball)
    steepness, curvature = theory("steepness", frequency / 2), theory("curvature", frequency**2)
    return line_parts(found, steepness, curvature)


@panel(
    zeroth_order_is_blind,
    "Ripples within the ball: the rise is the same, the slope is not",
    x=r"frequency $\omega$",
    y="flatness",
    log="xy",
)
def _(pen, runs):
    omega = np.geomspace(np.pi, 20, 20)
    pen.theory(omega, 0.5)
    pen.points(*runs.measured("frequency", "zeroth, other"), "zeroth order")
    pen.theory(omega, omega / 2, k=1)
    pen.points(*runs.measured("frequency", "first, other"), "first order", k=1)


@flat.abstract("a", instance=True)
@cases(k=[1e4, 100.0])
@full(k=[80.0, 300.0, 1e3, 1e4, 1e5, 100.0])
@space(k=Real(76.0, 1e5, log=True), radius=Real(1e-3, 1e3, log=True))
@breaks("k = 10", k=10.0)
def zeroth_order_blind_single_minimum(k, radius=1.0):
    r"""With one minimum: at $x=0$, $L_A=\frac{x^2}{2\rho^2}$ and
    $L_B=\frac{\log(1+kx^2/\rho^2)}{2\log(1+k)}$, $k\ge76$, have the same $R^{(0)}_\rho=\frac12$,
    but $R^{(1)}_\rho=1$ and $\frac{\sqrt k}{2\log(1+k)}>1$, as $\rho^2L''(0)=1$ and
    $\frac k{\log(1+k)}>1$: first-order flatness ranks them as the curvature does."""
    found = line_flatness("one minimum", k, radius, 1.0)
    steepness = theory("steepness", math.sqrt(k) / (2 * math.log1p(k)))
    curvature = theory("curvature", k / math.log1p(k))
    ranked = compare(maximum(found[1][1]), ">", theory("steepness of the parabola", 1.0))
    return {**line_parts(found, steepness, curvature), "ranking": ranked}


@panel(
    zeroth_order_blind_single_minimum,
    r"One minimum: first-order flatness ranks as the curvature does for $k\geq76$",
    x="$k$",
    y="flatness",
    log="xy",
)
def _(pen, runs):
    k = np.geomspace(8, 1e5, 60)
    pen.theory(k, 0.5)
    pen.points(*runs.measured("k", "zeroth, other"), "zeroth order")
    pen.theory(k, np.sqrt(k) / (2 * np.log1p(k)), k=1)
    pen.points(*runs.measured("k", "first, other"), "first order", k=1)
    pen.theory(k, 1.0, "parabola", k=2)
    pen.broken(*runs.measured("k", "first, other", control="k = 10"))


# ---------------------------------------------------------------------------------- descent
@simulation
def ends(x, y, c, strength, radius, step):
    """Largest eigenvalue at the minimum on the ray to the end of descent, after half of the steps
    and after all, so many that the imbalance x^2 - y^2 is gone, and the largest |xy - c| late."""
    steps = math.ceil(8 / (step * max(strength, 0.2) * radius**2))
    options = {"target": c, "strength": strength, "radius": radius, "step_size": step}
    runs = [ir.pair_descent([x, y], **options, steps=n) for n in (math.ceil(steps / 2), steps)]
    half, whole = (c * np.sum(run.end**2) / np.prod(run.end) for run in runs)
    return half, whole, runs[1].residual


@simulation
def plain_ends(x, y, c, step):
    options = {"target": c, "strength": 0.0, "radius": 0.0}
    return [
        ir.pair_descent([x, y], **options, step_size=h, steps=math.ceil(60 / (h * c))).trace
        for h in (step, step / 2)
    ]


@pair.ours("derived: the mechanism on two factors, which SAM has too", serves="d")
@cases(x=3.0, y=0.2, c=1.0)
@full(x=[1.0, 1.5, 2.0, 2.5, 3.0], y=0.2, c=1.0)
@space(
    x=Real(1.0, 3.0),
    y=Real(1e-3, 3.0, log=True),
    c=Real(1e-3, 1e3, log=True),
    strength=Real(0.2, 2.0, log=True),
    radius=Real(0.1, 0.25),
    share=Real(0.05, 0.2),
)
@breaks("no gradient norm term", strength=0.0)
@breaks("a start near the saddle", x=0.1, y=0.05)
def gam_selects_balanced_minimum(x, y, c, strength=1.0, radius=0.2, share=0.2):
    r"""As its steps get small, gradient descent from $\theta_0=(x_0,y_0)$, $x_0,y_0>0$, ends where
    $\lambda_{\max}=\sqrt{(x_0^2-y_0^2)^2+4c^2}$. Steps of $-\eta(\nabla L(\theta)+\alpha\rho
    \nabla\|\nabla L\|(\theta+\rho u))$, $u\propto\nabla\|\nabla L\|(\theta)$, end where $x/y\to1$:
    the minimum on the ray to the iterates is the flattest one, $\lambda_{\max}=2c$. They stay off
    it by $|xy-c|\le\sqrt{2c}\,\delta+\frac{\delta^2}2$, $\delta=\eta\alpha\rho(\frac32(\sqrt{2c}+
    \rho+\delta)^2-c)$. (If $\alpha>0$, $x_0y_0\ne c$, $\eta\max(\|\theta_0\|^2,2c)\le\frac15$,
    $\rho+\delta\le0.4\sqrt{2c}$, and not too near the saddle: $\|\theta_0\|\ge2\alpha\rho$.)"""
    root, top = math.sqrt(c), max(x**2 + y**2, 2)
    start, rho, step = (root * x, root * y, c), root * radius, share / (c * top)
    half, whole, off = ends(*start, strength, rho, step)
    wide, plain = plain_ends(*start, step / 2)
    kept = within(plain, 2 * abs(wide - plain) + 1e-9 * plain, "twice that to twice the step")
    found = within(whole, abs(half - whole) + 1e-9 * c, "difference to half of the run")
    sizes = {"target": c, "strength": max(strength, 0.2), "radius": rho, "step_size": step}
    remainder = theory("remainder", ir.pair_remainder(**sizes) / c)
    return {
        "gradient norm": compare(found, "==", theory("least", 2 * c)),
        "remainder": compare(within(off / c, 1e-9, "imbalance"), "<=", remainder),
        "descent": compare(kept, "==", theory("descent", c * math.hypot(x**2 - y**2, 2))),
    }


@panel(
    gam_selects_balanced_minimum,
    "The gradient norm term leads to the flattest minimum, descent to that of its start",
    x="start $x_0$",
    y="largest eigenvalue at the end",
)
def _(pen, runs):
    x = np.linspace(1, 3, 50)
    pen.theory(x, 2.0)
    pen.points(*runs.measured("x", "gradient norm"), "with the term")
    pen.theory(x, np.hypot(x**2 - 0.04, 2), k=1)
    pen.points(*runs.measured("x", "descent"), "without", k=1)


if __name__ == "__main__":
    run_script(__file__)
