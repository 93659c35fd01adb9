"""Modified equations of noisy descent: dropout, epochs through batches, test against training."""

import functools
import itertools
from fractions import Fraction

import numpy as np

from theorylab import implicit_regularization as ir
from theorylab.numerics.flows import integrate
from theorylab.verify import (
    Choice,
    Int,
    Real,
    breaks,
    cases,
    compare,
    full,
    note,
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

DROPOUT = "zhang2023-stochastic"
masked = paper(
    DROPOUT,
    r"$f_\theta(x)=\sum_{r=1}^ma_r\sigma(w_r^\top x)$, $R(\theta)=\frac1{2n}\sum_i"
    r"(f_\theta(x_i)-y_i)^2$, and independent dropout factors of the neurons, $\frac1p$ with "
    r"probability $p$, else 0:",
)
descent = paper(
    DROPOUT,
    r"Dropout descent $a_{k+1}=a_k-\varepsilon\nabla R^{drop}(a_k,\xi_k)$ on the output weights of "
    r"a two-layer net, $k\varepsilon=T$ fixed, $\varepsilon\to0$, $L=\mathbb ER^{drop}$, "
    r"$\Sigma=\operatorname{Cov}\nabla R^{drop}$, and "
    r"$dA=-\nabla\tilde L(A)dt+\sqrt\varepsilon\Sigma(A)^{1/2}dW$:",
)
epochs = paper(
    "geiping2021-stochastic",
    r"One epoch of descent with step $\varepsilon\to0$ through $B$ batches with losses "
    r"$L_b\in C^3$ of mean $L$, averaged over its $B!$ orders,",
)
sample = paper(
    "roberts2021-implicitly",
    r"$N$ independent points with analytic losses of mean $L$ (the test loss), parameters that do "
    r"not depend on them, and $C$ the covariance of the gradient at a point:",
)


def relu(z):
    return np.maximum(z, 0.0)


def separate(m):
    return list(itertools.product((0, 1), repeat=m))


def paired(m):
    """Masks in which each neuron shares its factor with the next."""
    return [tuple(mask[r // 2] for r in range(m)) for mask in separate(-(-m // 2))]


@simulation
def enumerated_loss(n, d, m, keep, activation, masks, gain, seed):
    """The mean loss over masks in exact arithmetic, the neurons, output weights and targets."""
    rng = np.random.default_rng([seed, 1])
    phi = activation(rng.standard_normal((n, d)) @ rng.standard_normal((d, m)))
    a, y, p = rng.standard_normal(m), rng.standard_normal(n), Fraction(keep)
    rows = [[Fraction(float(v)) for v in row] for row in phi * a]
    targets, factor = [Fraction(float(v)) for v in y], Fraction(1) if gain == "1" else 1 / p
    drawn = -(-m // 2) if masks is paired else m
    total = Fraction(0)
    for mask in masks(m):
        kept = sum(mask if masks is separate else mask[::2])
        outputs = [sum(v for v, on in zip(row, mask, strict=True) if on) * factor for row in rows]
        loss = sum((f - t) ** 2 for f, t in zip(outputs, targets, strict=True))
        total += p**kept * (1 - p) ** (drawn - kept) * loss / (2 * n)
    return total, phi, a, y


@masked.ours("derived: the loss that the equations of dropout descend", serves="a")
@cases(n=4, d=3, m=5, keep=[0.3, 0.8])
@full(n=4, d=3, m=6, keep=[0.2, 0.3, 0.5, 0.8, 0.95])
@space(
    n=Int(1, 6),
    d=Int(1, 5),
    m=Int(1, 6),
    keep=Real(0.01, 1.0),
    activation=Choice([np.tanh, relu, np.sin]),
)
@breaks("neurons that share their factor", masks=paired)
@breaks("factors 0 and 1", gain="1")
def dropout_averaged_loss(n, d, m, keep, seed, activation=np.tanh, masks=separate, gain="1/p"):
    r"""$\mathbb ER^{drop}(\theta)=R(\theta)+\frac{1-p}{2np}\sum_{ir}a_r^2\sigma(w_r^\top x_i)^2$,
    whatever the activation: the loss whose gradient drives the equations of dropout."""
    total, phi, a, y = enumerated_loss(n, d, m, keep, activation, masks, gain, seed)
    loss = ir.dropout_averaged_loss(phi, a, y, keep=1.0)
    penalty = ir.dropout_averaged_loss(phi, a, y, keep=keep) - loss
    measured = within(float(total), 1e-13 * float(total), "rounding")
    return compare(measured, "==", theory("loss", loss) + theory("penalty", penalty))


@panel(
    dropout_averaged_loss,
    "The mean loss under dropout is the loss and a penalty",
    x="probability $p$ to keep a neuron",
    y="mean loss",
    log="y",
)
def _(pen, runs):
    keep = np.linspace(0.18, 1.0, 60)
    _, phi, a, y = enumerated_loss(4, 3, 6, 0.5, np.tanh, separate, "1/p", runs.judgement.seed)
    pen.theory(keep, [ir.dropout_averaged_loss(phi, a, y, keep=p) for p in keep], "loss + penalty")
    pen.points(*runs.measured("keep"), r"all $2^6$ masks")
    pen.broken(*runs.measured("keep", control="neurons that share their factor"), "shared masks")


NETS = {
    "n": Int(1, 6),
    "m": Int(1, 5),
    "keep": Real(0.2, 0.98),
    "size": Real(0.1, 3.0, log=True),
    "time": Real(0.2, 2.0, log=True),
}
NODES = 1 - 0.9 * np.sin(np.pi * (np.arange(8) + 0.5) / 16) ** 2
SOURCE = "difference of degrees of interpolation"


def mean_loss(gradients, w, curvature, step):
    return np.tensordot(w, gradients, 1)


def corrected(gradients, w, curvature, step):
    return ir.second_order_drift(mean_loss(gradients, w, curvature, step), step_size=step)


def without_penalty(gradients, w, curvature, step):
    return curvature


def dropout_noise(gradients, w, step):
    return step * ir.covariance_operator(gradients, gradients, w)


def no_noise(gradients, w, step):
    return 0 * dropout_noise(gradients, w, step)


def net(n, m, seed, stream, size=1.0):
    """Neurons of a random tanh net, with a curvature of the loss, and targets."""
    rng = np.random.default_rng([seed, stream])
    phi = np.tanh(rng.standard_normal((n, 3)) @ rng.standard_normal((3, m)))
    phi *= np.sqrt(n * size) / np.linalg.norm(phi, 2)
    return phi, np.sqrt(size) * rng.standard_normal(n), rng.standard_normal(m)


@simulation
def dropout_errors(n, m, keep, size, time, drift, noise, seed):
    """Step sizes; the errors at each of the first two moments, of the covariance, of the moments
    of the gradient flow of L, and the covariance; rounding."""
    phi, y, start = net(n, m, seed, 2, size)
    gradients, w = ir.dropout_gradients(phi, y, keep=keep)
    curvature = np.concatenate([phi.T @ phi, -(phi.T @ y)[:, None]], axis=1) / n
    counts = np.ceil(max(16 * size * time / keep, 32) / NODES).astype(int)
    rows, wrong = [], []
    for count in counts:
        step = time / count
        Z = ir.recursion_moments(gradients, w, start, step_size=step, steps=int(count))
        models = [
            ir.diffusion_moments(f(gradients, w, curvature, step), K, start, time=time)
            for f, K in (
                (drift, noise(gradients, w, step)),
                (mean_loss, no_noise(gradients, w, step)),
            )
        ]
        a, b = (M[:m, :m] - np.outer(M[:m, m], M[:m, m]) for M in (Z, models[0]))
        rows.append([M.ravel() for M in (Z - models[0], a - b, Z - models[1], a)])
        wrong.append((count + 100) * 2e-16 * np.abs(Z).max())
    return time / counts, [np.array(r) for r in zip(*rows, strict=True)], np.array(wrong)


def none_of(coefficients, errors, scale):
    """Coefficients that vanish, over a scale."""
    return within(np.linalg.norm(coefficients) / scale, np.linalg.norm(errors) / scale, SOURCE)


@descent.ours("sharpened: the error of order 1, with its coefficient", serves="a")
@cases(n=4, m=3, keep=[0.5, 0.8], time=1.0)
@full(n=4, m=[2, 4], keep=[0.4, 0.6, 0.9], time=1.0)
@space(**NETS)
@breaks("the loss without its penalty", drift=without_penalty)
@breaks("no noise", noise=no_noise)
def sme_weak_order_1(n, m, keep, time, seed, size=1.0, drift=mean_loss, noise=dropout_noise):
    r"""with $\tilde L=L$ the first two moments of $a_k$ and $A_T$ differ by $\varepsilon E+
    O(\varepsilon^2)$, where with $\dot y=-\nabla L(y)$, $y_0=a_0$, $E$ is $-\frac T2\nabla^2L\nabla
    L(y_T)$ for the mean and $-\frac T2(\nabla^2L\nabla L\,y_T^\top+y_T(\nabla^2L\nabla L)^\top)$
    for the second moments. Their covariances, which are of the order $\varepsilon$ themselves,
    differ by $O(\varepsilon^2)$: this is where the noise is seen, for without it the moments also
    differ by the order $\varepsilon$."""
    steps, errors, wrong = dropout_errors(n, m, keep, size, time, drift, noise, seed)
    moments, spread, _, own = (ir.expansion_coefficients(steps, e, noise=wrong) for e in errors)
    phi, y, start = net(n, m, seed, 2, size)
    H = phi.T @ phi / n
    mean = np.column_stack([H + (1 - keep) / keep * np.diag(np.diag(H)), -phi.T @ y / n])
    first = ir.first_order_error(mean, start, time=time).ravel() / size
    return {
        "moments": compare(
            within(moments[0][:2] / size, moments[1][:2, None] / size, SOURCE),
            "==",
            np.array([0 * first, theory("coefficient", first)]),
        ),
        "covariance": compare(
            none_of(spread[0][:2], spread[1][:2], np.linalg.norm(own[0][:2])),
            "==",
            theory("difference of the covariances", 0.0),
        ),
    }


@descent.abstract("a", instance=True)
@cases(n=4, m=3, keep=[0.5, 0.8], time=1.0)
@full(n=4, m=[2, 4], keep=[0.4, 0.6, 0.9], time=1.0)
@space(**NETS)
@breaks("the drift of order 1", drift=mean_loss)
@breaks("no noise", noise=no_noise)
def sme_weak_order_2(n, m, keep, time, seed, size=1.0, drift=corrected, noise=dropout_noise):
    r"""with $\tilde L=L+\frac\varepsilon4\|\nabla L\|^2$ the first two moments of $a_k$ and $A_T$
    differ by $O(\varepsilon^2)$: the coefficient of $\varepsilon$, which is not 0 for the gradient
    flow of $L$, without the noise, or with $\tilde L=L$, vanishes."""
    steps, errors, wrong = dropout_errors(n, m, keep, size, time, drift, noise, seed)
    moments, _, flow, _ = (ir.expansion_coefficients(steps, e, noise=wrong) for e in errors)
    return compare(
        none_of(moments[0][:2], moments[1][:2], np.linalg.norm(flow[0][:2])),
        "==",
        theory("coefficient over that of the gradient flow", 0.0),
    )


@panel(
    sme_weak_order_2,
    r"Moments of dropout: both the noise and the drift of order 2 are needed",
    x=r"steps $T/\varepsilon$",
    y="error of the moments",
    log="xy",
)
def _(pen, runs):
    run, seed = runs.judgement.runs[-1].instance, runs.judgement.seed
    given = (run["n"], run["m"], run["keep"], 1.0, run["time"])
    rows = (
        (corrected, dropout_noise, 2, r"order 2: $\varepsilon^2$"),
        (mean_loss, dropout_noise, 1, r"order 1: $\varepsilon$"),
        (corrected, no_noise, 1, r"order 2, no noise: $\varepsilon$"),
        (without_penalty, dropout_noise, 0, "no penalty"),
    )
    for k, (drift, noise, p, label) in enumerate(rows):
        steps, errors, _ = dropout_errors(*given, drift, noise, seed)
        counts, e = run["time"] / steps, np.linalg.norm(errors[0], axis=1)
        if p:
            pen.theory(counts, e[-1] * (counts[-1] / counts) ** p, k=k)
            pen.points(counts, e, label=label, k=k)
        else:
            pen.broken(counts, e, label=label)


@simulation
def small_dropout_noise(n, m, size, off, seed):
    """Covariance of the gradient over 1 - p as p -> 1, its error, curvature and weights."""
    phi, _, a = net(n, m, seed, 3, size)
    y = phi @ a + np.sqrt(size) * off * np.arange(1, n + 1)
    z = np.append(a, 1.0)

    def covariance(root):
        gradients, w = ir.dropout_gradients(phi, y, keep=1 - root**2)
        K = ir.covariance_operator(gradients, gradients, w)
        return (K @ np.outer(z, z).ravel()).reshape(m, m)

    limit, error = ir.small_step_coefficient(covariance, order=2, width=0.1)
    return limit, error, phi.T @ phi / n, a


@descent.ours("derived: to first order in the dropout rate, where the data are fitted", serves="b")
@cases(n=[2, 4], m=3)
@full(n=[2, 3, 5], m=[2, 4])
@space(n=Int(1, 6), m=Int(2, 6), size=Real(1e-3, 1e3, log=True))
@breaks("data that are not fitted", off=0.3)
def dropout_noise_from_hessian(n, m, seed, size=1.0, off=0.0):
    r"""where $R(a)=0$, $\Sigma(a)/(1-p)\to\hat H\operatorname{diag}(a^2)\hat H$ as $p\to1$,
    $\hat H$ the Hessian of $R$ without its diagonal: the noise is a weighted square of the
    curvature between neurons."""
    limit, error, H, a = small_dropout_noise(n, m, size, off, seed)
    top, between = np.abs(limit).max(), H - np.diag(np.diag(H))
    expected = theory("noise", between @ np.diag(a**2) @ between)
    measured = within(limit, error + 1e-10 * top, SOURCE)
    return compare(measured, "==", expected)


def all_orders(gradients, start, step):
    return ir.epoch_average(gradients, start, step_size=step)


def independent(gradients, start, step):
    """Each step on a batch that does not depend on the others."""
    ends = []
    for order in itertools.product(gradients, repeat=len(gradients)):
        at = start
        for gradient in order:
            at = at - step * gradient(at)
        ends.append(at)
    return np.mean(ends, axis=0)


def one_order(gradients, start, step):
    at = start
    for gradient in gradients:
        at = at - step * gradient(at)
    return at


def batches_of(B, d, bend, seed):
    """Gradients of B bent losses and their Hessian products, and a start."""
    rng = np.random.default_rng([seed, 4])
    A, s = rng.standard_normal((B, 3, d)) / np.sqrt(3 * d), rng.standard_normal((B, 3))
    tilt, start = rng.standard_normal((B, d)), rng.standard_normal(d)

    def slope(b):
        return lambda x: np.tanh(bend * A[b] @ x - s[b]) @ A[b] + x / 2 + tilt[b]

    def product(b):
        return lambda x, v: (
            ((1 - np.tanh(bend * A[b] @ x - s[b]) ** 2) * (bend * A[b] @ v)) @ A[b] + v / 2
        )

    return [slope(b) for b in range(B)], [product(b) for b in range(B)], start


@simulation
def epoch_errors(B, d, bend, average, seed):
    """Step sizes, and the differences of the mean end of an epoch to three flows: of the loss with
    its regulariser, with that of the full batch, and alone."""
    slopes, products, start = batches_of(B, d, bend, seed)
    speed = max(np.linalg.norm(slope(start)) for slope in slopes)
    steps, errors = 0.4 / B / (1 + bend * (1 + speed)) * NODES, []

    def regularised(_, x, step):
        return -ir.epoch_modified_gradient(slopes, products, x, step_size=step)

    def full_batch(_, x, step):
        g = sum(slope(x) for slope in slopes) / B
        return -(g + step / 2 * sum(product(x, g) for product in products) / B)

    def plain(_, x, step):
        return -sum(slope(x) for slope in slopes) / B

    for step in steps:
        end, now = average(slopes, start, step), []
        for field in (regularised, full_batch, plain):
            velocity = functools.partial(field, step=step)
            flow = integrate(velocity, start, np.array([B * step]), rtol=1e-13, atol=1e-14)
            now.append(end - flow[-1])
        errors.append(now)
    return steps, np.array(errors)


@epochs.ours("derived: Smith, Dherin, Barrett and De (2021), used by the paper", serves="a")
@note(credit="Smith, Dherin, Barrett and De, On the Origin of Implicit Regularization in SGD, 2021")
@cases(B=3, d=2)
@full(B=[2, 4], d=[1, 3])
@space(B=Int(1, 4), d=Int(1, 5), bend=Real(0.2, 3.0, log=True))
@breaks("batches drawn independently", average=independent)
@breaks("one order", average=one_order)
def explicit_sgd_regulariser(B, d, seed, bend=1.0, average=all_orders):
    r"""ends where the gradient flow of $L+\frac\varepsilon{4B}\sum_b\|\nabla L_b\|^2$ is at time
    $B\varepsilon$, up to $O(\varepsilon^3)$. From the flow of $L$ the end differs by
    $-\frac{\varepsilon^2}2\sum_b\nabla^2L_b\nabla L_b+O(\varepsilon^3)$, from that of
    $L+\frac\varepsilon4\|\nabla L\|^2$ by $-\frac{\varepsilon^2}2\sum_b(\nabla^2L_b\nabla L_b-
    \nabla^2L\nabla L)+O(\varepsilon^3)$, at the start of the epoch."""
    steps, errors = epoch_errors(B, d, bend, average, seed)
    batches, whole, plain = (
        ir.expansion_coefficients(steps, e, noise=1e-13) for e in errors.swapaxes(0, 1)
    )
    slopes, products, x = batches_of(B, d, bend, seed)
    g = np.mean([slope(x) for slope in slopes], axis=0)
    each = -sum(h(x, s(x)) for s, h in zip(slopes, products, strict=True)) / 2
    full_batch = sum(h(x, g) for h in products) / 2
    scale = np.linalg.norm(plain[0][2])
    return {
        "regulariser": compare(
            none_of(batches[0][:3], batches[1][:3], scale), "==", theory("coefficient", 0.0)
        ),
        "full batch": compare(
            within(whole[0][2], whole[1][2], SOURCE),
            "==",
            theory("penalty", each) + theory("full-batch penalty", full_batch),
        ),
        "none": compare(within(plain[0][2], plain[1][2], SOURCE), "==", theory("penalty", each)),
    }


@panel(
    explicit_sgd_regulariser,
    "The mean epoch follows the loss with a regulariser for each batch",
    x=r"step $\varepsilon$",
    y="error after an epoch",
    log="xy",
)
def _(pen, runs):
    run = runs.judgement.runs[-1].instance
    step, errors = epoch_errors(run["B"], run["d"], 1.0, all_orders, runs.judgement.seed)
    words = (
        r"each batch: $\varepsilon^3$",
        r"full batch: $\varepsilon^2$",
        r"none: $\varepsilon^2$",
    )
    for k, (e, p) in enumerate(zip(errors.swapaxes(0, 1), (3, 2, 2), strict=True)):
        size = np.linalg.norm(e, axis=1)
        pen.theory(step, size[-1] * (step / step[-1]) ** p, k=k)
        pen.points(step, size, label=words[k], k=k)


def squared(z, y):
    """A loss of predictions z with its first two derivatives."""
    return (z - y) ** 2 / 2, z - y, np.ones_like(z)


def logistic(z, y):
    s = np.sign(y)
    return np.logaddexp(0, -s * z), -s / (1 + np.exp(s * z)), 1 / (2 + 2 * np.cosh(z))


def one_neuron(z, y):
    t = np.tanh(z)
    u = 1 - t**2
    return (t - y) ** 2 / 2, (t - y) * u, u**2 - 2 * t * (t - y) * u


def population(link, P, d, size, seed):
    """Losses and gradients of a population, its points and targets, and parameters."""
    rng = np.random.default_rng([seed, 5])
    X, y, start = (
        size * rng.standard_normal((P, d)) / np.sqrt(d),
        rng.standard_normal(P),
        rng.standard_normal(d) / size,
    )

    def loss(theta):
        return link(theta @ X.T, y)[0]

    def gradient(theta):
        return link(theta @ X.T, y)[1][:, :, None] * X

    return loss, gradient, X, y, start


def unseen(loss, gradient, start, N, step):
    return ir.gap_change(loss, gradient, start, n_samples=N, step_size=step)


def without_replacement(loss, gradient, start, N, step):
    return ir.gap_change(loss, gradient, start, n_samples=N, step_size=step, replace=False)


def trained(loss, gradient, start, N, step):
    """The same after a first step on the same points."""
    slopes, changes = gradient(start[None])[0], []
    for points in map(list, itertools.product(range(len(slopes)), repeat=N)):
        at = start - slopes[points].mean(axis=0)
        moved = at - step * gradient(at[None])[0, points].mean(axis=0)
        change = loss(moved[None])[0] - loss(at[None])[0]
        changes.append(change.mean() - change[points].mean())
    return float(np.mean(changes))


@simulation
def gap_coefficient(link, P, d, N, size, algorithm, seed):
    loss, gradient, _, _, start = population(link, P, d, size, seed)
    steps = 0.02 / size**2 * NODES
    values = [algorithm(loss, gradient, start, N, step) for step in steps]
    # The gap is a difference of losses, and rounds as they do.
    noise = 1e-14 * np.abs(values).max() + 1e-15 * float(loss(start[None]).max())
    found, error = ir.expansion_coefficients(steps, values, noise=noise)
    return found[1], error[1]


@sample.abstract("a", "c", instance=True)
@cases(link=[squared, logistic, one_neuron], P=4, d=3, N=3)
@full(link=[squared, logistic, one_neuron], P=4, d=3, N=[1, 2, 3, 4])
@space(
    link=Choice([squared, logistic, one_neuron]),
    P=Int(2, 5),
    d=Int(1, 5),
    N=Int(1, 4),
    size=Real(0.01, 100.0, log=True),
)
@breaks("points drawn without replacement", algorithm=without_replacement)
@breaks("parameters that a step on the points led to", algorithm=trained)
def gap_change_per_gd_step(link, P, d, N, seed, size=1.0, algorithm=unseen):
    r"""a step $\eta$ on the training loss of the points raises the gap $L-L_N$ by
    $\frac\eta N\operatorname{tr}C+O(\eta^2)$ on average, whatever the model."""
    found, error = gap_coefficient(link, P, d, N, size, algorithm, seed)
    _, gradient, _, _, start = population(link, P, d, size, seed)
    C = np.cov(gradient(start[None])[0].T, bias=True)
    measured = within(found, error, SOURCE)
    return compare(measured, "==", theory("trace", float(np.trace(np.atleast_2d(C)))) / N)


@panel(
    gap_change_per_gd_step,
    r"A step opens the gap by $\eta\,$tr$\,C/N$",
    x="points $N$",
    y=r"change of the gap over $\eta$",
    log="xy",
)
def _(pen, runs):
    N = np.linspace(0.9, 4.4, 40)
    for k, link in enumerate((squared, logistic, one_neuron)):
        where = {"link": link}
        _, values = runs.predicted("N", where=where)
        pen.theory(N, values[0] / N, k=k)
        pen.points(*runs.measured("N", where=where), link.__name__.replace("_", " "), k=k)


def halves(loss, gradient, start, N, step):
    return ir.two_step_losses(loss, gradient, start, n_samples=N, step_size=step)


def same_half(loss, gradient, start, N, step):
    """Both steps of the stochastic descent on the same half."""
    whole, half = (halves(loss, gradient, start, number, step)[0] for number in (N, N // 2))
    return whole, half


@simulation
def decorrelation(link, P, d, N, size, algorithm, seed):
    loss, gradient, _, _, start = population(link, P, d, size, seed)

    def difference(step):
        gd, sgd = algorithm(loss, gradient, start, N, step)
        return gd - sgd

    noise = 1e-14 * float(loss(start[None]).max())
    steps = 0.02 / size**2 * NODES
    found, error = ir.expansion_coefficients(steps, [difference(s) for s in steps], noise=noise)
    return found[2], error[2]


@sample.ours("derived: the order that decides, with its sign", serves="bc")
@cases(link=[squared, logistic, one_neuron], P=3, d=2, half=2)
@full(link=[squared, logistic, one_neuron], P=3, d=[2, 3, 5], half=[1, 2])
@space(
    link=Choice([squared, logistic, one_neuron]),
    P=Int(2, 4),
    d=Int(1, 5),
    half=Int(1, 2),
    size=Real(0.01, 100.0, log=True),
)
@breaks("both steps on one half", algorithm=same_half)
def sgd_vs_gd_test_loss_difference(link, P, d, half, seed, size=1.0, algorithm=halves):
    r"""after two steps $\eta$ of full-batch descent ($N$ even) the mean test loss exceeds that
    after one step on each half of the points by
    $\frac{\eta^2}{2N}\nabla L\cdot\nabla\operatorname{tr}C+O(\eta^3)$: decorrelated steps are
    better where the noise decreases along the descent, and worse where it grows."""
    N = 2 * half
    found, error = decorrelation(link, P, d, N, size, algorithm, seed)
    _, gradient, X, y, start = population(link, P, d, size, seed)
    g, curvature = gradient(start[None])[0], link(X @ start, y)[2]
    products = (curvature * np.sum(X * g, axis=1))[:, None] * X
    mean = g.mean(axis=0)
    slope = 2 * (products.mean(axis=0) - (X.T * curvature) @ (X @ mean) / P)
    measured = within(found, error, SOURCE)
    return compare(measured, "==", theory("coefficient", float(mean @ slope)) / (2 * N))


@panel(
    sgd_vs_gd_test_loss_difference,
    "Steps on two halves win where the noise decreases",
    x=r"$\nabla L\cdot\nabla$tr$\,C/2N$",
    y=r"excess of full-batch descent over $\eta^2$",
)
def _(pen, runs):
    found = [(float(r.parts[""].predicted), r.parts[""]) for r in runs.judgement.runs]
    x = np.array([a for a, _ in found])
    ends = np.array([x.min(), x.max()])
    pen.theory(ends, ends, "theory")
    pen.points(
        x, [float(p.shown) for _, p in found], [float(p.error) for _, p in found], "all samples"
    )


if __name__ == "__main__":
    run_script(__file__)
