"""Linear autoencoders: cosines that the penalty leaves free, and cosines that it makes."""

import numpy as np
from scipy.optimize import minimize_scalar

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

KEY = "steck2024-cosine"
DATA = (
    r"Let $X=U\Sigma V^\top$, $\lambda>0$, $A,B\in\mathbb R^{p\times k}$, and "
    r"$\sigma_k>\sigma_{k+1}$"
)
product = paper(
    KEY,
    DATA + r" or $\sigma_{k+1}=0$. The penalty of the product, "
    r"$\|X-XAB^\top\|_F^2+\lambda\|AB^\top\|_F^2$:",
)
scalings = paper(
    KEY,
    r"Let $X=U\Sigma V^\top$, $\lambda>0$, $\sigma_1>\dots>\sigma_k>\sigma_{k+1}$ and "
    r"$S=\mathrm{diag}(1/(1+\lambda/\sigma_i^2))_{i\le k}$. For every positive diagonal $D$, "
    r"$A=V_kS^{1/2}D$, $B=V_kS^{1/2}D^{-1}$",
)
factors = paper(
    KEY,
    DATA + r" or $\sigma_{k+1}\le\lambda<\sigma_1$. The penalty of the factors, "
    r"$\|X-XAB^\top\|_F^2+\lambda(\|XA\|_F^2+\|B\|_F^2)$:",
)


def spectrum(n, p, decay, tie, scale):
    """Singular values that fall by at least 15 %, but for one tie."""
    steps = np.concatenate([[1.0], decay])[: min(n, p)]
    if tie:
        steps[min(tie, len(steps) - 1)] = 1.0
    return scale / np.cumprod(steps)


def data(n, p, values, blocks, seed):
    """A matrix with such singular values; of two blocks whose columns share no row, or of one."""
    rng = np.random.default_rng([seed, 1])
    sizes = (p // 2, p - p // 2) if blocks else (p,)
    V = np.zeros((p, p))
    at = 0
    for size in sizes:
        V[at : at + size, at : at + size] = np.linalg.qr(rng.standard_normal((size, size)))[0]
        at += size
    V = V[:, rng.permutation(p)]
    U = np.linalg.qr(rng.standard_normal((n, len(values))))[0]
    return (U * values) @ V[:, : len(values)].T


@simulation
def trained(X, ridge, k, penalty, seed):
    found = ir.train_autoencoder(X, ridge=ridge, search_rank=k, penalty=penalty, seed=seed)
    return found.A, found.B, found.value


def best_by_projection(X, ridge, k):
    """A lower bound of the objective with the penalty of the product: its ridge regression without
    the rank, and the tail of its fit (Eckart and Young)."""
    p = X.shape[1]
    Z = np.vstack([X, np.sqrt(ridge) * np.eye(p)])
    target = np.vstack([X, np.zeros((p, p))])
    fit = Z @ np.linalg.lstsq(Z, target)[0]
    return np.sum((target - fit) ** 2) + np.sum(np.linalg.svd(fit, compute_uv=False)[k:] ** 2)


def best_by_values(X, ridge, k):
    """A lower bound of the objective with the penalty of the factors: von Neumann's inequality, and
    one search for each singular value of the fit."""
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(X.T @ X)[::-1], 0.0))
    total = np.sum(values[k:] ** 2)
    for s in values[:k]:
        run = minimize_scalar(
            lambda q, s=s: (s - q) ** 2 + 2 * ridge * q,
            bounds=(0.0, s + 1e-300),
            method="bounded",
            options={"xatol": 1e-12 * s},
        )
        total += min(run.fun, s * s)
    return total


BOUNDS = {"product": best_by_projection, "factors": best_by_values}


@product.abstract("b", instance=True)
@cases(k=[2, 3], ridge=0.3)
@full(n=[12, 4], p=8, k=[1, 6, 3], ridge=[0.05, 2.0])
@space(
    n=Int(1, 12),
    p=Int(2, 8),
    k=Int(1, "p"),
    decay=Real(1.15, 2.0, size=7),
    ridge=Real(0.01, 10.0, log=True),
    scale=Real(1e-3, 1e3, log=True),
)
@breaks("two equal singular values", tie=True)
@breaks("the penalty of the factors", penalty="factors")
def product_regularised_closed_form_and_invariance(
    k, ridge, seed, n=9, p=6, decay=(1.3,) * 7, scale=1.0, tie=False, penalty="product"
):
    r"""all minimisers have $AB^\top=V_k\,\mathrm{diag}(\frac1{1+\lambda/\sigma_i^2})V_k^\top$; the
    least value is $\|X\|_F^2-\sum_{i\le k}\sigma_i^4/(\sigma_i^2+\lambda)$; with $(A,B)$ also
    $(AD,BD^{-1})$ is a minimiser for every invertible diagonal $D$."""
    values = spectrum(n, p, decay, k if tie else 0, scale)
    X, lam = data(n, p, values, False, seed), ridge * scale**2
    A, B, value = trained(X, lam, k, penalty, seed)
    size = np.sum(X**2)
    rng = np.random.default_rng([seed, 2])
    D = rng.choice([-1.0, 1.0], k) * 10 ** rng.uniform(-2, 2, k)
    scaled = ir.autoencoder_objective(X, A * D, B / D, ridge=lam, penalty=penalty)
    _, found, right = np.linalg.svd(X)
    s, V = found[:k], right[: min(k, len(found))].T
    kept = theory("shrinkage", s**2 / (s**2 + lam))
    least = size - np.sum(s**2 * kept)
    bound = BOUNDS[penalty](X, lam, k)
    return {
        "product": compare(
            within(A @ B.T, 1e-7, "alternating minimisation to 1e-13"), "==", (V * kept) @ V.T
        ),
        "value": compare(between(value / size, bound / size), "==", least / size),
        "scaled": compare(
            within((scaled - value) / size, 1e-7, "rounding"), "==", theory("excess", 0)
        ),
    }


def search(x, y, seed):
    """The least cosine of rows x and y found over scalings exp(-12) to exp(12) of the columns, with
    the scaling of the best: a random search that narrows."""
    rng = np.random.default_rng([seed, 3])
    best, radius = np.zeros(len(x)), 12.0
    value = np.inf
    for _ in range(90):
        near = np.clip(best + radius * rng.uniform(-1, 1, (80, len(x))), -12, 12)
        d = np.exp(np.vstack([best, near]))
        cosines = (d @ (x * y)) / np.sqrt((d @ x**2) * (d @ y**2))
        at = np.argmin(cosines)
        best, value = np.log(d[at]), cosines[at]
        radius *= 0.85
    return value, np.exp(best / 2)


def proved(x, y):
    """A lower bound of the cosine: 2 sqrt(alpha beta), where x_l y_l >= alpha x_l^2 + beta y_l^2
    for all l (arithmetic and geometric mean), the best by a search; or that of Cauchy."""
    if (x * y < 0).any():
        return -1.0
    if (((x == 0) | (y == 0)) & ((x != 0) | (y != 0))).any():
        return 0.0
    x, y = x[x != 0], y[x != 0]

    def bound(alpha):
        return 2 * np.sqrt(max(alpha * np.min((x * y - alpha * x**2) / y**2), 0.0))

    top = np.min(y / x)
    run = minimize_scalar(
        lambda alpha: -bound(alpha), bounds=(0.0, top), method="bounded", options={"xatol": 1e-11}
    )
    return max(-run.fun, 0.0)


@simulation
def extremes(rows, pairs, seed):
    """Least and largest cosines of pairs, their bounds, and the scalings of the columns."""
    found, bounds, scales = [], [], []
    for i, j in pairs:
        x, y = rows[i], rows[j]
        low, first = search(x, y, seed)
        high, second = search(x, -y, seed)
        found.append((low, -high))
        bounds.append((proved(x, y), -proved(x, -y)))
        scales += [first, second]
    return np.array(found).T, np.array(bounds).T, np.array(scales)


@scalings.ours("derived: the exact range that the abstract calls arbitrary", serves="ab")
@cases(k=[2, 4], blocks=False)
@cases(p=5, k=3, blocks=True)
@full(p=6, k=[1, 3, 6], blocks=[True, False], n=8)
@full(p=[3, 4, 5, 6, 7, 8], k=2, blocks=False, n=8)
@full(p=5, k=3, blocks=True)
@space(
    p=Int(2, 5),
    n=Int("p", 8),
    blocks=Choice([False, True]),
    k=Int("1 + blocks", "p"),
    decay=Real(1.15, 2.0, size=7),
    ridge=Real(0.01, 10.0, log=True),
)
@breaks("the penalty of the factors", penalty="factors")
def cosine_arbitrary(k, blocks, seed, p=4, n=8, decay=(1.3,) * 7, ridge=0.3, penalty="product"):
    r"""minimise $\|X-XAB^\top\|_F^2+\lambda\|AB^\top\|_F^2$. Over all $D$ the cosine of rows
    $i\ne j$ of $B$ that are not 0 fills $(-1,1)$ if $V_{il}V_{jl}$, $l\le k$, takes both signs; if
    it takes only the sign $\pm$, the interval from $\pm\frac{2\sqrt{mM}}{m+M}$ to $\pm1$, $m,M$ the
    least and largest $|V_{il}/V_{jl}|$ of entries not both 0 (0 and $\infty$ count, and then from
    0); if none, it is 0. If $k=p$, the cosines for $D^2=S$ are all 0."""
    values = spectrum(n, p, decay, 0, 1.0)
    X = data(n, p, values, blocks, seed)
    _, _, right = np.linalg.svd(X)
    A, B, value = trained(X, ridge, k, penalty, seed)
    # The trained product gives its own principal axes.
    axes, shares, _ = np.linalg.svd(A @ B.T)
    rows = np.where(np.abs(axes[:, :k]) > 1e-6, axes[:, :k], 0.0)
    exact = np.where(np.abs(right[:k].T) > 1e-6, right[:k].T, 0.0)
    pairs = [(i, j) for i in range(p) for j in range(i) if exact[i].any() and exact[j].any()][:4]
    found, bounds, scales = extremes(rows, tuple(pairs), seed)
    canonical = rows * np.sqrt(shares[:k])
    worst = max(
        ir.autoencoder_objective(X, canonical / d, canonical * d, ridge=ridge, penalty=penalty)
        for d in scales
    )
    whole = ir.autoencoder_minimiser(X, ridge=ridge, search_rank=p)
    weights = np.linalg.eigvalsh(whole.A @ whole.B.T)[::-1]
    orthogonal = ir.cosine_similarities(whole.B / np.sqrt(weights))
    # What training to 1e-13 leaves of a quotient of entries of 1e-6 or more.
    training = 1e-7
    ends = np.array([ir.cosine_range(exact[i], exact[j]) for i, j in pairs]).T
    return {
        "lowest": compare(
            between(found[0] + training, bounds[0] - training), "==", theory("lowest", ends[0])
        ),
        "highest": compare(
            between(found[1] - training, bounds[1] + training, "max"),
            "==",
            theory("highest", ends[1]),
        ),
        "minimisers": compare(
            within((worst - value) / np.sum(X**2), 1e-8, "rounding"), "==", theory("excess", 0)
        ),
        "k = p": compare(
            within(orthogonal[~np.eye(p, dtype=bool)], 1e-9, "rounding"), "==", theory("cosine", 0)
        ),
    }


@panel(
    cosine_arbitrary,
    "Rescaling pulls the cosine of two items with loadings of one sign down to a bound ($k=2$)",
    x="largest quotient of loadings / smallest, $M/m$",
    y=r"least $|\cos|$ over all minimisers",
    log="x",
)
def _(pen, runs):
    ratio = np.geomspace(1, 1e3, 100)
    pen.theory(ratio, 2 * np.sqrt(ratio) / (1 + ratio), r"$2\sqrt{mM}/(m+M)$")
    at, shown = [], []
    for run in runs.judgement.runs:
        p, k = run.instance["p"], run.instance["k"]
        if k != 2 or run.instance["blocks"]:
            continue
        values = spectrum(8, p, (1.3,) * 7, 0, 1.0)
        V = np.linalg.svd(data(8, p, values, False, runs.judgement.seed))[2][:2].T
        low, high = run.parts["lowest"].shown, run.parts["highest"].shown
        pairs = [(a, b) for a in range(p) for b in range(a)][:4]
        for n, (i, j) in enumerate(pairs):
            quotients = V[i] / V[j]
            if quotients[0] * quotients[1] > 0:
                at.append(np.abs(quotients).max() / np.abs(quotients).min())
                shown.append(low[n] if quotients[0] > 0 else -high[n])
    pen.points(at, shown, None, "found by search", k=1)


@simulation
def factor_runs(X, lam, k, seed, penalty):
    """Trained cosines, the value with its bound, and the excess of rescaled principal axes."""
    A, B, value = trained(X, lam, k, penalty, seed)
    bound = BOUNDS[penalty](X, lam, k)
    Q = np.linalg.eigh(B.T @ B)[1][:, ::-1]
    D = 10 ** np.random.default_rng([seed, 4]).uniform(-0.5, 0.5, k)
    moved = ir.autoencoder_objective(X, A @ Q * D, B @ Q / D, ridge=lam, penalty=penalty)
    return A, B, value, bound, D, moved


@factors.abstract("c", instance=True)
@cases(k=[3, 2], active=3)
@full(k=[5, 2, 3], active=[2, 3, 4, 5])
@space(
    n=Int(2, 12),
    p=Int(2, 8),
    k=Int(1, "p"),
    active=Int(1, "min(n, p)"),
    place=Real(0.2, 0.8),
    decay=Real(1.15, 1.6, size=7),
    scale=Real(1e-3, 1e3, log=True),
)
@breaks("the penalty of the product", penalty="product")
@breaks("two equal singular values", lambda case: {"tie": True})
def separately_regularised_unique(
    k,
    active,
    seed,
    n=9,
    p=6,
    place=0.5,
    decay=(1.3,) * 7,
    scale=1.0,
    tie=False,
    penalty="factors",
):
    r"""the minimisers are $B=V_k\mathrm{diag}(\sqrt{(\sigma_i-\lambda)_+})Q$,
    $A=V_k\mathrm{diag}(\frac1{\sigma_i}\sqrt{(\sigma_i-\lambda)_+})Q$, $Q$ orthogonal ($A$ the one
    of least norm, and the only one if $X$ has full column rank): the cosines are unique, made by
    $\lambda$, which removes directions with $\sigma_i\le\lambda$. The least value is
    $\|X\|_F^2-\sum_{i\le k}(\sigma_i-\lambda)_+^2$; at $Q=I$, $(AD,BD^{-1})$ exceeds it by
    $\lambda\sum_i(d_i-\frac1{d_i})^2(\sigma_i-\lambda)_+$."""
    values = spectrum(n, p, decay, k if tie else 0, scale)
    after = np.append(values, values[-1] / 1.5)
    lam = after[active - 1] ** (1 - place) * after[active] ** place
    X, size = data(n, p, values, False, seed), np.sum(values**2)
    A, B, value, bound, D, moved = factor_runs(X, lam, k, seed, penalty)
    _, found, right = np.linalg.svd(X)
    s, V = found[:k], right[: min(k, len(found))].T
    used = theory("ridge", lam)
    kept = np.maximum(s - used, 0.0)
    least = size - np.sum(kept**2)
    source = "alternating minimisation to 1e-13"
    price = used * np.sum((D[: len(s)] - 1 / D[: len(s)]) ** 2 * kept)

    def cosines(weights):
        gram = (V * weights) @ V.T
        norms = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        return gram / np.outer(norms, norms)

    return {
        "decoder": compare(within(ir.cosine_similarities(B), 1e-6, source), "==", cosines(kept)),
        "encoder": compare(
            within(ir.cosine_similarities(A), 1e-6, source), "==", cosines(kept / s**2)
        ),
        "value": compare(between(value / size, bound / size), "==", least / size),
        "scaled": compare(within((moved - value) / size, 1e-9, "rounding"), "==", price / size),
    }


@panel(
    separately_regularised_unique,
    r"The penalty of the factors makes the cosines ($k=5$)",
    x=r"$\lambda/\sigma_1$",
    y="cosine similarity of two items",
)
def _(pen, runs):
    values = spectrum(9, 6, (1.3,) * 7, 0, 1.0)
    after = np.append(values, values[-1] / 1.5)
    X = data(9, 6, values, False, runs.judgement.seed)
    right = np.linalg.svd(X)[2]
    V = right[:5].T
    grid = np.linspace(0.01, 0.95, 200)
    chosen = [r for r in runs.judgement.runs if r.instance["k"] == 5]
    at = [np.sqrt(after[r.instance["active"] - 1] * after[r.instance["active"]]) for r in chosen]
    for k, (i, j) in enumerate(((1, 0), (2, 0), (3, 0))):
        lines = [
            ir.cosine_similarities(V * np.sqrt(np.maximum(values[:5] - x, 0)))[i, j] for x in grid
        ]
        pen.theory(grid, lines, k=k)
        shown = [r.parts["decoder"].shown[i, j] for r in chosen]
        pen.points(at, shown, None, f"items {j + 1}, {i + 1}", k=k)


if __name__ == "__main__":
    run_script(__file__)
