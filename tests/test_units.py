"""Results do not depend on units: each row of the table rescales a problem and undoes it after.

A row is a function of a factor s that returns numbers that must not depend on s. Rounding apart,
only a refusal by name, or a status, may take the place of the right numbers, in at most 5 % of all
rows and in none between 1e-4 and 1e4."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from theorylab import matrix_sensing as ms
from theorylab import neural_collapse as nc
from theorylab import optimization as op
from theorylab import random_features as rf

RNG = np.random.default_rng(12)
A = RNG.standard_normal((6, 4))
Q = np.linalg.qr(RNG.standard_normal((4, 4)))[0]
SIGMA = (Q * [4.0, 2.0, 1.0, 0.3]) @ Q.T
SIGMA = (SIGMA + SIGMA.T) / 2
M = (Q[:, :2] * [1.0, 0.5]) @ Q[:, :2].T
M = (M + M.T) / 2
L = A @ np.diag([1.0, 0.5, 0.0, 0.0])
W = RNG.standard_normal((4, 2))
Y = RNG.standard_normal((6, 3))
SENSING = ms.gaussian_operator(4, 60, rng=RNG)
START = 0.1 * RNG.standard_normal((4, 3))
FEATURES = RNG.standard_normal((3, 8)) + np.repeat(3 * np.eye(3), [3, 3, 2], axis=1)
LABELS = np.repeat(np.arange(3), [3, 3, 2])
BALANCED = np.repeat(2 * np.eye(4)[:, :3], 2, axis=1) + 0.1 * RNG.standard_normal((4, 6))
HEAD = RNG.standard_normal((3, 3))
EIGENVALUES = np.arange(1.0, 41) ** -1.5
COEFFICIENTS = EIGENVALUES**0.6
GRADIENTS = RNG.standard_normal((7, 2))


def parts(*values: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(v, dtype=float)) for v in values])


def best_solutions(s: float) -> Any:
    return ms.best_rank_solutions(
        s * M, SENSING, max_rank=2, rng=np.random.default_rng(0), starts=3
    )


def risks(s: float, **sizes: Any) -> np.ndarray:
    risk = rf.learning_curve(
        s * EIGENVALUES, COEFFICIENTS, ridge=s * np.array([0.0, 1e-3, 1.0]), **sizes
    )
    return parts(risk.test_risk, risk.train_risk, risk.kappa / s, risk.gamma / s)


def optimum(s: float, t: float) -> np.ndarray:
    best = rf.optimal_ridge(
        s * EIGENVALUES, t * COEFFICIENTS, n_samples=10, n_features=15, noise_variance=0.01 * t**2
    )
    return parts(best.ridge / s, best.test_risk / t**2, best.lower_bound / t**2)


def cyclic(s: float, t: float) -> np.ndarray:
    run = op.cyclic_losses(
        s * GRADIENTS, steps=20, step_size=0.5 * t, beta1=0.5, beta2=0.9, radius=t, x0=t
    )
    return parts(run.iterates / t, run.regret / s / t, run.denominators / s)


def response(s: float) -> np.ndarray:
    r = nc.collapsed_response(beta=0.3 / s**2, lam_w=0.1 * s**2, lam_h=0.05 / s**2, length=1.2 * s)
    return parts(r.length / s, r.gain * s, r.on_span, r.off_span)


def near(s: float) -> np.ndarray:
    found = nc.near_minimizer(s * BALANCED, 3, beta=0.3 / s**2, lam_w=0.1 * s**2, lam_h=0.05 / s**2)
    if found.status is not nc.NearStatus.MINIMUM:
        raise ValueError(found.status)
    return parts(found.objective, found.features / s, found.classifier * s, found.curvature / s**2)


def late(s: float) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = ms.late_rate(
            s * L, np.sqrt(s) * A[:, :2], np.sqrt(s) * W, step_size=0.02 / s, longest=4000
        )
    return parts(run.measured, run.modes.slowest / s)


def law(s: float) -> np.ndarray:
    found = ms.incremental_law(s * M, SENSING, best_solutions(s), search_rank=3, step_size=0.05 / s)
    return parts(found.exponents[:1], found.approach / s, found.growth)


def ratio_of_minimizer(s: float, **how: Any) -> np.ndarray:
    m = nc.ufm_minimizer(
        nc.UnconstrainedFeatures([5, 3, 2], lam_w=0.02 * s, lam_h=0.03 / s, **how), dimension=3
    )
    return parts(m.objective, m.class_logits, m.singular_values, np.abs(m.classifier) * np.sqrt(s))


def bures(s: float) -> np.ndarray:
    X, S = s * W, s**2 * SIGMA
    lower, upper = ms.curvature_bounds(X, S)
    best = ms.smoothed_minimum(S, 2, smoothing=0.1 * s**2)
    return parts(
        ms.bures_loss(X, S) / s**2,
        ms.bures_loss(X, S, smoothing=0.1 * s**2) / s**2,
        ms.bures_gradient(X, S) / s,
        ms.bures_hessian(X, S),
        ms.bures_wasserstein_distance(S, 2 * S) / s,
        lower,
        upper,
        best.value / s**2,
        best.eigenvalues / s**2,
        ms.subspace_tilt(X, S),
        [c.value / s**2 for c in ms.spectral_selections(S, 2)],
        ms.deep_rate(S, 2),
        ms.bures_gradient_descent(X, S, step_size=0.3, steps=5).weights[-1] / s,
    )


def limits(s: float) -> np.ndarray:
    r = np.sqrt(s)
    state = ms.gradient_descent(
        s * M, search_rank=3, step_size=0.3 / s, steps=400, initial=r * START
    )
    bounds = ms.error_bounds(s * M, state.X, step_size=0.3 / s, steps=200)
    modes = ms.limit_modes(r * A[:, :2], r * W, rank=2, step_size=0.01 / s)
    return parts(
        state.X / r,
        bounds.lower / s,
        bounds.upper / s,
        ms.spurious_bounds(r * np.array([0.1, 0.5]), step_size=0.3 / s, steps=50)[0] / r,
        modes.values / s,
        modes.rate,
        ms.small_start_slowest(0.1 * r * RNGED_F, 0.1 * r * RNGED_G, s * L) / s,
        ms.rebalanced_slowest_bounds(
            s * np.array([1.0, 0.5]), error=1e-3 * s, scale=r, step_size=0.01 / s
        )[0]
        / s,
        ms.sensing_limit(s * M, SENSING),
    )


RNGED_F, RNGED_G = RNG.standard_normal((6, 4))[:, :3], RNG.standard_normal((4, 3))

TABLE: dict[str, Callable[[float], np.ndarray]] = {
    "truncate": lambda s: ms.truncate(s * A, 2) / s,
    "weighted_truncation": lambda s: ms.weighted_truncation(A, s * np.diag(np.arange(1.0, 7.0)), 2),
    "pruning": lambda s: (
        ms.trained_rank_pruning(s * A, s * Y, rank=2, step_size=0.05 / s**2, period=2).weights
    ),
    "autoencoder": lambda s: parts(
        ms.low_rank_autoencoder(s * A, 2, penalty=0.3 * s**2).gains,
        ms.low_rank_autoencoder(s * A, 2, penalty=0.3 * s**2).value / s**2,
    ),
    "spectral_factor": lambda s: ms.spectral_factor(s * SIGMA, search_rank=3) / np.sqrt(s),
    "rebalance": lambda s: ms.rebalance(s * A, np.ones((3, 4)), scale=s)[1],
    "subgradient": lambda s: (
        ms.subgradient_method(
            SENSING,
            s * SENSING.forward(M),
            initial=np.sqrt(s) * START,
            step=ms.AdaptiveSteps(0.1 / s),
            steps=50,
        ).U
        / np.sqrt(s)
    ),
    "geometric subgradient": lambda s: (
        ms.subgradient_method(
            SENSING,
            s * SENSING.forward(M),
            initial=np.sqrt(s) * START,
            step=ms.GeometricSteps(0.1, 0.9),
            steps=30,
        ).losses
        / s
    ),
    "best_rank_solutions": lambda s: parts(
        best_solutions(s).solutions / s, best_solutions(s).curvatures / s
    ),
    "incremental_law": law,
    "population_visit": lambda s: parts(
        [
            (v.distance / s, v.leading / s, v.exponent)
            for v in [
                ms.population_visit(
                    s * np.array([2.0, 1.0, 0.5]), init_scale=1e-3 * np.sqrt(s), stage=1
                )
            ]
        ]
    ),
    "bures": bures,
    "descent limits": limits,
    "late_rate": late,
    "lifting": lambda s: parts(
        ms.lifting_ratio(s * W[:, 0], s * W[:, 1], lower=1.0, upper=1.2),
        ms.saddle_bound(s * W[:, 0], s * W[:, 1], lower=1.0, upper=1.2) / s**2,
        ms.lifted_hessian(SENSING.matrices, s * W[:, 0], s * W[:, 1], order=2).smallest_eigenvalue
        / s**4,
        np.array(ms.isometry_bounds(s * SENSING.matrices)) / s**2,
    ),
    "collapse_metrics": lambda s: parts(
        *vars(nc.collapse_metrics(s * FEATURES, LABELS, HEAD)).values()
    ),
    "collapse_metrics, classifier": lambda s: parts(
        *vars(nc.collapse_metrics(FEATURES, LABELS, s * HEAD)).values()
    ),
    "ufm mse": ratio_of_minimizer,
    "ufm ce": lambda s: ratio_of_minimizer(s, loss="ce"),
    "ufm ce bias": lambda s: ratio_of_minimizer(s, loss="ce", bias=True),
    "deep linear": lambda s: parts(
        nc.deep_linear_minimizer([5, 3, 2], dimension=3, lams=[0.02 * s, 0.1, 0.1 / s]).class_logits
    ),
    "von_neumann_bound": lambda s: parts(
        nc.von_neumann_bound([5, 3, 2], dimension=3, lams=[0.02 * s, 0.1, 0.1 / s])
    ),
    "best_scale": lambda s: parts(
        nc.best_scale(s * nc.simplex_sum_logits([2, 2]), [3] * 4, [0.02, 0.1, 0.1]).objective
    ),
    "etf_aligned": lambda s: parts(
        nc.etf_aligned_minimizer(
            nc.UnconstrainedFeatures([5, 3, 2], lam_w=0.02 * s, lam_h=0.03 / s, loss="ce"),
            dimension=3,
        ).loss
    ),
    "cosines": lambda s: parts(
        nc.mean_max_cosine(s * HEAD), nc.mean_min_angle(s * HEAD), nc.von_neumann_entropy(s * HEAD)
    ),
    "linear_fit": lambda s: parts(
        nc.smoothed_linear_fit(
            s * FEATURES, LABELS, n_classes=3, loss="ls", ridge=0.01 * s**2
        ).objective
    ),
    "gradient_noise": lambda s: (
        parts(*vars(nc.gradient_noise(s * FEATURES, LABELS, HEAD / s)).values()) / s**2
    ),
    "central_path": lambda s: (
        nc.central_path(
            s * BALANCED, 3, lam_w=0.1 * s**2, lam_h=0.01 / s**2, times=s**2 * np.array([0.0, 0.5])
        ).features[-1]
        / s
    ),
    "trace_rates": lambda s: (
        parts(*vars(nc.trace_rates(s * BALANCED, 3, lam_w=0.1 * s**2)).values()) * s**2
    ),
    "collapsed_response": response,
    "near_minimizer": near,
    "kernel risk": lambda s: risks(s, n_samples=12),
    "feature risk": lambda s: risks(s, n_samples=12, n_features=20),
    "optimal_ridge": lambda s: optimum(s, 1.0),
    "optimal_ridge, target": lambda s: optimum(1.0, s),
    "finite_size_term": lambda s: parts(
        *vars(
            rf.finite_size_term(
                s * EIGENVALUES, COEFFICIENTS, n_samples=12, n_features=20, ridge=1e-2 * s
            )
        ).values()
    ),
    "effective_ridge": lambda s: parts(
        rf.effective_ridge(s * EIGENVALUES, n_samples=12, ridge=1e-2 * s).gamma / s
    ),
    "population_spectrum": lambda s: (
        rf.population_spectrum(s * SIGMA, np.arange(4.0)).eigenvalues / s
    ),
    "circulant_spectrum": lambda s: (
        rf.circulant_spectrum(s * np.cos(np.arange(8.0)), np.ones(8)).eigenvalues / s**2
    ),
    "adam_steps": lambda s: op.adam_steps(s * GRADIENTS, beta1=0.9, beta2=0.99, eps=1e-3 * s),
    "adamax_steps": lambda s: op.adamax_steps(s * GRADIENTS, beta1=0.9, beta2=0.99),
    "adamax norm": lambda s: parts(
        op.adamax_finite_p_norm(s * GRADIENTS[:, 0], beta2=0.9, p=3.0) / s
    ),
    "adam": lambda s: (
        op.adam(
            lambda x, t: s * GRADIENTS[t - 1], [0.0, 0.0], step_size=1.0, steps=7, eps=1e-3 * s
        ).final
    ),
    "cycle_drift": lambda s: op.cycle_drift(s * GRADIENTS[:, 0], beta1=0.5, beta2=0.9).ratios,
    "cyclic_losses": lambda s: cyclic(s, 1.0),
    "cyclic_losses, box": lambda s: cyclic(1.0, s),
    "linear_regret": lambda s: parts(
        op.linear_regret(s * GRADIENTS, GRADIENTS / s, lower=-3 / s, upper=3 / s)
    ),
}
FACTORS = (1e-8, 3e-5, 1e-4, 0.3, 7.0, 1e4, 3e5, 1e8)


def violations() -> tuple[list[str], int]:
    complaints, refused = [], 0
    for name, row in TABLE.items():
        reference = row(1.0)
        size = np.abs(reference).max()
        assert size > 0, name
        for s in FACTORS:
            try:
                error = np.abs(row(s) - reference).max() / size
            except ValueError as refusal:
                refused += 1
                if 1e-4 <= s <= 1e4:
                    complaints.append(f"{name} at {s}: {refusal}")
            else:
                if not error <= 1e-8:
                    complaints.append(f"{name} at {s}: {error:.1e}")
    return complaints, refused


def test_results_do_not_depend_on_units():
    complaints, refused = violations()
    assert not complaints, "\n".join(complaints)
    assert refused <= 0.05 * len(TABLE) * len(FACTORS), refused


def test_a_row_that_depends_on_units_is_seen(monkeypatch):
    for row in (lambda s: np.array([1.0, 1e-7 * np.log(s)]), lambda s: np.array([s, 1.0])):
        monkeypatch.setitem(globals(), "TABLE", {"wrong": row})
        assert violations()[0]


@pytest.mark.parametrize("name", ["adam_steps", "collapse_metrics"])
def test_units_beyond_the_squares_of_float64(name):
    row = TABLE[name]
    for s in (1e-200, 1e200):
        assert row(s) == pytest.approx(row(1.0), rel=1e-8)
